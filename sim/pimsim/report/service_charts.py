"""The charts of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pimsim.report.charts import Chart, LaneChart, Line, Span, XYChart
from pimsim.report.palette import SERIES_COLOURS

if TYPE_CHECKING:
    import pandas

__all__ = ["PHASES", "phases_of", "service_charts"]

PHASES: dict[str, str] = {
    "waiting": "#D55E00", "prompt": "#56B4E9", "handover": "#CC79A7", "tokens": "#0072B2",
}  # fmt: skip
"""Where a request's time goes, and its colour: until its first step, until its first token, until
its keys and values are in the other pool, until its last token."""
_POINTS = 400
"""Of a line of a distribution."""
_REQUESTS = 24
"""Shown one by one."""


def phases_of(requests: pandas.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Seconds that each request that has ended spent in each phase, which add up to its latency.

    Parameters
    ----------
    requests
        The rows of ``requests.parquet``.

    Returns
    -------
    dict
        By the name of the phase, shape (requests that have ended,).
    """
    done = requests[requests["finish_ps"] >= 0]
    columns = [
        done[name].to_numpy(dtype=np.int64)
        for name in ("arrival_ps", "first_scheduled_ps", "first_token_ps", "kv_arrived_ps",
                     "finish_ps")
    ]  # fmt: skip
    arrival, begin, first, moved, end = columns
    moved = np.maximum(moved, first)  # nothing was handed over
    edges = (arrival, begin, first, moved, end)
    return {
        name: (after - before) / 1e12
        for name, before, after in zip(PHASES, edges[:-1], edges[1:], strict=True)
    }


def service_charts(figures: dict[str, Any], requests: pandas.DataFrame) -> list[Chart]:
    """Latencies, what goes on over time, where time went.

    Parameters
    ----------
    figures
        As ``result.json`` has them.
    requests
        The rows of ``requests.parquet``.
    """
    charts: list[Chart] = []
    latencies = _latencies(figures, requests)
    if latencies is not None:
        charts += [latencies, _where_time_went(requests)]
    return [*charts, _queue(figures), _batch(figures), _cache(figures)]


def _latencies(figures: dict[str, Any], requests: pandas.DataFrame) -> XYChart | None:
    lines = []
    kinds = {"TTFT": "ttft_s", "TPOT": "tpot_s", "longest gap": "longest_gap_s", "latency": "e2e_s"}
    done = requests[requests["finish_ps"] >= 0]
    for at, (name, column) in enumerate(kinds.items()):
        values = np.sort(done[column].dropna().to_numpy(dtype=np.float64))
        values = values[values > 0]
        if not len(values):
            continue
        shares = np.linspace(0, 1, min(len(values), _POINTS))
        lines.append(
            Line(
                name, SERIES_COLOURS[at], tuple(np.quantile(values, shares).tolist()),
                tuple((100 * shares).tolist()),
            )
        )  # fmt: skip
    if not lines:
        return None
    limits = figures["slo"]
    for at, (key, name) in enumerate((("ttft", "TTFT"), ("tpot", "TPOT"), ("e2e", "latency"))):
        if key in limits:
            colour = SERIES_COLOURS[(0, 1, 3)[at]]
            lines.append(
                Line(f"limit of {name}", colour, (limits[key],) * 2, (0.0, 100.0), dashed=True)
            )
    return XYChart(
        "latencies", "Latencies", "How many of the requests that ended took no longer. Dashed: the "
        "limits of the SLO.", "seconds", "requests (%)", lines=tuple(lines), x_log=True,
        y_range=(0.0, 100.0),
    )  # fmt: skip


def _where_time_went(requests: pandas.DataFrame) -> LaneChart:
    phases = phases_of(requests)
    done = requests[requests["finish_ps"] >= 0]
    total = sum(phases.values())
    assert isinstance(total, np.ndarray)
    order = np.argsort(-total, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _REQUESTS).astype(int))]
    lanes, spans = ["all, on average"], []
    at = 0.0
    for name, seconds in phases.items():
        mean = float(seconds.mean())
        if mean > 0:
            spans.append(_span(lanes[0], at, mean, name, ()))
        at += mean
    for row in chosen.tolist():
        one = done.iloc[row]
        lanes.append(f"request {int(one['id'])}")
        facts = (
            ("prompt", f"{int(one['prompt']):,} tokens"),
            ("output", f"{int(one['output']):,} tokens"),
            ("arrives at", f"{one['arrival_s']:,.3f} s"),
        )  # fmt: skip
        at = 0.0
        for name, seconds in phases.items():
            if seconds[row] > 0:
                spans.append(_span(lanes[-1], at, float(seconds[row]), name, facts))
            at += float(seconds[row])
    used = {span.series for span in spans}
    colours = {name: colour for name, colour in PHASES.items() if name in used}
    shown = f"{len(chosen)} of {len(order):,} requests" if len(chosen) < len(order) else "requests"
    return LaneChart(
        "requests", "Where each request's time went",
        f"From its arrival on; {shown}, evenly taken from the slowest to the fastest.",
        "seconds since arrival", tuple(lanes), tuple(spans), colours,
    )  # fmt: skip


def _span(
    lane: str, start: float, length: float, name: str, facts: tuple[tuple[str, str], ...]
) -> Span:
    told = (*facts, (name, f"{length:,.4f} s"))
    return Span(lane, start, start + length, name, told)


def _steps_of(figures: dict[str, Any], values: list[float]) -> tuple[tuple[float, ...], ...]:
    """A line's points: each value holds from the beginning of its interval to its end."""
    ends = figures["over_time"]["end_s"]
    starts = [0.0, *ends[:-1]]
    return (*starts, *ends[-1:]), (*values, *values[-1:])


def _queue(figures: dict[str, Any]) -> XYChart:
    over = figures["over_time"]
    ends = tuple(over["end_s"])
    return XYChart(
        "queue", "Queue", "Requests that have come and wait for their first step, and all that "
        "have come and not ended.", "seconds", "requests",
        lines=(
            Line("in the system", SERIES_COLOURS[0], ends, tuple(map(float, over["in_system"]))),
            Line("waiting", SERIES_COLOURS[1], ends, tuple(map(float, over["queue"]))),
        ),
        y_range=(0.0, 1.05 * max(1, *over["in_system"])),
    )  # fmt: skip


def _batch(figures: dict[str, Any]) -> XYChart:
    over = figures["over_time"]
    x, y = _steps_of(figures, over["batch"])
    return XYChart(
        "batch", "Batch", "Requests of a step, on average over the steps of an interval.",
        "seconds", "requests", lines=(Line("batch", SERIES_COLOURS[0], x, y, step=True),),
        y_range=(0.0, 1.05 * max(1.0, *over["batch"])),
    )  # fmt: skip


def _cache(figures: dict[str, Any]) -> XYChart:
    blocks = figures["kv"]["blocks"]
    shares = [100 * used / blocks for used in figures["over_time"]["kv_used"]]
    x, y = _steps_of(figures, shares)
    return XYChart(
        "cache", "KV cache", "Blocks of a replica in use, on average over the steps of an "
        f"interval; there are {blocks:,}.", "seconds", "blocks in use (%)",
        lines=(Line("in use", SERIES_COLOURS[2], x, y, step=True),), y_range=(0.0, 105.0),
    )  # fmt: skip
