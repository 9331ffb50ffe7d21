"""Charts on the page: bokeh, with hover, zoom and pan; its script is put into the page once.

Legends are the page's own text: they wrap on a phone and a screen reader reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, log10, sqrt
from typing import Any

from pimsim.report.charts import Chart, LaneChart, Line, PointSeries, XYChart, labels

__all__ = ["chart_parts", "library_script"]

_MOST_DECADES = 3
"""Of an axis that has ticks between decades."""
_SIZE = {"circle": 7, "square": 7, "triangle": 8, "diamond": 11}
"""Pixels at which marks look alike."""
_TOOLS = "pan,box_zoom,xwheel_zoom,reset,save"


def library_script() -> str:
    """Bokeh's own minified script, for a page that needs no network."""
    from bokeh.resources import Resources

    # the core alone: widgets, tables and formulas are three times its size
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def chart_parts(charts: Sequence[Chart]) -> tuple[str, list[str]]:
    """A script and one ``div`` a chart.

    Parameters
    ----------
    charts
        In the order of the page.
    """
    from bokeh.embed import components

    figures = [_figure(chart) for chart in charts]
    script, divs = components(tuple(figures))
    return script, list(divs)


def _figure(chart: Chart) -> Any:
    return _lanes(chart) if isinstance(chart, LaneChart) else _plane(chart)


def _lanes(chart: LaneChart) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool, Range1d
    from bokeh.plotting import figure

    names = _fact_names([span.facts for span in chart.spans])
    plot = figure(
        y_range=list(reversed(chart.lanes)), height=70 + 34 * len(chart.lanes),
        sizing_mode="stretch_width", tools=_TOOLS, toolbar_location="above",
        x_axis_label=chart.x_label, name=chart.key,
    )  # fmt: skip
    for series, colour in chart.colours.items():
        mine = [span for span in chart.spans if span.series == series]
        source = ColumnDataSource(
            {
                "lane": [span.lane for span in mine],
                "start": [span.start for span in mine],
                "end": [span.end for span in mine],
            }
            | _columns(names, [span.facts for span in mine])
        )
        bars = plot.hbar(
            y="lane", left="start", right="end", height=0.72, color=colour, source=source,
            line_color="white", line_width=0.3,
        )  # fmt: skip
        plot.add_tools(HoverTool(renderers=[bars], tooltips=_tooltips(names), visible=False))
    labelled = [span for span in chart.spans if span.text]
    if labelled:
        plot.text(
            x=[span.end for span in labelled], y=[span.lane for span in labelled],
            text=[span.text for span in labelled], x_offset=4, text_baseline="middle",
            text_font_size="11px", text_color="#595959",
        )  # fmt: skip
    plot.x_range = Range1d(0, chart.x_end)
    return plot


def _plane(chart: XYChart) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool
    from bokeh.plotting import figure

    plot = figure(
        height=400, sizing_mode="stretch_width", tools=_TOOLS, toolbar_location="above",
        x_axis_label=chart.x_label, y_axis_label=chart.y_label, name=chart.key,
        x_axis_type="log" if chart.x_log else "linear",
        y_axis_type="log" if chart.y_log else "linear",
        **({"x_range": chart.x_range} if chart.x_range is not None else {}),
        **({"y_range": chart.y_range} if chart.y_range is not None else {}),
    )  # fmt: skip
    if chart.x_names:
        plot.xaxis.ticker = list(range(len(chart.x_names)))
        plot.xaxis.major_label_overrides = dict(enumerate(chart.x_names))
    drawn = [(p.x, p.y) for series in chart.points for p in series.points]
    drawn += [xy for line in chart.lines for xy in zip(line.x, line.y, strict=True)]
    if chart.y_log and any(y > 0 for _, y in drawn):
        _decades(plot.yaxis, [y for _, y in drawn])
    if chart.x_log and not chart.x_ticks and any(x > 0 for x, _ in drawn):
        _decades(plot.xaxis, [x for x, _ in drawn])
    if chart.x_ticks and not chart.x_names:
        plot.xaxis.ticker = list(chart.x_ticks)
        plot.xaxis.major_label_overrides = {each: f"{each:,g}" for each in chart.x_ticks}
    _lines(plot, [line for line in chart.lines if not line.above])
    for series in chart.points:
        names = _fact_names([point.facts for point in series.points])
        source = ColumnDataSource(
            {
                "x": [point.x for point in series.points],
                "y": [point.y for point in series.points],
                "size": [_SIZE[series.marker] + 14 * point.weight for point in series.points],
            }
            | _columns(names, [point.facts for point in series.points])
        )
        marks = plot.scatter(
            "x", "y", size="size", color=series.colour, marker=series.marker, alpha=0.85,
            source=source, line_color="white", line_width=0.5,
        )  # fmt: skip
        plot.add_tools(HoverTool(renderers=[marks], tooltips=_tooltips(names), visible=False))
        for text_align, x_offset, named in _sides(series, chart):
            plot.text(
                x=[x for x, _, _ in named], y=[y for _, y, _ in named],
                text=[text for _, _, text in named], x_offset=x_offset, text_align=text_align,
                text_baseline="middle", text_font_size="11px", text_color="#595959",
            )  # fmt: skip
    _lines(plot, [line for line in chart.lines if line.above])
    return plot


def _decades(axis: Any, values: Sequence[float]) -> None:
    """Ticks at 1, 2 and 5 of each decade, or of decades alone where there are many, written as
    numbers."""
    from bokeh.models import BasicTickFormatter

    above = [value for value in values if value > 0]
    first, last = floor(log10(min(above))), ceil(log10(max(above)))
    steps = (1, 2, 5) if last - first <= _MOST_DECADES else (1,)
    axis.ticker = [step * 10.0**at for at in range(first - 1, last + 1) for step in steps]
    axis.formatter = BasicTickFormatter(power_limit_high=7, power_limit_low=-4)


def _sides(
    series: PointSeries, chart: XYChart
) -> Iterator[tuple[str, int, list[tuple[float, float, str]]]]:
    """Alignment, offset and names: towards the middle, where a narrow page has room for them."""
    named = labels(series, chart)
    xs = [x for line in chart.lines for x in line.x] + [point.x for point in series.points]
    low, high = min(xs, default=0.0), max(xs, default=0.0)
    middle = sqrt(low * high) if chart.x_log else (low + high) / 2
    for align, offset, on_this_side in (("left", 8, False), ("right", -8, True)):
        own = [each for each in named if (each[0] > middle) == on_this_side]
        if own:
            yield align, offset, own


def _lines(plot: Any, lines: Sequence[Line]) -> None:
    for line in lines:
        draw = plot.step if line.step else plot.line
        options: dict[str, Any] = {"mode": "after"} if line.step else {}
        draw(
            list(line.x), list(line.y), color=line.colour, line_width=1.6,
            line_dash="dashed" if line.dashed else "solid", **options,
        )  # fmt: skip


def _fact_names(facts: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    return list(dict.fromkeys(name for each in facts for name, _ in each))


def _columns(
    names: Sequence[str], facts: Sequence[tuple[tuple[str, str], ...]]
) -> dict[str, list[str]]:
    known = [dict(each) for each in facts]
    return {f"fact{at}": [each.get(name, "") for each in known] for at, name in enumerate(names)}


def _tooltips(names: Sequence[str]) -> list[tuple[str, str]]:
    """Bokeh escapes values itself; names are ours."""
    return [(name, f"@fact{at}") for at, name in enumerate(names)]
