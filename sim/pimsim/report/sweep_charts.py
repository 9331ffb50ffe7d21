"""Charts of a sweep: machines as lines, one front a group, where the time went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pimsim.explore.figures import kept_of_row
from pimsim.report.charts import Facts, LaneChart, Line, Point, PointSeries, Span, XYChart
from pimsim.report.palette import SERIES_COLOURS, cause_colour
from pimsim.report.sweep_groups import Entry, Roles, Values
from pimsim.result.bottleneck import Explained
from pimsim.result.metrics import METRICS
from pimsim.result.words import cause_words, ordered_causes, unit_words

if TYPE_CHECKING:
    import pandas

__all__ = [
    "MARKERS", "causes_chart", "front_of", "rate_chart", "stacks_chart", "ticks_of",
    "trade_off_chart", "unbeaten", "wide",
]  # fmt: skip

_MOST_LINES = 8
_MOST_MACHINES = 4
_GREY = "#999999"
_RATE, _ENERGY = METRICS["tokens_per_s"], METRICS["mj_per_token"]
MARKERS = ("circle", "square", "triangle", "diamond")
"""Of series, in turn."""
_DOUBLING = 1.5
"""Least ratio of neighbours on an axis that is logarithmic."""
_WIDE = 8.0
"""Ratio of the greatest to the least, from which on figures stand on a logarithmic axis."""


def front_of(gains: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Places of the Pareto front, the cheapest first: no other point gains as much at less cost,
    or more at as little. Of equal points the first.

    Parameters
    ----------
    gains
        Of each point; more is better.
    costs
        Of each point; less is better.
    """
    order = sorted(range(len(gains)), key=lambda i: (costs[i], -gains[i], i))
    front: list[int] = []
    best = float("-inf")
    for i in order:
        if gains[i] > best:
            front.append(i)
            best = gains[i]
    return front


def unbeaten(group: Sequence[Entry]) -> list[Entry]:
    """Points of a group on its front of throughput and energy, the most frugal first.

    Parameters
    ----------
    group
        Points that are asked the same.
    """
    front = front_of([each.rate for each in group], [each.energy for each in group])
    return [group[at] for at in front]


def _series(
    number: int, name: str, own: Sequence[Entry], x: Sequence[float], facts: Mapping[int, Facts]
) -> PointSeries:
    """Rates over ``x``, in the colour and with the mark of a chart's series of that number."""
    points = (
        Point(place, each.rate, facts[each.row]) for place, each in zip(x, own, strict=True)
    )  # fmt: skip
    colour = SERIES_COLOURS[number % len(SERIES_COLOURS)]
    return PointSeries(name, colour, tuple(points), MARKERS[number % len(MARKERS)])


def ticks_of(places: Sequence[float]) -> tuple[tuple[float, ...], bool]:
    """Where an axis has its ticks, if at all places; and whether it is logarithmic.

    Parameters
    ----------
    places
        Of the points on it.
    """
    different = sorted(set(places))
    steep = len(different) > 2 and different[0] > 0
    log = steep and all(b >= _DOUBLING * a for a, b in pairwise(different))
    return (tuple(different) if len(different) <= 12 else ()), log


def wide(values: Sequence[float]) -> bool:
    """Whether figures stand on a logarithmic axis.

    Parameters
    ----------
    values
        All of them.
    """
    return min(values, default=0.0) > 0 and max(values) >= _WIDE * min(values)


def rate_chart(
    found: Sequence[Entry], of: tuple[str, str], label: str, names: tuple[str, ...],
    machine: Callable[[Values], str], facts: Mapping[int, Facts],
) -> XYChart:  # fmt: skip
    """Throughput along the axis, a line a machine; of many machines the fastest ones.

    Parameters
    ----------
    found
        Points that are asked the same but for the axis.
    of
        What they are asked, in words, and what ends the chart's key.
    label
        Of the axis.
    names
        Of its places, where they are no numbers.
    machine
        Words for a machine.
    facts
        What one reads on a point, by its row.
    """
    by_machine: dict[Values, list[Entry]] = {}
    for each in sorted(found, key=lambda each: each.place):
        by_machine.setdefault(each.machine, []).append(each)
    order = list(dict.fromkeys(each.machine for each in found))
    chosen = order
    if len(order) > _MOST_LINES:
        ranked = sorted(order, key=lambda each: -max(one.rate for one in by_machine[each]))
        fastest = set(ranked[: _MOST_LINES - 1])
        chosen = [each for each in order if each in fastest]
    points, lines = [], []
    left = set(order) - set(chosen)
    others = [each for name in order if name in left for each in by_machine[name]]
    if others:
        points.append(
            PointSeries(
                f"{len(left)} other machines", _GREY,
                tuple(Point(each.place, each.rate, facts[each.row]) for each in others),
            )
        )  # fmt: skip
    for at, name in enumerate(chosen):
        own = by_machine[name]
        series = _series(at, machine(name), own, [each.place for each in own], facts)
        points.append(series)
        if len({each.place for each in own}) == len(own) > 1 and not names:
            x, y = tuple(each.place for each in own), tuple(each.rate for each in own)
            lines.append(Line(series.name, series.colour, x, y))
    ticks, log = ((), False) if names else ticks_of([each.place for each in found])
    title = f"{_RATE.words.capitalize()} by machine"
    return XYChart(
        f"rates{of[1]}", f"{title}: {of[0]}" if of[0] else title,
        "Each line is a machine, each point a run; only runs that are asked the same are compared.",
        label, _RATE.label, tuple(points), tuple(lines), x_log=log, x_names=names, x_ticks=ticks,
        y_log=wide([each.rate for each in found]),
    )  # fmt: skip


def trade_off_chart(
    found: Sequence[Entry], of: tuple[str, str], roles: Roles, facts: Mapping[int, Facts]
) -> XYChart:
    """Throughput against energy, one front a group.

    Parameters
    ----------
    found
        Points that are asked the same but for the axis.
    of
        What they are asked, in words, and what ends the chart's key.
    roles
        Of the keys.
    facts
        What one reads on a point, by its row.
    """
    groups: dict[Values, list[Entry]] = {}
    for each in found:
        groups.setdefault(each.group, []).append(each)
    shown = list(groups.items())
    step = max(1, -(-len(shown) // _MOST_LINES))
    points, lines = [], []
    for at, (group, own) in enumerate(shown[::step]):
        name = f"{roles.group[-1].rpartition('.')[2]} {group[-1]}" if group else "runs"
        series = _series(at, name, own, [each.energy for each in own], facts)
        points.append(series)
        front = unbeaten(own)
        x, y = tuple(each.energy for each in front), tuple(each.rate for each in front)
        lines.append(Line(f"front: {name}", series.colour, x, y, dashed=True))
    left_out = f" Every {step}th of {len(shown)} groups is shown." if step > 1 else ""
    title = f"{_RATE.words.capitalize()} against {_ENERGY.words}"
    return XYChart(
        f"trade-off{of[1]}", f"{title}: {of[0]}" if of[0] else title,
        f"Each group has its front: nothing there is faster for as little energy.{left_out}",
        _ENERGY.label, _RATE.label, tuple(points), tuple(lines),
        x_log=wide([each.energy for each in found]), y_log=wide([each.rate for each in found]),
    )  # fmt: skip


def causes_chart(
    found: Sequence[Entry], of: tuple[str, str], label: str, machine: Callable[[Values], str],
    table: pandas.DataFrame,
) -> LaneChart | None:  # fmt: skip
    """Where each unit's time went, of the fastest machines at the axis' last place; None where the
    sweep kept no causes.

    Parameters
    ----------
    found
        Points that are asked the same but for the axis.
    of
        What they are asked, in words, and what ends the chart's key.
    label
        Of the axis.
    machine
        Words for a machine.
    table
        With the stacks, a row a point.
    """
    last = max(each.place for each in found)
    ranked = sorted((each for each in found if each.place == last), key=lambda each: -each.rate)
    runs = [
        (f"{number}. {machine(each.machine)}", kept_of_row(table.loc[each.row]))
        for number, each in enumerate(ranked[:_MOST_MACHINES], 1)
    ]
    where = f" at {label} {last:g}" if label else ""
    title = f"Where the time went{where}"
    return stacks_chart(
        f"causes{of[1]}", f"{title}: {of[0]}" if of[0] else title,
        f"Of the fastest machine first, of at most {_MOST_MACHINES}.", runs,
    )  # fmt: skip


def stacks_chart(
    key: str, title: str, caption: str, runs: Sequence[tuple[str, Explained]]
) -> LaneChart | None:
    """Where each unit's time went, a bar each; None where no run kept its causes.

    Parameters
    ----------
    key
        Of the chart.
    title
        Of the chart.
    caption
        Below it.
    runs
        Names, and what is kept of the runs.
    """
    spans: list[Span] = []
    lanes: list[str] = []
    seen: set[str] = set()
    for name, run in runs:
        for unit, causes in sorted(run.cycle_stack.items(), key=lambda each: -len(each[1])):
            worked = {cause: float(cycles) for cause, cycles in causes.items() if cycles}
            if worked:
                lane = f"{name}: {unit_words(unit)}"
                lanes.append(lane)
                seen |= set(worked)
                spans += _stack(lane, worked)
    if not spans:
        return None
    return LaneChart(
        key, title, caption, "share of the run (%)", tuple(lanes), tuple(spans),
        {cause_words(cause): cause_colour(cause) for cause in ordered_causes(seen)},
    )  # fmt: skip


def _stack(lane: str, causes: Mapping[str, float]) -> Iterator[Span]:
    """A bar of 100 %."""
    total = sum(causes.values())
    at = 0.0
    for cause in ordered_causes(causes):
        share = 100 * causes[cause] / total
        words = cause_words(cause)
        yield Span(lane, at, at + share, words, ((words, f"{share:.1f}%"),))
        at += share
