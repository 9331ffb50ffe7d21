"""The charts of one run, and of runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from pimsim.config.errors import InputError
from pimsim.report.charts import LaneChart, Line, Point, PointSeries, Span, XYChart
from pimsim.report.palette import (
    OPERATOR_COLOURS,
    SERIES_COLOURS,
    UNIT_COLOURS,
    cause_colour,
    energy_colour,
)
from pimsim.result.metrics import METRICS
from pimsim.result.types import Energy, OperatorResult, Result, Series
from pimsim.result.words import OPERATOR_UNITS, cause_words, ordered_causes, unit_words

__all__ = [
    "comparison_chart", "energy_chart", "gantt_chart", "power_chart", "roofline_chart",
    "stack_chart", "utilisation_chart",
]  # fmt: skip


def comparison_chart(results: Sequence[Result], names: Sequence[str]) -> LaneChart:
    """Throughput of each run, with its ratio to the first.

    Parameters
    ----------
    results
        The first is what the others are held against.
    names
        Of each.
    """
    first = results[0].tokens_per_s
    rate, energy = METRICS["tokens_per_s"], METRICS["mj_per_token"]
    spans = tuple(
        Span(
            name, 0.0, result.tokens_per_s, rate.words,
            facts=(
                ("run", name),
                (rate.words, rate.text(result.tokens_per_s)),
                ("over the first", f"{result.tokens_per_s / first:.2f}x"),
                (energy.words, energy.text(energy.of(result))),
                ("fidelity", result.fidelity.words),
            ),
            text=f"{result.tokens_per_s / first:.2f}x",
        )
        for name, result in zip(names, results, strict=True)
    )  # fmt: skip
    return LaneChart(
        "comparison", rate.words.capitalize(),
        f"Tokens per second; beside each bar its ratio to {names[0]}.",
        rate.label, tuple(names), spans, {rate.words: SERIES_COLOURS[0]},
        legend=False,
    )  # fmt: skip


def stack_chart(results: Sequence[Result], names: Sequence[str]) -> LaneChart:
    """Where each unit's cycles went.

    Parameters
    ----------
    results
        A lane for each of their units.
    names
        Of each.
    """
    spans, lanes = [], []
    found: set[str] = set()
    for name, result in zip(names, results, strict=True):
        for unit, stack in result.cycle_stack.items():
            lane = unit_words(unit)
            lane = lane if len(results) == 1 else f"{name}: {lane}"
            lanes.append(lane)
            at = 0
            for cause in ordered_causes(cause for cause in stack if stack[cause]):
                cycles = stack[cause]
                facts = (
                    ("unit", lane), ("cause", cause_words(cause)), ("cycles", f"{cycles:,}"),
                    ("share", f"{cycles / result.cycles:.1%}"),
                )  # fmt: skip
                share = 100 / result.cycles
                spans.append(
                    Span(lane, at * share, (at + cycles) * share, cause_words(cause), facts)
                )
                found.add(cause)
                at += cycles
    return LaneChart(
        "stacks", "Where the cycles went",
        "Each unit's cycles by what it did or waited for; each bar is the whole run.",
        "share of the run (%)", tuple(lanes), tuple(spans),
        {cause_words(cause): cause_colour(cause) for cause in ordered_causes(found)},
    )  # fmt: skip


def roofline_chart(result: Result) -> XYChart:
    """Every operator against the roofs of the unit that it runs on.

    An operator's time starts with its first load, and what counts is what moved by its end: then no
    memory can bring it above its roof.

    Parameters
    ----------
    result
        Of a run.

    Raises
    ------
    InputError
        For a result without peaks.
    """
    if not result.peaks:
        raise InputError("roofline: this result of an earlier version has no peaks; run it again")
    seconds = result.time_s / result.cycles
    total: dict[tuple[str, str], list[int]] = {}
    for o in result.operators:
        work = (o.flops, o.bytes - o.posted_bytes, o.lead_cycles + o.cycles, o.cycles)
        if min(work) > 0:
            sums = total.setdefault((o.name, o.unit), [0] * len(work))
            for at, amount in enumerate(work):
                sums[at] += amount
    series: dict[str, list[Point]] = {}
    for (name, unit), (flops, size, cycles, own) in total.items():
        rate, intensity = flops / (cycles * seconds), flops / size
        facts = (
            ("operator", name), ("unit", unit_words(unit)),
            ("intensity", f"{intensity:,.2f} FLOP/byte"), ("rate", f"{rate / 1e12:,.3f} TFLOP/s"),
            ("time", f"{own / result.cycles:.1%} of the run"),
        )  # fmt: skip
        weight = min(own / result.cycles, 1.0)
        series.setdefault(unit, []).append(Point(intensity, rate / 1e12, facts, name, weight))
    xs = [point.x for points in series.values() for point in points] or [1.0]
    low, high = min(*xs, 0.5) / 2, max(*xs, 100.0) * 4
    return XYChart(
        "roofline", "Roofline",
        "Every operator by its arithmetic intensity, from its first load to its end; lines are "
        "what its unit could do at most. Larger marks take more of the run.",
        "arithmetic intensity (FLOP/byte)", "rate (TFLOP/s)",
        tuple(
            PointSeries(unit_words(unit), UNIT_COLOURS.get(unit, "#666666"),
                        tuple(points), "square" if unit == "pim" else "circle")
            for unit, points in series.items()
        ),
        tuple(_roofs(result.peaks, low, high)), x_log=True, y_log=True,
    )  # fmt: skip


_PIM_READS = {"kv": "KV cache", "weight": "experts"}


def _roofs(peaks: Mapping[str, float], low: float, high: float) -> Iterator[Line]:
    """One of the NPU over its DRAM; of PIM one a width of what it reads."""
    npu = peaks["npu_flop_per_s"], peaks["npu_bytes_per_s"]
    yield _roof("NPU over DRAM", *npu, UNIT_COLOURS["systolic"], low, high)
    widths: dict[float, list[str]] = {}
    for kind, words in _PIM_READS.items():
        if f"pim_{kind}_bytes_per_s" in peaks:
            widths.setdefault(peaks[f"pim_{kind}_bytes_per_s"], []).append(words)
    for size, read in widths.items():
        which = f", {read[0]}" if len(widths) > 1 else ""
        name = f"PIM in the banks{which}"
        yield _roof(name, peaks["pim_flop_per_s"], size, UNIT_COLOURS["pim"], low, high)


def _roof(
    name: str, flop_per_s: float, bytes_per_s: float, colour: str, low: float, high: float
) -> Line:
    ridge = flop_per_s / bytes_per_s
    xs = tuple(sorted({low, max(min(ridge, high), low), high}))
    return Line(name, colour, xs, tuple(min(flop_per_s, x * bytes_per_s) / 1e12 for x in xs))


def gantt_chart(result: Result, stage: str | None = None) -> LaneChart:
    """Operators on their units over time.

    Parameters
    ----------
    result
        Of a run.
    stage
        The first of that name alone; None: the run.
    """
    chosen, origin = _of_stage(result, stage)
    micro = result.time_s / result.cycles * 1e6
    units = [unit for unit in OPERATOR_UNITS if any(o.unit == unit for o in chosen)]
    spans = []
    for o in chosen:
        start = (o.start_cycle - origin) * micro
        facts = (
            ("operator", o.name), ("block", str(o.layer)), ("stage", o.stage),
            ("starts at", f"{start:,.2f} us"), ("takes", f"{o.cycles * micro:,.2f} us"),
            ("bytes", f"{o.bytes:,}"),
            ("bound", f"{o.bound_cycles / o.cycles:.0%} of its time" if o.cycles else ""),
        )  # fmt: skip
        end = start + o.cycles * micro
        spans.append(Span(unit_words(o.unit), start, end, o.name, facts))
    names = list(dict.fromkeys(o.name for o in chosen))
    what = "the run" if stage is None else f"stage {stage}"
    return LaneChart(
        "gantt", f"Who works when: {what}",
        "Operators on the units of one device. Zoom and pan to see short ones.",
        "time (us)", tuple(unit_words(unit) for unit in units), tuple(spans),
        {name: OPERATOR_COLOURS[at % len(OPERATOR_COLOURS)] for at, name in enumerate(names)},
    )  # fmt: skip


def _of_stage(result: Result, stage: str | None) -> tuple[list[OperatorResult], int]:
    if stage is None:
        return [o for o in result.operators if o.unit in OPERATOR_UNITS], 0
    start = 0
    for one in result.stages:
        if one.name == stage:
            inside = [
                o for o in result.operators
                if o.stage == stage and start <= o.start_cycle < start + max(one.cycles, 1)
            ]  # fmt: skip
            return inside, start
        start += one.cycles
    return [], 0


def utilisation_chart(result: Result) -> XYChart:
    """What each unit does over time, as a share of what it could do.

    Parameters
    ----------
    result
        Of a run.

    Raises
    ------
    InputError
        For a result without intervals.
    """
    series = _series(result)
    peaks = result.peaks
    rows: tuple[tuple[str, str, Sequence[int], float], ...] = (
        (
            unit_words("systolic"),
            UNIT_COLOURS["systolic"],
            series.npu_macs,
            peaks["npu_flop_per_s"] / 2,
        ),
        (
            unit_words("vector"),
            UNIT_COLOURS["vector"],
            series.vector_lane_ops,
            peaks.get("vector_ops_per_s", 0.0),
        ),
        (METRICS["dram_bus"].words, "#009E73", series.dram_bytes, peaks["dram_bytes_per_s"]),
        (
            unit_words("pim"),
            UNIT_COLOURS["pim"],
            series.pim_macs,
            peaks.get("pim_flop_per_s", 0.0) / 2,
        ),
    )
    lines = [
        _over_time(series, name, colour, [100 * rate / peak for rate in series.rates(amounts)])
        for name, colour, amounts, peak in rows
        if any(amounts) and peak
    ]
    return XYChart(
        "utilisation", "Work done over time",
        "Multiplications of the arrays and of PIM, operations of vector lanes, and bytes on the "
        "data buses, when they take place, as a share of what the unit could do.",
        "time (us)", "share of the peak (%)", lines=tuple(lines),
        x_range=(0.0, series.end_ps[-1] / 1e6), y_range=(0.0, 105.0),
    )  # fmt: skip


def power_chart(result: Result) -> XYChart:
    """Power of a device over time: all of it, and each part.

    Parameters
    ----------
    result
        Of a run.

    Raises
    ------
    InputError
        For a result without intervals.
    """
    series = _series(result)
    watts = {part: series.rates(joules) for part, joules in series.energy_j.items()}
    total = [sum(parts) for parts in zip(*watts.values(), strict=True)]
    lines = [
        _over_time(series, part, energy_colour(part), watt, dashed=part == "static")
        for part, watt in watts.items()
        if any(watt)
    ]
    lines.append(_over_time(series, "all parts", "#777777", total, above=True))
    if result.tdp_w is not None:
        most = [result.tdp_w] * len(total)
        lines.append(_over_time(series, "TDP", "#D55E00", most, dashed=True))
    top = 1.05 * max(max(line.y) for line in lines)
    return XYChart(
        "power", "Power over time",
        "One device: energy of what is done in each interval, standby and refresh of its DRAM, and "
        "static power.",
        "time (us)", "power (W)", lines=tuple(lines),
        x_range=(0.0, series.end_ps[-1] / 1e6), y_range=(0.0, top),
    )  # fmt: skip


def _series(result: Result) -> Series:
    if result.series is None:
        raise InputError("this result of an earlier version has no intervals; run it again")
    return result.series


def _over_time(
    series: Series, name: str, colour: str, values: Sequence[float], dashed: bool = False,
    above: bool = False,
) -> Line:  # fmt: skip
    """A value for each interval; the last holds to its end."""
    x = tuple(end / 1e6 for end in (0, *series.end_ps))
    return Line(name, colour, x, (*values, values[-1]), dashed, step=True, above=above)


def energy_chart(results: Sequence[Result], names: Sequence[str]) -> LaneChart:
    """Energy of a token by part.

    Parameters
    ----------
    results
        A lane each.
    names
        Of each.
    """
    parts = [item.name for item in fields(Energy) if item.name != "total"]
    metric = METRICS["mj_per_token"]
    spans = []
    for name, result in zip(names, results, strict=True):
        total = result.energy_j.total
        token = metric.of(result) if result.tokens_per_j else 0.0
        at = 0.0
        for part in parts:
            joule = getattr(result.energy_j, part)
            share = joule / total if total else 0.0
            facts = (
                ("run", name), ("part", part),
                (metric.words, f"{share * token:.4g} {metric.unit}"),
                ("share", f"{share:.1%}"),
            )  # fmt: skip
            if share:
                spans.append(Span(name, at, at + share * token, part, facts))
            at += share * token
    used = {span.series for span in spans}
    colours = {part: energy_colour(part) for part in parts if part in used}
    return LaneChart(
        "energy", "Energy of a token",
        "Shares of the simulated blocks, scaled to the energy of a token on all devices.",
        metric.label, tuple(names), tuple(spans), colours,
    )  # fmt: skip
