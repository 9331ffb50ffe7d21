"""The report of sweeps held against a first one: what differs, and what it did, point by point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pimsim.config.differences import named
from pimsim.explore.comparison import Pair, SweepComparison
from pimsim.explore.figures import kept_of_row
from pimsim.report.charts import Chart, Line, Point, PointSeries, XYChart
from pimsim.report.differences import differences_table
from pimsim.report.page import Section, TableData, render_page
from pimsim.report.palette import SERIES_COLOURS
from pimsim.report.sweep_charts import MARKERS, stacks_chart, ticks_of, wide
from pimsim.report.sweep_groups import roles_of
from pimsim.report.sweeps import TECHNIQUES, axis_of
from pimsim.result.metrics import METRICS

__all__ = ["comparison_charts", "comparison_page"]

_MOST_LINES = 8
_MOST_ROWS = 10_000
_RATE = METRICS["tokens_per_s"]


def comparison_page(comparisons: Sequence[SweepComparison]) -> str:
    """The report as HTML.

    Parameters
    ----------
    comparisons
        Of ``compare_sweeps``.
    """
    charts = {chart.key: chart for chart in comparison_charts(comparisons)}
    sections, sentences = [], []
    for at, each in enumerate(comparisons):
        of = f": {each.names[1]}" if len(comparisons) > 1 else ""
        if each.differences:
            table = differences_table(each.differences, each.names)
            sections.append(Section(f"differs-{at}", f"What differs{of}", tables=(table,)))
        else:
            sentences.append(f"{each.names[1]} and {each.names[0]} have the same config and keys.")
        sentences += each.words()
        for key in (f"ratio-{at}", f"causes-{at}"):
            if key in charts:
                sections.append(Section(key, charts[key].title, charts[key]))
        rows = tuple(each.cells(pair) for pair in each.known[:_MOST_ROWS])
        shown = f"{len(rows):,} of {len(each.known):,} points" if len(rows) < len(each.known) else (
            "Points that both have"
        )  # fmt: skip
        table = TableData(shown, each.columns, rows, folded=len(rows) > 200)
        sections.append(Section(f"points-{at}", f"Point by point{of}", tables=(table,)))
    names = [comparisons[0].names[0], *(each.names[1] for each in comparisons)]
    headline = [
        entry
        for each in comparisons
        for entry in (
            (f"points of {each.names[1]} in both", f"{len(each.pairs):,}"),
            ("keys that differ", f"{len(each.differences):,}"),
        )
    ]
    return render_page(
        " against ".join(reversed(names)), f"sweeps compared with {names[0]}", headline, sentences,
        sections,
    )  # fmt: skip


def comparison_charts(comparisons: Sequence[SweepComparison]) -> list[Chart]:
    """Of each comparison the ratio of rates along the axis, and where the time went at the point
    that differs most.

    Parameters
    ----------
    comparisons
        Of ``compare_sweeps``.
    """
    return [chart for at, each in enumerate(comparisons) for chart in _charts(at, each)]


def _charts(at: int, comparison: SweepComparison) -> Iterator[Chart]:
    if not comparison.known:
        return
    (most,) = comparison.furthest(1)
    yield _ratios(f"ratio-{at}", comparison)
    lanes = [
        (name, kept_of_row(row)) for name, row in zip(comparison.names, most.rows, strict=True)
    ]
    where = named(comparison.keys, most.values)
    stacks = stacks_chart(
        f"causes-{at}", f"Where the time went at {where}",
        "Each unit's time by cause, at the point whose rates are furthest apart.", lanes,
    )  # fmt: skip
    if stacks is not None:
        yield stacks


def _ratios(key: str, comparison: SweepComparison) -> XYChart:
    """A line a combination of what is not the axis; of many combinations the first ones, the others
    grey."""
    known, keys = comparison.known, comparison.keys
    roles = roles_of({each: [pair.value(each) for pair in known] for each in keys}, TECHNIQUES)
    places, label, names = (
        ([0.0] * len(known), "", ())
        if roles.axis is None
        else axis_of(roles.axis, [pair.value(roles.axis) for pair in known])
    )
    others = [at for at, each in enumerate(keys) if each != roles.axis]
    lines: dict[tuple[str, ...], list[tuple[float, Pair]]] = {}
    for place, pair in zip(places, known, strict=True):
        lines.setdefault(tuple(pair.values[at] for at in others), []).append((place, pair))
    shown = list(lines.items())
    drawn, series = [], []
    for at, (values, own) in enumerate(shown[:_MOST_LINES]):
        own.sort(key=lambda each: each[0])
        name = named([keys[at] for at in others], values) or "ratio"
        colour = SERIES_COLOURS[at % len(SERIES_COLOURS)]
        points = tuple(_point(comparison, place, pair) for place, pair in own)
        series.append(PointSeries(name, colour, points, MARKERS[at % len(MARKERS)]))
        if len({place for place, _ in own}) == len(own) > 1 and not names:
            xy = tuple(point.x for point in points), tuple(point.y for point in points)
            drawn.append(Line(name, colour, *xy))
    rest = tuple(
        _point(comparison, *each) for _, own in shown[_MOST_LINES:] for each in own
    )  # fmt: skip
    if rest:
        series.append(PointSeries(f"{len(shown) - _MOST_LINES} others", "#999999", rest))
    ends = min(places), max(places)
    if ends[0] < ends[1]:
        drawn.append(Line("level", "#808080", ends, (1.0, 1.0), dashed=True))
    ticks, log = ((), False) if names else ticks_of(places)
    first, second = comparison.names
    return XYChart(
        key, f"{_RATE.words.capitalize()} of {second} over {first}",
        f"Above 1, {second} is the faster one; only points that both sweeps have.",
        label, f"ratio of {_RATE.words}", tuple(series), tuple(drawn), x_log=log, x_names=names,
        x_ticks=ticks, y_log=wide([pair.ratio(_RATE.name) for pair in known]),
    )  # fmt: skip


def _point(comparison: SweepComparison, place: float, pair: Pair) -> Point:
    facts = [*zip(comparison.keys, pair.values, strict=True)]
    for name, row in zip(comparison.names, pair.rows, strict=True):
        facts.append((name, _RATE.text(_RATE.of(row))))
    facts += [("ratio", f"{pair.ratio(_RATE.name):.3f}")]
    facts += [("why", each.words()) for each in pair.causes[:1]]
    return Point(place, pair.ratio(_RATE.name), tuple(facts))
