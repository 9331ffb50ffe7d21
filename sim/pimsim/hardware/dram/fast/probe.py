"""What one channel does at ``command`` fidelity, found out by running it.

Streams and PIM programs are run on a memory with one channel, alone and beside each other, for a
few refresh intervals; what came out is kept by content. No number here comes from anywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast.clock import RefreshClock
from pimsim.hardware.dram.fast.flow import NEVER, ONE, TICKS
from pimsim.hardware.dram.fast.programs import ProgramRun, renamed_rows
from pimsim.hardware.dram.fast.rank_stops import RankStops, find_rank_stops
from pimsim.hardware.dram.layout import C_STACK, INFINITY, MAX_LOG, P_MARK, P_OP, X_REFRESH
from pimsim.hardware.dram.parameters import refresh_interval
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.samples import stop_sampling
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Group, Scatter, Stream
from pimsim.hardware.remembered import Remembered

__all__ = ["Probe", "ProgramTimes", "Stall", "StreamRate", "TimesBeside"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PROGRAM_BYTES = 4 << 20
"""What a probe remembers of programs, a few runs' worth: the memory of a long sweep stays flat."""
PLACES = 8
WARM_CYCLES = 512
INTERVALS = 4
"""A stream is watched from so many places, each for so many refresh intervals."""
STREAM_BURSTS = (16, 64, 256, 1024, 4096)
"""Lengths of streams that are run."""
CHAIN_STREAMS = 16
BEHIND_BURSTS = 1024
"""Of the stream that shows what writes leave behind, longer than they last, and of writes that
PIM is run beside."""
SCATTER_BYTES = 160
"""Of one in a key, about."""
LEAST_BESIDE = 64
"""Shorter streams than these are not what keeps a memory busy beside PIM."""
QUIET_CYCLES = 4096
"""Stands for a refresh interval where there is none."""


@dataclass(frozen=True)
class StreamRate:
    """A stream that has the channel to itself."""

    ticks: int
    """Of each burst, on the clock that leaves out refresh."""
    latency: int
    """Ticks from an idle channel to where the first burst would begin to come."""
    counts: Ints
    """What the channel's counters count in ``bursts``."""
    bursts: int
    active: int
    """Cycles of ranks with an open row, all ranks together."""
    cycles: int
    """In which all this was counted."""


@dataclass(frozen=True)
class ProgramTimes:
    """A channel's PIM program alone, piece by piece."""

    ticks: Ints
    """Of each without refresh, (pieces,)."""
    counts: Ints
    """What the channel's counters count, (N_COUNTERS,)."""
    tail: int
    """Ticks for which its results are still written when all its commands are out: with one row
    buffer they come behind it."""

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return self.ticks.nbytes + self.counts.nbytes


@dataclass(frozen=True)
class TimesBeside:
    """A channel's PIM program beside a stream, refresh on, piece by piece."""

    ticks: Ints
    """Of each, (pieces,)."""
    reads: Ints
    """Bursts of the stream meanwhile."""
    clear: NDArray[np.bool_]
    """Whether no refresh came while it ran."""
    counts: Ints
    """What the channel's counters count, (N_COUNTERS,); the stream counts, too."""

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        arrays = (self.ticks, self.reads, self.clear, self.counts)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True)
class Stall:
    """What refreshes cost a PIM program."""

    ticks: int
    """Of each, until the piece that follows can begin."""
    share: int
    """Of 4096: of all that they cost, what counts as refresh; the rest is opening rows again."""


class Probe:
    """Runs one channel of ``memory`` with ``pim``."""

    def __init__(self, memory: MemoryConfig, pim: PimConfig | None) -> None:
        single = memory.organization.model_copy(update={"channels": 1})
        self.memory = memory.model_copy(update={"organization": single})
        self.pim = pim
        self.map = AddressMap.parse(self.memory.stream_map, single)
        # by content; nothing that is known changes with what else is
        self._programs: Remembered[ProgramTimes] = Remembered(
            PROGRAM_BYTES // 2, lambda one: one.nbytes
        )
        self._beside: Remembered[TimesBeside] = Remembered(
            PROGRAM_BYTES // 2, lambda one: one.nbytes
        )
        self._stalls: Remembered[Stall] = Remembered(PROGRAM_BYTES // 8, lambda _: 0)
        self._scatters: Remembered[tuple[int, int, int]] = Remembered(
            PROGRAM_BYTES // 4, lambda found: found[2] * SCATTER_BYTES
        )
        self._beside_writes: Remembered[tuple[int, int]] = Remembered(
            PROGRAM_BYTES // 8, lambda _: 0
        )
        self._lost: Remembered[int] = Remembered(PROGRAM_BYTES // 8, lambda _: 0)
        self._come: Remembered[Floats] = Remembered(PROGRAM_BYTES // 8, lambda one: one.nbytes)
        self.blocks: Remembered[Floats] = Remembered(PROGRAM_BYTES // 8, lambda one: one.nbytes)
        """Of streams that were asked for, by place: see ``StreamWork``."""
        self._seen: dict[bool, StreamRate] = {}
        self._quiet: Probe | None = None
        system = make_memory_system(self.memory, self.pim)
        self.parameters = system.parameters
        self.cycle_ps = system.cycle_ps
        per_clock = max(round(memory.tCK / system.cycle_ps), 1)
        interval = refresh_interval(memory) * per_clock
        units = memory.organization.ranks
        if memory.controller.refresh == "per-bank":
            units *= memory.organization.banks
        self.interval = interval
        """Cycles from a refresh of the channel to the next."""
        self.period = QUIET_CYCLES if interval >= INFINITY else interval * units
        """Cycles in which every unit is refreshed once."""

    @property
    def nbytes(self) -> int:
        """What it keeps, about."""
        kept = (
            self._programs, self._beside, self._stalls, self._scatters, self._lost, self._come,
            self.blocks,
        )  # fmt: skip
        own = sum(one.nbytes for one in kept) + 2 * self.parameters.nbytes
        return own if self._quiet is None else own + self._quiet.nbytes

    def one_channel(self, log_entries: int = 0) -> MemorySystem:
        """An idle channel."""
        system = make_memory_system(
            self.memory, self.pim, log_entries=log_entries, parameters=self.parameters
        )
        stop_sampling(system.samples)
        return system

    @property
    def quiet(self) -> Probe:
        """The same without refresh."""
        if self.memory.controller.refresh == "none":
            return self
        if self._quiet is None:
            controller = self.memory.controller.model_copy(update={"refresh": "none"})
            memory = self.memory.model_copy(update={"controller": controller})
            self._quiet = Probe(memory, self.pim)
        return self._quiet

    @cached_property
    def clock(self) -> RefreshClock:
        """Stops for as long as a stream of reads does while a rank is refreshed; refreshes of
        single banks are part of all rates."""
        if self.memory.controller.refresh != "all-bank":
            return RefreshClock(min(self.interval * TICKS, NEVER), 0)
        length = INTERVALS * self.period
        watched = self._watched(False)
        took = watched.bursts * self.quiet.reads.ticks
        refreshes = PLACES * length // self.interval
        stall = (PLACES * length * TICKS - took) // refreshes
        return RefreshClock(self.interval * TICKS, min(max(stall, 0), self.interval * TICKS // 2))

    def recall(
        self, reads: StreamRate, writes: StreamRate, clock: RefreshClock, lags: tuple[int, ...],
        chains: tuple[int, ...], rank_stops: RankStops,
    ) -> None:  # fmt: skip
        """Take over what a probe of the same configs has found out before."""
        self.__dict__.update(
            reads=reads, writes=writes, clock=clock, lags=lags, chains=chains,
            rank_stops=rank_stops,
        )  # fmt: skip

    @cached_property
    def rank_stops(self) -> RankStops:
        """What a refresh of one of several ranks costs a stream."""
        return find_rank_stops(self)

    def cycles_from(self, start: int, stream: Stream) -> int:
        """Cycles that a stream takes that comes to an idle channel at cycle ``start``."""
        system = self.one_channel()
        while system.now < start:
            system.advance(start)
        system.submit(start, [stream])
        return _run(system) - start

    @cached_property
    def reads(self) -> StreamRate:
        """Of a stream of reads."""
        return self._stream(write=False)

    @cached_property
    def writes(self) -> StreamRate:
        """Of a stream of writes."""
        return self._stream(write=True)

    def _stream(self, write: bool) -> StreamRate:
        """Its rate, and its time to the first burst from idle, clear of refresh."""
        seen = self._watched(write)
        clock = self.clock
        length = seen.cycles * TICKS
        lost = length // clock.interval * clock.stall
        ticks = -(-(length - lost) // seen.bursts)
        short = 64
        took = self._lone_cycles([Stream(0, short, write=write)]) * TICKS
        return replace(seen, ticks=ticks, latency=max(took - short * ticks, 0))

    @cached_property
    def lags(self) -> tuple[int, ...]:
        """Ticks of a stream's work that the one behind it has done when the first is complete, for
        streams of ``STREAM_BURSTS``: the controller takes row hits first, wherever in its queues
        they stand."""
        if self.quiet is not self:
            return self.quiet.lags
        return tuple(self._lag(bursts) for bursts in STREAM_BURSTS)

    def _lag(self, bursts: int) -> int:
        late = 0
        for place in range(PLACES):
            system = self.one_channel()
            first = place * 10007
            one = system.submit(0, [Stream(first, bursts)])
            system.submit(0, [Stream(first + bursts, bursts)])
            while one.done_cycle < 0:
                system.advance(INFINITY)
            late += one.done_cycle * TICKS - self.reads.latency - bursts * self.reads.ticks
        return max(late // PLACES, 0)

    @cached_property
    def chains(self) -> tuple[int, ...]:
        """Ticks of each burst in chains of reads of ``STREAM_BURSTS``, each asked for when the one
        two before it is complete."""
        if self.quiet is not self:
            # what refreshes of single banks cost is part of our own rate
            own, quiet = self.reads.ticks, self.quiet.reads.ticks
            return tuple(ticks * own // quiet for ticks in self.quiet.chains)
        return tuple(max(self._chain(bursts), self.reads.ticks) for bursts in STREAM_BURSTS)

    def _chain(self, bursts: int) -> int:
        system = self.one_channel()
        for number in range(CHAIN_STREAMS):
            if number > 1:
                system.advance(INFINITY)
            system.submit(system.now, [Stream(number * bursts, bursts)])
        return _run(system) * TICKS // (CHAIN_STREAMS * bursts)

    def chain_ticks(self, bursts: Ints) -> Ints:
        """Of each burst where transfers of so many follow each other closely."""
        return np.interp(bursts, STREAM_BURSTS, self.chains).astype(np.int64)

    def lag(self, bursts: Ints) -> Ints:
        """The same for streams of any number of bursts."""
        return np.interp(bursts, STREAM_BURSTS, self.lags).astype(np.int64)

    def _watched(self, write: bool) -> StreamRate:
        if write not in self._seen:
            self._seen[write] = self._watch(write)
        return self._seen[write]

    def _watch(self, write: bool) -> StreamRate:
        """A stream for a few periods. Where refresh meets it decides about a percent of its rate,
        so it is watched from several places and times."""
        length = INTERVALS * self.period
        came = active = 0
        counts = np.zeros_like(self.one_channel().channels["counter"][0])
        for place in range(PLACES):
            system = self.one_channel()
            # steps of the golden ratio: spread over rows and over the refresh interval
            start = place * 2531 % self.period
            first = place * 10007
            group = system.submit(start, [Stream(first, 2 * (length + start), write=write)])
            left, seen, held = [], [], []
            for until in (start + WARM_CYCLES, start + WARM_CYCLES + length):
                while system.now < until:
                    system.advance(until)
                left.append(_left(system, group))
                seen.append(system.channels["counter"][0].copy())
                held.append(self._active(system))
            came += left[0] - left[1]
            counts += seen[1] - seen[0]
            active += held[1] - held[0]
        return StreamRate(0, 0, counts, came, active, PLACES * length)

    def _active(self, system: MemorySystem) -> int:
        """Cycles of ranks with an open row so far."""
        org = self.memory.organization
        rank = system.channels["rank"][0, : org.ranks * org.pseudo_channels]
        open_now = np.where(rank[:, 0] > 0, np.maximum(system.now - rank[:, 1], 0), 0)
        return int((rank[:, 2] + open_now).sum())

    def scatter_ticks(self, scatters: tuple[Scatter, ...]) -> tuple[int, int]:
        """Of each burst of ``scatters``, all on channel 0, until the last is answered, and of all
        of them what a stream that comes then has to wait for longer than its own bursts, clear of
        refresh: writes are answered when they are taken, and their rows are still to be opened."""
        each, left, _ = self._scatters.get(scatters, lambda: self._scatter_ticks(scatters))
        return each, left

    def _scatter_ticks(self, scatters: tuple[Scatter, ...]) -> tuple[int, int, int]:
        bursts = max(sum(each.count for each in scatters), 1)
        each = self._lone_cycles([], scatters) * TICKS // bursts
        return each, self.quiet._left_ticks(scatters), len(scatters)

    def _left_ticks(self, scatters: Sequence[Scatter]) -> int:
        if not any(scatter.write for scatter in scatters):
            return 0
        system = self.one_channel()
        system.submit(0, [], scatters)
        answered = _run(system)
        org = self.memory.organization
        behind = Stream(org.rows // 2 * org.ranks * org.banks * org.columns, BEHIND_BURSTS)
        system.submit(answered, [behind])
        waited = (_run(system) - answered) * TICKS - BEHIND_BURSTS * self.reads.ticks
        return waited if waited > self.reads.latency else 0

    def lost_ticks(self, before: Stream, own: Stream) -> int:
        """What two streams take longer at once than one after the other."""
        if self.quiet is not self:
            return self.quiet.lost_ticks(before, own)
        return self._lost.get((before, own), lambda: self._lost_ticks(before, own))

    def _lost_ticks(self, before: Stream, own: Stream) -> int:
        both = [(s, self.writes if s.write else self.reads) for s in (before, own)]
        alone = both[0][1].latency + sum(s.bursts * rate.ticks for s, rate in both)
        system = self.one_channel()
        for stream, _ in both:
            system.submit(0, [stream])
        return max(_run(system) * TICKS - alone, 0)

    def moved_when_come(self, first: int, bursts: int, each: int) -> Floats:
        """Bursts that an idle channel has had the time to move, clear of refresh, when all of the
        first ``each``, twice as many, ... of a stream of reads have come, (ceil(bursts / each),).
        """
        if self.quiet is not self:
            return self.quiet.moved_when_come(first, bursts, each)
        return self._come.get((first, bursts, each), lambda: self._moved(first, bursts, each))

    def _moved(self, first: int, bursts: int, each: int) -> Floats:
        system = self.one_channel()
        group = system.submit(0, [Stream(first, bursts, track_blocks=True, block_bursts=each)])
        _run(system)
        came = np.maximum.accumulate(group.block_cycles) * TICKS
        moved: Floats = (came - self.reads.latency) / self.reads.ticks
        return np.maximum(moved, np.minimum(np.arange(each, bursts + each, each), bursts))

    def _lone_cycles(self, streams: Sequence[Stream], scatters: Sequence[Scatter] = ()) -> int:
        """Cycles of a transfer on an idle channel, clear of refresh."""
        system = self.one_channel()
        start = min(self.interval // 8, self.period)
        system.submit(start, streams, scatters)
        return _run(system) - start

    def program(self, job: ProgramRun) -> ProgramTimes:
        """A channel's program alone."""
        job = self._renamed(job)
        return self._programs.get(job.content, lambda: self._program(job))

    def program_beside(self, job: ProgramRun, bursts: int) -> TimesBeside:
        """A channel's program beside a chain of reads of about so many bursts each. The closer a
        refresh, the fewer reads go between the tiles of a single row buffer; so it is on there."""
        length = min(max(bursts, LEAST_BESIDE), STREAM_BURSTS[-1])
        job = self._renamed(job)
        content = job.content + length.to_bytes(8, "little")
        return self._beside.get(content, lambda: self._program_beside(job, length))

    def _renamed(self, job: ProgramRun) -> ProgramRun:
        """The same in rows that do not tell requests and batches apart: above those that its own
        writes go to, below those of the streams beside it."""
        row = self.map.position["ro"]
        if row + self.map.width["ro"] < sum(self.map.width.values()):
            return job  # writes and streams may be in any row
        written = int(job.bursts.sum())
        least = (written - 1 >> row) + 1
        program = renamed_rows(job.program, least, self.memory.organization.rows // 2)
        return replace(job, program=program)

    def _program(self, job: ProgramRun) -> ProgramTimes:
        ticks, counts, _, _, tail = self.quiet._run_job(job)
        return ProgramTimes(ticks, counts, tail)

    def _program_beside(self, job: ProgramRun, bursts: int) -> TimesBeside:
        ticks, counts, reads, clear, _ = self._run_job(job, bursts)
        return TimesBeside(ticks, reads, clear, counts)

    def stall(self, job: ProgramRun) -> Stall:
        """What refreshes cost a channel's program; nothing where it meets none."""
        if self.quiet is self:
            return Stall(0, 0)
        job = self._renamed(job)
        return self._stalls.get(job.content, lambda: self._stall(job))

    @property
    def write_cycles(self) -> int:
        """Of the writes that ``beside_writes`` has beside a program."""
        return BEHIND_BURSTS * self.writes.ticks // TICKS

    def beside_writes(self, job: ProgramRun) -> tuple[int, int]:
        """What a stream of writes and a channel's program get of their rates beside each other, of
        4096: writes are drained before anything else, and may leave PIM nothing."""
        if self.quiet is not self:
            return self.quiet.beside_writes(job)
        return self._beside_writes.get(job.content, lambda: self._share_beside_writes(job))

    def _share_beside_writes(self, job: ProgramRun) -> tuple[int, int]:
        org = self.memory.organization
        first = org.rows // 2 * org.ranks * org.banks * org.columns
        ends = []
        for bursts in (0, BEHIND_BURSTS):
            system = self.one_channel()
            writes = system.submit(0, [Stream(first, bursts, write=True)] if bursts else [])
            system.submit_pim(0, [job.program], len(job.bursts), job.after)
            _run(system)
            ends.append(int(system.channels["pim_last"][0]))
        alone = BEHIND_BURSTS * self.writes.ticks
        took = max(writes.done_cycle * TICKS, alone)
        worked = max(took - (ends[1] - ends[0]) * TICKS, 0)
        return alone * ONE // took, min(max(worked * ONE // took, 1), ONE)

    def _stall(self, job: ProgramRun) -> Stall:
        durations = self.quiet._run_job(job)[0]
        took, counts, *_ = self._run_job(job)
        ends = np.cumsum(took)
        due = np.arange(self.interval * TICKS, ends[-1], self.interval * TICKS)
        after = np.searchsorted(ends, due, side="right")
        # a refresh that fell due in a piece waits for its end: the next one is held up
        late = np.append(took - durations, 0)
        began = ends[after] - durations[after] <= due
        after += began & (late[after + 1] > late[after]) & (after + 1 < len(ends))
        starts = np.append(0, ends)[after]
        # the piece must have been next when it fell due, or the one after that
        clear = starts <= due + took.max()
        stops = (ends[after] - durations[after] - due)[clear]
        if not len(stops):
            return Stall(0, 0)
        lost = max(int(ends[-1] - durations.sum()), 1)
        share = int(counts[C_STACK + X_REFRESH]) * TICKS * ONE // lost
        each = int(stops.mean())
        if self.pim is not None and not self.pim.refresh_avoidance:
            each = lost // len(due)  # what it costs the piece that it stops, too
        return Stall(max(each, 0), min(share, ONE))

    def _run_job(
        self, job: ProgramRun, bursts: int = 0
    ) -> tuple[Ints, Ints, Ints, NDArray[np.bool_], int]:  # fmt: skip
        """Ticks of each piece, what was counted in all, reads that went out meanwhile, whether no
        refresh came meanwhile, and ticks from its last result to its last write. ``bursts``: of
        each stream beside it, two at a time."""
        p = self.parameters[0]
        system = self.one_channel(MAX_LOG if bursts else 0)
        # from half of the memory on, which programs do not reach
        org = self.memory.organization
        chain = count(org.rows // 2 * org.ranks * org.banks * org.columns, max(bursts, 1))
        if bursts:
            for _ in range(2):
                system.submit(0, [Stream(next(chain), bursts)])
            while system.now < WARM_CYCLES:
                if system.advance(WARM_CYCLES) is not None:
                    system.submit(system.now, [Stream(next(chain), bursts)])
        start = system.now
        group = system.submit_pim(start, [job.program], len(job.bursts), job.after)
        while group.done_cycle < 0:
            done = system.advance(INFINITY)
            if bursts and done is not group:
                system.submit(system.now, [Stream(next(chain), bursts)])
        board = system.board[0]
        ends = board["ticket"][group.marks[0] : group.marks[1], 1].copy()
        # a tile ends when its last result is asked for, a GWRITE when it is done
        ends = ends[job.ends]
        last = np.flatnonzero(job.program[:, P_MARK] >= 0)[job.ends]
        ends -= np.where(job.program[last, P_OP] == int(Command.GWRITE), 0, int(p["read_delay"]))
        ends = np.maximum.accumulate(np.maximum(ends, start))
        reads = np.zeros(len(ends), dtype=np.int64)
        if bursts:
            logged = board["log"][: board["logged"]]
            cycles = logged[logged[:, 2] == int(Command.RD), 0]
            reads = np.diff(np.searchsorted(cycles, np.append(start, ends)))
        bounds = np.append(start, ends)
        clear = np.diff(bounds // self.interval) == 0
        counts: Ints = system.channels["counter"][0].copy()
        tail = max(group.done_cycle - int(ends[-1]) - int(p["read_delay"]), 0)
        return np.diff(bounds) * TICKS, counts, reads, clear, tail * TICKS


def _left(system: MemorySystem, group: Group) -> int:
    return 0 if group.done_cycle >= 0 else int(system.board["ticket"][0, group.ticket, 0])


def _run(system: MemorySystem) -> int:
    """Cycle at which everything submitted is complete."""
    while system.active:
        system.advance(INFINITY)
    return system.now
