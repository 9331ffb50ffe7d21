"""The PIM operation under way at ``fast`` fidelity: its vector work, and its cycles by cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.flow import ONE, TICKS, settle
from pimsim.hardware.dram.fast.operations import Operation
from pimsim.hardware.dram.layout import X_COMPUTE, X_REFRESH, Records
from pimsim.hardware.dram.transfers import Group, ResultWork

__all__ = ["RunningOperation"]

Ints = NDArray[np.int64]


@dataclass
class RunningOperation:
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

    def settle(self, ready: Ints, count: int, not_before: int = 0) -> None:
        """Give vector units to what follows the results up to the first ``count``.

        Parameters
        ----------
        ready
            Cycles at which the results that have no unit yet are read, (count - settled,).
        count
            Results that have a unit then.
        not_before
            Cycle before which no vector work begins.
        """
        assert self.after is not None
        own = slice(self.settled, count)
        self.last, used = settle(
            ready, self.after.duration[own], self.last, self.unit_free, not_before,
            self.finish[own],
        )  # fmt: skip
        self.group.vector_busy_cycles += int(used)
        self.settled = count

    def causes(self, flow: Records, spent: Ints) -> Ints:
        """Cycles of each channel's PIM commands by cause.

        As in the channels that were run alone, and as beside streams for as long as there were
        some; what refreshes cost, while the clock or PIM stood still, is refresh and opening rows
        again.

        Parameters
        ----------
        flow
            Of each channel, (channels,).
        spent
            Cycles from its start to each channel's last command, (channels,).

        Returns
        -------
        numpy.ndarray
            (channels, N_CAUSES).
        """
        operation = self.operation
        spent = np.where(operation.work > 0, spent, 0)
        worked = (flow["pim_end"] - flow["pim_begin"] - flow["pim_waited"]) // TICKS
        worked = np.clip(worked, 0, spent)
        beside = np.minimum(flow["pim_beside"] // TICKS, worked)
        refresh = (spent - worked) * operation.stall.share // ONE
        causes = np.stack([operation.causes] * 2)
        if self.met_streams:
            causes[1] = operation.beside.causes
        times = np.stack([spent - refresh - beside, beside], axis=1)
        stack: Ints = (times @ causes).astype(np.int64)
        stack[:, X_REFRESH] += refresh
        stack[:, X_COMPUTE] += spent - stack.sum(axis=1)  # what was rounded off
        return stack
