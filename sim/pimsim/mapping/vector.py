"""Vector work of an operator: what its function costs, and what moves where it is not on chip."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.npu import VectorConfig
from pimsim.hardware.npu.vector import VectorKind, vector_cycles, vector_lane_ops
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["VectorWork", "vector_work"]

_NORMS: dict[str, VectorKind] = {"layernorm": "layernorm", "rmsnorm": "rmsnorm"}
_ACTIVATIONS: dict[str, VectorKind] = {"gelu": "gelu", "silu": "silu", "relu": "add"}
"""ReLU is a comparison, one pass as an addition is."""


@dataclass(frozen=True)
class VectorWork:
    """What one vector of an operator takes."""

    cycles: int
    """Of one unit."""
    lane_ops: int


def vector_work(operator: Operator, vector: VectorConfig) -> VectorWork:
    """One of the operator's ``rows`` vectors of ``width`` elements.

    Norms and activations by their function; a gate's product is one more pass, but for SiLU, whose
    formula has it. What is neither (sums, routing's choice, weighted sums of experts, glue)
    is a pass for each arithmetic operation that an element takes.

    Parameters
    ----------
    operator
        Of vectors.
    vector
        Lanes and latencies of a unit.
    """
    kind: VectorKind | None = None
    match operator.kind:
        case OperatorKind.NORM:
            kind = _NORMS[operator.function]
        case OperatorKind.ACTIVATION:
            kind = _ACTIVATIONS.get(operator.function)
        case OperatorKind.ROPE:
            kind = "rope"
        case OperatorKind.SOFTMAX:
            kind = "softmax"
    if kind is None:
        return _passes(operator, vector)
    cycles = vector_cycles(kind, operator.width, vector)
    lane_ops = vector_lane_ops(kind, operator.width)
    is_gated = operator.kind is OperatorKind.ACTIVATION and _is_gated(operator)
    if is_gated and kind != "silu":
        cycles += vector_cycles("mul", operator.width, vector)
        lane_ops += vector_lane_ops("mul", operator.width)
    return VectorWork(cycles, lane_ops)


def _is_gated(operator: Operator) -> bool:
    return operator.input_bytes >= 2 * operator.output_bytes > 0


def _passes(operator: Operator, vector: VectorConfig) -> VectorWork:
    """``flops`` spread evenly over the elements, at least one pass."""
    elements = operator.rows * operator.width
    if not elements:
        return VectorWork(0, 0)
    passes = max(-(-operator.flops // elements), 1)
    return VectorWork(
        passes * vector_cycles("add", operator.width, vector),
        passes * vector_lane_ops("add", operator.width),
    )
