"""Experts on a PIM design with a controller of its own: products with a few vectors each."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.hardware.pim.operations import Gemv
from pimsim.mapping.experts import ExpertPlacement, expert_bytes, stored_element_bytes
from pimsim.mapping.tasks import StreamTask
from pimsim.workload.operators import Operator

__all__ = ["expert_operation", "expert_task"]


def expert_operation(operator: Operator, tokens: Sequence[int]) -> Gemv:
    """What a design is asked for: matrices of experts, each with its tokens.

    Parameters
    ----------
    operator
        A product of all experts.
    tokens
        Of each expert that the design multiplies, shape (experts,).

    Returns
    -------
    Gemv
        With elements as they lie in the banks, whole bytes each.
    """
    return Gemv(operator.n, operator.k, tuple(tokens), stored_element_bytes(operator))


def expert_task(operator: Operator, layer: int, placement: ExpertPlacement) -> StreamTask:
    """The design's part of an operator of experts, in one turn.

    Parameters
    ----------
    operator
        A product of all experts.
    layer
        Number of the simulated block.
    placement
        Where its experts run; some are on PIM.

    Returns
    -------
    StreamTask
        Its operands and results are those of the pairs of a token and an expert on PIM.
    """
    on_pim = placement.on_pim
    pairs, total = placement.pairs(on_pim), placement.pairs(placement.tokens)
    passing = (operator.input_bytes + operator.output_bytes) * pairs // total
    return StreamTask(
        operator.name, str(operator.kind), "pim", layer, operator.flops * pairs // total,
        expert_bytes(operator)[0] * len(on_pim), 0,
        operation=expert_operation(operator, [placement.tokens[each] for each in on_pim]),
        sram_bytes=passing,
    )  # fmt: skip
