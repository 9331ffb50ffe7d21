"""A device's memory with ``channel-queues`` controllers: streams in, completion times out.

The same service as ``MemorySystem``, whose streams, tickets and windows it shares; cycles are
ticks of the command bus. No PIM.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import complete
from pimsim.hardware.dram.channel_queues.layout import (
    C_COMMANDS,
    Records,
    make_channels,
    make_parameters,
)
from pimsim.hardware.dram.channel_queues.requests import enqueue, find_write
from pimsim.hardware.dram.channel_queues.single_slot import step_as_configured
from pimsim.hardware.dram.layout import O_BLOCK, O_BURST, O_GROUP, O_WRITE
from pimsim.hardware.dram.parameters import refreshes_overrun
from pimsim.hardware.dram.rules import COMMANDS, compile_rules
from pimsim.hardware.dram.samples import NEXT, next_sample, sum_channels
from pimsim.hardware.dram.sources import next_offer, offer
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.windows import group_bound
from pimsim.hardware.ticks import Ticks

__all__ = ["QueueMemorySystem"]


@njit(cache=True, inline="always")
def _field(p: Any, at: int, burst: int) -> int:
    """Field ``at`` of a channel's own burst index."""
    return int((burst >> p.field[at, 0]) & ((1 << p.field[at, 1]) - 1))


@njit(cache=True)
def _admit(
    ch: Any, p: Any, board: Any, tick: int, write: int, burst: int, group: int, block: int
) -> None:  # fmt: skip
    """Queue a request for ``burst``. A read of a buffered write is answered in the next tick."""
    if write == 0 and find_write(ch, burst):
        complete(board, group, tick + 1)
        if block >= 0:
            complete(board, block, tick + 1)
        return
    bank = (_field(p, 5, burst) << p.half_shift) + (_field(p, 1, burst) << p.rank_shift)
    bank += (_field(p, 2, burst) << p.group_shift) + _field(p, 3, burst)
    enqueue(ch, tick, tick, write, bank, _field(p, 0, burst), burst, group, block)


@njit(cache=True, inline="always")
def _takes(ch: Any, p: Any) -> bool:
    """Whether the channel takes the request that is offered: its queue has room, or it reads
    what a buffered write holds, which needs none."""
    write = ch.offered[O_WRITE]
    if ch.queued[write] < (p.write_depth if write == 1 else p.read_depth):
        return True
    return bool(write == 0 and find_write(ch, ch.offered[O_BURST]))


@njit(cache=True)
def _run_channel(ch: Any, p: Any, board: Any, until: int) -> None:
    """Simulate channel ``ch`` up to, not including, tick ``until``."""
    tick = ch.now
    while tick < until:
        if offer(ch, p, board, tick) and _takes(ch, p):
            ch.has_offer = 0
            _admit(
                ch, p, board, tick, ch.offered[O_WRITE], ch.offered[O_BURST],
                ch.offered[O_GROUP], ch.offered[O_BLOCK],
            )  # fmt: skip
        after = step_as_configured(ch, p, board, tick)
        if ch.has_offer == 0 or _takes(ch, p):
            after = min(after, next_offer(ch, p, board, tick))
        tick = after
    ch.now = tick


@njit(cache=True)
def _advance(
    channels: Any, parameters: Any, boards: Any, now: int, until: int,
    groups: Any, samples: Any, sampling: Any,
) -> tuple[int, int]:  # fmt: skip
    """Simulate until a group is complete or ``until``; ``(tick, index of the group or -1)``."""
    p, board = parameters[0], boards[0]
    while True:
        horizon = min(until, sampling[NEXT])
        fired = -1
        for g in range(len(groups)):
            bound = group_bound(channels, board, now, groups[g, 0], groups[g, 1])
            if bound <= now and fired < 0:
                fired = g
            horizon = min(horizon, max(bound, now + 1))
        if fired >= 0 or now >= until:
            return now, fired
        for c in range(len(channels)):
            if channels[c].now < horizon:
                _run_channel(channels[c], p, board, horizon)
        now = horizon
        if now >= sampling[NEXT]:
            row = next_sample(samples, sampling, now)
            sum_channels(channels, p.ranks, now, p.halves, samples[row])


class QueueMemorySystem(MemorySystem):
    """All channels of a device, ``channel-queues`` controllers."""

    def _make_parameters(self) -> Records:
        scale = self.memory.command_bus.ticks_per_clock
        return make_parameters(self.memory, compile_rules(self.memory, None, scale))

    def _make_channels(self) -> Records:
        return make_channels(self.memory, self.parameters)

    def _period_ps(self) -> Fraction | int:
        """Of a tick: half a clock where the command bus uses both edges."""
        bus = self.memory.command_bus
        return Ticks.of_period(Fraction(self.memory.tCK, bus.ticks_per_clock)).ps

    def _least_eighths(self, reads: bool, writes: bool) -> int:
        """At most one request is answered in a tick."""
        return 8

    def _step(self, limit: int) -> tuple[int, int]:
        groups = np.array([[g.ticket, g.eighths_each] for g in self._active], dtype=np.int64)
        reached = _advance(
            self.channels, self.parameters, self.board, self.now, limit,
            groups.reshape(-1, 2), *self.samples,
        )  # fmt: skip
        if self._refreshes_overrun():
            raise refreshes_overrun(self.memory)
        return reached

    def sample(self, row: NDArray[np.int64]) -> None:
        """See ``MemorySystem.sample``."""
        p = self.parameters[0]
        sum_channels(self.channels, int(p["ranks"]), self.now, int(p["halves"]), row)

    def _refreshes_overrun(self) -> bool:
        """Whether more refreshes were due than their ring holds."""
        return bool(self.channels["overrun"].any())

    def command_counts(self) -> dict[str, int]:
        """Commands issued on all channels, by name."""
        counts = self.channels["counter"][:, C_COMMANDS : C_COMMANDS + len(COMMANDS)]
        return dict(zip(COMMANDS, (int(n) for n in counts.sum(axis=0)), strict=True))
