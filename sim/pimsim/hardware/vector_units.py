"""The vector units of a device: one set, for the NPU's own work and for what follows PIM's results.

Whoever asks first is served first; a unit that one has the other waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["VectorUnits", "lane_share", "list_scheduled", "shared_end"]

Ints = NDArray[np.int64]


class VectorUnits:
    """When each unit is free, in cycles of the memory."""

    def __init__(self, count: int) -> None:
        self.free: Ints = np.zeros(count, np.int64)
        """Cycle from which each unit is free."""
        self._tiles: Ints = np.zeros(count, np.int64)  # up to which tiles of attention have each
        self._others: Ints = np.zeros(count, np.int64)

    def take(self, ends: Ints) -> None:
        """The NPU has each unit up to ``ends``, where these are later than what is known."""
        self.free[:] = np.maximum(self.free, ends)

    def behind_others(self) -> Ints:
        """Cycle from which each unit is free but for tiles of attention: lanes whose tiles share a
        unit have their parts of it at the same time."""
        self._others = np.where(self.free > self._tiles, self.free, self._others)
        return self._others

    def take_for_tile(self, units: Ints, end: int) -> None:
        """A tile of attention has these ``units`` up to cycle ``end``, or its share of them."""
        self.behind_others()
        self.free[units] = np.maximum(self.free[units], end)
        self._tiles[units] = self.free[units]


def list_scheduled(starts: Ints, each: int, vectors: int) -> Ints:
    """When each unit ends, so many vectors being dealt to whichever is free first.

    Parameters
    ----------
    starts
        Cycle from which each unit is free.
    each
        Cycles of one vector, at least 1.
    vectors
        How many.

    Returns
    -------
    ndarray
        A cycle for each unit; its start where it has no vector.
    """

    def done(cycle: int) -> Ints:
        return np.maximum(cycle - starts, 0) // each

    low, high = int(starts.min()), int(starts.min()) + each * vectors
    while low < high:
        middle = (low + high) // 2
        if int(done(middle).sum()) >= vectors:
            high = middle
        else:
            low = middle + 1
    count = done(low)
    ends: Ints = starts + each * count
    # of those that would end in the last cycle, as many as are too many do one less
    last = np.flatnonzero((ends == low) & (count > 0))[: int(count.sum()) - vectors]
    ends[last] -= each
    return ends


def lane_share(lane: int, lanes: int, units: int) -> dict[int, Fraction]:
    """What one of ``lanes`` that share ``units`` evenly has of each: its own whole units, and parts
    of those at its edges; by number of the unit.

    Parameters
    ----------
    lane
        Number of it, from 0.
    lanes
        That share the units.
    units
        Of the device.
    """
    first, end = Fraction(lane * units, lanes), Fraction((lane + 1) * units, lanes)
    return {
        unit: min(end, Fraction(unit + 1)) - max(first, Fraction(unit))
        for unit in range(int(first), -(-end.numerator // end.denominator))
    }


def shared_end(starts: Sequence[int], parts: Sequence[Fraction], work: int) -> int:
    """First cycle by which units have done ``work`` cycles, that can be cut as one likes.

    Parameters
    ----------
    starts
        Cycle from which each unit is free.
    parts
        What may be had of each unit from then on, above 0 and at most 1.
    work
        Cycles of whole units.
    """
    rate = done = Fraction(0)  # of the units that are free by now: parts, and parts times starts
    free = sorted(zip(starts, parts, strict=True))
    for number, (start, part) in enumerate(free):
        rate, done = rate + part, done + part * start
        end = (work + done) / rate
        if number + 1 == len(free) or end <= free[number + 1][0]:
            break
    return -(-end.numerator // end.denominator)
