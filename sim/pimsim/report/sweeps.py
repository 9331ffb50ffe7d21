"""The report of a sweep: what is compared with what, who wins where, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.differences import named, short_names, shown
from pimsim.config.documents import read_document
from pimsim.config.errors import InputError
from pimsim.config.prices import Prices
from pimsim.config.run import RunConfig, WorkloadConfig
from pimsim.config.schema import quantity_at
from pimsim.config.settings_text import NONE
from pimsim.explore.figures import row_fidelity, row_slack
from pimsim.explore.spec import SweepSpec
from pimsim.explore.sweep import load_table
from pimsim.report.charts import Chart, Facts
from pimsim.report.free_axes import FreeAxes, Named, free_axes
from pimsim.report.page import Headline, Section, TableData, render_page
from pimsim.report.sweep_charts import causes_chart, figure_chart, trade_off_chart, unbeaten
from pimsim.report.sweep_groups import (
    Effect,
    Entry,
    Roles,
    Values,
    effects,
    entries,
    roles_of,
)
from pimsim.report.sweep_view import Figure, View, baseline_of, figure_of
from pimsim.report.sweep_words import finding, linked_rows, row_id, story
from pimsim.result.cost import missing_price, priced_metrics, priced_table
from pimsim.result.metrics import METRICS, PRICED

if TYPE_CHECKING:
    import pandas

__all__ = ["Sweep", "read_sweep", "sweep_page"]

_MOST_ROWS = 2_000
_MOST_FACTS = 2_000
"""Points of a sweep, from which on their figures are read in the table, not at the chart."""
_MOST_FACETS = 6
TECHNIQUES = frozenset(
    f"workload.{name}" for name, each in WorkloadConfig.model_fields.items() if each.default == NONE
)
"""Keys whose ``none`` leaves a technique out: they are compared, as machines are."""
_RATE, _ENERGY = METRICS["tokens_per_s"], METRICS["mj_per_token"]
_SHOWN = (_RATE.name, _ENERGY.name, "cycles")
"""Metrics of the tables of points, without prices."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's table, and what its keys are for."""

    spec: SweepSpec
    table: pandas.DataFrame
    """A row a point."""
    text: str
    """Of its YAML."""
    view: View = field(default_factory=View)
    """What is drawn."""
    priced: tuple[str, ...] = ()
    """Metrics of cost, where there are prices."""

    @cached_property
    def done(self) -> pandas.DataFrame:
        """Points that have a result."""
        return self.table[self.table["error"].isna()].reset_index(drop=True)

    @property
    def listed(self) -> tuple[str, ...]:
        """Metrics of the tables of points."""
        return (*_SHOWN, *self.priced)

    @cached_property
    def keys(self) -> list[str]:
        """What is swept."""
        return self.spec.keys

    @cached_property
    def roles(self) -> Roles:
        """Of the keys."""
        return roles_of({key: self.done[key].tolist() for key in self.keys}, TECHNIQUES)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Values by key, a point each."""
        return [
            dict(zip(self.keys, values, strict=True))
            for values in self.done[self.keys].itertuples(index=False, name=None)
        ]

    @cached_property
    def axis(self) -> tuple[list[float], str, tuple[str, ...]]:
        """As ``axis_of`` says; all at 0 where there is none."""
        if self.roles.axis is None:
            return [0.0] * len(self.rows), "", ()
        return axis_of(self.roles.axis, self.done[self.roles.axis].tolist())

    @cached_property
    def entries(self) -> list[Entry]:
        """The points by their roles."""
        slacks = [row_slack(row) for _, row in self.done.iterrows()]
        energies = [_ENERGY.of(row) for _, row in self.done.iterrows()]
        rates = [float(rate) for rate in self.done["tokens_per_s"]]
        return entries(self.roles, self.rows, self.axis[0], rates, energies, slacks)

    @cached_property
    def charts(self) -> list[Chart]:
        """Throughput by machine, its causes, and the trade-off with energy, for each of what is
        asked."""
        return list(_charts(self))

    @cached_property
    def facts(self) -> dict[int, Facts]:
        """What one reads on a point, by its row."""
        return {
            each.row: _facts(self.done.loc[each.row], self.keys, self.view.metrics)
            for each in self.entries
        }

    def figure(self, metric: str) -> Figure:
        """A metric of all points, over the baseline's where the view has one."""
        machine = baseline_of(self.view, self.roles, self.entries)
        words = "" if machine is None else self.machine(machine)
        return figure_of(metric, self.done.loc.__getitem__, self.entries, machine, words)

    def facets(self) -> list[tuple[Values, list[Entry]]]:
        """Points by what they are asked, but the axis; in the sweep's order."""
        found: dict[Values, list[Entry]] = {}
        for each in self.entries:
            found.setdefault(each.asked, []).append(each)
        return list(found.items())

    def machine(self, values: Values) -> str:
        """Words for a machine."""
        return named(self.roles.machine, values) or self.spec.base

    def asked(self, values: Values) -> str:
        """Words for what is asked; empty where nothing else than the axis is swept of it."""
        return named(self.roles.asked, values)


def read_sweep(folder: str | Path, view: View | None = None, prices: Prices | None = None) -> Sweep:
    """What a sweep found.

    Parameters
    ----------
    folder
        Of its store.
    view
        What is drawn; None: throughput by machine, and against energy.
    prices
        Of parts and energy; None: no cost is told.

    Raises
    ------
    InputError
        For what is no sweep's store, for one without a result, and for a baseline that is no
        machine of it.
    """
    path = Path(folder)
    spec = read_document(SweepSpec, path / "sweep.yaml")
    table = priced_table(load_table(path), prices)
    if "tokens_per_s" not in table or table["tokens_per_s"].notna().sum() == 0:
        raise InputError(f"{path}: no point of the sweep has a result yet")
    text = (path / "sweep.yaml").read_text(encoding="utf-8")
    shown = View() if view is None else view
    for name in (*shown.metrics, shown.against):
        if name in PRICED and name not in priced_metrics(prices):
            raise InputError(f"{name} needs --prices FILE{missing_price(name, prices)}: none ship")
    sweep = Sweep(spec, table, text, shown, priced_metrics(prices))
    baseline_of(sweep.view, sweep.roles, sweep.entries)
    return sweep


def _charts(sweep: Sweep) -> Iterator[Chart]:
    facets = sweep.facets()
    _, label, names = sweep.axis
    for at, (asked, found) in enumerate(facets[:_MOST_FACETS]):
        of = (sweep.asked(asked), f"-{at}" if len(facets) > 1 else "")
        facts = sweep.facts if len(sweep.entries) <= _MOST_FACTS else {}
        for name in sweep.view.metrics:
            chart = figure_chart(found, sweep.figure(name), of, label, names, sweep.machine, facts)
            if chart is not None:
                yield chart
        causes = causes_chart(found, of, label, sweep.machine, sweep.done)
        if causes is not None:
            yield causes
        gain, cost = (sweep.figure(n) for n in (sweep.view.metrics[0], sweep.view.against))
        trade_off = trade_off_chart(found, gain, cost, of, sweep.roles, facts)
        if trade_off is not None:
            yield trade_off


def sweep_page(sweep: Sweep) -> str:
    """The report as HTML.

    Parameters
    ----------
    sweep
        Of ``read_sweep``.
    """
    done, keys = sweep.done, sweep.keys
    sections = [Section(chart.key, chart.title, chart) for chart in sweep.charts]
    sentences = [*story(sweep), *_left_out(sweep)]
    axes = _axes(sweep)
    if axes is not None:
        sections.append(Section("axes", "Any figure over any other", axes=axes))
    columns = (*short_names(keys), *(METRICS[name].column for name in sweep.listed), "fidelity")
    front = _fronts(sweep)
    words = "The front of each group" if sweep.roles.group else "The front"
    best = TableData(words, columns, _rows(done.iloc[front], keys, sweep.listed), folded=False)
    sections.append(Section("front", words, tables=(best,)))
    changes = _effect_rows(sweep)
    if changes:
        head = ("key", "from", "to", "pairs", f"{_RATE.unit}: least", "median", "most",
                f"{_ENERGY.unit}: least", "median", "most")  # fmt: skip
        ratios = TableData("Ratios to the key's first value", head, changes, folded=False)
        sections.append(Section("effects", "What each key does, all else equal", tables=(ratios,)))
    listed, title = _listed(done, linked_rows(sentences))
    ids = tuple(row_id(row) for row in listed.index)
    points = TableData(title, columns, _rows(listed, keys, sweep.listed), ids=ids)
    sections.append(Section("points", "Points", tables=(points,)))
    failed = sweep.table[sweep.table["error"].notna()]
    if len(failed):
        counts = failed.groupby("error").size().sort_values(ascending=False)
        rows = tuple((str(error), f"{count:,}") for error, count in counts.items())
        sections.append(
            Section("failed", "Failed", tables=(TableData("Failed", ("why", "points"), rows),))
        )
    sections.append(Section("config", "Config", texts=(("sweep.yaml", sweep.text),)))
    headline: list[Headline] = [
        ("points", f"{len(sweep.table):,}"), ("failed", f"{len(failed):,}"),
        ("groups", f"{len({each.group for each in sweep.entries}):,}"),
        ("machines", f"{len({each.machine for each in sweep.entries}):,}"),
        ("on a front", f"{len(front):,}"), *_best(sweep),
    ]  # fmt: skip
    found = finding(sweep)
    title = f"{sweep.spec.name}: {found}" if found else sweep.spec.name
    return render_page(title, f"sweep of {sweep.spec.base}", headline, sentences, sections)


def _axes(sweep: Sweep) -> FreeAxes | None:
    """The points of the page's table over any two figures."""
    rows = set(sweep.done.nlargest(_MOST_ROWS, "tokens_per_s").index)
    points = [
        Named(sweep.machine(each.machine), named(sweep.keys, [row[key] for key in sweep.keys]), row)
        for each in sorted(sweep.entries, key=lambda each: -each.rate)
        if each.row in rows
        for row in (sweep.done.loc[each.row],)
    ]
    order = [sweep.machine(each.machine) for each in sweep.entries]
    return free_axes(
        points, sweep.keys, sweep.view.against, sweep.view.metrics[0], list(dict.fromkeys(order))
    )


def _best(sweep: Sweep) -> Iterator[Headline]:
    """The fastest and the most frugal point of each of what is asked, with what fast may be off
    by; of many, none, as their table has them."""
    facets = sweep.facets()
    if len(facets) > _MOST_FACETS:
        return
    for asked, found in facets:
        of = f": {sweep.asked(asked)}" if len(facets) > 1 else ""
        fastest = sweep.done.loc[max(found, key=lambda each: each.rate).row]
        frugal = sweep.done.loc[min(found, key=lambda each: each.energy).row]
        yield f"fastest{of}", _RATE.text(_RATE.of(fastest), 0), _error(fastest)
        yield f"most frugal{of}", _ENERGY.text(_ENERGY.of(frugal)), _error(frugal)


def _error(row: Any) -> str:
    """Of a figure of fast fidelity."""
    return row_fidelity(row) if row.get("fidelity") == "fast" else ""


def _listed(done: pandas.DataFrame, linked: Sequence[int]) -> tuple[pandas.DataFrame, str]:
    """The fastest points and those that words are of, the fastest first, and the table's title."""
    fastest = done.nlargest(_MOST_ROWS, "tokens_per_s")
    more = [row for row in linked if row not in fastest.index]
    count, title = len(fastest), f"{len(done):,} points, the fastest first"
    if count < len(done):
        title = f"The {count:,} fastest of {len(done):,} points (table.parquet has all)"
        title += " and those that words above are of" if more else ""
    rows = done.loc[[*fastest.index, *more]]
    return rows, title


def _left_out(sweep: Sweep) -> Iterator[str]:
    facets = len(sweep.facets())
    if facets > _MOST_FACETS:
        yield f"Charts are of the first {_MOST_FACETS} of {facets} loads; tables are of all."


# numbers ------------------------------------------------------------------------------------------


def axis_of(key: str, values: Sequence[Any]) -> tuple[list[float], str, tuple[str, ...]]:
    """Where each value stands, what the axis is called, and the names of its places where values
    are no numbers; of quantities the largest unit that one of them reaches.

    Parameters
    ----------
    key
        Of the config.
    values
        Of the points.
    """
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return [float(v) for v in values], key, ()
    quantity = quantity_at(RunConfig, tuple(key.split(".")))
    if quantity is not None:
        sizes = [quantity.parse(value) for value in values]
        reached = [each for each in quantity.units if each[1] <= max(sizes)]
        unit, scale = max(reached or quantity.units[:1], key=lambda each: each[1])
        return [size / scale for size in sizes], f"{key} ({unit})", ()
    words = [shown(value) for value in values]
    names = list(dict.fromkeys(words))
    return [float(names.index(name)) for name in words], key, tuple(names)


def _fronts(sweep: Sweep) -> list[int]:
    """Rows of the fronts, group by group."""
    found: dict[Values, list[Entry]] = {}
    for each in sweep.entries:
        found.setdefault(each.group, []).append(each)
    return [each.row for same in found.values() for each in unbeaten(same)]


def _effect_rows(sweep: Sweep) -> tuple[tuple[str, ...], ...]:
    axis = sweep.roles.axis
    own = [axis] if axis is not None and axis not in sweep.roles.group else []
    compared = [*sweep.roles.machine, *own]
    found = effects(sweep.keys, sweep.rows, sweep.entries, compared)
    return tuple(_effect_row(each) for each in found)


def _effect_row(effect: Effect) -> tuple[str, ...]:
    ratios = (*effect.rate, *effect.energy)
    return (
        effect.key, shown(effect.baseline), shown(effect.value), f"{effect.pairs:,}",
        *(f"{ratio:.3f}" for ratio in ratios),
    )  # fmt: skip


def _facts(row: Any, keys: Sequence[str], metrics: Sequence[str]) -> Facts:
    told = [METRICS[name] for name in dict.fromkeys((_RATE.name, _ENERGY.name, *metrics))]
    return (
        *((key, str(row[key])) for key in keys),
        *((each.words, each.text(each.of(row))) for each in told),
        ("fidelity", row_fidelity(row)),
    )


def _rows(
    table: pandas.DataFrame, keys: Sequence[str], metrics: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            *(str(row[key]) for key in keys),
            *(METRICS[name].number(METRICS[name].of(row)) for name in metrics), row_fidelity(row),
        )
        for _, row in table.iterrows()
    )  # fmt: skip
