"""Which channel of a machine's memory each request's cache lies on, while a service runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.serving.records import NONE

__all__ = ["Channels"]


@njit(cache=True)
def _place(
    entries: Any, count: int, channel: Any, load: Any, work: Any, following: int,
    least_loaded: bool,
) -> int:  # fmt: skip
    """Give a channel to each request that begins; the one that follows in turn."""
    fresh = 0
    for at in range(count):
        if channel[entries[at].request] < 0 or entries[at].context == entries[at].new:
            channel[entries[at].request] = NONE
            fresh += 1
    if fresh == 0:
        return following
    load[:] = 0
    for at in range(count):
        own = channel[entries[at].request]
        if own >= 0:
            load[own] += work[min(entries[at].context, len(work) - 1)]
    for at in range(count):
        row = entries[at].request
        if channel[row] >= 0:
            continue
        if least_loaded:
            own = np.argmin(load)
        else:
            own = following
            following = (following + 1) % len(load)
        channel[row] = own
        load[own] += work[min(entries[at].context, len(work) - 1)]
    return following


class Channels:
    """Deals requests out to channels.

    A request keeps its channel until it is put out of the cache. A new one goes to the channel
    with the least work of the step's other requests, or to the next one in turn.

    Parameters
    ----------
    channels
        How many there are.
    work : shape (contexts,)
        By context: what attention to it is worth.
    least_loaded
        Else in turn.
    """

    def __init__(self, channels: int, work: NDArray[np.int64], least_loaded: bool) -> None:
        self.of = np.zeros(0, dtype=np.int32)
        """By row of the service's requests: its channel; negative: none yet."""
        self._load = np.zeros(channels, dtype=np.int64)
        self._work = work
        self._least_loaded = least_loaded
        self._following = 0

    def place(self, entries: Any, count: int, requests: int) -> None:
        """See that each of the ``count`` entries' requests, of ``requests`` in all, has one."""
        if len(self.of) != requests:
            self.of = np.full(requests, NONE, dtype=np.int32)
        self._following = _place(
            entries, count, self.of, self._load, self._work, self._following, self._least_loaded
        )
