"""A validation on disk: the rows as CSV, and ours against the references as a figure."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.validate.judge import status_of
from pimsim.validate.types import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["make_folder", "write_figure", "write_rows"]

COLUMNS = (
    "suite", "group", "case", "metric", "reference", "ours", "error", "status", "known_wrong",
)  # fmt: skip

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
"""Okabe and Ito's palette, told apart by the colour-blind."""
_MARKERS = "osD^vPX"


def make_folder(folder: Path) -> None:
    """Create ``folder``, before work starts that would be lost without it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from error


def write_rows(path: Path, rows: Sequence[tuple[str, Row]]) -> None:
    """All rows, one a line; ``rows`` are pairs of suite and row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for suite, row in rows:
        writer.writerow(
            [
                suite,
                row.group,
                row.case,
                row.metric,
                f"{row.reference:.12g}",
                f"{row.ours:.12g}",
                f"{row.error:.6f}",
                status_of(row),
                row.known_wrong,
            ]
        )
    write_whole(path, text.getvalue().encode())


def write_figure(path: Path, suite: str, rows: Sequence[Row]) -> None:
    """Ours against the references on logarithmic axes, and below the relative errors.

    The suffix of ``path`` says the format (png, svg, pdf).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    FigureCanvasAgg(figure)
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
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.lstrip("."), dpi=160)
    write_whole(path, content.getvalue())


def _draw(
    upper: Axes, lower: Axes, points: Sequence[Row], group: str, index: int, wrong: bool
) -> None:
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
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
