"""What a routing must agree with: a model's blocks, experts and choices."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace

__all__ = ["MoeShape"]


@dataclass(frozen=True)
class MoeShape:
    """The mixture of experts of a model, as far as routing sees it."""

    model: str
    layers: int
    """Blocks, those without experts included."""
    moe_layers: tuple[int, ...]
    """Numbers of the blocks with experts; a dense block comes first in DeepSeek-V3."""
    experts: int
    """Routed experts of a block."""
    experts_per_token: int

    @classmethod
    def of(cls, trace: OperatorTrace) -> MoeShape:
        """The shape of a traced model; without experts ``experts`` is 0."""
        phase = trace.phases["decode"]
        with_experts = {
            kind
            for kind, operators in phase.blocks.items()
            if any(operator.kind is OperatorKind.EXPERT_GEMM for operator in operators)
        }
        return cls(
            model=trace.model,
            layers=trace.facts.layers,
            moe_layers=tuple(
                number for number, kind in enumerate(phase.sequence()) if kind in with_experts
            ),
            experts=trace.facts.experts,
            experts_per_token=trace.facts.experts_per_token,
        )
