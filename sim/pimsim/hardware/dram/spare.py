"""Large arrays that one simulation after the other uses: a page is fetched from the system once.

A board is 0.8 GB of addresses and a channel 0.7 MB, of which a run touches a few MB and 80 KB. An
array is lent again as soon as nobody holds it, or a view of it, any more, so that a process that
simulates for hours holds as much as it did after its first run.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

__all__ = ["clear", "lend"]

Records = NDArray[np.void]
MOST = 3
"""Arrays of a kind that are kept: a device's, and two of a probe that takes turns."""

_kept: dict[np.dtype[np.void], list[Records]] = {}
_lock = Lock()


def _zeros(dtype: np.dtype[np.void], count: int) -> Records:
    """An array of its own pages, each of which takes memory when it is first written.

    numpy asks the system for huge pages, which take 2 MB for one byte that is touched: hundreds of
    channels that use a tenth of their addresses would take all of them.
    """
    length = max(count * dtype.itemsize, 1)
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(count, dtype=dtype)
    pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=dtype, count=count)


def _holders(arrays: list[Records], at: int) -> int:
    return sys.getrefcount(arrays[at])


_NOBODY = _holders([_zeros(np.dtype([("none", np.int64)]), 1)], 0)
"""What ``_holders`` says of an array that only its list holds."""


def lend(dtype: np.dtype[np.void], count: int) -> tuple[Records, bool]:
    """Records that nobody else has; new ones are zero, those that somebody had hold what he left.

    Parameters
    ----------
    dtype
        Structured; arrays are kept by it.
    count
        Records.

    Returns
    -------
    (Records, bool)
        (count,), and whether somebody had them before.
    """
    with _lock:
        arrays = _kept.setdefault(dtype, [])
        idle = [at for at in range(len(arrays)) if _holders(arrays, at) <= _NOBODY]
        for at in idle:
            if len(arrays[at]) >= count:
                return arrays[at][:count], True
        made = _zeros(dtype, count)
        if idle:  # too small: the larger one serves both
            arrays[idle[0]] = made
        elif len(arrays) < MOST:
            arrays.append(made)
        return made[:], False


def clear(records: Records, places: Mapping[str, int]) -> None:
    """Zero all fields; of those in ``places`` only so many entries along their first axis.

    Parameters
    ----------
    records
        (records,); changed.
    places
        Entries of a field that are in use; fields that are not named are zeroed whole.
    """
    for name in records.dtype.names or ():
        if name in places:
            records[name][:, : places[name]] = 0
        else:
            records[name] = 0
