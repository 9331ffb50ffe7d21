"""The curve of a service: its latency over its throughput."""

from __future__ import annotations

from pimsim.explore.rates import RatePoint, RateStudy
from pimsim.report.charts import Line, Point, PointSeries, XYChart
from pimsim.report.palette import SERIES_COLOURS

__all__ = ["rate_charts"]

_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "latency"}
_MARKERS = ("circle", "square", "triangle", "diamond")


def rate_charts(study: RateStudy) -> list[XYChart]:
    """A chart each of TTFT, TPOT and latency over the requests that end in a second; those that
    nothing is known of are left out.

    Parameters
    ----------
    study
        With its points.
    """
    found = (_chart(study, key, name) for key, name in _NAMES.items())
    return [chart for chart in found if chart.lines]


def _chart(study: RateStudy, key: str, name: str) -> XYChart:
    lines, series = [], []
    for at, rank in enumerate(("p50", "p99")):
        known = [(point, time) for point in study.points
                 if (time := point.latency_s[key][rank]) is not None]  # fmt: skip
        if not known:
            continue
        colour = SERIES_COLOURS[at]
        points = tuple(Point(point.requests_per_s, time, _facts(point)) for point, time in known)
        lines.append(Line(rank, colour, tuple(p.x for p in points), tuple(p.y for p in points)))
        series.append(PointSeries(f"{name} {rank}", colour, points, _MARKERS[at]))
    if lines and key in study.slo:
        ends = [point.requests_per_s for point in study.points]
        limit = study.slo[key]
        lines.append(Line("SLO", "#000000", (min(ends), max(ends)), (limit,) * 2, dashed=True))
    return XYChart(
        f"rates_{key}", f"{study.name}: {name} over the rate served",
        "Of requests in the steady state, on average over the seeds; a point a rate.",
        "requests that end (1/s)", f"{name} (s)", tuple(series), tuple(lines), y_log=True,
    )  # fmt: skip


def _facts(point: RatePoint) -> tuple[tuple[str, str], ...]:
    return (
        ("requests come", f"{point.rate_per_s:g}/s"),
        ("keeps the SLO", "yes" if point.keeps else point.why),
    )
