"""The memory of one device at ``fast`` fidelity: what is asked for drains at measured rates.

The same service as ``MemorySystem``. Each channel has stream work in order of submission and at
most one PIM operation; how fast each goes, alone and beside the other, the command engine says
for one channel (``probe``). The run then goes from one submission or completion to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.fast.books import Transfer
from pimsim.hardware.dram.fast.flow import (
    FLOW,
    NEVER,
    ONE,
    PARTS,
    REFRESH,
    STOPS,
    STRETCH,
    STRETCH_BEGIN,
    STRETCH_END,
    STRETCH_PLACE,
    STRETCH_RUN,
    TICKS,
    TRAIL,
    next_begin,
    next_completion,
    pim_end,
    settle,
    step,
)
from pimsim.hardware.dram.fast.known import KnownOperations
from pimsim.hardware.dram.fast.operations import Operation, analyse
from pimsim.hardware.dram.fast.phases import bursts_each
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.streams import StreamWork
from pimsim.hardware.dram.layout import (
    C_REFRESHES,
    C_STACK,
    MAX_RANKS,
    N_CAUSES,
    N_COUNTERS,
    X_COMPUTE,
    X_REFRESH,
)
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.hardware.dram.samples import (
    A_ACTIVE,
    A_BUS_LEFT,
    A_COLUMNS_LEFT,
    MOST,
    NEXT,
    make_samples,
    next_sample,
    shares,
    stop_sampling,
)
from pimsim.hardware.dram.transfers import (
    Group,
    Network,
    ResultWork,
    Rows,
    Scatter,
    Stream,
)
from pimsim.hardware.vector_units import VectorUnits

__all__ = ["FastMemorySystem", "unfit"]

Ints = NDArray[np.int64]


def unfit(
    pim: PimConfig | None, network: Network | None, order: RequestOrder | None, log_entries: int
) -> str:
    """Why a device cannot be run at ``fast`` fidelity; empty where it can."""
    if network is not None and network.period_ps:
        return "a network between cores and channels"
    if order is not None:
        return "a request order of its own"
    if pim is not None and (pim.front_end, pim.result_writes) != ("per-channel", "own-channel"):
        return f"pim {pim.name}: front_end {pim.front_end}, result_writes {pim.result_writes}"
    return "a log of commands" if log_entries else ""


@dataclass
class _Running:
    """The PIM operation under way."""

    group: Group
    operation: Operation
    begun: int
    """Tick of its submission, and the one from which it runs."""
    start: int
    after: ResultWork | None
    unit_free: Ints
    """When each vector unit is free: the device's own array, where it is shared."""
    finish: Ints
    """When the vector work behind each result is done, of those that are settled."""
    settled: int = 0
    """Results whose vector work has its unit."""
    last: int = -1
    """Cycle in which the last vector work began."""
    met_streams: bool = False
    """Whether there have been streams of reads beside it."""
    end: int = -1
    """Tick of its last result or write, once all commands are out."""
    end_cycle: int = -1


class FastMemorySystem:
    """All channels of a device at ``fast`` fidelity."""

    def __init__(
        self, memory: MemoryConfig, pim: PimConfig | None, probe: Probe,
        network: Network | None = None,
    ) -> None:  # fmt: skip
        self.memory = memory
        self.pim = pim
        self.probe = probe
        self.network = network
        self.parameters = probe.parameters
        self.cycle_ps = probe.cycle_ps
        count = memory.organization.channels
        # what the engine and the accounts read of a channel
        fields: list[tuple[str, type, tuple[int, ...]]] = [
            ("counter", np.int64, probe.reads.counts.shape), ("pim_last", np.int64, ()),
            ("rank", np.int64, (MAX_RANKS, 3)),
        ]  # fmt: skip
        self.channels = np.zeros(count, dtype=np.dtype(fields, align=True))
        self._flow = np.zeros(count, dtype=FLOW)
        self._flow["pim_end"] = 0
        self._writes: deque[tuple[Ints, Ints]] = deque()
        """Work that is writes, from and to, by channel, of transfers behind those in ``_flow``."""
        self._posted = np.zeros(count, np.int64)
        """Of the work asked for last on each channel, what nobody waits for."""
        self._parts = np.zeros((1, PARTS), dtype=np.int64)
        self._now = 0
        self._tick = 0  # on the clock that leaves out refresh, as all ticks here
        self._clock = probe.clock
        # refreshes of one rank stop the streams in it and those in others not: no clock
        self._stops = np.zeros(1, dtype=STOPS)
        self._stretches = np.zeros((1, count, STRETCH), np.int64)
        self._trail = np.zeros((count, TRAIL, 3), np.int64)
        if probe.rank_stops.run:
            self._clock = replace(probe.clock, stall=0)
            self._stops[0] = (
                probe.interval * TICKS, memory.organization.ranks, probe.rank_stops.stall,
                probe.clock.stall, probe.rank_stops.run, probe.rank_stops.ahead,
                TICKS // memory.controller.requests_per_cycle,
            )  # fmt: skip
        self._pim_refresh = np.zeros(1, dtype=REFRESH)
        self._transfers: list[Transfer] = []
        self._running: _Running | None = None
        self._operations = KnownOperations()
        self._times: deque[int] = deque([0])
        self._ends: deque[tuple[Ints, Ints]] = deque()
        self._drained: deque[tuple[Ints, Ints]] = deque([(self._flow["done"].copy(),) * 2])
        self.streams = StreamWork(memory, probe)
        self._beside = np.zeros(2, np.int64)
        """Ticks that PIM's operations with streams beside them take alone, and what these get."""
        self._refreshed = 0
        self._by_bank = memory.controller.refresh == "per-bank"
        self.samples = make_samples(most=MOST // 2)
        """As of ``MemorySystem``, at about equal distances: the stops of the way; half as many, as
        each costs as much as a stop."""
        self._draining: list[Transfer] = []  # complete, but for writes that are posted
        self.vector_units: VectorUnits | None = None
        """As of ``MemorySystem``."""
        self.unfinished = (0, 0)
        """Of what a controller by commands has counted: time that buses still take, and dot
        products."""

    @property
    def now(self) -> int:
        """Cycle up to which everything is simulated."""
        return self._now

    @property
    def active(self) -> bool:
        """Whether any submitted group is not complete."""
        return bool(self._transfers) or self._running is not None

    # what is asked for ------------------------------------------------------------------------
    def submit(
        self, start: int, streams: Sequence[Stream | Rows], scatters: Sequence[Scatter] = (),
        source: int = 0,
    ) -> Group:  # fmt: skip
        """Queue ``streams`` and ``scatters``; cores (``source``) share the channels in order of
        submission."""
        del source
        flow = self._flow
        # writes that were answered before may still be under way; nobody waits for them
        work = self.streams.of(streams, scatters, flow["queued"] - self._posted <= flow["done"])
        rate = self.probe.reads if work.reads.any() else self.probe.writes
        # a channel that stood still needs its time to the first burst
        begin = max(self._clock.active(start * TICKS), self._tick) + rate.latency
        flow["begin"][(flow["queued"] == flow["done"]) & (work.ticks > 0)] = begin
        first = queued = flow["queued"].copy()
        self._stretch_out(work.stretches)
        flow["queued"] += work.ticks
        if work.reads.any():
            self._meet_streams()
        if work.writing.any():
            self._writes.append((flow["queued"] - work.writing, flow["queued"].copy()))
            self._meet_writes()
            self._next_writes()
        self._posted = np.where(work.ticks > 0, work.posted, self._posted)
        if len(work.blocks):
            first = flow["queued"] - work.last
        group = Group(-1, 0)
        self._transfers.append(
            Transfer(
                group, first, flow["queued"] - work.posted,
                np.where(work.posted > 0, 0, self.probe.lag(work.reads + work.writes)),
                work.reads, work.writes, work.blocks, self._tick, (queued, flow["queued"].copy()),
            )
        )  # fmt: skip
        return group

    def _stretch_out(self, more: Ints) -> None:
        """Take note of where the streams lie that are queued next; see ``Work.stretches``."""
        if not len(more):
            return
        flow = self._flow
        over = int(flow["stretch"].min())
        flow["stretch"] -= over
        rows = np.zeros((len(more), len(flow), STRETCH), np.int64)
        ends = flow["queued"] + np.cumsum(more[:, :, 0], axis=0)
        rows[:, :, STRETCH_BEGIN], rows[:, :, STRETCH_END] = ends - more[:, :, 0], ends
        rows[:, :, STRETCH_PLACE], rows[:, :, STRETCH_RUN] = more[:, :, 1], more[:, :, 2]
        self._stretches = np.concatenate([self._stretches[over:], rows])

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: ResultWork | None = None
    ) -> Group:
        """Run a PIM program on each channel; see ``MemorySystem.submit_pim``."""
        if self._running is not None:
            raise RuntimeError("a PIM operation is under way")
        operation = self.operation(programs, marks, after)
        flow = self._flow
        flow["pim_total"] = operation.work
        flow["pim_done"] = 0
        flow["pim_waited"] = flow["pim_beside"] = 0
        flow["part"] = operation.first_part
        self._parts = operation.parts
        self._pim_refresh[:] = 0
        if operation.stall.ticks:
            # on the clock that leaves out what stops the streams too
            clock, refresh = self._clock, self._pim_refresh[0]
            refresh["first"] = clock.interval
            refresh["interval"] = clock.interval - clock.stall
            refresh["share"] = ONE
            refresh["stall"] = max(operation.stall.ticks - clock.stall, 0)
        tick = max(self._clock.active(start * TICKS), self._tick)
        flow["pim_begin"] = tick
        flow["pim_end"] = np.where(operation.work > 0, -1, tick)
        group = Group(-1, 0, marks=(0, marks), after=after, is_pim=True)
        first = self._cycle(tick)
        free = np.full(0 if after is None else after.units, first, np.int64)
        if self.vector_units is not None and len(free):
            free = self.vector_units.free
        finish = group.vector_ends = np.zeros(0 if after is None else len(after.duration), np.int64)
        self._running = _Running(
            group, operation, self._tick, tick, after, free, finish, last=first - 1
        )
        if self._writes or (flow["done"] < flow["writes_to"]).any():
            self._meet_writes()
        reading = (flow["done"] < flow["writes_from"]) | (flow["writes_to"] < flow["queued"])
        if self._writes or (reading & (flow["done"] < flow["queued"])).any():
            self._meet_streams()
        self._snapshot()
        return group

    def _meet_streams(self) -> None:
        """The PIM operation under way has streams of reads beside it from now on."""
        running = self._running
        if running is not None and not running.met_streams:
            running.met_streams = True
            self._parts = running.operation.parts_beside
            self._beside += running.operation.ticks_beside
            self._pim_refresh["share"] = running.operation.beside.stall_share

    def _meet_writes(self) -> None:
        """The same of writes."""
        if self._running is not None:
            shares = self._running.operation.beside_writes
            self._flow["write_stream"], self._flow["write_pim"] = shares

    def quiet_at(self, cycle: int) -> bool:
        """Whether nothing is under way at ``cycle``, posted writes included, if nothing more is
        asked for."""
        if self.active:
            return False
        flow = self._flow
        left = int((flow["queued"] - flow["done"]).max())
        return left <= max(self._clock.active(cycle * TICKS) - self._tick, 0)

    # of use to whoever runs parts of it again ---------------------------------------------------
    def skip(self, cycle: int) -> None:
        """Nothing happens here up to ``cycle``."""
        self._now = max(self._now, cycle)
        self._go(self._clock.active(self._now * TICKS))

    def one_channel(self, operations: KnownOperations) -> FastMemorySystem:
        """One channel by itself, idle; it knows what this device does, and these ``operations``."""
        own = FastMemorySystem(self.probe.memory, self.pim, self.probe)
        stop_sampling(own.samples)
        own._operations = operations
        return own

    @property
    def known_operations(self) -> list[Operation]:
        """PIM operations in the order in which they were first asked for."""
        return list(self._operations)

    @property
    def share_beside(self) -> float:
        """Of its rate, what a stream gets beside PIM, over all operations that had one beside
        them; 1: none had."""
        alone, got = self._beside.tolist()
        return float(got / alone) if alone else 1.0

    def operation(
        self, programs: Sequence[Ints], marks: int, after: ResultWork | None
    ) -> Operation:  # fmt: skip
        """What these programs are as work."""
        return self._operations.get(
            programs, marks, after,
            lambda: analyse(self.probe, programs, marks, after, self.streams.beside),
        )  # fmt: skip

    # time -------------------------------------------------------------------------------------
    def advance(self, until: int) -> Group | None:
        """Go to the first completion of a group, or to ``until``; ``now`` tells which."""
        limit = self._clock.active(min(until * TICKS, NEVER))
        while True:
            targets = self._targets()
            tick, row = next_completion(
                self._flow, self._parts, self._tick, limit + 1, targets, self._pim_refresh[0],
                self._stretches, self._stops[0],
            )  # fmt: skip
            running = self._running
            pim = limit + 1
            if running is not None:
                pim = running.end
                if pim < 0:
                    pim = pim_end(
                        self._flow, self._parts, self._tick, tick + 1, self._pim_refresh[0],
                        self._stretches, self._stops[0],
                    )  # fmt: skip
            if min(tick, pim) > limit:
                self._go(limit)
                self._now = max(self._now, until)
                return None
            if tick <= pim:
                self._go(tick)
                return self._complete(self._transfers.pop(row))
            self._go(pim)
            assert running is not None
            if running.end >= 0:
                self._now = max(self._now, running.end_cycle)
                return self._complete_pim(running)
            if (self._flow["pim_end"] < 0).any():
                continue  # stops on the way have cost a tick
            running.end_cycle = self._tail(running)
            running.end = max(self._clock.active(running.end_cycle * TICKS), self._tick)

    def _targets(self) -> Ints:
        """Work after which each transfer is complete, (transfers, channels)."""
        ends = np.array([t.end + t.lag for t in self._transfers]).reshape(-1, len(self.channels))
        behind: Ints = np.minimum(ends, self._flow["queued"])
        return behind

    def _go(self, tick: int) -> None:
        """To ``tick``; ``now`` is the cycle in which it lies."""
        while tick > self._tick:
            # work is remembered as a line from stop to stop: stop where a channel sets out
            upto = next_begin(self._flow, self._tick, tick)
            step(
                self._flow, self._parts, self._tick, upto, self._pim_refresh[0], self._stretches,
                self._stops[0], self._trail,
            )  # fmt: skip
            self._next_writes()
            self._tick = upto
            self._now = max(self._now, self._cycle(upto))
            self._snapshot()
            self._sample_if_due()
            self._refresh(self._now)

    def _next_writes(self) -> None:
        """Let the channels know where their next writes are."""
        writes, flow = self._writes, self._flow
        while writes and not (flow["writes_to"] > flow["done"]).any():
            flow["writes_from"], flow["writes_to"] = writes.popleft()

    def _sample_if_due(self) -> None:
        """Take the sample that is due, of an idle stretch the first one too: what came before it
        did not come in it."""
        table, state = self.samples
        if self._now < state[NEXT]:
            return
        idle = all(map(np.array_equal, self._drained[-1], self._drained[-2]))
        if idle and self._now > state[NEXT]:
            self._refresh(int(state[NEXT]))
            self.sample(table[next_sample(table, state, int(state[NEXT]))])
        self._refresh(self._now)
        if self._now >= state[NEXT]:
            self.sample(table[next_sample(table, state, self._now)])

    def sample(self, row: Ints) -> None:
        """See ``MemorySystem.sample``: what is counted, and what is drained of what is not
        complete, without posted writes that are still to come."""
        done = self._flow["done"]
        counts = self.channels["counter"].sum(axis=0)
        self._draining = [each for each in self._draining if not each.is_drained(done)]
        for each in self._transfers:
            counts += each.drained(self.probe, done, counted=False)
        for each in self._draining:
            counts += each.drained(self.probe, done, counted=True)
        moving = [*self._transfers, *self._draining]
        if self._running is not None:
            whole, none = self._running.operation, np.zeros(len(done), np.int64)
            own = shares(none, whole.work, self._flow["pim_done"], whole.counts.T)
            counts += own.sum(axis=1)
        row[:N_COUNTERS] = counts[:N_COUNTERS]
        row[A_ACTIVE] = self.channels["rank"][:, :, 2].sum()
        row[A_BUS_LEFT], row[A_COLUMNS_LEFT] = self.unfinished
        # of a burst that is not counted yet, so much of its time is over
        row[A_BUS_LEFT] -= sum(each.begun_burst_cycles(self.probe, done) for each in moving)

    def _cycle(self, tick: int) -> int:
        return -(-self._clock.wall(tick) // TICKS)

    def _cycles(self, ticks: NDArray[Any]) -> Ints:
        cycles: Ints = -(-self._clock.wall_of(np.ceil(ticks).astype(np.int64)) // TICKS)
        return cycles

    def _snapshot(self) -> None:
        """Remember how far the channels are, as long as anybody may ask."""
        begun = [t.begun for t in self._transfers]
        if self._running is not None:
            begun.append(self._running.begun)
        oldest = min(begun, default=self._tick)
        while len(self._times) > 1 and self._times[1] <= oldest:
            self._times.popleft()
            self._drained.popleft()
        while self._ends and self._ends[0][0].max() < self._times[0]:
            self._ends.popleft()
        self._times.append(self._tick)
        self._drained.append((self._flow["done"].copy(), self._flow["pim_done"].copy()))

    def _refresh(self, cycle: int) -> None:
        """Refresh goes on whatever else does, so far up to ``cycle``."""
        due = cycle // self.probe.interval
        at = C_REFRESHES[int(self._by_bank)]
        self.channels["counter"][:, at] += due - self._refreshed
        self._refreshed = due
        org, rate = self.memory.organization, self.probe.reads
        ranks = org.ranks * org.pseudo_channels
        self.channels["rank"][:, :ranks, 2] = cycle * rate.active // (rate.cycles * ranks)

    def _complete(self, done: Transfer) -> Group:
        """Its last burst has come."""
        group = done.group
        group.done_cycle = self.now
        self.channels["counter"] += done.counts(self.probe)
        if not done.is_drained(self._flow["done"]):
            self._draining.append(done)
        if len(done.blocks):
            group.block_cycles = self._arrivals(done)
        return group

    def _arrivals(self, done: Transfer) -> Ints:
        """Cycle of each block on the channel that was last."""
        before = self._drained[-2][0] if len(self._drained) > 1 else done.first
        late = int((done.end - before).argmax())
        flow = self._flow[late]
        ends = [(int(at[late]), int(drained[late])) for at, drained in self._ends]
        ends.append((int(flow["pim_end"]), int(flow["end_done"])))
        # rates changed where a PIM operation ended on this channel
        line = [end for end in ends if end[0] >= self._times[0]]
        stops = self._trail[late, : min(int(flow["stops"]), TRAIL)]
        for begin, end, at in stops[stops[:, 0] >= self._times[0]].tolist():
            line += [(begin, at), (end, at)]
        line += zip(self._times, (int(each[0][late]) for each in self._drained), strict=True)
        line.sort()
        times, drained = np.array(line).T
        share = done.blocks * (done.end[late] - done.first[late])
        needed = np.minimum(done.first[late] + share.astype(np.int64), flow["done"])
        at = np.minimum(self._cycles(np.interp(needed, drained, times)), self.now)
        at[-1] = self.now  # its end is that of the transfer, whichever channel was late
        return at

    def _tail(self, running: _Running) -> int:
        """Cycle at which the last result is read and the vector work behind it is done; the
        commands of all channels are out."""
        flow, operation, after = self._flow, running.operation, running.after
        self.channels["pim_last"] = self._cycles(flow["pim_end"])
        delay = int(self.parameters[0]["read_delay"])
        end = int(self.channels["pim_last"].max()) + delay
        if after is not None and len(after.duration):
            self._settle(running, after, len(after.duration), 0 if after.overlap else end)
            end = max(end, int(running.finish.max()))
            if after.bursts[-1]:  # the last output is written once it is there
                own = int(bursts_each(after, len(self.channels))[-1])
                end += own * self.probe.writes.ticks // TICKS
            self._hold_up(operation.tail)
            end = max(end, int((self.channels["pim_last"] + operation.tail // TICKS).max()) + delay)
        return max(end, self.now)

    def settle_results(self) -> None:
        """Give units to the vector work behind results of PIM that were asked for by now, in order,
        up to the first that was not: whoever asks for units next comes behind it."""
        running = self._running
        if running is None or running.after is None or not running.after.overlap:
            return
        operation, first = running.operation, running.settled
        done = self._flow["pim_done"][operation.mark_channel[first:]]
        missing = np.flatnonzero(operation.mark_work[first:] > done)
        self._settle(running, running.after, first + int(missing[0] if len(missing) else len(done)))

    def _settle(
        self, running: _Running, after: ResultWork, count: int, not_before: int = 0
    ) -> None:
        """The vector work behind the first ``count`` results has its units."""
        own = slice(running.settled, count)
        if own.start >= count:
            return
        delay = int(self.parameters[0]["read_delay"])
        ready = self._mark_cycles(running.operation, running.begun, own) + delay
        running.last, used = settle(
            ready, after.duration[own], running.last, running.unit_free, not_before,
            running.finish[own],
        )  # fmt: skip
        running.group.vector_busy_cycles += int(used)
        running.settled = count

    def _hold_up(self, ticks: Ints) -> None:
        """Streams that are under way go on so much later on each channel: it writes what PIM has
        left."""
        flow = self._flow
        later = np.maximum(flow["begin"], self._tick) + ticks
        flow["begin"] = np.where(
            (ticks > 0) & (flow["queued"] > flow["done"]), later, flow["begin"]
        )

    def _mark_cycles(self, operation: Operation, operation_start: int, marks: slice) -> Ints:
        """When the last result of each of ``marks`` was asked for."""
        times = np.array(self._times)
        drained = np.array([each[1] for each in self._drained])
        # the operation before may still stand in the oldest entries
        begin = int(np.searchsorted(times, operation_start, side="right")) - 1
        work, channel = operation.mark_work[marks], operation.mark_channel[marks]
        asked = np.zeros(len(work))
        for c in np.unique(channel).tolist():
            own = channel == c
            stops, end = times[begin:], int(self._flow["pim_end"][c])
            if end >= 0:  # a channel that was done between two stops was so at its own time
                stops = np.minimum(stops, end)
            asked[own] = np.interp(work[own], drained[begin:, c], stops)
        return self._cycles(asked)

    def _complete_pim(self, running: _Running) -> Group:
        """Its last result is there."""
        self._running = None
        group, operation = running.group, running.operation
        group.done_cycle = self.now
        self._ends.append((self._flow["pim_end"].copy(), self._flow["end_done"].copy()))
        counts = operation.counts.copy()
        counts[:, C_STACK : C_STACK + N_CAUSES] = self._causes(running)
        self.channels["counter"][:, :N_COUNTERS] += counts
        return group

    def _causes(self, running: _Running) -> Ints:
        """Cycles of each channel's PIM commands by cause, (channels, N_CAUSES): as in the channels
        that were run alone, and as beside streams for as long as there were some; what refreshes
        cost, while the clock or PIM stood still, is refresh and opening rows again."""
        flow, operation = self._flow, running.operation
        spent = np.maximum(self.channels["pim_last"] - self._cycle(running.start), 0)
        spent = np.where(operation.work > 0, spent, 0)
        worked = (flow["pim_end"] - flow["pim_begin"] - flow["pim_waited"]) // TICKS
        worked = np.clip(worked, 0, spent)
        beside = np.minimum(flow["pim_beside"] // TICKS, worked)
        refresh = (spent - worked) * operation.stall.share // ONE
        causes = np.stack([operation.causes] * 2)
        if running.met_streams:
            causes[1] = operation.beside.causes
        times = np.stack([spent - refresh - beside, beside], axis=1)
        stack: Ints = (times @ causes).astype(np.int64)
        stack[:, X_REFRESH] += refresh
        stack[:, X_COMPUTE] += spent - stack.sum(axis=1)  # what was rounded off
        return stack
