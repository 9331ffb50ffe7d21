"""Charts on paper: matplotlib, at the width of a column or a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError, near_miss
from pimsim.config.extras import hush
from pimsim.config.files import make_folder, write_whole
from pimsim.config.paths import Pathlike
from pimsim.report.charts import Chart, LaneChart, XYChart, labels
from pimsim.validate.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "check_formats", "draw", "write_charts"]

FORMATS = ("png", "svg", "pdf")
PAGE_INCHES = 7.0
"""Text width of a two-column page (IEEE, ACM)."""
_MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}
_STYLE: Any = {
    "font.size": 8, "axes.titlesize": 9, "svg.hashsalt": "pimsim", "svg.fonttype": "none",
    "pdf.fonttype": 42,
}  # fmt: skip


def draw(chart: Chart, width: float = PAGE_INCHES) -> Figure:
    """The chart as a figure.

    Parameters
    ----------
    chart
        Of lanes, or of points and lines.
    width
        Inches.
    """
    hush("matplotlib")
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        if isinstance(chart, LaneChart):
            height = 0.9 + 0.32 * len(chart.lanes) + (0.2 * -(-len(chart.colours) // 3))
            figure = new_figure(width, max(height, 1.8))
            axes = figure.subplots()
            _lanes(figure, axes, chart)
        else:
            figure = new_figure(width, width * 0.55)
            axes = figure.subplots()
            _plane(figure, axes, chart)
        axes.set_title(chart.title, loc="left")
        axes.set_xlabel(chart.x_label)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _lanes(figure: Figure, axes: Axes, chart: LaneChart) -> None:
    place = {lane: at for at, lane in enumerate(reversed(chart.lanes))}
    for series, colour in chart.colours.items():
        mine = [span for span in chart.spans if span.series == series]
        axes.barh(
            [place[span.lane] for span in mine], [span.end - span.start for span in mine],
            left=[span.start for span in mine], height=0.72, color=colour, label=series,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
    for span in chart.spans:
        if span.text:
            axes.annotate(
                span.text, (span.end, place[span.lane]), (3, 0), textcoords="offset points",
                va="center", fontsize=7,
            )  # fmt: skip
    axes.set_yticks(range(len(place)), list(reversed(chart.lanes)))
    axes.set_xlim(0, chart.x_end)
    if chart.legend:
        figure.legend(loc="outside lower center", ncols=3, fontsize=7, frameon=False)


def _plane(figure: Figure, axes: Axes, chart: XYChart) -> None:
    for line in chart.lines:
        axes.plot(
            line.x, line.y, color=line.colour, label=line.name, linewidth=1.2,
            linestyle="--" if line.dashed else "-",
            drawstyle="steps-post" if line.step else "default", zorder=4 if line.above else 2,
        )  # fmt: skip
    lines = {(line.name, line.colour) for line in chart.lines}
    for series in chart.points:
        named = (series.name, series.colour) not in lines
        axes.scatter(
            [p.x for p in series.points], [p.y for p in series.points],
            s=[14 + 120 * p.weight for p in series.points], color=series.colour,
            marker=_MARKERS[series.marker], label=series.name if named else None, alpha=0.85,
            edgecolors="white", linewidths=0.5, zorder=3,
        )  # fmt: skip
        for x, y, text in labels(series, chart):
            axes.annotate(text, (x, y), (5, 3), textcoords="offset points", fontsize=6.5)
    axes.set_ylabel(chart.y_label)
    if chart.x_names:
        axes.set_xticks(range(len(chart.x_names)), list(chart.x_names))
    if chart.x_log:
        axes.set_xscale("log")
    if chart.x_ticks:
        from matplotlib.ticker import NullLocator

        axes.set_xticks(chart.x_ticks, [f"{each:,g}" for each in chart.x_ticks], minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
    if chart.y_log:
        axes.set_yscale("log")
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.x_range is not None:
        axes.set_xlim(*chart.x_range)
    if chart.lines or len(chart.points) > 1:
        figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)


def check_formats(formats: Sequence[str]) -> None:
    """Raise for another format than ``FORMATS``.

    Parameters
    ----------
    formats
        That are asked for.

    Raises
    ------
    InputError
        With the near miss.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(
                f"unknown figure format {name!r}{near_miss(name, FORMATS)}; "
                f"allowed: {', '.join(FORMATS)}"
            )


def write_charts(charts: Sequence[Chart], folder: Pathlike, formats: Sequence[str]) -> list[Path]:
    """Write every chart as ``folder/KEY.FORMAT``; the same chart gives the same file.

    Parameters
    ----------
    charts
        Each with a key of its own.
    folder
        Made where it is not there.
    formats
        Of ``FORMATS``.

    Returns
    -------
    list[Path]
        Of the files, chart by chart.

    Raises
    ------
    InputError
        For another format than ``FORMATS``, and where one cannot be written.
    """
    check_formats(formats)
    hush("matplotlib")
    import matplotlib

    # without these a file would hold the time at which it was made
    options: dict[str, dict[str, Any]] = {
        "png": {"dpi": 200},
        "svg": {"metadata": {"Date": None}},
        "pdf": {"metadata": {"CreationDate": None, "ModDate": None}},
    }
    written = []
    folder = make_folder(folder)
    for chart in charts:
        figure = draw(chart)
        for name in formats:
            content = io.BytesIO()
            with matplotlib.rc_context(_STYLE):
                figure.savefig(content, format=name, **options[name])
            written.append(write_whole(folder / f"{chart.key}.{name}", content.getvalue()))
    return written
