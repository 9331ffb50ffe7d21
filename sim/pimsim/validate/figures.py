"""Figures: ours against the references, drawn once and saved as PNG and SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.extras import hush
from pimsim.config.files import write_whole
from pimsim.validate.types import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "new_figure", "save_figure", "write_figure"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Okabe and Ito's palette, told apart by the colour-blind."""
_MARKERS = "osD^vPX"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, which needs no display.

    Parameters
    ----------
    width, height
        Inches.
    """
    hush("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from pimsim.validate.picture import Picture

    figure = Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, stem: Path) -> None:
    """Write ``stem.png`` and ``stem.svg``; the same figure gives the same files.

    Parameters
    ----------
    figure
        Of matplotlib.
    stem
        Path without suffix.
    """
    import matplotlib

    # an SVG's ids are random without a salt of ours, and it would hold the date
    saved: dict[str, dict[str, Any]] = {"png": {"dpi": 160}, "svg": {"metadata": {"Date": None}}}
    for suffix, options in saved.items():
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "pimsim"}):
            figure.savefig(content, format=suffix, **options)
        write_whole(stem.with_name(f"{stem.name}.{suffix}"), content.getvalue())


def write_figure(stem: Path, suite: str, rows: Sequence[Row]) -> None:
    """Ours against the references on logarithmic axes, and below the relative errors.

    Parameters
    ----------
    stem
        Path without suffix.
    suite
        Named in the title.
    rows
        Those of a reference or of ours of 0 or less are left out.
    """
    figure = new_figure(7, 7)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2), sharex=True)
    shown = [row for row in rows if row.reference > 0 and row.ours > 0]
    groups = list(dict.fromkeys(row.group for row in shown))
    for i, group in enumerate(groups):
        for wrong in (False, True):
            points = [row for row in shown if row.group == group and bool(row.known_wrong) == wrong]
            if points:
                _draw(upper, lower, points, group, i, wrong)
    if shown:
        ends = [f(f(row.reference, row.ours) for row in shown) for f in (min, max)]
        upper.plot(ends, ends, color="black", linewidth=0.8, zorder=0)
    upper.set_xscale("log")
    upper.set_yscale("log")
    upper.set_ylabel("pimsim")
    upper.set_title(f"{suite}: pimsim against its references")
    if groups:
        upper.legend(fontsize=8, frameon=False)
    lower.axhline(0, color="black", linewidth=0.8, zorder=0)
    lower.set_ylabel("error (%)")
    lower.set_xlabel("reference (unit of each metric: cycles, commands, pJ, ratio)")
    for axes in (upper, lower):
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, stem)


def _draw(
    upper: Axes, lower: Axes, points: Sequence[Row], group: str, index: int, wrong: bool
) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], _MARKERS[index % len(_MARKERS)]
    label = f"{group}, reference known to be wrong" if wrong else group
    reference = [row.reference for row in points]
    for axes, values in (
        (upper, [row.ours for row in points]),
        (lower, [100 * row.error for row in points]),
    ):
        axes.scatter(
            reference,
            values,
            s=26,
            marker=marker,
            edgecolors=colour,
            facecolors="none" if wrong else colour,
            linewidths=0.9,
            alpha=0.75,
            label=label,
        )
