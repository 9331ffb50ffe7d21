"""Charts of a sweep: machines as lines, one front a group, where the time went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pimsim.explore.figures import kept_of_row
from pimsim.report.charts import Facts, LaneChart, Line, Point, PointSeries, Span, XYChart
from pimsim.report.palette import SERIES_COLOURS, cause_colour
from pimsim.report.sweep_groups import Entry, Roles, Values
from pimsim.report.sweep_view import Figure
from pimsim.result.bottleneck import Explained
from pimsim.result.metrics import METRICS
from pimsim.result.words import cause_words, ordered_causes, unit_words

if TYPE_CHECKING:
    import pandas

__all__ = [
    "MARKERS", "causes_chart", "figure_chart", "front_of", "stacks_chart", "ticks_of",
    "trade_off_chart", "unbeaten", "wide",
]  # fmt: skip

_MOST_LINES = 8
_MOST_MACHINES = 4
_GREY = "#999999"
_RATE = METRICS["tokens_per_s"]
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


def unbeaten(
    group: Sequence[Entry], gain: Figure | None = None, cost: Figure | None = None
) -> list[Entry]:
    """Points of a group on its front, the cheapest first.

    Parameters
    ----------
    group
        Points that are asked the same.
    gain
        What is sought; None: throughput.
    cost
        What it costs; None: energy.
    """
    gains = [each.rate if gain is None else _towards(gain, each, 1) for each in group]
    costs = [each.energy if cost is None else _towards(cost, each, -1) for each in group]
    return [group[at] for at in front_of(gains, costs)]


def _towards(figure: Figure, entry: Entry, sign: int) -> float:
    """The figure, larger where it is better for a ``sign`` of 1, smaller for one of -1."""
    better = 1 if figure.metric.better == "higher" else -1
    return sign * better * figure.of(entry)


def _series(
    number: int, name: str, own: Sequence[Entry], x: Sequence[float], y: Sequence[float],
    facts: Mapping[int, Facts],
) -> PointSeries:  # fmt: skip
    """``y`` over ``x``, in the colour and with the mark of a chart's series of that number."""
    points = (
        Point(across, up, facts.get(each.row, ()))
        for across, up, each in zip(x, y, own, strict=True)
    )
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


def figure_chart(
    found: Sequence[Entry], figure: Figure, of: tuple[str, str], label: str,
    names: tuple[str, ...], machine: Callable[[Values], str], facts: Mapping[int, Facts],
) -> XYChart | None:  # fmt: skip
    """A figure along the axis, a line a machine; of many machines those that do best in it. None
    where no point has it.

    Parameters
    ----------
    found
        Points that are asked the same but for the axis.
    figure
        Of these.
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
    known = figure.known(found)
    if not known:
        return None
    by_machine: dict[Values, list[Entry]] = {}
    for each in sorted(known, key=lambda each: each.place):
        by_machine.setdefault(each.machine, []).append(each)
    order = list(dict.fromkeys(each.machine for each in known))
    chosen = order
    if len(order) > _MOST_LINES:
        ranked = sorted(
            order, key=lambda each: -max(_towards(figure, one, 1) for one in by_machine[each])
        )
        best = set(ranked[: _MOST_LINES - 1])
        chosen = [each for each in order if each in best]
    points, lines = [], []
    left = set(order) - set(chosen)
    others = [each for name in order if name in left for each in by_machine[name]]
    if others:
        points.append(
            PointSeries(
                f"{len(left)} other machines", _GREY,
                tuple(
                    Point(each.place, figure.of(each), facts.get(each.row, ())) for each in others
                ),
            )
        )  # fmt: skip
    for at, name in enumerate(chosen):
        own = by_machine[name]
        x, y = tuple(each.place for each in own), tuple(map(figure.of, own))
        series = _series(at, machine(name), own, x, y, facts)
        points.append(series)
        if len(set(x)) == len(own) > 1 and not names:
            lines.append(Line(series.name, series.colour, x, y))
    ticks, log = ((), False) if names else ticks_of([each.place for each in known])
    metric = figure.metric
    title = f"{metric.words.capitalize()} by machine"
    if figure.over:
        title += f", over that of {figure.over}"
    key = "rates" if metric is _RATE else metric.name
    return XYChart(
        f"{key}{of[1]}", f"{title}: {of[0]}" if of[0] else title,
        "Each line is a machine, each point a run; only runs that are asked the same are compared.",
        label, figure.label, tuple(points), tuple(lines), x_log=log, x_names=names, x_ticks=ticks,
        y_log=wide([figure.of(each) for each in known]),
    )  # fmt: skip


def trade_off_chart(
    found: Sequence[Entry], gain: Figure, cost: Figure, of: tuple[str, str], roles: Roles,
    facts: Mapping[int, Facts],
) -> XYChart | None:  # fmt: skip
    """A figure against another, one front a group; None where no point has both.

    Parameters
    ----------
    found
        Points that are asked the same but for the axis.
    gain
        Along y.
    cost
        Along x.
    of
        What they are asked, in words, and what ends the chart's key.
    roles
        Of the keys.
    facts
        What one reads on a point, by its row.
    """
    known = cost.known(gain.known(found))
    if not known:
        return None
    groups: dict[Values, list[Entry]] = {}
    for each in known:
        groups.setdefault(each.group, []).append(each)
    shown = list(groups.items())
    step = max(1, -(-len(shown) // _MOST_LINES))
    points, lines = [], []
    for at, (group, own) in enumerate(shown[::step]):
        name = f"{roles.group[-1].rpartition('.')[2]} {group[-1]}" if group else "runs"
        x, y = tuple(map(cost.of, own)), tuple(map(gain.of, own))
        series = _series(at, name, own, x, y, facts)
        points.append(series)
        front = unbeaten(own, gain, cost)
        x, y = tuple(map(cost.of, front)), tuple(map(gain.of, front))
        lines.append(Line(f"front: {name}", series.colour, x, y, dashed=True))
    left_out = f" Every {step}th of {len(shown)} groups is shown." if step > 1 else ""
    title = f"{gain.metric.words.capitalize()} against {cost.metric.words}"
    return XYChart(
        f"trade-off{of[1]}", f"{title}: {of[0]}" if of[0] else title,
        f"Each group has its front: nothing there is better in one and as good in the "
        f"other.{left_out}",
        cost.label, gain.label, tuple(points), tuple(lines),
        x_log=wide(list(map(cost.of, known))), y_log=wide(list(map(gain.of, known))),
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
