"""The report of one run, or of runs side by side, from the folders that ``--out`` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pimsim.config.differences import differences, labels_of
from pimsim.config.loader import AnyRun, ResolvedAny, load_any_run
from pimsim.config.prices import Prices
from pimsim.report.charts import Chart, LaneChart
from pimsim.report.differences import differences_table
from pimsim.report.page import Headline, Section, TableData, render_page
from pimsim.report.run_charts import (
    comparison_chart,
    energy_chart,
    gantt_chart,
    power_chart,
    roofline_chart,
    stack_chart,
    utilisation_chart,
)
from pimsim.result import store
from pimsim.result.bottleneck import bottleneck
from pimsim.result.compare import causes
from pimsim.result.cost import cost_words
from pimsim.result.metrics import METRICS
from pimsim.result.steps import STEP_COLUMNS, batch_words, step_cells
from pimsim.result.tables import titled
from pimsim.result.types import Result
from pimsim.result.words import throughput_words, unit_words

__all__ = ["RunFolder", "read_run", "run_charts", "runs_page"]

_MOST_STEPS = 200
_MOST_STAGES = 200
_MOST_OPERATORS = 400


@dataclass(frozen=True)
class RunFolder:
    """What ``--out`` wrote."""

    name: str
    result: Result
    resolved: ResolvedAny
    config_text: str

    @property
    def config(self) -> AnyRun:
        """What was run."""
        return self.resolved.config


def read_run(folder: str | Path) -> RunFolder:
    """Read a run's folder.

    Parameters
    ----------
    folder
        That ``--out`` wrote.

    Raises
    ------
    InputError
        Where it is not there, or damaged.
    """
    result = store.load(folder)
    text = store.load_config_text(folder)
    resolved = load_any_run(str(Path(folder) / store.CONFIG_FILE))
    return RunFolder(result.name or Path(folder).name, result, resolved, text)


def run_charts(runs: Sequence[RunFolder], stage: str | None = None) -> list[Chart]:
    """The charts of the first run, and those that show all of them.

    Parameters
    ----------
    runs
        The first is shown in detail.
    stage
        Of the Gantt chart: the first of that name alone; None: the run.
    """
    names = _names(runs)
    results = [run.result for run in runs]
    main = runs[0]
    charts: list[Chart] = [comparison_chart(results, names)] if len(runs) > 1 else []
    charts.append(stack_chart(results, names))
    if main.result.peaks:
        charts.append(roofline_chart(main.result))
    charts.append(gantt_chart(main.result, stage))
    if main.result.series is not None:
        charts += [utilisation_chart(main.result), power_chart(main.result)]
    charts.append(energy_chart(results, names))
    return charts


def runs_page(
    runs: Sequence[RunFolder], stage: str | None = None, prices: Prices | None = None
) -> str:
    """The report as HTML.

    Parameters
    ----------
    runs
        The first is shown in detail.
    stage
        Of the Gantt chart: the first of that name alone; None: the run.
    prices
        Of parts and energy; None: no cost is told.
    """
    main, result = runs[0], runs[0].result
    names = _names(runs)
    sections = [_section(chart, runs, names) for chart in run_charts(runs, stage)]
    apart = differences([run.resolved for run in runs]) if len(runs) > 1 else []
    if apart:
        table = differences_table(apart, names)
        sections.insert(0, Section("differs", "What differs", tables=(table,)))
    if prices is not None:
        table = _costs(runs, names, prices)
        sections.append(Section("cost", "At your prices", tables=(table,)))
    if len(result.steps) > 1:
        steps = _steps(result)
        sections.insert(
            (len(runs) > 1) + bool(apart), Section("steps", steps.title, tables=(steps,))
        )
    sections.append(
        Section(
            "config", "Config", texts=tuple(
                (f"{name}: every value", run.config_text)
                for name, run in zip(names, runs, strict=True)
            ),
        )
    )  # fmt: skip
    sections.append(Section("provenance", "Provenance", tables=(_provenance(runs, names),)))
    notes = (*result.warnings, *_missing(result))
    sentences = [
        f"What holds {names[0]} back: {bottleneck(result)}.", *_moved(runs, names),
        *(f"Note: {warning}" for warning in notes),
    ]  # fmt: skip
    title = main.name if len(runs) == 1 else " against ".join(names[:3])
    return render_page(
        f"{title} on {result.model}" if result.model else title,
        f"{batch_words(result)}, {result.layers_simulated} of {result.layers_model} blocks "
        f"simulated on one of {result.devices} devices, fidelity {result.fidelity.words}",
        _headline(result), sentences,
        sections,
    )  # fmt: skip


def _costs(runs: Sequence[RunFolder], names: Sequence[str], prices: Prices) -> TableData:
    """What each machine costs, and what it does for that."""
    rows = tuple(
        (name, words, value)
        for name, run in zip(names, runs, strict=True)
        for words, value in cost_words(run.result, prices)
    )
    return TableData("Cost of machines and tokens", ("run", "", ""), rows, folded=False)


def _missing(result: Result) -> list[str]:
    """Pictures that a result of an earlier version has no figures for."""
    if result.peaks and result.series is not None:
        return []
    return [
        "this result is of an earlier version: for its roofline, and its work and power over "
        "time, run it again"
    ]


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """Labels that tell the runs apart."""
    if len(runs) == 1:
        return [runs[0].name]
    apart = differences([run.resolved for run in runs])
    return labels_of([run.name for run in runs], apart)


def _moved(runs: Sequence[RunFolder], names: Sequence[str]) -> Iterator[str]:
    """What makes the others slower or faster than the first."""
    first = runs[0].result
    for name, run in zip(names[1:], runs[1:], strict=True):
        if run.result.model != first.model:
            continue
        ratio = run.result.tokens_per_s / first.tokens_per_s if first.tokens_per_s else 0.0
        found = "; ".join(each.words() for each in causes(first, run.result))
        yield (f"{name} has {ratio:.3g} times the rate of {names[0]}: {found or 'no cause moved'}.")


def _limits(result: Result) -> str:
    """What there is to know of a device's power: its share of the TDP, and a stack's part."""
    told = []
    if result.tdp_w is not None:
        share = result.power_w["total"] / result.tdp_w
        told.append(f"{share:.1%} of its TDP of {result.tdp_w:,.0f} W")
    if result.stack_w is not None:
        told.append(f"{result.stack_w:,.1f} W in each stack of DRAM")
    return "; ".join(told)


def _headline(result: Result) -> list[Headline]:
    def row(name: str, digits: int | None = None) -> tuple[str, str]:
        metric = METRICS[name]
        return metric.words, metric.text(metric.of(result), digits)

    rows: list[Headline] = [
        (METRICS["tokens_per_s"].words, throughput_words(result, 0)),
        ("fidelity", result.fidelity.words),
        (
            METRICS["iteration_s"].words if len(result.steps) < 2 else "all steps",
            f"{result.iteration_s * 1e3:,.3f} ms",
        ),
        row("mj_per_token"),
        row("npu"),
    ]
    if result.power_w:
        watt = f"{result.power_w['total']:,.0f} W, {result.static_w['total']:,.0f} static"
        rows.append(("power of a device", watt, _limits(result)))
    rows.append(row("energy_delay_js"))
    if result.utilisation.pim:
        rows.append(row("pim"))
    rows.append(row("dram_bus"))
    return rows


def _section(chart: Chart, runs: Sequence[RunFolder], names: Sequence[str]) -> Section:
    tables: tuple[TableData, ...] = ()
    if chart.key in ("comparison", "stacks", "energy") and isinstance(chart, LaneChart):
        tables = (_numbers(chart),)
        if chart.key == "energy":
            tables += _power(runs, names)
    elif chart.key == "roofline":
        tables = (_operators(runs[0].result),)
    elif chart.key == "gantt":
        tables = (*_pipeline(runs[0].result), _stages(runs[0].result))
    return Section(chart.key, chart.title, chart, tables)


def _numbers(chart: LaneChart) -> TableData:
    columns = tuple(name for name, _ in chart.spans[0].facts) if chart.spans else ()
    rows = tuple(tuple(value for _, value in span.facts) for span in chart.spans)
    return TableData("The numbers", columns, rows)


def _power(runs: Sequence[RunFolder], names: Sequence[str]) -> tuple[TableData, ...]:
    """Power of a device, and its static part, by part with what it is worked out from."""
    found = []
    for name, run in zip(names, runs, strict=True):
        result = run.result
        rows = [
            (part, f"{watt:,.2f}", f"{1e3 * result.token_j[part]:,.3f}",
             result.power_sources.get(part, ""))
            for part, watt in result.power_w.items()
        ]  # fmt: skip
        rows += [
            (f"static: {part}", f"{watt:,.2f}", "", result.power_sources.get(f"static {part}", ""))
            for part, watt in result.static_w.items()
        ]
        columns = ("part", "W", METRICS["mj_per_token"].unit, "source")
        if rows:
            found.append(TableData(f"{name}: power of a device", columns, tuple(rows)))
    return tuple(found)


def _pipeline(result: Result) -> tuple[TableData, ...]:
    """Stages of a pipeline, where there are several."""
    columns = ("stage", "blocks", "ms a batch", "busy", "weights", "KV cache", "J a batch")
    rows = tuple(
        (
            str(number), f"{stage.blocks:,}", f"{1e3 * stage.time_s:,.3f}", f"{stage.busy:.1%}",
            f"{stage.weights_bytes / 2**30:,.2f} GiB", f"{stage.kv_bytes / 2**30:,.2f} GiB",
            f"{stage.energy_j:.4g}",
        )
        for number, stage in enumerate(result.pipeline, 1)
    )  # fmt: skip
    return (TableData("Pipeline, one device of each stage", columns, rows),) if rows else ()


def _steps(result: Result) -> TableData:
    rows = tuple(map(step_cells, result.steps[:_MOST_STEPS]))
    title = _first(titled("Steps", result), len(result.steps), _MOST_STEPS)
    return TableData(title, STEP_COLUMNS, rows, folded=False)


def _of_step(result: Result, step: int) -> tuple[str, ...]:
    """The cell that says which step a row is of, where there are several."""
    return (f"{step:,}",) if len(result.steps) > 1 else ()


def _stages(result: Result) -> TableData:
    columns = (
        *(("step",) if len(result.steps) > 1 else ()),
        "stage", "cycles", "share", "NPU busy", "PIM busy", "bound/cycles",
    )  # fmt: skip
    rows = tuple(
        (
            *_of_step(result, stage.step), stage.name, f"{stage.cycles:,}",
            f"{stage.cycles / result.cycles:.1%}",
            *(f"{part / stage.cycles:.1%}" if stage.cycles else "" for part in (
                stage.npu_busy_cycles, stage.pim_busy_cycles, stage.bound_cycles)),
        )
        for stage in result.stages[:_MOST_STAGES]
    )  # fmt: skip
    return TableData(
        _first(titled("Stages", result), len(result.stages), _MOST_STAGES), columns, rows
    )


def _operators(result: Result) -> TableData:
    columns = (
        *(("step",) if len(result.steps) > 1 else ()),
        "operator", "kind", "unit", "block", "stage", "cycles", "bytes", "FLOP", "bound",
    )  # fmt: skip
    rows = tuple(
        (
            *_of_step(result, o.step), o.name, o.kind, unit_words(o.unit), str(o.layer), o.stage,
            f"{o.cycles:,}", f"{o.bytes:,}", f"{o.flops:,}", f"{o.bound_cycles:,}",
        )
        for o in result.operators[:_MOST_OPERATORS]
    )  # fmt: skip
    return TableData(
        _first(titled("Operators", result), len(result.operators), _MOST_OPERATORS), columns, rows
    )


def _first(what: str, count: int, most: int) -> str:
    return what if count <= most else f"{what}: the first {most} of {count:,}"


def _provenance(runs: Sequence[RunFolder], names: Sequence[str]) -> TableData:
    columns = (
        "run",
        "fidelity",
        "version",
        "config sha256",
        "trace sha256",
        "seed",
        "simulated in",
        "peak",
    )
    rows = tuple(
        (
            name, run.result.fidelity.words, p.version, p.config_sha256[:16],
            p.trace_sha256[:16], str(p.seed), f"{p.wall_s:.2f} s", f"{p.peak_rss_mb:.0f} MB",
        )
        for name, run, p in ((n, r, r.result.provenance) for n, r in zip(names, runs, strict=True))
    )  # fmt: skip
    return TableData("Where the results come from", columns, rows, folded=False)
