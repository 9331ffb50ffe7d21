"""How the blocks of a model are cut into pipeline stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["cut_blocks", "misfit", "stage_kinds"]


def cut_blocks(layers: int, pp: int) -> tuple[range, ...]:
    """Numbers of the blocks of each of ``pp`` stages, which are consecutive.

    Where ``layers`` do not divide by ``pp``, some stages have a block more: those before the last
    one, which has the output layer, from the back on (as vLLM does, ``get_pp_indices`` of
    vllm/distributed/utils.py).

    Parameters
    ----------
    layers
        Blocks of the model.
    pp
        Stages.

    Raises
    ------
    ValueError
        Where a stage would have none.
    """
    problem = misfit(layers, pp)
    if problem:
        raise ValueError(problem)
    each, left_over = divmod(layers, pp)
    stages, first = [], 0
    for number in range(pp):
        has_more = pp - 1 - left_over <= number < pp - 1
        stages.append(range(first, first + each + has_more))
        first = stages[-1].stop
    return tuple(stages)


def misfit(layers: int, pp: int) -> str:
    """Why a model of ``layers`` blocks has no ``pp`` stages; empty if it has.

    Parameters
    ----------
    layers
        Blocks of the model.
    pp
        Stages.
    """
    if 1 <= pp <= layers:
        return ""
    return f"layers ({layers}) cannot be cut into pp {pp} stages; pp may be 1 to {layers}"


def stage_kinds(kinds: Sequence[str], blocks: range) -> Counter[str]:
    """How many of a stage's blocks are of which kind.

    Parameters
    ----------
    kinds
        Of all of the model's blocks.
    blocks
        Of the stage.
    """
    return Counter(kinds[number] for number in blocks)
