"""A block's operators by when they run, as their dependencies say."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.workload.ancestors import ancestors
from pimsim.workload.operators import Block, Operator, OperatorKind

__all__ = ["BlockParts", "block_parts"]


@dataclass(frozen=True)
class BlockParts:
    """A block's operators by when they run."""

    before: tuple[Operator, ...]
    """What attention needs, and what it needs."""
    attention: tuple[Operator, ...]
    after: tuple[Operator, ...]
    """What needs attention, or nothing, and no expert."""
    late: tuple[Operator, ...] = ()
    """Experts and what needs them."""


def block_parts(block: Block) -> BlockParts:
    """The block cut at its attention; without attention all of it comes after.

    Parameters
    ----------
    block
        Of a model.
    """
    above = ancestors(block.operators)
    scores = {o.name for o in block.operators if o.kind is OperatorKind.ATTENTION_SCORE}
    values = {o.name for o in block.operators if o.kind is OperatorKind.ATTENTION_VALUE}
    needed = {name for value in values for name in above[value]}
    attention = {
        o.name for o in block.operators
        if o.name in scores | values or (o.name in needed and above[o.name] & scores)
    }  # fmt: skip
    before = needed - attention
    # the cache holds the new token before it is read, whoever says so
    before |= {o.name for o in block.operators if o.kind is OperatorKind.KV_APPEND}
    experts = {o.name for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM}
    rest = [o for o in block.operators if o.name not in before | attention]
    late = {o.name for o in rest if o.name in experts or above[o.name] & experts}
    return BlockParts(
        tuple(o for o in block.operators if o.name in before),
        tuple(o for o in block.operators if o.name in attention),
        tuple(o for o in rest if o.name not in late),
        tuple(o for o in rest if o.name in late),
    )
