"""What a picture shows, apart from how it is drawn.

Two kinds suffice: lanes of spans (bars, stacks, Gantt) and points and lines on two axes. Each is
drawn by ``draw`` (matplotlib, for paper) and by ``interactive`` (bokeh, for the page), so both say
the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Chart", "LaneChart", "Line", "Point", "PointSeries", "Span", "XYChart"]

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
    y_range: tuple[float, float] | None = field(default=None)
    x_names: tuple[str, ...] = ()
    """What stands at 0, 1, 2 ... where x is no number."""


Chart = LaneChart | XYChart
