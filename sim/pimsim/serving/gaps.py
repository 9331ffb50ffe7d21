"""How often which gap between two tokens came: a histogram that never grows.

A power of two has 2^11 bins, so that a percentile is off by less than 0.05 %.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit

__all__ = ["gap_percentile", "mean_gap_ps", "new_gaps", "note_gap"]

_PARTS = 2048
_OCTAVES = 64
_TOTAL, _COUNT = _PARTS * _OCTAVES, _PARTS * _OCTAVES + 1


def new_gaps() -> NDArray[np.int64]:
    """Without a gap; behind the bins their sum and their number."""
    return np.zeros(_COUNT + 1, dtype=np.int64)


@njit(cache=True)
def note_gap(gaps: Any, gap_ps: int, times: int = 1) -> None:
    """Count a gap.

    Parameters
    ----------
    gaps
        Histogram; written.
    gap_ps
        0 or more.
    times
        How often it came.
    """
    part, octave = math.frexp(float(gap_ps))
    gaps[octave * _PARTS + int((part - 0.5) * 2 * _PARTS) if gap_ps > 0 else 0] += times
    gaps[_TOTAL] += gap_ps * times
    gaps[_COUNT] += times


def mean_gap_ps(gaps: NDArray[np.int64]) -> float:
    """The mean of all gaps.

    Parameters
    ----------
    gaps
        Histogram of ``note_gap``, its count and its sum.

    Returns
    -------
    float
        Picoseconds; NaN without any.
    """
    return float(gaps[_TOTAL] / gaps[_COUNT]) if gaps[_COUNT] else float("nan")


def gap_percentile(gaps: NDArray[np.int64], share: float) -> float:
    """The gap that ``share`` (0 to 1) of all do not exceed, in picoseconds, between the two nearest
    ranks (``numpy.quantile``'s rule, which all percentiles of a service follow).

    Parameters
    ----------
    gaps
        Histogram of ``note_gap``, its count and its sum.
    share
        0 to 1.

    Returns
    -------
    float
        Picoseconds; NaN without any.
    """
    if not gaps[_COUNT]:
        return float("nan")
    below = np.cumsum(gaps[:_TOTAL])
    place = share * (int(below[-1]) - 1)
    rank = math.floor(place)
    low, high = (
        _middle(int(np.searchsorted(below, at, side="right"))) for at in (rank, math.ceil(place))
    )
    return low + (high - low) * (place - rank)


def _middle(bin_: int) -> float:
    """Picoseconds in the middle of a bin."""
    octave, part = divmod(bin_, _PARTS)
    return 0.0 if octave == 0 else math.ldexp(0.5 + (part + 0.5) / (2 * _PARTS), octave)
