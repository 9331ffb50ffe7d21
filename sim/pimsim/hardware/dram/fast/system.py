"""The memory of one device at ``fast`` fidelity: what is asked for drains at measured rates.

The same service as ``MemorySystem``. Each channel has stream work in order of submission and at
most one PIM operation; how fast each goes, alone and beside the other, the command engine says
for one channel (``probe``). The run then goes from one submission or completion to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.fast.backlog import Backlog
from pimsim.hardware.dram.fast.books import Transfer
from pimsim.hardware.dram.fast.flow import NEVER, TICKS
from pimsim.hardware.dram.fast.history import History
from pimsim.hardware.dram.fast.known import KnownOperations
from pimsim.hardware.dram.fast.operations import Operation, analyse
from pimsim.hardware.dram.fast.phases import bursts_each
from pimsim.hardware.dram.fast.pieces import SAMPLED_CHANNELS
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.running import RunningOperation
from pimsim.hardware.dram.fast.streams import StreamWork
from pimsim.hardware.dram.layout import C_REFRESHES, C_STACK, MAX_RANKS, N_CAUSES, N_COUNTERS
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
from pimsim.hardware.dram.transfers import Group, Network, ResultWork, Rows, Scatter, Stream
from pimsim.hardware.vector_units import VectorUnits

__all__ = ["FastMemorySystem", "unfit"]

Ints = NDArray[np.int64]


def unfit(
    pim: PimConfig | None, network: Network | None, order: RequestOrder | None, log_entries: int
) -> str:
    """Why a device cannot be run at ``fast`` fidelity; empty where it can.

    Parameters
    ----------
    pim
        None: there is none.
    network
        Between cores and channels; None: none.
    order
        Of streams that name their operands; None: there are none.
    log_entries
        Commands that are to be logged.

    Returns
    -------
    str
        Words for a message.
    """
    if network is not None and network.period_ps:
        return "a network between cores and channels"
    if order is not None:
        return "a request order of its own"
    if pim is not None and (pim.front_end, pim.result_writes) != ("per-channel", "own-channel"):
        return f"pim {pim.name}: front_end {pim.front_end}, result_writes {pim.result_writes}"
    return "a log of commands" if log_entries else ""


class FastMemorySystem:
    """All channels of a device at ``fast`` fidelity."""

    def __init__(
        self, memory: MemoryConfig, pim: PimConfig | None, probe: Probe,
        network: Network | None = None, sampled_channels: int = SAMPLED_CHANNELS,
    ) -> None:  # fmt: skip
        """``sampled_channels``: those that show what the pieces of an operation take, at most."""
        self.memory = memory
        self.pim = pim
        self.probe = probe
        self._sampled_channels = sampled_channels
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
        self._backlog = Backlog(probe, count)
        self._posted = np.zeros(count, np.int64)
        """Of the work asked for last on each channel, what nobody waits for."""
        self._now = 0
        self._clock = self._backlog.clock
        self._transfers: list[Transfer] = []
        self._running: RunningOperation | None = None
        self._operations = KnownOperations()
        self._history = History(self._backlog.flow["done"])
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
        backlog, flow = self._backlog, self._backlog.flow
        # writes that were answered before may still be under way; nobody waits for them
        work = self.streams.of(streams, scatters, flow["queued"] - self._posted <= flow["done"])
        rate = self.probe.reads if work.reads.any() else self.probe.writes
        first = queued = flow["queued"].copy()
        # a channel that stood still needs its time to the first burst
        backlog.queue(work, max(self._clock.active(start * TICKS), backlog.tick) + rate.latency)
        if work.reads.any():
            self._meet_streams()
        if work.writing.any():
            self._meet_writes()
        self._posted = np.where(work.ticks > 0, work.posted, self._posted)
        if len(work.blocks):
            first = flow["queued"] - work.last
        group = Group(-1, 0)
        self._transfers.append(
            Transfer(
                group, first, flow["queued"] - work.posted,
                np.where(work.posted > 0, 0, self.probe.lag(work.reads + work.writes)),
                work.reads, work.writes, work.blocks, backlog.tick, (queued, flow["queued"].copy()),
            )
        )  # fmt: skip
        return group

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: ResultWork | None = None
    ) -> Group:
        """Run a PIM program on each channel; see ``MemorySystem.submit_pim``."""
        if self._running is not None:
            raise RuntimeError("a PIM operation is under way")
        operation = self.operation(programs, marks, after)
        backlog = self._backlog
        tick = max(self._clock.active(start * TICKS), backlog.tick)
        backlog.begin_operation(operation, tick)
        group = Group(-1, 0, marks=(0, marks), after=after, is_pim=True)
        first = self._cycle(tick)
        free = np.full(0 if after is None else after.units, first, np.int64)
        if self.vector_units is not None and len(free):
            free = self.vector_units.free
        finish = group.vector_ends = np.zeros(0 if after is None else len(after.duration), np.int64)
        self._running = RunningOperation(
            group, operation, backlog.tick, tick, after, free, finish, last=first - 1
        )
        if backlog.writes_wait:
            self._meet_writes()
        if backlog.reads_wait:
            self._meet_streams()
        self._snapshot()
        return group

    def _meet_streams(self) -> None:
        """The PIM operation under way has streams of reads beside it from now on."""
        running = self._running
        if running is not None and not running.met_streams:
            running.met_streams = True
            self._beside += running.operation.ticks_beside
            self._backlog.meet_streams(running.operation)

    def _meet_writes(self) -> None:
        """The same of writes."""
        if self._running is not None:
            self._backlog.meet_writes(self._running.operation)

    def quiet_at(self, cycle: int) -> bool:
        """Whether nothing is under way at ``cycle``, posted writes included, if nothing more is
        asked for."""
        if self.active:
            return False
        left = int(self._backlog.left.max())
        return left <= max(self._clock.active(cycle * TICKS) - self._backlog.tick, 0)

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
            lambda: analyse(
                self.probe, programs, marks, after, self.streams.beside, self._sampled_channels
            ),
        )  # fmt: skip

    # time -------------------------------------------------------------------------------------
    def advance(self, until: int) -> Group | None:
        """Go to the first completion of a group, or to ``until``; ``now`` tells which."""
        limit = self._clock.active(min(until * TICKS, NEVER))
        backlog = self._backlog
        while True:
            tick, row = backlog.next_completion(self._targets(), limit + 1)
            running = self._running
            pim = limit + 1
            if running is not None:
                pim = running.end if running.end >= 0 else backlog.operation_end(tick + 1)
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
            if (backlog.flow["pim_end"] < 0).any():
                continue  # stops on the way have cost a tick
            running.end_cycle = self._tail(running)
            running.end = max(self._clock.active(running.end_cycle * TICKS), backlog.tick)

    def _targets(self) -> Ints:
        """Work after which each transfer is complete, (transfers, channels)."""
        ends = np.array([t.end + t.lag for t in self._transfers]).reshape(-1, len(self.channels))
        behind: Ints = np.minimum(ends, self._backlog.flow["queued"])
        return behind

    def _go(self, tick: int) -> None:
        """To ``tick``; ``now`` is the cycle in which it lies."""
        while tick > self._backlog.tick:
            upto = self._backlog.step(tick)
            self._now = max(self._now, self._cycle(upto))
            self._snapshot()
            self._sample_if_due()
            self._refresh(self._now)

    def _sample_if_due(self) -> None:
        """Take the sample that is due, of an idle stretch the first one too: what came before it
        did not come in it."""
        table, state = self.samples
        if self._now < state[NEXT]:
            return
        if self._history.still and self._now > state[NEXT]:
            self._refresh(int(state[NEXT]))
            self.sample(table[next_sample(table, state, int(state[NEXT]))])
        self._refresh(self._now)
        if self._now >= state[NEXT]:
            self.sample(table[next_sample(table, state, self._now)])

    def sample(self, row: Ints) -> None:
        """See ``MemorySystem.sample``: what is counted, and what is drained of what is not
        complete, without posted writes that are still to come."""
        done = self._backlog.flow["done"]
        counts = self.channels["counter"].sum(axis=0)
        self._draining = [each for each in self._draining if not each.is_drained(done)]
        for each in self._transfers:
            counts += each.drained(self.probe, done, counted=False)
        for each in self._draining:
            counts += each.drained(self.probe, done, counted=True)
        moving = [*self._transfers, *self._draining]
        if self._running is not None:
            whole, none = self._running.operation, np.zeros(len(done), np.int64)
            own = shares(none, whole.work, self._backlog.flow["pim_done"], whole.counts.T)
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
        tick = self._backlog.tick
        self._history.note(tick, self._backlog.flow, min(begun, default=tick))

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
        if not done.is_drained(self._backlog.flow["done"]):
            self._draining.append(done)
        if len(done.blocks):
            stops = self._history.arrivals(done, self._backlog.flow, self._backlog.trail)
            at = np.minimum(self._cycles(stops), self.now)
            at[-1] = self.now  # its end is that of the transfer, whichever channel was late
            group.block_cycles = at
        return group

    def settle_results(self) -> None:
        """Give units to the vector work behind results of PIM that were asked for by now, in order,
        up to the first that was not: whoever asks for units next comes behind it."""
        running = self._running
        if running is None or running.after is None or not running.after.overlap:
            return
        operation, first = running.operation, running.settled
        done = self._backlog.flow["pim_done"][operation.mark_channel[first:]]
        missing = np.flatnonzero(operation.mark_work[first:] > done)
        self._settle(running, first + int(missing[0] if len(missing) else len(done)))

    def _settle(self, running: RunningOperation, count: int, not_before: int = 0) -> None:
        """The vector work behind the first ``count`` results has its units."""
        own = slice(running.settled, count)
        if own.start < count:
            ends = self._backlog.flow["pim_end"]
            asked = self._cycles(self._history.asked(running, own, ends))
            running.settle(asked + int(self.parameters[0]["read_delay"]), count, not_before)

    def _tail(self, running: RunningOperation) -> int:
        """Cycle at which the last result is read and the vector work behind it is done; the
        commands of all channels are out."""
        operation, after = running.operation, running.after
        self.channels["pim_last"] = self._cycles(self._backlog.flow["pim_end"])
        delay = int(self.parameters[0]["read_delay"])
        end = int(self.channels["pim_last"].max()) + delay
        if after is not None and len(after.duration):
            self._settle(running, len(after.duration), 0 if after.overlap else end)
            end = max(end, int(running.finish.max()))
            if after.bursts[-1]:  # the last output is written once it is there
                own = int(bursts_each(after, len(self.channels))[-1])
                end += own * self.probe.writes.ticks // TICKS
            self._backlog.hold_up(operation.tail)
            end = max(end, int((self.channels["pim_last"] + operation.tail // TICKS).max()) + delay)
        return max(end, self.now)

    def _complete_pim(self, running: RunningOperation) -> Group:
        """Its last result is there."""
        self._running = None
        group, operation = running.group, running.operation
        group.done_cycle = self.now
        self._history.end_operation(self._backlog.flow)
        spent = np.maximum(self.channels["pim_last"] - self._cycle(running.start), 0)
        counts = operation.counts.copy()
        counts[:, C_STACK : C_STACK + N_CAUSES] = running.causes(self._backlog.flow, spent)
        self.channels["counter"][:, :N_COUNTERS] += counts
        return group
