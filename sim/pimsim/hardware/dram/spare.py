"""Large arrays that one simulation after the other uses: a page is fetched from the system once.

A board is 0.8 GB of addresses of which a run touches a few MB; a device's channels are 55 MB. An
array is lent again as soon as nobody holds it, or a view of it, any more, so that a process that
simulates for hours holds as much as it did after its first run.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from threading import Lock

import numpy as np
from numpy.typing import NDArray

__all__ = ["clear", "lend"]

Records = NDArray[np.void]
MOST = 3
"""Arrays of a kind that are kept: a device's, and two of a probe that takes turns."""

_kept: dict[np.dtype[np.void], list[Records]] = {}
_lock = Lock()


def _holders(arrays: list[Records], at: int) -> int:
    return sys.getrefcount(arrays[at])


_NOBODY = _holders([np.zeros(1, np.dtype([("none", np.int64)]))], 0)
"""What ``_holders`` says of an array that only its list holds."""


def lend(dtype: np.dtype[np.void], count: int) -> tuple[Records, bool]:
    """``count`` records that nobody else has, and whether somebody had them before: then they hold
    what he left; new ones are zero."""
    with _lock:
        arrays = _kept.setdefault(dtype, [])
        idle = [at for at in range(len(arrays)) if _holders(arrays, at) <= _NOBODY]
        for at in idle:
            if len(arrays[at]) >= count:
                return arrays[at][:count], True
        made = np.zeros(count, dtype=dtype)
        if idle:  # too small: the larger one serves both
            arrays[idle[0]] = made
        elif len(arrays) < MOST:
            arrays.append(made)
        return made[:], False


def clear(records: Records, but: Collection[str] = ()) -> None:
    """Zero all fields but those whose content is written before it is read."""
    for name in records.dtype.names or ():
        if name not in but:
            records[name] = 0
