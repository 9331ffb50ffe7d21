"""What a picture shows, apart from how it is drawn.

Two kinds suffice: lanes of spans (bars, stacks, Gantt) and points and lines on two axes. Each is
drawn by ``draw`` (matplotlib, for paper) and by ``interactive`` (bokeh, for the page), so both say
the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log10

__all__ = ["Chart", "LaneChart", "Line", "Point", "PointSeries", "Span", "XYChart", "labels"]

Facts = tuple[tuple[str, str], ...]
"""What one reads on a mark: names and values, with units."""


@dataclass(frozen=True)
class Span:
    """A bar from ``start`` to ``end`` in a lane."""

    lane: str
    start: float
    end: float
    series: str
    """What its colour stands for."""
    facts: Facts = ()
    text: str = ""
    """Written beside the bar's end."""


@dataclass(frozen=True)
class LaneChart:
    """Horizontal bars in named lanes, the first on top."""

    key: str
    title: str
    caption: str
    x_label: str
    """With its unit."""
    lanes: tuple[str, ...]
    spans: tuple[Span, ...]
    colours: dict[str, str]
    """By series, in the order of the legend."""
    legend: bool = True

    @property
    def x_end(self) -> float:
        """Where the axis ends: with the last bar, with room for what is written behind bars."""
        last = max((span.end for span in self.spans), default=0.0) or 1.0
        return last * 1.1 if any(span.text for span in self.spans) else last


@dataclass(frozen=True)
class Point:
    """A point, with what one reads on it."""

    x: float
    y: float
    facts: Facts = ()
    text: str = ""
    weight: float = 0.0
    """0 to 1: how large it is drawn."""


@dataclass(frozen=True)
class PointSeries:
    """Points of one colour."""

    name: str
    colour: str
    points: tuple[Point, ...]
    marker: str = "circle"
    """``circle``, ``square``, ``triangle``, ``diamond``."""


@dataclass(frozen=True)
class Line:
    """A line through points; ``step``: a value holds until the next."""

    name: str
    colour: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False
    step: bool = False
    above: bool = False
    """Over the points, not below them."""


@dataclass(frozen=True)
class XYChart:
    """Points and lines on two axes."""

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    points: tuple[PointSeries, ...] = ()
    lines: tuple[Line, ...] = ()
    x_log: bool = False
    y_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = field(default=None)
    x_names: tuple[str, ...] = ()
    """What stands at 0, 1, 2 ... where x is no number."""
    x_ticks: tuple[float, ...] = ()
    """Where x has its ticks; empty: wherever."""


Chart = LaneChart | XYChart
_NEAR = 0.12
"""Decades within which names of points share a place."""


def labels(series: PointSeries, chart: XYChart) -> list[tuple[float, float, str]]:
    """Where names are written: x, y, text; of points that lie near each other, all in one place.

    Parameters
    ----------
    series
        Whose points are named.
    chart
        Whose axes say what is near.
    """

    def place(point: Point) -> tuple[float, float]:
        x = log10(point.x) if chart.x_log and point.x > 0 else point.x
        y = log10(point.y) if chart.y_log and point.y > 0 else point.y
        return x, y

    near = _NEAR if chart.x_log and chart.y_log else 0.0
    groups: list[list[Point]] = []
    for point in sorted(series.points, key=lambda each: -each.y):
        if not point.text:
            continue
        x, y = place(point)
        for group in groups:
            first_x, first_y = place(group[0])
            if abs(x - first_x) <= near and abs(y - first_y) <= near:
                group.append(point)
                break
        else:
            groups.append([point])
    return [
        (group[0].x, group[0].y, ", ".join(dict.fromkeys(point.text for point in group)))
        for group in groups
    ]
