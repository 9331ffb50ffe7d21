"""From the blocks that were simulated to those that the model has.

Blocks of a kind stand for the others of that kind. Equal ones take as long as one in the steady
state (``steady``), but for the phase in which each finds the memory (``phase_variance``). Where
blocks of a kind differ, in the experts that are hit or in the features that work, what is known of
all of them before anything is simulated (``estimates``) says how much of a block's time is its own;
what it leaves unexplained in the simulated ones is taken for a random sample of what it leaves
unexplained in the others, and so gives a mean and an interval. Either way the blocks that are
missing vary themselves, and the mean of those that were simulated is off for all of them at once:
of ``n`` missing and ``k`` simulated ones, each of variance ``v``, the sum has that of
``v (n + n^2 / k)``.

A pipeline stage has some of the model's blocks: those that were not simulated come to it, simulated
ones that it does not have go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, hypot, sqrt

from pimsim.intervals import student_t

__all__ = ["Extrapolation", "block_factors", "extrapolate", "model_blocks"]

_NORMAL = 1.960
"""Two-sided 95 % point of the normal distribution, where the variance is known."""


@dataclass(frozen=True)
class Extrapolation:
    """Time of blocks that were not simulated, less that of simulated ones that are not there."""

    missing_ps: int
    half_width_ps: float | None
    """Of the 95 % interval of ``missing_ps``; 0 where all blocks were simulated; None: blocks
    differ and too few were simulated to know their spread."""
    spread: float | None
    """Standard deviation of the times of simulated blocks that differ, over their mean; None:
    none do, or fewer than two of a kind were simulated."""
    least_ps: float = 0.0
    """``missing_ps`` if the blocks that were not simulated took no time."""


def model_blocks(simulated: Sequence[str], model: Sequence[tuple[str, int]]) -> dict[str, int]:
    """How many blocks of each kind count: the model's, or those simulated where they are more.

    Parameters
    ----------
    simulated
        Kind of each simulated block.
    model
        Kinds of the model's blocks, and how many there are of each.
    """
    have = Counter(simulated)
    return {kind: max(count, have[kind]) for kind, count in model}


def extrapolate(
    times: Mapping[int, int], simulated: Sequence[str], model: Sequence[tuple[str, int]],
    numbers: Sequence[int] = (), estimates: Mapping[str, Mapping[int, int]] | None = None,
    own_numbers: Collection[int] | None = None, variances: Mapping[int, float] | None = None,
) -> Extrapolation:  # fmt: skip
    """Time of the blocks that were not simulated.

    Parameters
    ----------
    times
        Time of blocks in the steady state by number of the simulated block, ps (``block_times``).
    simulated
        Kind of each simulated block.
    model
        Kinds of the blocks that are to be accounted for, and how many there are of each.
    numbers
        Number in the model of each simulated block; for kinds with ``estimates``.
    estimates
        By kind whose blocks differ: estimated time of each of the model's blocks by number, ps.
        Only differences between blocks of a kind count.
    own_numbers
        Of a pipeline stage: numbers of its blocks, which ``model`` counts. None: all of the
        model's, or, where more were simulated than it has, those simulated.
    variances
        Of blocks that are equal to a simulated one, by its number, ps^2 (``phase_variances``).
        None: equal blocks take equally long.
    """
    have = Counter(simulated)
    missing = 0.0
    least = 0.0
    square = 0.0  # of the error that each kind's mean has, by variance of a single block
    by_phase = 0.0  # variance of the sum of equal blocks
    deviations: list[float] = []
    relative: list[float] = []
    freedom = 0
    differ = False
    counts = dict(model) if own_numbers is not None else model_blocks(simulated, model)
    for kind in dict.fromkeys((*counts, *simulated)):
        count = counts.get(kind, 0)
        own = {at: took for at, took in times.items() if simulated[at] == kind}
        known = (estimates or {}).get(kind)
        if not own or (not known and count == have[kind]):
            continue
        mean = sum(own.values()) // len(own)
        if not known:
            net = count - have[kind]
            missing += net * mean
            least += min(net, 0) * mean
            if variances is not None:
                each = fsum(variances[at] for at in own) / len(own)
                by_phase += each * (abs(net) + net**2 / len(own))
            continue
        at_numbers = {numbers[at]: at for at, each in enumerate(simulated) if each == kind}
        wanted = [number for number in known if own_numbers is None or number in own_numbers]
        added = [number for number in wanted if number not in at_numbers]
        removed = [at for number, at in at_numbers.items() if number not in wanted]
        if not added and not removed:
            continue
        left = {at: took - known[numbers[at]] for at, took in own.items()}
        offset = fsum(left.values()) / len(left)
        # one that was simulated goes with its own time, where that is known
        guessed = [numbers[at] for at in removed if at not in own]
        gone = fsum((*(own[at] for at in removed if at in own), *(known[n] for n in guessed)))
        gone += len(guessed) * offset
        net = len(added) - len(guessed)
        missing += fsum(known[number] for number in added) + len(added) * offset - gone
        least -= gone
        differ = True
        square += len(added) + len(guessed) + net**2 / len(own)
        deviations += [each - offset for each in left.values()]
        relative += [took / mean - 1 for took in own.values()]
        freedom += len(own) - 1
    half_width = _NORMAL * sqrt(by_phase)
    if not differ:
        return Extrapolation(round(missing), half_width, None, least)
    if freedom < 1:
        return Extrapolation(round(missing), None, None, least)
    variance = fsum(each**2 for each in deviations) / freedom
    half_width = hypot(half_width, student_t(freedom) * sqrt(variance * square))
    spread = sqrt(fsum(each**2 for each in relative) / freedom)
    return Extrapolation(round(missing), half_width, spread, least)


def block_factors(
    simulated: Sequence[str], model: Sequence[tuple[str, int]]
) -> Mapping[str, tuple[int, int]]:
    """By kind: for how many blocks of the model how many simulated ones stand.

    Parameters
    ----------
    simulated
        Kind of each simulated block.
    model
        Kinds of the model's blocks, and how many there are of each.
    """
    have = Counter(simulated)
    return {kind: (count, have[kind]) for kind, count in model_blocks(simulated, model).items()}
