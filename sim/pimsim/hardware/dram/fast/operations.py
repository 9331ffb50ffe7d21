"""A PIM operation of all channels as work that drains: how much, how fast, what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.flow import (
    ONE,
    PART_BEGIN,
    PART_END,
    PART_PIM,
    PART_ROUNDS,
    PART_STREAM,
    PARTS,
)
from pimsim.hardware.dram.fast.phases import bursts_each, part_of
from pimsim.hardware.dram.fast.pieces import (
    MOST_ROUNDS,
    SAMPLED_CHANNELS,
    PieceRates,
    RatesBeside,
    as_parts,
    time_pieces,
)
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.program_probe import Stall
from pimsim.hardware.dram.fast.programs import Pieces, Results, estimate, find_pieces, reserved
from pimsim.hardware.dram.layout import (
    C_BUS_BUSY,
    C_COMMANDS,
    C_COMP_COLUMNS,
    C_RD,
    C_REFRESHES,
    C_STACK,
    C_WR,
    N_CAUSES,
    N_COUNTERS,
    N_INSTRUCTION,
    P_COMPS,
    P_MARK,
    P_OP,
    P_ROUNDS,
)
from pimsim.hardware.dram.pim_program import written_out_from
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.transfers import ResultWork
from pimsim.hardware.remembered import Remembered

__all__ = ["Operation", "analyse"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Operation:
    """A PIM operation as work: by channel and by mark."""

    programs: Sequence[Ints]
    """Kept so that the operation can be known by them."""
    parts: Ints
    """Pieces of all channels, (parts, PARTS), as ``flow`` wants them."""
    first_part: Ints
    """By channel."""
    work: Ints
    """Ticks alone, (channels,)."""
    counts: Ints
    """What the counters will count, (channels, N_COUNTERS); causes of time come with it."""
    mark_channel: Ints
    mark_work: Ints
    """Ticks of its channel's work after which each mark's last result is read."""
    stall: Stall
    """What refreshes cost it."""
    tail: Ints
    """Ticks for which each channel still writes results when its commands are out, (channels,)."""
    causes: NDArray[np.float64]
    """Shares of its time by cause, see ``PieceRates``."""
    part_kind: Ints
    """Kind of each part's pieces."""
    pieces: Pieces | None = None
    rates: PieceRates | None = None

    @cached_property
    def beside(self) -> RatesBeside:
        """Beside a stream of reads."""
        if self.rates is None:
            nothing = np.full(1, ONE)
            return RatesBeside(nothing, nothing, ONE, self.causes)
        return self.rates.beside()

    @property
    def beside_writes(self) -> tuple[int, int]:
        """Of 4096: what a stream of writes gets, and what PIM does, beside each other."""
        return (ONE, ONE) if self.rates is None else self.rates.beside_writes()

    @cached_property
    def parts_beside(self) -> Ints:
        """``parts`` beside streams of reads."""
        parts = self.parts.copy()
        parts[:, PART_STREAM] = self.beside.stream_share[self.part_kind]
        parts[:, PART_PIM] = self.beside.pim_share[self.part_kind]
        return parts

    @property
    def ticks_beside(self) -> Ints:
        """Of all channels together: ticks alone, and those that streams get beside them at as many
        of PIM, (2,)."""
        parts = self.parts_beside
        ticks = (parts[:, PART_END] - parts[:, PART_BEGIN]) * np.maximum(parts[:, PART_ROUNDS], 1)
        return np.array([ticks.sum(), (ticks * parts[:, PART_STREAM] // ONE).sum()])

    def on_channel(self, channel: int) -> tuple[Operation, Ints]:
        """What a channel does of it, and the marks that are its own."""
        first = int(self.first_part[channel])
        last = len(self.parts)
        if self.work[channel]:
            ends = self.parts[first:, PART_END]
            last = first + int(np.searchsorted(ends, self.work[channel])) + 1
        own, kind = self.parts[first:last], self.part_kind[first:last]
        marks = np.flatnonzero(self.mark_channel == channel)
        programs = part_of(self.programs, channel, marks)
        return (
            Operation(
                programs, np.ascontiguousarray(own), np.zeros(1, np.int64),
                self.work[channel : channel + 1], self.counts[channel : channel + 1],
                np.zeros(len(marks), np.int64), self.mark_work[marks], self.stall,
                self.tail[channel : channel + 1], self.causes, kind,
                rates=self.rates,
            ),
            marks,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Programs:
    """Programs by what is in them; those that are the same arrays are equal in no time."""

    programs: Sequence[Ints]
    marks: int
    written: Ints | None
    """Bursts behind each mark's result, (marks,); None: nothing follows."""
    most_rounds: int
    """Of a loop that are written out."""

    def __hash__(self) -> int:
        return hash((self.marks, *map(len, self.programs)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Programs) and (
            self.marks, self.most_rounds, len(self.programs)
        ) == (
            other.marks, other.most_rounds, len(other.programs)
        ) and all(
            one is its or np.array_equal(one, its)
            for one, its in zip(
                (*self.programs, self._bursts), (*other.programs, other._bursts), strict=True
            )
        )  # fmt: skip

    @property
    def _bursts(self) -> Ints:
        return np.zeros(self.marks, np.int64) if self.written is None else self.written


@dataclass(frozen=True)
class _Cut:
    """Programs of all channels written out, but for long loops, and cut into pieces: what neither
    the memory nor a time plays a role for."""

    whole: Ints
    """One behind the other, (instructions, ``N_INSTRUCTION``)."""
    channel: Ints
    """Of each instruction, (instructions,)."""
    last: Ints
    """The last instruction of each mark, -1 where there is none, (marks,)."""
    bursts: Ints
    """Written after each instruction's result, (instructions,)."""
    writes: NDArray[np.bool_]
    """Whether the result of each mark is, (marks,)."""
    pieces: Pieces | None
    """None without instructions."""
    nbytes: int
    """With the programs themselves."""

    @classmethod
    def of(cls, asked: _Programs) -> _Cut:
        programs = asked.programs
        # loops are within a channel: all can be written out at once
        loops = np.concatenate([np.zeros((0, N_INSTRUCTION), np.int64), *programs])
        whole, origin = written_out_from(loops, asked.most_rounds)
        channel = np.repeat(np.arange(len(programs)), [len(program) for program in programs])
        channel, last = channel[origin], _last_of_marks(whole, asked.marks)
        bursts = np.zeros(len(whole), np.int64)
        writes = np.zeros(asked.marks, dtype=bool)
        if asked.written is not None:
            writes = (last >= 0) & (asked.written > 0)
            bursts[last[writes]] = asked.written[writes]
        pieces = find_pieces(whole, channel, bursts) if len(whole) else None
        size = loops.nbytes + sum(each.nbytes for each in (whole, channel, last, bursts))
        if pieces is not None:
            size += sum(each.nbytes for each in vars(pieces).values())
        return cls(whole, channel, last, bursts, writes, pieces, size)


_cut_up: Remembered[_Cut] = Remembered(12 << 20, lambda cut: cut.nbytes)
"""From run to run: the points of a sweep ask for the same programs, at other times."""


def analyse(
    probe: Probe, programs: Sequence[Ints], marks: int, after: ResultWork | None,
    beside_bursts: int, channels: int = SAMPLED_CHANNELS,
) -> Operation:  # fmt: skip
    """How long each channel's program takes, and what comes of it when.

    Parameters
    ----------
    probe
        Of the memory and its PIM design; runs what is not known yet.
    programs
        Of each channel, (instructions, ``N_INSTRUCTION``) each.
    marks
        (request, head) results that ``P_MARK`` counts.
    after
        What follows each mark's result; None: nothing does.
    beside_bursts
        Of each stream beside it.
    channels
        That are run, at most.

    Returns
    -------
    Operation
        As work of all channels.
    """
    count = len(programs)
    written = None if after is None else bursts_each(after, count)
    asked = _Programs(programs, marks, written, MOST_ROUNDS)
    cut = _cut_up.get(asked, lambda: _Cut.of(asked))
    whole, channel, last = cut.whole, cut.channel, cut.last
    if cut.pieces is None:
        none = np.zeros(count, dtype=np.int64)
        counts = np.zeros((count, N_COUNTERS), np.int64)
        nowhere = np.zeros(marks, np.int64)
        return Operation(
            programs, np.zeros((1, PARTS), np.int64), none, none, counts, nowhere, nowhere,
            Stall(0, 0), none, np.zeros(N_CAUSES), np.zeros(1, np.int64),
        )  # fmt: skip
    bounds = np.searchsorted(channel, np.arange(count + 1)).tolist()
    opened = [whole[begin:end] for begin, end in pairwise(bounds)]
    results = Results(cut.bursts, np.full(len(whole), -1))
    if after is not None:
        results = replace(results, overlap=after.overlap)
        # when others are done concerns vector units alone
        results.duration[last[cut.writes]] = after.duration[cut.writes]
    pieces = cut.pieces
    rates = time_pieces(
        probe, opened, pieces,
        np.add.reduceat(estimate(whole, probe.parameters[0]), pieces.first),
        results, beside_bursts, channels,
    )  # fmt: skip
    needs = reserved(whole, channel, probe.parameters[0])[pieces.first]
    parts, first_part, work, ends, kind = as_parts(rates, pieces, needs, count)
    counts = _counts(probe, count, whole, channel, rates, work)
    if after is not None:
        writes = np.zeros(count, np.int64)
        if after.spread:
            whole_bursts = int(after.bursts.sum())
            writes += (whole_bursts + np.arange(count)[::-1]) // count
        else:
            np.add.at(writes, after.channel, after.bursts)
        counts[:, C_WR] += writes
        counts[:, C_BUS_BUSY] += writes * int(probe.parameters[0]["tccd_s"])
    piece_of = np.repeat(np.arange(len(ends)), pieces.size)
    tail = rates.tail * np.bincount(channel, results.bursts, minlength=count)
    size, place = pieces.size[piece_of], np.arange(len(whole)) - pieces.first[piece_of] + 1
    passed = ends[piece_of] - rates.ticks[pieces.kind][piece_of] * (size - place) // size
    known = last >= 0
    return Operation(
        programs, parts, first_part, work, counts,
        np.where(known, channel[last], 0), np.where(known, passed[last], 0), rates.stall,
        tail.astype(np.int64), rates.causes, kind, pieces, rates,
    )  # fmt: skip


def _counts(
    probe: Probe, count: int, whole: Ints, channel: Ints, rates: PieceRates, work: Ints
) -> Ints:
    """What the channels will count: instructions as they are, what they need in proportion."""
    p = probe.parameters[0]
    counts = np.multiply.outer(work, rates.counts) // rates.counted_ticks
    # of the writes that follow, of refresh and of causes of time, others keep the books
    counts[:, [C_RD, C_WR, *C_REFRESHES]] = 0
    counts[:, C_STACK : C_STACK + N_CAUSES] = 0
    rounds, ops = whole[:, P_ROUNDS], len(Command)
    place = channel * ops + whole[:, P_OP]  # of a table by channel and command
    sent, columns = (
        np.bincount(place, each, minlength=count * ops).astype(np.int64).reshape(count, ops)
        for each in (rounds, whole[:, P_COMPS] * rounds)
    )
    for command in (Command.GWRITE, Command.HEADER, Command.READRES, Command.GEMV):
        counts[:, C_COMMANDS + int(command)] = sent[:, int(command)]
    counts[:, C_COMMANDS + int(Command.COMP)] = columns[:, int(Command.COMP)]
    counts[:, C_COMP_COLUMNS] = columns[:, int(Command.COMP)] + columns[:, int(Command.GEMV)]
    results = counts[:, C_COMMANDS + int(Command.READRES)]
    results = results + counts[:, C_COMMANDS + int(Command.GEMV)]
    counts[:, C_BUS_BUSY] = results * int(p["tccd_s"])
    return counts


def _last_of_marks(whole: Ints, marks: int) -> Ints:
    """The last instruction of each mark, -1 where there is none."""
    at = np.flatnonzero(whole[:, P_MARK] >= 0)
    last = np.full(marks, -1, dtype=np.int64)
    np.maximum.at(last, whole[at, P_MARK], at)
    return last
