"""The vector units of a device: one set, for the NPU's own work and for what follows PIM's results.

Whoever asks first is served first; a unit that one has the other waits for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["VectorUnits", "list_scheduled"]

Ints = NDArray[np.int64]


class VectorUnits:
    """When each unit is free, in cycles of the memory."""

    def __init__(self, count: int) -> None:
        self.free: Ints = np.zeros(count, np.int64)
        """Cycle from which each unit is free."""

    def take(self, ends: Ints) -> None:
        """The NPU has each unit up to ``ends``, where these are later than what is known."""
        self.free[:] = np.maximum(self.free, ends)


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
