"""Medusa: heads on the model's last hidden state guess the next tokens, a tree of them is verified.

Cai et al. 2024, arXiv 2401.10774; FasterDecoding/Medusa @e2a5d20 (``medusa_model.py``,
``medusa_choices.py``, ``utils.py``). A step feeds all nodes of the tree. On each node's hidden
state ``d`` every head runs a residual block ``x + silu(W x)`` with ``W`` of d x d and a product
with d x V of its own: ``heads (d^2 + d V)`` weights (biases, d a head, are left out). Typical
acceptance works on the model's logits of each node; keys and values of the branch that is taken
are copied to their places behind the context.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from pimsim.config.decoding import DecodingSettings
from pimsim.config.errors import InputError
from pimsim.workload.arithmetic import ACTIVATION_FLOPS, RESIDUAL_FLOPS, SOFTMAX_FLOPS
from pimsim.workload.decoding import DecodingStrategy
from pimsim.workload.extra_operators import (
    kept_branch,
    maker_of,
    output_layer,
    with_operators_behind,
)
from pimsim.workload.operators import OperatorKind
from pimsim.workload.speculation import DraftTree
from pimsim.workload.step import Mask
from pimsim.workload.trace import OperatorTrace, Shard

__all__ = ["STRATEGY", "Medusa", "MedusaSettings"]


class MedusaSettings(DecodingSettings):
    """Heads, and the tree that they fill."""

    heads: int = Field(default=4, ge=1, le=64)
    """Each guesses one token further ahead."""
    tree: str = "1/10/28/23/2"
    """Nodes by depth from the root on, as in 1/10/28/23/2: 64, as in the trees of the published
    models (63 choices and the root)."""

    @field_validator("tree")
    @classmethod
    def _is_a_tree(cls, value: str) -> str:
        """Raises ``ValueError`` for anything else."""
        DraftTree.of(value)
        return value


class Medusa(DecodingStrategy):
    """See the module."""

    Settings = MedusaSettings
    mask: ClassVar[Mask] = Mask.TREE
    settings: MedusaSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "medusa"

    @property
    def tree(self) -> DraftTree:
        """Of guesses. Raises ``InputError`` where it is deeper than there are heads."""
        tree = DraftTree.of(self.settings.tree)
        if tree.depth > self.settings.heads:
            raise InputError(
                f"workload.decoding: medusa: tree {self.settings.tree} is {tree.depth} deep, "
                f"{self.settings.heads} heads guess as many tokens"
            )
        return tree

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.tree.nodes

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.tree.depth

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """With its heads behind the output layer; see ``DecodingStrategy``."""
        facts, heads, make = trace.facts, self.settings.heads, maker_of(trace)
        hidden = facts.hidden
        last, logits = output_layer(trace)
        rows = {"L": heads}
        added = [
            make.gemm("medusa_block", heads * hidden, hidden, last, m="L"),
            make.vector(
                "medusa_act", OperatorKind.ACTIVATION, rows, hidden,
                ACTIVATION_FLOPS["silu"], ("medusa_block",), function="silu",
            ),
            make.vector(
                "medusa_residual", OperatorKind.ELEMENTWISE, rows, hidden, RESIDUAL_FLOPS,
                ("medusa_act", *last), inputs=2,
            ),
            make.gemm(
                "medusa_head", facts.vocab, hidden, ("medusa_residual",), m="L", count=heads,
                shard=Shard.COLUMNS,
            ),
            make.vector(
                "medusa_accept", OperatorKind.ELEMENTWISE, {"L": 1}, facts.vocab, SOFTMAX_FLOPS,
                (logits.name,),
            ),
            kept_branch(trace, "medusa_keep", requests, self.made, ("medusa_accept",)),
        ]  # fmt: skip
        return with_operators_behind(trace, added)


STRATEGY = Medusa
