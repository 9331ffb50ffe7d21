"""A clock that stands still while a channel refreshes.

All channels are refreshed at the same moments, a whole rank at a time, and neither streams nor PIM
get on meanwhile. Short operations see none, one or two refreshes, so that they cannot be spread
over time; on a clock that leaves them out everything else drains evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RefreshClock"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RefreshClock:
    """Ticks without those in which refresh stops a channel."""

    interval: int
    """Ticks from one refresh to the next; the first comes after so many."""
    stall: int
    """Ticks that each takes; 0: the clock never stops."""

    def active(self, tick: int) -> int:
        """Ticks up to ``tick`` in which the channels were not stopped."""
        if not self.stall or tick <= self.interval:
            return tick
        count, phase = divmod(tick, self.interval)
        return tick - (count - 1) * self.stall - min(phase, self.stall)

    def active_of(self, ticks: Ints) -> Ints:
        """``active``, element by element."""
        if not self.stall:
            return ticks
        count, phase = np.divmod(ticks, self.interval)
        lost: Ints = np.maximum(count - 1, 0) * self.stall
        lost += np.where(count > 0, np.minimum(phase, self.stall), 0)
        return ticks - lost

    def wall(self, active: int) -> int:
        """The first tick up to which ``active`` ticks were not stopped."""
        if not self.stall or active <= self.interval:
            return active
        refreshes = 1 + (active - self.interval - 1) // (self.interval - self.stall)
        return active + refreshes * self.stall

    def wall_of(self, active: Ints) -> Ints:
        """``wall``, element by element."""
        if not self.stall:
            return active
        refreshes = 1 + (active - self.interval - 1) // (self.interval - self.stall)
        stopped: Ints = np.maximum(refreshes, 0) * self.stall
        return active + stopped
