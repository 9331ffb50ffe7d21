"""The points of a sweep over any two figures, chosen in the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pimsim.report.palette import SERIES_COLOURS
from pimsim.result.metrics import METRICS

__all__ = ["FreeAxes", "Named", "free_axes"]

_MOST_SERIES = 7
_GREY = "#8a8f96"
_DIGITS = 6


@dataclass(frozen=True)
class Named:
    """A point: the machine that it is of, and the row of the table that it stands in."""

    machine: str
    words: str
    """All that tells it from others."""
    row: Any
    """Its figures by column."""


@dataclass(frozen=True)
class FreeAxes:
    """What the page draws: points over two of its figures."""

    figures: tuple[tuple[str, str], ...]
    """Name and label of each that may be chosen."""
    across: str
    """Chosen at first, by name."""
    up: str
    legend: tuple[tuple[str, str], ...]
    """Names and colours of machines."""
    points: tuple[tuple[int, str, tuple[float | None, ...]], ...]
    """Place in the legend, words, and a value each of the figures."""

    def data(self) -> dict[str, Any]:
        """The same as the page's script reads it."""
        return {
            "figures": [list(each) for each in self.figures],
            "colours": [colour for _, colour in self.legend],
            "points": [list(each) for each in self.points],
        }


def free_axes(
    points: Sequence[Named], keys: Sequence[str], across: str, up: str, order: Sequence[str] = ()
) -> FreeAxes | None:
    """Points over any two figures that differ among them: metrics, and swept keys that are
    numbers. None where fewer than two do.

    Parameters
    ----------
    points
        At most some thousand; machines that come first have a colour of their own.
    keys
        That are swept.
    across, up
        Metrics of the axes that are shown at first, where they differ.
    order
        Names of machines, as other pictures give them their colours; by default that of points.
    """
    columns = {name: (label, values) for name, label, values in _columns(points, keys)}
    if len(columns) < 2:
        return None
    names = list(columns)
    first = up if up in columns else names[0]
    second = across if across in columns and across != first else next(
        name for name in names if name != first
    )  # fmt: skip
    machines = list(dict.fromkeys(point.machine for point in points))
    shown = machines if len(machines) <= _MOST_SERIES else machines[: _MOST_SERIES - 1]
    shown = [name for name in dict.fromkeys((*order, *machines)) if name in set(shown)]
    legend = [(name, SERIES_COLOURS[at % len(SERIES_COLOURS)]) for at, name in enumerate(shown)]
    if len(shown) < len(machines):
        legend.append((f"{len(machines) - len(shown)} other machines", _GREY))
    place = {name: at for at, name in enumerate(shown)}
    found = (
        (
            place.get(point.machine, len(shown)), point.words,
            tuple(values[at] for _, values in columns.values()),
        )
        for at, point in enumerate(points)
    )  # fmt: skip
    figures = tuple((name, label) for name, (label, _) in columns.items())
    return FreeAxes(figures, second, first, tuple(legend), tuple(found))


def _columns(
    points: Sequence[Named], keys: Sequence[str]
) -> Iterator[tuple[str, str, list[float | None]]]:
    """Name, label and values of all that differs."""
    for name, metric in METRICS.items():
        values = [_rounded(metric.of(point.row)) for point in points]
        scaled = [100 * v if v is not None and metric.unit.startswith("%") else v for v in values]
        if len(set(values) - {None}) > 1:
            yield name, metric.label, scaled
    for key in keys:
        given = [point.row[key] for point in points]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in given) and (
            len(set(given)) > 1
        ):
            yield key, key, [_rounded(float(v)) for v in given]


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if isfinite(value) else None
