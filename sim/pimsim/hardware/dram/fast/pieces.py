"""How long each piece of all channels' programs takes, from a few channels that were run.

A piece's time depends on what runs before and after it (opening rows, dot products and refresh
fall into step with each other), so that kinds of pieces are timed where they stand in real
programs, and the mean over all that were seen counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.flow import (
    ONE,
    PART_BEGIN,
    PART_END,
    PART_LOOP,
    PART_NEED,
    PART_PIM,
    PART_ROUNDS,
    PART_STEP,
    PART_STREAM,
    PARTS,
    TICKS,
)
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.program_probe import Stall
from pimsim.hardware.dram.fast.programs import Pieces, ProgramRun, Results, job_of
from pimsim.hardware.dram.layout import (
    C_STACK,
    N_CAUSES,
    N_COUNTERS,
    P_ROUNDS,
    X_COMPUTE,
    X_REFRESH,
)
from pimsim.hardware.dram.pim_program import issue_order, written_out

__all__ = [
    "MOST_ROUNDS",
    "SAMPLED_CHANNELS",
    "PieceRates",
    "RatesBeside",
    "as_parts",
    "time_pieces",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
SAMPLED_CHANNELS = 3
"""That show what the pieces of an operation take, at most."""
REFRESHES = 8
"""That a stretch of a program meets, to see how long each stops it."""
WRITES_LONG = 4
"""Times as long as the writes that hold it up is the stretch that shows for how long they do."""
MOST_ROUNDS = 64
"""Of a loop that are written out; of a longer one so many at least are run, and it goes on as these
do."""
DRAINED_LONG = 8
"""Times as long as the writes behind a piece is what is run of a loop: they drain in less than
that."""
MOST_REPEATED = 4096
"""Instructions of a short program that is repeated for that."""


@dataclass(frozen=True)
class RatesBeside:
    """By kind of piece, beside a stream."""

    stream_share: Ints
    """Of 4096: what the stream gets."""
    pim_share: Ints
    """Of 4096: what PIM does."""
    stall_share: int
    """Of 4096: what a stream gets while PIM stands still for a refresh."""
    causes: Floats
    """Shares of the time of PIM's commands by cause, refresh left out, (N_CAUSES,)."""


@dataclass(frozen=True)
class PieceRates:
    """By kind of piece."""

    ticks: Ints
    """Alone."""
    counts: Ints
    """What the counters of the channels that were run have counted, (N_COUNTERS,)."""
    counted_ticks: int
    """In so much work."""
    stall: Stall
    """What refreshes cost a program."""
    beside_writes: Callable[[], tuple[int, int]]
    """Of 4096: what a stream of writes gets, and what PIM does, beside each other; found when it
    is first asked for."""
    tail: float
    """Ticks for which each burst of results is still written when all commands are out."""
    causes: Floats
    """Shares of the time of PIM's commands by cause, refresh left out, (N_CAUSES,)."""
    beside: Callable[[], RatesBeside]
    """Beside a stream of reads; found when it is first asked for, as many operations meet none."""


def time_pieces(
    probe: Probe,
    programs: Sequence[Ints],
    pieces: Pieces,
    about: Ints,
    results: Results,
    beside_bursts: int,
    channels: int = SAMPLED_CHANNELS,
) -> PieceRates:
    """Run a few channels and say what each kind of piece takes.

    Parameters
    ----------
    probe
        Of the memory and its PIM design.
    programs
        Of each channel, (instructions, ``N_INSTRUCTION``) each; loops are run in part.
    pieces
        Of all channels.
    about
        Estimated cycles of each piece, (pieces,).
    results
        Of all programs' instructions.
    beside_bursts
        Of each stream beside it.
    channels
        That are run, at most.

    Returns
    -------
    PieceRates
        By kind of piece.
    """
    runs, alone = probe.programs, _Seen(len(pieces.example))
    counts, tail = np.zeros(N_COUNTERS, np.int64), 0.0
    stall = Stall(0, 0)
    jobs: list[tuple[ProgramRun, Ints]] = []
    stretches: list[Callable[[int], ProgramRun]] = []
    for channel in _sample(pieces, about, channels):
        program, first, own, written = _sampled(
            probe, programs[channel], pieces, channel, about, results
        )
        stretch = partial(_stretch, program, about[own], first, written)
        if not stall.ticks:
            stall = runs.stall(runs.renamed(stretch(REFRESHES * probe.interval)))
        job = runs.renamed(job_of(program, first, written))
        found = runs.alone(job)
        alone.add(pieces.kind[own], found.ticks)
        counts += found.counts[:N_COUNTERS]
        tail = max(tail, found.tail / max(int(written.bursts.sum()), 1))
        jobs.append((job, pieces.kind[own]))
        stretches.append(stretch)
    size = about[pieces.example].astype(float)
    ticks = np.maximum(np.rint(alone.mean(size)).astype(np.int64), 1)
    return PieceRates(
        ticks, counts, max(int(alone.total.sum()), 1), stall,
        cache(lambda: runs.beside_writes(stretches[0](WRITES_LONG * runs.write_cycles))),
        tail, _causes(counts),
        cache(lambda: _beside(probe, jobs, ticks, size, beside_bursts)),
    )  # fmt: skip


def _beside(
    probe: Probe, jobs: Sequence[tuple[ProgramRun, Ints]], ticks: Ints, size: Floats, bursts: int
) -> RatesBeside:
    """``jobs`` beside streams of so many ``bursts``; with each the kinds of its pieces. ``ticks``,
    ``size``: what each kind takes alone, and about takes."""
    beside, read = _Seen(len(ticks)), _Seen(len(ticks))
    stopped: list[tuple[Ints, Ints, Ints]] = []
    counts = np.zeros(N_COUNTERS, np.int64)
    for job, kind in jobs:
        found = probe.programs.beside(job, bursts)
        clear = found.clear
        beside.add(kind[clear], found.ticks[clear])
        read.add(kind[clear], found.reads[clear])
        stopped.append((kind[~clear], found.ticks[~clear], found.reads[~clear]))
        counts += found.counts[:N_COUNTERS]
    slowed = np.maximum(np.rint(beside.mean(size)).astype(np.int64), 1)
    stream = np.rint(read.mean(size) * probe.reads.ticks).astype(np.int64)
    kinds, took, reads = (np.concatenate(each) for each in zip(*stopped, strict=True))
    # where all streams stand still at once for a refresh, they do not meanwhile
    stopped_all = 0 if probe.rank_stops.run else probe.clock.stall
    longer = int((took - slowed[kinds] - stopped_all).sum())
    more = int((reads * probe.reads.ticks - stream[kinds]).sum())
    stall_share = min(max(more * ONE // longer, 1), ONE) if longer > 0 else ONE
    return RatesBeside(
        np.clip(stream * ONE // slowed, 1, ONE), np.clip(ticks * ONE // slowed, 1, ONE),
        stall_share, _causes(counts),
    )  # fmt: skip


def _sampled(
    probe: Probe, program: Ints, pieces: Pieces, channel: int, about: Ints, results: Results
) -> tuple[Ints, Ints, Ints, Results]:
    """A channel's program without loops, fewer rounds of long ones, the first instruction of each
    of its pieces, which of ``pieces`` these are, and what follows its instructions.

    Of each loop at least ``MOST_ROUNDS`` rounds are left, and what takes as long as all that comes
    by time and not by kind: refreshes, writes beside it, and those of results, which would else
    come closer after one another than they do. Where rounds are left out, results are written when
    their piece ends, beside one that comes once a loop, and not beside its rounds.
    """
    own = np.flatnonzero(pieces.channel == channel)
    first = int(pieces.first[own[0]])
    written = results.of(slice(first, first + len(program)))
    most_bursts = np.add.reduceat(written.bursts, pieces.first[own] - first).max()
    drained = int(most_bursts) * probe.writes.ticks // TICKS
    least = max(
        REFRESHES * probe.interval,
        WRITES_LONG * probe.programs.write_cycles,
        DRAINED_LONG * drained,
    )
    starts, loop = _loops(pieces.rounds[own], pieces.loop[own])
    each = np.maximum(np.add.reduceat(about[own], np.flatnonzero(starts)), 1)
    most = np.maximum(-(-least // each), MOST_ROUNDS)[loop]
    short = program.copy()
    size = pieces.size[own]
    short[:, P_ROUNDS] = np.minimum(short[:, P_ROUNDS], np.repeat(most, size))
    order = issue_order(short)
    is_first = np.zeros(len(program), dtype=bool)
    is_first[pieces.first[own] - first] = True
    begins = np.flatnonzero(is_first[order])
    piece = np.repeat(own, size)[order[begins]]
    written = written.of(order)
    if (short[:, P_ROUNDS] < program[:, P_ROUNDS]).any():
        written = written.at_ends(begins)
    return written_out(short), begins, piece, written


def _stretch(program: Ints, about: Ints, first: Ints, results: Results, wanted: int) -> ProgramRun:
    """As much of a channel's program as takes ``wanted`` cycles, for what comes by time, not by
    kind, as refreshes and writes do: its beginning, or all of it as often as it takes. ``about``,
    ``first``: by piece; ``results``: by instruction."""
    whole = max(int(about.sum()), 1)
    times = min(-(-wanted // whole), -(-MOST_REPEATED // len(program)))
    long = int(np.searchsorted(np.cumsum(np.tile(about, times)), wanted)) + 1
    starts = (np.arange(times)[:, None] * len(program) + first).ravel()
    end = int(starts[long]) if long < len(starts) else times * len(program)
    repeated = np.tile(program, (times, 1))[:end]
    return job_of(repeated, starts[:long], results.repeated(times).of(slice(end)))


def _causes(counts: Ints) -> Floats:
    """Shares of the causes of PIM's time but refresh."""
    stack = counts[C_STACK : C_STACK + N_CAUSES].astype(float)
    stack[X_REFRESH] = 0
    total = float(stack.sum())
    if not total:
        stack[X_COMPUTE], total = 1.0, 1.0
    shares: Floats = stack / total
    return shares


class _Seen:
    """Sums of one quantity by kind of piece."""

    def __init__(self, kinds: int) -> None:
        self.total = np.zeros(kinds)
        self.times = np.zeros(kinds)

    def add(self, kind: Ints, values: Ints) -> None:
        """What pieces of these kinds showed."""
        self.total += np.bincount(kind, values, minlength=len(self.total))
        self.times += np.bincount(kind, minlength=len(self.times))

    def mean(self, size: Floats) -> Floats:
        """By kind; in proportion to ``size``, between those next to it, where none was seen."""
        known = np.flatnonzero(self.times)
        if not len(known):
            return size.copy()
        found = self.total[known] / self.times[known]
        order = np.argsort(size[known], kind="stable")
        ratio = found[order] / size[known][order]
        every: Floats = np.interp(size, size[known][order], ratio) * size
        every[known] = found
        return every


def _sample(pieces: Pieces, about: Ints, most: int = SAMPLED_CHANNELS) -> list[int]:
    """Channels that together show most of the work: each adds the most of what is not seen yet. An
    operation takes as long as its last channel, so that a kind is worth what it is to any one."""
    channels = int(pieces.channel.max()) + 1
    kinds = len(pieces.example)
    work = np.zeros((channels, kinds))
    np.add.at(work, (pieces.channel, pieces.kind), about * pieces.rounds)
    weight, has = work.max(axis=0), work > 0
    own = work.sum(axis=1) * 1e-6
    chosen: list[int] = []
    left = np.ones(kinds)
    for _ in range(min(most, channels)):
        gain = (has * (weight * left)).sum(axis=1) + own
        gain[chosen] = -1.0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        left[has[best]] *= 0.5  # a second sight is worth half
    return chosen


def as_parts(
    rates: PieceRates, pieces: Pieces, needs: Ints, channels: int
) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Parts of the flow, as if there were no streams.

    Parameters
    ----------
    rates
        Of ``time_pieces``: ticks by kind.
    pieces
        Of all channels.
    needs
        Cycles that must be left before a refresh for each piece to start, (pieces,).
    channels
        Of the device.

    Returns
    -------
    (Ints, Ints, Ints, Ints, Ints)
        Parts, (parts, PARTS); the first of each channel, (channels,); the work of each channel,
        ticks, (channels,); the work up to the end of each piece, in its channel, (pieces,); and the
        kind of each part, (parts,).
    """
    ticks = rates.ticks[pieces.kind]
    starts, own = _loops(pieces.rounds, pieces.loop)
    each = np.add.reduceat(ticks, np.flatnonzero(starts))  # of a round of each loop
    rounds = pieces.rounds[starts]
    work = np.bincount(pieces.channel, ticks * pieces.rounds, minlength=channels).astype(np.int64)
    before = np.cumsum(each * rounds) - each * rounds
    within = np.cumsum(ticks) - (np.cumsum(each) - each)[own]
    first_ends = before[own] + within - (np.cumsum(work) - work)[pieces.channel]
    ends = first_ends + each[own] * (pieces.rounds - 1)
    parts = np.zeros((len(ends), PARTS), np.int64)
    parts[:, PART_BEGIN] = first_ends - ticks
    parts[:, PART_END] = first_ends
    parts[:, PART_STREAM] = parts[:, PART_PIM] = ONE
    parts[:, PART_NEED] = needs * TICKS
    parts[:, PART_ROUNDS] = pieces.rounds
    parts[:, PART_LOOP] = pieces.loop
    parts[:, PART_STEP] = np.where(pieces.rounds > 1, each[own], 0)
    # a loop of one piece that need not keep clear of refresh is one long piece
    long = (pieces.loop == 1) & (needs == 0)
    parts[long, PART_END] = ends[long]
    parts[long, PART_ROUNDS], parts[long, PART_LOOP], parts[long, PART_STEP] = 1, 0, 0
    # neighbours are one part, unless each must keep clear of refresh or does so at its own rates
    kept = np.ones(len(parts), dtype=bool)
    kept[:-1] = (pieces.kind[1:] != pieces.kind[:-1]) | (needs[:-1] > 0)
    kept[:-1] |= pieces.channel[1:] != pieces.channel[:-1]
    kept[:-1] |= (parts[1:, PART_ROUNDS] > 1) | (parts[:-1, PART_ROUNDS] > 1)
    begins = parts[np.append(True, kept[:-1]), PART_BEGIN]
    parts = np.ascontiguousarray(parts[kept])
    parts[:, PART_BEGIN] = begins
    # a channel without work may point behind the last part: it never looks
    first = np.searchsorted(pieces.channel[kept], np.arange(channels))
    return parts, first, work, ends, pieces.kind[kept]


def _loops(rounds: Ints, loop: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Whether each piece is the first of its loop, or stands in none; and the number of its loop,
    (pieces,). Arguments: of ``Pieces``."""
    starts: NDArray[np.bool_] = rounds == 1
    ends = np.flatnonzero(loop)
    starts[ends + 1 - loop[ends]] = True
    return starts, np.cumsum(starts) - 1
