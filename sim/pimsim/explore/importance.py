"""Which key an objective hangs on, by an additive fit over points that were tried.

The objective is taken as a mean and a function of each key, and what no such sum explains: values
of several keys together. A key's share is the variance of its function over the points, of the sum
of all keys' and of the rest's: the main effects of a functional analysis of variance (Hooker 2007,
Journal of Computational and Graphical Statistics 16), fitted together, so that a key is not given
what another one did that a sampler changed along with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Importance", "importance"]

Reals = NDArray[np.float64]
Value = bool | int | float | str | None

_DEGREES = (4, 3, 2, 1)
"""Of the polynomial that stands for a key with numbers: the first whose fit has half as many
coefficients as points."""


@dataclass(frozen=True)
class Importance:
    """Shares of an objective's variance over ``points`` different points; they add up to 1, or are
    all 0 where the objective is the same everywhere."""

    points: int
    keys: dict[str, float]
    together: float
    """What keys do in combination, and what no smooth function of one says."""


def importance(
    points: Sequence[Mapping[str, Value]], values: Sequence[float],
    axes: Mapping[str, Callable[[float], float]],
) -> Importance | None:  # fmt: skip
    """What each key adds to the variance of an objective.

    Parameters
    ----------
    points
        Different ones, each a value by key.
    values
        The objective's at each.
    axes
        Keys with numbers, and the scale on which they are even (such as ``log``); other keys'
        values are names.

    Returns
    -------
    Importance or None
        None: too few points to tell the keys apart.
    """
    if not points:
        return None
    y = np.array(values, dtype=np.float64)
    fitted = _fit(points, y - y.mean(), axes)
    if fitted is None:
        return None
    parts, rest, free = fitted
    # a coefficient takes up its part of the rest by chance (omega squared; Hays 1963)
    noise = float(rest @ rest) / free
    found = {
        key: max(float(part @ part) - count * noise, 0.0) / len(y)
        for key, (part, count) in parts.items()
    }
    # what rounding leaves of equal values is nothing
    floor = (1e-12 * float(np.abs(y).max())) ** 2
    whole = fsum(found.values()) + noise
    if whole <= floor:
        return Importance(len(y), dict.fromkeys(found, 0.0), 0.0)
    return Importance(len(y), {key: part / whole for key, part in found.items()}, noise / whole)


def _fit(
    points: Sequence[Mapping[str, Value]], y: Reals, axes: Mapping[str, Callable[[float], float]]
) -> tuple[dict[str, tuple[Reals, int]], Reals, int] | None:
    """Each key's function at the points with the number of its coefficients, what is left, and how
    many points are left over; None where there are none."""
    for degree in _DEGREES:
        columns = {
            key: _columns([point[key] for point in points], axes.get(key), degree)
            for key in points[0]
        }
        count = sum(each.shape[1] for each in columns.values())
        if 2 * (count + 1) <= len(y) or (degree == _DEGREES[-1] and count + 1 < len(y)):
            break
    else:
        return None
    whole = np.hstack([*columns.values()])
    solved = np.linalg.lstsq(whole, y, rcond=None)[0]
    parts, at = {}, 0
    for key, each in columns.items():
        parts[key] = each @ solved[at : at + each.shape[1]], each.shape[1]
        at += each.shape[1]
    return parts, y - whole @ solved, len(y) - 1 - count


def _columns(values: Sequence[Value], axis: Callable[[float], float] | None, degree: int) -> Reals:
    """What a key's function is a sum of, at each point, of mean 0 over the points: Legendre's
    polynomials of numbers, one column for each name but the last."""
    if axis is None:
        names = list(dict.fromkeys(values))
        found = np.array([[float(value == name) for name in names[:-1]] for value in values])
    else:
        x = np.array([axis(float(value)) for value in values if not isinstance(value, str | None)])
        low, high = float(x.min()), float(x.max())
        levels = len(np.unique(x))
        scaled = np.zeros_like(x) if low == high else (2 * x - low - high) / (high - low)
        found = np.polynomial.legendre.legvander(scaled, min(degree, levels - 1))[:, 1:]
    centred: Reals = found - found.mean(axis=0)
    return centred
