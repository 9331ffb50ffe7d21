"""Figures of ``docs/neupims.md``; colours that the colour-blind tell apart, units on axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pimsim.validate.figures import COLOURS, new_figure, save_figure
from pimsim.validate.neupims.ratios import LADDER, ratio_at, waterfall
from pimsim.validate.neupims.runs import RunStore
from pimsim.validate.neupims.study import MODES, Study, StudyPoint

__all__ = ["draw_ablation", "draw_grid", "draw_waterfall"]

_STYLES = {"clean": "-", "quirks": "--"}
"""Modes that the grid shows."""
_LABELS = {
    "clean": "pimsim",
    "waiting": "pimsim, weights wait",
    "quirks": "pimsim with the artifact's quirks",
}


def draw_grid(study: Study, store: RunStore, points: Sequence[StudyPoint], stem: Path) -> None:
    """Speed-ups over batch: a column for each published ratio, a row for each data set.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    points
        That are drawn.
    stem
        Path without suffix.
    """
    figure = new_figure(11, 6.5)
    rows = list(study.grid.requests)
    axes = figure.subplots(
        len(rows), len(study.published), sharex=True, sharey="col", squeeze=False
    )
    for row, requests in enumerate(rows):
        for column, published in enumerate(study.published):
            plot = axes[row][column]
            for colour, model in zip(COLOURS, study.grid.models, strict=False):
                for mode, style in _STYLES.items():
                    here = [p for p in points if p.model == model and p.requests == requests]
                    pairs = [
                        (p.batch, ratio)
                        for p in here
                        if (ratio := ratio_at(study, store, published.of, published.over, mode, p))
                    ]
                    plot.plot(
                        [batch for batch, _ in pairs], [ratio for _, ratio in pairs],
                        style, color=colour, marker="o", markersize=3, linewidth=1.3,
                        label=f"{model}, {_LABELS[mode]}",
                    )  # fmt: skip
            plot.axhline(published.value, color="black", linewidth=0.9)
            plot.annotate(
                f"paper, average {published.value}", (0.98, published.value),
                xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7,
            )  # fmt: skip
            plot.set_yscale("log")
            plot.set_yticks([0.5, 1, 2, 4, 8, 16, 32], ["0.5", "1", "2", "4", "8", "16", "32"])
            plot.minorticks_off()
            if row == 0:
                plot.set_title(published.name, fontsize=10)
            if row == len(rows) - 1:
                plot.set_xlabel("batch (requests)")
            plot.set_xticks(study.grid.batches)
            if column == 0:
                plot.set_ylabel(f"{requests}\nthroughput ratio")
            plot.grid(color="#dddddd", linewidth=0.5)
            plot.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    save_figure(figure, stem)


def draw_ablation(study: Study, store: RunStore, stem: Path) -> None:
    """Throughput over NPU+PIM as the mechanisms are added, by batch.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    stem
        Path without suffix.
    """
    figure = new_figure(13, 3.6)
    axes = figure.subplots(1, len(MODES), sharey=True)
    names = [study.machine(key).name for key in LADDER]
    for plot, mode in zip(axes, MODES, strict=True):
        for k, key in enumerate(LADDER):
            values = [
                ratio_at(
                    study, store, key, "npu-pim", mode,
                    StudyPoint(study.ablation.model, study.ablation.requests, batch),
                ) or 0.0
                for batch in study.grid.batches
            ]  # fmt: skip
            places = [i + (k - 1.5) * 0.2 for i in range(len(values))]
            bars = plot.bar(places, values, width=0.19, color=COLOURS[k], label=names[k])
            plot.bar_label(bars, fmt="%.2f", fontsize=6, rotation=90, padding=2)
        plot.set_xticks(range(len(study.grid.batches)), [str(b) for b in study.grid.batches])
        plot.set_xlabel("batch (requests)")
        plot.set_title(_LABELS[mode], fontsize=10)
        plot.spines[["top", "right"]].set_visible(False)
        plot.margins(y=0.15)
    axes[0].set_ylabel("throughput over NPU+PIM")
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    save_figure(figure, stem)


def draw_waterfall(study: Study, store: RunStore, points: Sequence[StudyPoint], stem: Path) -> None:
    """How each of the artifact's departures moves each published ratio.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    points
        A row of plots each.
    stem
        Path without suffix.
    """
    figure = new_figure(12, 2.6 + 2.4 * len(points))
    axes = figure.subplots(len(points), len(study.published), sharey=True, squeeze=False)
    names = ["pimsim", *(step.name for step in study.waterfall.steps), "artifact's quirks"]
    for row, point in enumerate(points):
        for column, published in enumerate(study.published):
            plot = axes[row][column]
            before, steps = waterfall(study, store, published, point)
            places = list(range(len(names)))[::-1]
            plot.barh(places[0], before, color="#666666")
            for place, step in zip(places[1:], steps, strict=False):
                colour = COLOURS[0] if step.ratio >= before else COLOURS[1]
                plot.barh(place, step.ratio - before, left=before, color=colour)
                if abs(step.factor - 1) >= 0.005:
                    plot.annotate(
                        f"x{step.factor:.2f}", (max(step.ratio, before), place), fontsize=7,
                        xytext=(2, 0), textcoords="offset points", va="center",
                    )  # fmt: skip
                before = step.ratio
            plot.barh(places[-1], before, color="#666666")
            plot.axvline(published.value, color="black", linewidth=0.9, linestyle=":")
            plot.set_yticks(places, names, fontsize=7)
            plot.set_title(f"{published.name}, {point}", fontsize=8)
            plot.spines[["top", "right"]].set_visible(False)
            plot.margins(x=0.12)
            if row == len(points) - 1:
                plot.set_xlabel("throughput ratio (dotted: the paper's average)", fontsize=8)
    save_figure(figure, stem)
