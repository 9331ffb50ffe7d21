"""What is still to be done on each channel at ``fast`` fidelity, and how it drains.

The state that the compiled functions of ``flow`` work on, and the only place that calls them: the
streams queued on each channel, the PIM operation's pieces, refreshes of ranks and of PIM.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.flow import (
    FLOW,
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
    step,
)  # fmt: skip
from pimsim.hardware.dram.fast.operations import Operation
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.streams import Work

__all__ = ["Backlog"]

Ints = NDArray[np.int64]


class Backlog:
    """Of all channels, in ticks on the clock that leaves out refresh."""

    def __init__(self, probe: Probe, channels: int) -> None:
        self.flow = np.zeros(channels, dtype=FLOW)
        """Of each channel, (channels,)."""
        self.flow["pim_end"] = 0
        self.trail = np.zeros((channels, TRAIL, 3), np.int64)
        """Its last stops for refreshes of ranks: begin, end and work done."""
        self.tick = 0
        """Up to which everything is done."""
        self.clock = probe.clock
        self._writes: deque[tuple[Ints, Ints]] = deque()
        """Work that is writes, from and to, by channel, of transfers behind those in ``flow``."""
        self._parts = np.zeros((1, PARTS), dtype=np.int64)
        self._pim_refresh = np.zeros(1, dtype=REFRESH)
        # refreshes of one rank stop the streams in it and those in others not: no clock
        self._stops = np.zeros(1, dtype=STOPS)
        self._stretches = np.zeros((1, channels, STRETCH), np.int64)
        if probe.rank_stops.run:
            self.clock = replace(probe.clock, stall=0)
            self._stops[0] = (
                probe.interval * TICKS, probe.memory.organization.ranks, probe.rank_stops.stall,
                probe.clock.stall, probe.rank_stops.run, probe.rank_stops.ahead,
                TICKS // probe.memory.controller.requests_per_cycle,
            )  # fmt: skip

    @property
    def left(self) -> Ints:
        """Ticks of streams that are to come, (channels,)."""
        left: Ints = self.flow["queued"] - self.flow["done"]
        return left

    @property
    def writes_wait(self) -> bool:
        """Whether writes are under way or to come."""
        return bool(self._writes) or bool((self.flow["done"] < self.flow["writes_to"]).any())

    @property
    def reads_wait(self) -> bool:
        """The same of reads; any, where more writes are to come than the next."""
        flow = self.flow
        reading = (flow["done"] < flow["writes_from"]) | (flow["writes_to"] < flow["queued"])
        return bool(self._writes) or bool((reading & (flow["done"] < flow["queued"])).any())

    def queue(self, work: Work, begin: int) -> None:
        """Put ``work`` behind what is queued; an idle channel sets out at tick ``begin``."""
        flow = self.flow
        flow["begin"][(flow["queued"] == flow["done"]) & (work.ticks > 0)] = begin
        self._stretch_out(work.stretches)
        flow["queued"] += work.ticks
        if work.writing.any():
            self._writes.append((flow["queued"] - work.writing, flow["queued"].copy()))
            self._next_writes()

    def _stretch_out(self, more: Ints) -> None:
        """Take note of where the streams lie that are queued next; see ``Work.stretches``."""
        if not len(more):
            return
        flow = self.flow
        over = int(flow["stretch"].min())
        flow["stretch"] -= over
        rows = np.zeros((len(more), len(flow), STRETCH), np.int64)
        ends = flow["queued"] + np.cumsum(more[:, :, 0], axis=0)
        rows[:, :, STRETCH_BEGIN], rows[:, :, STRETCH_END] = ends - more[:, :, 0], ends
        rows[:, :, STRETCH_PLACE], rows[:, :, STRETCH_RUN] = more[:, :, 1], more[:, :, 2]
        self._stretches = np.concatenate([self._stretches[over:], rows])

    def _next_writes(self) -> None:
        """Let the channels know where their next writes are."""
        writes, flow = self._writes, self.flow
        while writes and not (flow["writes_to"] > flow["done"]).any():
            flow["writes_from"], flow["writes_to"] = writes.popleft()

    def begin_operation(self, operation: Operation, tick: int) -> None:
        """PIM works on ``operation`` from ``tick`` on, alone so far."""
        flow = self.flow
        flow["pim_total"] = operation.work
        flow["pim_done"] = 0
        flow["pim_waited"] = flow["pim_beside"] = 0
        flow["part"] = operation.first_part
        self._parts = operation.parts
        self._pim_refresh[:] = 0
        if operation.stall.ticks:
            # on the clock that leaves out what stops the streams too
            clock, refresh = self.clock, self._pim_refresh[0]
            refresh["first"] = clock.interval
            refresh["interval"] = clock.interval - clock.stall
            refresh["share"] = ONE
            refresh["stall"] = max(operation.stall.ticks - clock.stall, 0)
        flow["pim_begin"] = tick
        flow["pim_end"] = np.where(operation.work > 0, -1, tick)

    def meet_streams(self, operation: Operation) -> None:
        """``operation``, which is under way, has streams of reads beside it from now on."""
        self._parts = operation.parts_beside
        self._pim_refresh["share"] = operation.beside.stall_share

    def meet_writes(self, operation: Operation) -> None:
        """The same of writes."""
        self.flow["write_stream"], self.flow["write_pim"] = operation.beside_writes

    def hold_up(self, ticks: Ints) -> None:
        """Streams that are under way go on so much later on each channel: it writes what PIM has
        left."""
        flow = self.flow
        later = np.maximum(flow["begin"], self.tick) + ticks
        flow["begin"] = np.where((ticks > 0) & (self.left > 0), later, flow["begin"])

    def next_completion(self, targets: Ints, limit: int) -> tuple[int, int]:
        """The first of ``targets``, (transfers, channels), that is done before ``limit``: its tick
        and number, or ``limit``."""
        tick, row = next_completion(
            self.flow, self._parts, self.tick, limit, targets, self._pim_refresh[0],
            self._stretches, self._stops[0],
        )  # fmt: skip
        return tick, row

    def operation_end(self, limit: int) -> int:
        """Tick at which the commands of the PIM operation are out, or ``limit``."""
        tick: int = pim_end(
            self.flow, self._parts, self.tick, limit, self._pim_refresh[0], self._stretches,
            self._stops[0],
        )  # fmt: skip
        return tick

    def step(self, tick: int) -> int:
        """Go to ``tick``, or to where a channel sets out before; the tick reached. Work is
        remembered as a line from one such stop to the next."""
        upto: int = next_begin(self.flow, self.tick, tick)
        step(
            self.flow, self._parts, self.tick, upto, self._pim_refresh[0], self._stretches,
            self._stops[0], self.trail,
        )  # fmt: skip
        self._next_writes()
        self.tick = upto
        return upto
