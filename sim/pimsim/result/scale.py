"""From the blocks that were simulated to those that the model has.

Blocks of a kind stand for the others of that kind. Equal ones take as long as one in the steady
state (``steady``). Where blocks of a kind differ, in the experts that are hit or in the features
that work, what is known of all of them before anything is simulated (``estimates``) says how much
of a block's time is its own; what it leaves unexplained in the simulated ones is taken for a random
sample of what it leaves unexplained in the others, and so gives a mean and an interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt

__all__ = ["Extrapolation", "block_factors", "extrapolate", "model_blocks", "student_t"]

_STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % points of Student's t with 1 to 30 degrees of freedom (any table of it)."""


@dataclass(frozen=True)
class Extrapolation:
    """Time of the model's blocks that were not simulated."""

    missing_ps: int
    half_width_ps: float | None
    """Of the 95 % interval of ``missing_ps``; 0 where all blocks were simulated or those of a kind
    are equal; None: blocks differ and too few were simulated to know their spread."""
    spread: float | None
    """Standard deviation of the times of simulated blocks that differ, over their mean; None:
    none do, or fewer than two of a kind were simulated."""


def student_t(freedom: int) -> float:
    """Two-sided 95 % point of Student's t; ``freedom`` at least 1, that of 30 counts for more."""
    return _STUDENT_T[min(freedom, len(_STUDENT_T)) - 1]


def model_blocks(simulated: Sequence[str], model: Sequence[tuple[str, int]]) -> dict[str, int]:
    """How many blocks of each kind count: the model's, or those simulated where they are more."""
    have = Counter(simulated)
    return {kind: max(count, have[kind]) for kind, count in model}


def extrapolate(
    times: Mapping[int, int], simulated: Sequence[str], model: Sequence[tuple[str, int]],
    numbers: Sequence[int] = (), estimates: Mapping[str, Mapping[int, int]] | None = None,
) -> Extrapolation:  # fmt: skip
    """Time of the blocks that were not simulated.

    Parameters
    ----------
    times
        Time of blocks in the steady state by number of the simulated block, ps (``block_times``).
    simulated
        Kind of each simulated block.
    model
        Kinds of the model and how many blocks each has.
    numbers
        Number in the model of each simulated block; for kinds with ``estimates``.
    estimates
        By kind whose blocks differ: estimated time of each of the model's blocks by number, ps.
        Only differences between blocks of a kind count.
    """
    have = Counter(simulated)
    missing = 0.0
    square = 0.0  # of the error that each kind's mean has, by variance of a single block
    deviations: list[float] = []
    relative: list[float] = []
    freedom = 0
    differ = False
    for kind, count in model_blocks(simulated, model).items():
        absent = count - have[kind]
        if absent <= 0:
            continue
        own = {at: took for at, took in times.items() if simulated[at] == kind}
        mean = sum(own.values()) // len(own)
        known = (estimates or {}).get(kind)
        if not known:
            missing += absent * mean
            continue
        left_out = [number for number in known if number not in set(numbers)]
        left = {at: took - known[numbers[at]] for at, took in own.items()}
        offset = fsum(left.values()) / len(left)
        missing += fsum(known[number] for number in left_out) + absent * offset
        differ = True
        square += absent + absent**2 / len(own)
        deviations += [each - offset for each in left.values()]
        relative += [took / mean - 1 for took in own.values()]
        freedom += len(own) - 1
    if not differ:
        return Extrapolation(round(missing), 0.0, None)
    if freedom < 1:
        return Extrapolation(round(missing), None, None)
    variance = fsum(each**2 for each in deviations) / freedom
    return Extrapolation(
        round(missing), student_t(freedom) * sqrt(variance * square),
        sqrt(fsum(each**2 for each in relative) / freedom),
    )  # fmt: skip


def block_factors(
    simulated: Sequence[str], model: Sequence[tuple[str, int]]
) -> Mapping[str, tuple[int, int]]:
    """By kind: for how many blocks of the model how many simulated ones stand."""
    have = Counter(simulated)
    return {kind: (count, have[kind]) for kind, count in model_blocks(simulated, model).items()}
