"""Who of several equal takers is free first (kernel)."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit

__all__ = ["take_earliest"]


@njit(cache=True)
def take_earliest(free: Any, until: Any) -> None:
    """Let the one that is free first, ``free[0]``, be busy until ``until``, no earlier than that.

    Parameters
    ----------
    free
        (takers,): a binary heap of the times at which each is free, as zeros are; written.
    until
        Time, of the unit of ``free``.
    """
    count = len(free)
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and free[child + 1] < free[child]:
            child += 1
        if free[child] >= until:
            break
        free[at] = free[child]
        at = child
    free[at] = until
