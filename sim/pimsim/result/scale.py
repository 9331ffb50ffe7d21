"""From the blocks that were simulated to those that the model has.

Blocks of a kind stand for the others of that kind. With sub-batches a stage does parts of two
neighbouring blocks; it counts for the one whose end it runs (projection to the last residual).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pimsim.engine.records import StageRecord

__all__ = ["block_factors", "missing_ps", "model_blocks", "steady_block_ps"]


def model_blocks(simulated: Sequence[str], model: Sequence[tuple[str, int]]) -> dict[str, int]:
    """How many blocks of each kind count: the model's, or those simulated where they are more."""
    have = Counter(simulated)
    return {kind: max(count, have[kind]) for kind, count in model}


def steady_block_ps(stages: Sequence[StageRecord], simulated: Sequence[str], kind: str) -> int:
    """Time of one block of ``kind`` once the run has settled, in picoseconds.

    With sub-batches a block is one C and one D, else one of each stage. The first of several blocks
    starts on an idle memory and does not count. A block that is there only as the last one of an
    interleaved run has no C and D: E and F, each with as much of A as precedes the next block's
    attention, stand for them. One interleaved block alone: its whole time, in which NPU and PIM
    hardly overlap.
    """
    own = [stage for stage in stages if simulated[stage.layer] == kind]
    names = {stage.name for stage in stages}
    if "F" in names and "C" not in names:
        return (stages[-1].end_ps - stages[0].start_ps) // len(simulated)
    if "C" not in names:
        return sum(_settled(own, name) for name in dict.fromkeys(stage.name for stage in own))
    if any(stage.name == "C" for stage in own):
        return _settled(own, "C") + _settled(own, "D")
    first, second, last, end = (_settled(stages, name) for name in ("A", "B", "E", "F"))
    return last + first + max(end + first, second)


def _settled(stages: Sequence[StageRecord], name: str) -> int:
    """Mean time of the stages of that name, the run's first one apart where there are others."""
    found = [stage for stage in stages if stage.name == name]
    settled = [stage for stage in found if stage.layer] or found
    return sum(stage.end_ps - stage.start_ps for stage in settled) // len(settled)


def missing_ps(
    stages: Sequence[StageRecord], simulated: Sequence[str], model: Sequence[tuple[str, int]]
) -> int:
    """Time of the model's blocks that were not simulated."""
    have = Counter(simulated)
    return sum(
        (count - have[kind]) * steady_block_ps(stages, simulated, kind)
        for kind, count in model_blocks(simulated, model).items()
        if count > have[kind]
    )


def block_factors(
    simulated: Sequence[str], model: Sequence[tuple[str, int]]
) -> Mapping[str, tuple[int, int]]:
    """By kind: for how many blocks of the model how many simulated ones stand."""
    have = Counter(simulated)
    return {kind: (count, have[kind]) for kind, count in model_blocks(simulated, model).items()}
