"""The report of a sweep: the trade-off, its front, and what each key does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pimsim.config.documents import read_document
from pimsim.config.errors import InputError
from pimsim.config.run import RunConfig
from pimsim.config.schema import quantity_at
from pimsim.explore.spec import SweepSpec
from pimsim.explore.sweep import load_table, row_fidelity
from pimsim.report.charts import Chart, Line, Point, PointSeries, XYChart
from pimsim.report.page import Section, TableData, render_page
from pimsim.report.palette import SERIES_COLOURS
from pimsim.result.metrics import METRICS

if TYPE_CHECKING:
    import pandas

__all__ = ["front_of", "sweep_charts", "sweep_page"]

_MOST_ROWS = 200
_MOST_KEYS = 8
_MOST_MEANS = 24
_RATE, _ENERGY = METRICS["tokens_per_s"], METRICS["mj_per_token"]
_SHOWN = (_RATE.name, _ENERGY.name, "cycles")
"""Metrics of the tables of points."""


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


def sweep_charts(folder: str | Path) -> list[Chart]:
    """The trade-off of throughput and energy, and throughput over each swept key.

    Parameters
    ----------
    folder
        Of the sweep.
    """
    _, table, keys = _read(folder)
    return [_trade_off(table, keys), *(_effect(table, key) for key in keys[:_MOST_KEYS])]


def sweep_page(folder: str | Path) -> str:
    """The report as HTML.

    Parameters
    ----------
    folder
        Of the sweep.
    """
    spec, table, keys = _read(folder)
    done = table[table["error"].isna()]
    charts = sweep_charts(folder)
    sections = [Section(chart.key, chart.title, chart) for chart in charts]
    front = front_of(done["tokens_per_s"].tolist(), _energy(done))
    columns = (*keys, *(METRICS[name].column for name in _SHOWN), "fidelity")
    shown = TableData("The front", columns, _rows(done.iloc[front], keys), folded=False)
    sections.insert(1, Section("front", "The front", tables=(shown,)))
    fastest = done.nlargest(_MOST_ROWS, "tokens_per_s")
    title = f"Points: the {len(fastest)} fastest of {len(done):,}"
    sections.append(Section("points", "Points", tables=(
        TableData(title, columns, _rows(fastest, keys)),)))  # fmt: skip
    failed = table[table["error"].notna()]
    if len(failed):
        counts = failed.groupby("error").size().sort_values(ascending=False)
        rows = tuple((str(error), f"{count:,}") for error, count in counts.items())
        sections.append(
            Section("failed", "Failed", tables=(TableData("Failed", ("why", "points"), rows),))
        )
    text = (Path(folder) / "sweep.yaml").read_text(encoding="utf-8")
    sections.append(Section("config", "Config", texts=(("sweep.yaml", text),)))
    best = done.nlargest(1, "tokens_per_s").iloc[0]
    frugal = done.nlargest(1, "tokens_per_j").iloc[0]
    headline = [
        ("points", f"{len(table):,}"), ("failed", f"{len(failed):,}"),
        ("fastest", _RATE.text(_RATE.of(best), 0) + _error(best)),
        ("most frugal", _ENERGY.text(_ENERGY.of(frugal)) + _error(frugal)),
        ("on the front", f"{len(front):,}"),
    ]  # fmt: skip
    sentences = [
        f"The fastest point has {_named(best, keys)}.",
        f"The most frugal one has {_named(frugal, keys)}.",
    ]
    return render_page(spec.name, f"sweep of {spec.base}", headline, sentences, sections)


def _read(folder: str | Path) -> tuple[SweepSpec, pandas.DataFrame, list[str]]:
    path = Path(folder)
    spec = read_document(SweepSpec, path / "sweep.yaml")
    table = load_table(path)
    if "tokens_per_s" not in table or table["tokens_per_s"].notna().sum() == 0:
        raise InputError(f"{path}: no point of the sweep has a result yet")
    return spec, table, spec.keys


def _energy(table: pandas.DataFrame) -> list[float]:
    """Millijoule a token."""
    return [_ENERGY.of(row) for _, row in table.iterrows()]


def _facts(row: Any, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return (
        *((key, str(row[key])) for key in keys),
        *((each.words, each.text(each.of(row))) for each in (_RATE, _ENERGY)),
        ("fidelity", row_fidelity(row)),
    )


def _error(row: Any) -> str:
    """Behind a figure of fast fidelity."""
    return f" ({row_fidelity(row)})" if row.get("fidelity") == "fast" else ""


def _trade_off(table: pandas.DataFrame, keys: Sequence[str]) -> XYChart:
    done = table[table["error"].isna()].reset_index(drop=True)
    costs, gains = _energy(done), done["tokens_per_s"].tolist()
    points = tuple(
        Point(cost, gain, _facts(done.loc[at], keys))
        for at, (cost, gain) in enumerate(zip(costs, gains, strict=True))
    )
    front = front_of(gains, costs)
    on_front = set(front)
    others = tuple(p for at, p in enumerate(points) if at not in on_front)
    series = (
        PointSeries("other points", "#999999", others),
        PointSeries(
            "on the front", SERIES_COLOURS[1], tuple(points[at] for at in front), "diamond"
        ),
    )
    line = Line(
        "front", SERIES_COLOURS[1], tuple(costs[at] for at in front),
        tuple(gains[at] for at in front), dashed=True,
    )  # fmt: skip
    return XYChart(
        "trade-off", f"{_RATE.words.capitalize()} against {_ENERGY.words}",
        "Each point is a run; the front has no other that is faster for as little energy.",
        _ENERGY.label, _RATE.label, series, (line,),
    )  # fmt: skip


def _effect(table: pandas.DataFrame, key: str) -> XYChart:
    """Throughput over a key: all points, and the mean of each value, or of groups of values."""
    done = table[table["error"].isna()]
    places, label, names = _axis(key, done[key].tolist())
    rates = [float(rate) for rate in done["tokens_per_s"]]
    points = tuple(
        Point(
            place,
            rate,
            (
                (key, str(row[key])),
                (_RATE.words, _RATE.text(rate)),
                ("fidelity", row_fidelity(row)),
            ),
        )
        for place, rate, (_, row) in zip(places, rates, done.iterrows(), strict=True)
    )
    x, y = _means(places, rates)
    grouped = len(x) < len(set(places))
    caption = "All points, and the mean over the other keys"
    return XYChart(
        f"key-{_slug(key)}", f"{_RATE.words.capitalize()} by {key}",
        f"{caption}, {len(x)} groups of neighbours." if grouped else f"{caption}.", label,
        _RATE.label, (PointSeries("points", "#999999", points),),
        (Line("mean", SERIES_COLOURS[0], x, y, above=True),), x_names=names,
    )  # fmt: skip


def _axis(key: str, values: Sequence[Any]) -> tuple[list[float], str, tuple[str, ...]]:
    """Where each value stands, what the axis is called, and the names of its places where values
    are no numbers; of quantities the largest unit that one of them reaches."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return [float(v) for v in values], key, ()
    quantity = quantity_at(RunConfig, tuple(key.split(".")))
    if quantity is not None:
        sizes = [quantity.parse(value) for value in values]
        reached = [each for each in quantity.units if each[1] <= max(sizes)]
        unit, scale = max(reached or quantity.units[:1], key=lambda each: each[1])
        return [size / scale for size in sizes], f"{key} ({unit})", ()
    shown = [str(value).lower() if isinstance(value, bool) else str(value) for value in values]
    names = list(dict.fromkeys(shown))
    return [float(names.index(name)) for name in shown], key, tuple(names)


def _means(
    places: Sequence[float], rates: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean rate at each place, or of as many points each where there are too many places."""
    ordered = sorted(zip(places, rates, strict=True))
    if len(set(places)) <= _MOST_MEANS:
        groups = [list(same) for _, same in groupby(ordered, key=itemgetter(0))]
    else:
        bounds = [len(ordered) * at // _MOST_MEANS for at in range(_MOST_MEANS + 1)]
        groups = [ordered[first:last] for first, last in pairwise(bounds)]
    x = tuple(fmean(place for place, _ in group) for group in groups)
    y = tuple(fmean(rate for _, rate in group) for group in groups)
    return x, y


def _slug(key: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in key)


def _named(row: Any, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {row[key]}" for key in keys)


def _rows(table: pandas.DataFrame, keys: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            *(str(row[key]) for key in keys),
            *(METRICS[name].number(METRICS[name].of(row)) for name in _SHOWN), row_fidelity(row),
        )
        for _, row in table.iterrows()
    )  # fmt: skip
