"""How far the channels were when, at ``fast`` fidelity: lines of work over time, from stop to stop.

Rates change where something is submitted or complete. Between two such stops work drains along a
line, so that when any part of it was done is read off the lines; they are kept as long as anybody
may ask.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.books import Transfer
from pimsim.hardware.dram.fast.flow import TRAIL
from pimsim.hardware.dram.fast.running import RunningOperation
from pimsim.hardware.dram.layout import Records

__all__ = ["History"]

Ints = NDArray[np.int64]


class History:
    """Stops so far, in ticks on the clock that leaves out refresh."""

    def __init__(self, done: Ints) -> None:
        """``done``: of each channel's streams at tick 0, (channels,)."""
        self._times: deque[int] = deque([0])
        self._drained: deque[tuple[Ints, Ints]] = deque([(done.copy(),) * 2])
        """At each stop, of streams and of PIM, by channel."""
        self._ends: deque[tuple[Ints, Ints]] = deque()
        """Of PIM operations: when they ended on each channel, and what its streams had done."""

    def note(self, tick: int, flow: Records, oldest: int) -> None:
        """A stop at ``tick``; nobody asks for what was before ``oldest`` any more."""
        while len(self._times) > 1 and self._times[1] <= oldest:
            self._times.popleft()
            self._drained.popleft()
        while self._ends and self._ends[0][0].max() < self._times[0]:
            self._ends.popleft()
        self._times.append(tick)
        self._drained.append((flow["done"].copy(), flow["pim_done"].copy()))

    def end_operation(self, flow: Records) -> None:
        """A PIM operation is complete: rates changed where it ended on each channel."""
        self._ends.append((flow["pim_end"].copy(), flow["end_done"].copy()))

    @property
    def still(self) -> bool:
        """Whether nothing was done between the last two stops."""
        return all(map(np.array_equal, self._drained[-1], self._drained[-2]))

    def arrivals(self, done: Transfer, flow: Records, trail: Ints) -> NDArray[Any]:
        """When each block of a transfer had come on the channel that was last.

        Parameters
        ----------
        done
            The transfer, which is complete.
        flow
            Of each channel, (channels,).
        trail
            Of each channel, its last stops for refreshes: begin, end and work done, (channels,
            TRAIL, 3).

        Returns
        -------
        numpy.ndarray
            Ticks, (blocks,).
        """
        before = self._drained[-2][0] if len(self._drained) > 1 else done.first
        late = int((done.end - before).argmax())
        own = flow[late]
        ends = [(int(at[late]), int(drained[late])) for at, drained in self._ends]
        ends.append((int(own["pim_end"]), int(own["end_done"])))
        # rates changed where a PIM operation ended on this channel
        line = [end for end in ends if end[0] >= self._times[0]]
        stops = trail[late, : min(int(own["stops"]), TRAIL)]
        for begin, end, at in stops[stops[:, 0] >= self._times[0]].tolist():
            line += [(begin, at), (end, at)]
        line += zip(self._times, (int(each[0][late]) for each in self._drained), strict=True)
        line.sort()
        times, drained = np.array(line).T
        share = done.blocks * (done.end[late] - done.first[late])
        needed = np.minimum(done.first[late] + share.astype(np.int64), own["done"])
        arrived: NDArray[Any] = np.interp(needed, drained, times)
        return arrived

    def asked(self, running: RunningOperation, marks: slice, ends: Ints) -> NDArray[Any]:
        """When the last result of each of ``marks`` was asked for.

        Parameters
        ----------
        running
            The operation.
        marks
            Of its results.
        ends
            When it ended on each channel, below 0 where it has not, (channels,).

        Returns
        -------
        numpy.ndarray
            Ticks, (marks,).
        """
        operation = running.operation
        times = np.array(self._times)
        drained = np.array([each[1] for each in self._drained])
        # the operation before may still stand in the oldest entries
        begin = int(np.searchsorted(times, running.begun, side="right")) - 1
        work, channel = operation.mark_work[marks], operation.mark_channel[marks]
        asked = np.zeros(len(work))
        for c in np.unique(channel).tolist():
            own = channel == c
            stops, end = times[begin:], int(ends[c])
            if end >= 0:  # a channel that was done between two stops was so at its own time
                stops = np.minimum(stops, end)
            asked[own] = np.interp(work[own], drained[begin:, c], stops)
        return asked
