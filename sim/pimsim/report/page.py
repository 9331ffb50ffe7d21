"""One HTML page that holds everything it shows: charts, tables, config, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pimsim import __version__
from pimsim.report.charts import Chart, LaneChart
from pimsim.report.free_axes import FreeAxes

__all__ = ["Headline", "Link", "Section", "Sentence", "TableData", "render_page"]


@dataclass(frozen=True)
class TableData:
    """Cells as they are shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = True
    """Behind its title until opened."""
    ids: tuple[str, ...] = ()
    """Of the rows, one each, where words link to them."""


@dataclass(frozen=True)
class Link:
    """Words that lead to a row of a table, or to a section."""

    text: str
    target: str
    """Its id."""


Sentence = str | tuple[str | Link, ...]
Headline = tuple[str, str] | tuple[str, str, str]
"""Words, a figure, and what is to know of it."""


@dataclass(frozen=True)
class Section:
    """A part of the page: a chart, its numbers, and texts to unfold."""

    key: str
    title: str
    chart: Chart | None = None
    tables: tuple[TableData, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    axes: FreeAxes | None = None
    """Points over two figures that are chosen in the page; of one section at most."""


def render_page(
    title: str, subtitle: str, headline: Sequence[Headline], sentences: Sequence[Sentence],
    sections: Sequence[Section],
) -> str:  # fmt: skip
    """The page as one string. Whatever came from a config or a trace is escaped.

    Parameters
    ----------
    title
        At its top.
    subtitle
        Below.
    headline
        Words and figure of each, and a note on it.
    sentences
        What was found.
    sections
        In their order.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from pimsim.report.interactive import chart_parts, library_script

    charts = [section.chart for section in sections if section.chart is not None]
    script, divs = chart_parts(charts) if charts else ("", [])
    plots = iter(divs)
    shown: list[dict[str, Any]] = [
        {
            "key": section.key, "title": section.title, "tables": section.tables,
            "texts": section.texts, "axes": section.axes,
            "plot": next(plots) if section.chart is not None else "",
            "caption": section.chart.caption if section.chart is not None else "",
            "legend": _legend(section.chart),
        }
        for section in sections
    ]  # fmt: skip
    environment = Environment(
        loader=PackageLoader("pimsim.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    )  # fmt: skip
    told = [(each,) if isinstance(each, str) else each for each in sentences]
    return environment.get_template("page.html.j2").render(
        title=title, subtitle=subtitle, headline=headline, sentences=told, sections=shown,
        library=library_script() if charts else "", plots=script, version=__version__,
    )  # fmt: skip


def _legend(chart: Chart | None) -> list[tuple[str, str, str]]:
    """Names, colours, and how a thing is drawn: ``mark``, ``line`` or ``dashed``."""
    if chart is None:
        return []
    if isinstance(chart, LaneChart):
        return [(*each, "mark") for each in chart.colours.items()] if chart.legend else []
    lines = [(one.name, one.colour, "dashed" if one.dashed else "line") for one in chart.lines]
    drawn = {each[:2] for each in lines}
    marks = [(series.name, series.colour, "mark") for series in chart.points]
    return lines + [each for each in marks if each[:2] not in drawn]
