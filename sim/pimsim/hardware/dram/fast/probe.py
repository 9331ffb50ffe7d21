"""What one channel does at ``command`` fidelity, found out by running it.

Streams and PIM programs are run on a memory with one channel, alone and beside each other, for a
few refresh intervals; what came out is kept by content. No number here comes from anywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast.clock import RefreshClock
from pimsim.hardware.dram.fast.flow import NEVER, TICKS
from pimsim.hardware.dram.fast.program_probe import (
    KEPT_BYTES,
    WARM_CYCLES,
    ProgramProbe,
    run_out,
)
from pimsim.hardware.dram.fast.rank_stops import RankStops, find_rank_stops
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.parameters import refresh_interval
from pimsim.hardware.dram.samples import stop_sampling
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import (
    SC_COUNT,
    SC_FIRST,
    SC_STRIDE,
    Group,
    Scatter,
    Stream,
)
from pimsim.hardware.remembered import Remembered

__all__ = ["Probe", "StreamRate"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PLACES = 8
INTERVALS = 4
"""A stream is watched from so many places, each for so many refresh intervals."""
STREAM_BURSTS = (16, 64, 256, 1024, 4096)
"""Lengths of streams that are run."""
CHAIN_STREAMS = 16
BEHIND_BURSTS = 1024
"""Of the stream that shows what writes leave behind, longer than they last."""
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


class Probe:
    """Runs one channel of ``memory`` with ``pim``."""

    def __init__(self, memory: MemoryConfig, pim: PimConfig | None) -> None:
        single = memory.organization.model_copy(update={"channels": 1})
        self.memory = memory.model_copy(update={"organization": single})
        self.pim = pim
        self.map = AddressMap.parse(self.memory.stream_map, single)
        # by content; nothing that is known changes with what else is
        self.programs = ProgramProbe(self)
        self._scatters: Remembered[tuple[int, int]] = Remembered(KEPT_BYTES // 8, lambda _: 0)
        self._lost: Remembered[int] = Remembered(KEPT_BYTES // 8, lambda _: 0)
        self._come: Remembered[Floats] = Remembered(KEPT_BYTES // 8, lambda one: one.nbytes)
        self.blocks: Remembered[Floats] = Remembered(KEPT_BYTES // 8, lambda one: one.nbytes)
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
        kept = (self.programs, self._scatters, self._lost, self._come, self.blocks)
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
        return run_out(system) - start

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
        return run_out(system) * TICKS // (CHAIN_STREAMS * bursts)

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

    def scatter_ticks(self, table: Ints) -> tuple[int, int]:
        """Of each burst of scatters, all on one channel, until the last is answered, and of all of
        them what a stream that comes then has to wait for longer than its own bursts, clear of
        refresh: writes are answered when they are taken, and their rows are still to be opened.

        Which rows they are plays no role, only which of them are the same.

        Parameters
        ----------
        table
            Of ``scatter_table``.
        """
        renamed = np.ascontiguousarray(self._in_first_rows(table)[:, SC_FIRST:])
        content = blake2b(renamed.data, digest_size=16).digest()
        return self._scatters.get(content, lambda: self._scatter_ticks(renamed))

    def _in_first_rows(self, table: Ints) -> Ints:
        """With its rows numbered in the order in which they come first; as it is where a row is
        not the highest part of a burst's place, or one of the scatters lies in several."""
        row = self.map.position["ro"]
        if row + self.map.width["ro"] < sum(self.map.width.values()):
            return table
        first = table[:, SC_FIRST]
        last = first + (table[:, SC_COUNT] - 1) * table[:, SC_STRIDE]
        if (first >> row != last >> row).any():
            return table
        _, at, own = np.unique(first >> row, return_index=True, return_inverse=True)
        number = np.argsort(np.argsort(at))
        renamed = table.copy()
        renamed[:, SC_FIRST] += (number[own] - (first >> row)) << row
        return renamed

    def _scatter_ticks(self, renamed: Ints) -> tuple[int, int]:
        scatters = [
            Scatter(0, first, count, stride, bool(write))
            for first, count, stride, write in renamed.tolist()
        ]
        bursts = max(sum(each.count for each in scatters), 1)
        each = self._lone_cycles([], scatters) * TICKS // bursts
        return each, self.quiet._left_ticks(scatters)

    def _left_ticks(self, scatters: Sequence[Scatter]) -> int:
        if not any(scatter.write for scatter in scatters):
            return 0
        system = self.one_channel()
        system.submit(0, [], scatters)
        answered = run_out(system)
        org = self.memory.organization
        behind = Stream(org.rows // 2 * org.ranks * org.banks * org.columns, BEHIND_BURSTS)
        system.submit(answered, [behind])
        waited = (run_out(system) - answered) * TICKS - BEHIND_BURSTS * self.reads.ticks
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
        return max(run_out(system) * TICKS - alone, 0)

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
        run_out(system)
        came = np.maximum.accumulate(group.block_cycles) * TICKS
        moved: Floats = (came - self.reads.latency) / self.reads.ticks
        return np.maximum(moved, np.minimum(np.arange(each, bursts + each, each), bursts))

    def _lone_cycles(self, streams: Sequence[Stream], scatters: Sequence[Scatter] = ()) -> int:
        """Cycles of a transfer on an idle channel, clear of refresh."""
        system = self.one_channel()
        start = min(self.interval // 8, self.period)
        system.submit(start, streams, scatters)
        return run_out(system) - start


def _left(system: MemorySystem, group: Group) -> int:
    return 0 if group.done_cycle >= 0 else int(system.board["ticket"][0, group.ticket, 0])
