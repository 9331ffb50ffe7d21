"""``docs/neupims.md``: what was published, what the artifact gives, what pimsim gives, and why.

The page is written from the simulations in the store; no figure of pimsim stands in its template.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pimsim.config.files import make_folder, write_whole
from pimsim.config.resources import data_dir
from pimsim.validate.neupims.measured import BRANCHES, read_measured
from pimsim.validate.neupims.plots import draw_ablation, draw_grid, draw_waterfall
from pimsim.validate.neupims.ratios import (
    LADDER,
    crowding,
    figures_at,
    mean_ratio,
    ratio_at,
    waterfall,
    waterfall_points,
    weights_bound,
)
from pimsim.validate.neupims.runs import RunStore, grid_case
from pimsim.validate.neupims.study import MODES, Published, Study, StudyPoint, points_of
from pimsim.workload.cards import load_card

__all__ = ["CLOSE", "published_gap", "write_page"]

CLOSE = 0.15
"""How near a mean must come to the paper's to count as reproduced (the issue's limit)."""

_MODE_NAMES = {
    "clean": "pimsim",
    "waiting": "weights wait for their operator",
    "quirks": "with the artifact's quirks",
}


def published_gap(study: Study, store: RunStore, published: Published, mode: str) -> float:
    """Mean over the grid, relative to the paper's, less one.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    published
        A ratio of the paper.
    mode
        One of ``MODES``.

    Returns
    -------
    float
        0 where they agree.
    """
    mean = mean_ratio(study, store, published, mode, points_of(study))
    return mean / published.value - 1


def write_page(study: Study, store: RunStore, folder: Path) -> Path:
    """Write ``neupims.md`` and its figures (SVG, PNG) into ``folder``.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations, with all that the page shows.
    folder
        Of the page.

    Returns
    -------
    Path
        Of the page.
    """
    points = list(points_of(study))
    figures = make_folder(folder / "figures")
    draw_grid(study, store, points, figures / "neupims-grid")
    draw_ablation(study, store, figures / "neupims-ablation")
    draw_waterfall(study, store, waterfall_points(study), figures / "neupims-waterfall")
    sections = (
        _head(study, store),
        _measured(study),
        _grid(study, store, points),
        _ablation(study, store),
        _utilisation(study, store),
        _waterfalls(study, store),
        _assumptions(study, store),
    )
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return write_whole(folder / "neupims.md", text.encode())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


_NO_FIT = "does not fit"


def _ratio(value: float | None) -> str:
    return _NO_FIT if value is None or math.isnan(value) else f"{value:.2f}"


def _head(study: Study, store: RunStore) -> Iterator[str]:
    yield "# The NeuPIMs result, explained"
    yield ""
    yield (
        "Written by `pimsim validate neupims --grid --out DIR`; every figure of pimsim below comes "
        "from a simulation of command fidelity. The paper: NeuPIMs, ASPLOS 2024, arXiv 2403.00579. "
        "The artifact: casys-kaist/NeuPIMs f299af3. Nothing is fitted to either."
    )
    yield ""
    yield (
        f"The grid is the paper's: {', '.join(study.grid.models)}; request lengths drawn from the "
        f"published means of {' and '.join(study.grid.requests)}; batches "
        f"{', '.join(map(str, study.grid.batches))}. NeuPIMs runs with sub-batches from batch "
        f"{study.grid.sub_batches_from} on, as the artifact's README does, below without."
    )
    yield ""
    yield (
        "One design choice is shown both ways. *pimsim*: while an operator ends, and during the "
        "vector work and collectives behind it, the NPU already streams the first two tiles of the "
        "next product's weights, which depend on nothing (`npu.prefetch_weights`). *Weights wait "
        "for their operator*: they are asked for when it starts, as in ONNXim and in the artifact."
    )
    yield ""
    yield "## Averages over the grid"
    yield ""
    rows = []
    for published in study.published:
        means = [mean_ratio(study, store, published, mode, points_of(study)) for mode in MODES]
        verdicts = [f"{_ratio(mean)} ({mean / published.value - 1:+.0%})" for mean in means]
        rows.append((published.name, f"{published.value} ({published.source})", *verdicts))
    yield from _table(("ratio", "paper", *(_MODE_NAMES[mode] for mode in MODES)), rows)
    yield ""
    yield from _left_out(study, store)
    near = [
        published.name
        for published in study.published
        if abs(published_gap(study, store, published, "clean")) <= CLOSE
    ]
    far = [p.name for p in study.published if p.name not in near]
    if near:
        yield f"Within {CLOSE:.0%} of the paper without quirks: {', '.join(near)}."
    if far:
        yield (
            f"Not within {CLOSE:.0%} without quirks: {', '.join(far)}. The sections on the "
            "waterfall and on assumptions say which of them carry the difference."
        )


def _left_out(study: Study, store: RunStore) -> Iterator[str]:
    """Points of the grid that a machine cannot hold, which no mean contains."""
    points = list(points_of(study))
    notes = [figures_at(study, store, "npu-only", "clean", point).note for point in points]
    lacking = [(point, note) for point, note in zip(points, notes, strict=True) if note]
    if lacking:
        names = ", ".join(str(point) for point, _ in lacking)
        yield (
            f"Means are over {len(points) - len(lacking)} of the {len(points)} points: {names} "
            f"need more memory than the devices have ({lacking[0][1]})."
        )
        yield ""
    crowded = {
        str(point): note
        for point, out in zip(points, notes, strict=True)
        if not out and (note := crowding(study, point))
    }
    if crowded:
        name, note = next(iter(crowded.items()))
        yield (
            f"At {', '.join(crowded)} the two simulated blocks have room on PIM, all blocks of the "
            f"model would not ({name}: {note}): the paper's machine holds this batch only in a "
            "denser layout than row by row. The figures stand as they are."
        )
        yield ""
    staged = [model for model in study.grid.models if load_card(model).pp > 1]
    if staged:
        yield (
            f"{' and '.join(staged)} are cut into pipeline stages. As in the artifact, memory "
            "holds the cache of one batch, not of one for each stage (`parallel.batches=1`); "
            "ratios do not depend on how many are under way."
        )
        yield ""


def _measured(study: Study) -> Iterator[str]:
    yield "## What the artifact itself gives"
    yield ""
    yield (
        "Cycles of one block for the whole batch (with sub-batches stages C + D, the steady "
        "state), measured by running the artifact, GPT3-7B on 4 devices. `sg` are ShareGPT "
        "lengths on channels in turn (`rr`) or balanced (`clb`), `u512` equal contexts of 512; the "
        "last number is the batch. Ratios are those of the branches."
    )
    yield ""
    rows = []
    for trace, cycles in sorted(
        read_measured(data_dir("tests/data") / "neupims_cycles.csv").items()
    ):
        best = min((cycles[b] for b in ("main off", "main on") if b in cycles), default=0)
        base, pim = cycles.get("npu-only"), cycles.get("npu+pim")
        rows.append(
            (
                trace,
                *(f"{cycles[branch]:,}" if branch in cycles else "" for branch in BRANCHES),
                _ratio(pim / best) if pim and best else "",
                _ratio(base / pim) if base and pim else "",
                _ratio(base / best) if base and best else "",
            )
        )
    yield from _table(("trace", *BRANCHES, *(p.name for p in study.published)), rows)
    yield ""
    yield (
        "Where contexts are longer than a row (512 tokens), the end of attention is no DRAM "
        "command: the artifact adds and stores partial sums 32 outputs at a time, in program "
        "order, one instruction a cycle, and its program goes channel by channel. In `u1024-64` "
        "the sums of 62 requests wait for the first channel's last head and then leave in "
        "62 x 8 x 4 = 1,984 cycles, all of them behind PIM's last dot product (attend: 30,449 "
        "cycles there, 30,228 with its quirks here, 28,740 with one instruction a head)."
    )


def _grid(study: Study, store: RunStore, points: Sequence[StudyPoint]) -> Iterator[str]:
    yield "## The grid"
    yield ""
    yield "![Speed-ups over batch](figures/neupims-grid.svg)"
    yield ""
    yield f"Each cell: {' / '.join(_MODE_NAMES.values())}."
    for published in study.published:
        yield ""
        yield f"### {published.name} (paper: {published.value} on average)"
        yield ""
        rows = []
        for model in study.grid.models:
            for requests in study.grid.requests:
                cells = []
                for batch in study.grid.batches:
                    point = StudyPoint(model, requests, batch)
                    values = [
                        _ratio(ratio_at(study, store, published.of, published.over, mode, point))
                        for mode in MODES
                    ]
                    fits = [value for value in values if value != _NO_FIT]
                    cells.append(" / ".join(fits) if fits else _NO_FIT)
                rows.append((model, requests, *cells))
        yield from _table(("model", "requests", *map(str, study.grid.batches)), rows)


def _ablation(study: Study, store: RunStore) -> Iterator[str]:
    model, requests = study.ablation.model, study.ablation.requests
    yield "## The ablation (figure 13)"
    yield ""
    yield (
        f"{model}, {requests}: throughput over NPU+PIM as the dual row buffer, balanced channels "
        "(greedy min-load bin packing) and sub-batches are added. The paper's text gives the first "
        f"step's average, {study.ablation.drb_average - 1:+.1%}, says that balancing always helps, "
        "and that sub-batches hurt at small batches and pay from 256 on."
    )
    yield ""
    yield "![Ablation](figures/neupims-ablation.svg)"
    yield ""
    for mode in MODES:
        yield f"**{_MODE_NAMES[mode]}**"
        yield ""
        rows = []
        for batch in study.grid.batches:
            point = StudyPoint(model, requests, batch)
            ratios = [ratio_at(study, store, key, "npu-pim", mode, point) for key in LADDER]
            last = ratio_at(study, store, "sbi", "gmlbp", mode, point)
            rows.append((str(batch), *map(_ratio, ratios), _percent(last)))
        names = [study.machine(key).name for key in LADDER]
        yield from _table(("batch", *names, "sub-batches alone"), rows)
        yield ""


def _percent(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio - 1:+.0%}"


def _utilisation(study: Study, store: RunStore) -> Iterator[str]:
    table = study.utilisation
    point = StudyPoint(table.model, table.requests, table.batch)
    yield f"## Utilisation (table 4: {point})"
    yield ""
    rows = []
    for key, name in (("npu-pim", "NPU+PIM"), ("neupims", "NeuPIMs")):
        found = [figures_at(study, store, key, mode, point) for mode in MODES]
        for unit, published in (("npu", table.npu[key]), ("pim", table.pim[key])):
            rows.append(
                (
                    name,
                    unit.upper(),
                    f"{published:.1%}",
                    *(f"{getattr(figures, unit):.1%}" for figures in found),
                )
            )
    yield from _table(("machine", "unit", "paper", *(_MODE_NAMES[mode] for mode in MODES)), rows)
    yield ""
    yield (
        "Ours: the NPU's is multiplications done of those that its arrays could do; PIM's is the "
        "share of time with a PIM operation under way, averaged over channels. The paper does not "
        "define its own; the artifact's counter divides by one array although eight work (its "
        "NpuUtilization goes up to 6.4, MECHANISMS B9), so the rows are set side by side and not "
        "judged."
    )
    yield ""
    most = weights_bound(grid_case(study, "sbi", "clean", point).config)
    yield (
        f"The paper's {table.npu['neupims']:.1%} cannot be of this kind: with two sub-batches each "
        f"weight that is read serves {table.batch // 2} requests, and a machine with table 2's "
        f"bandwidth and arrays, its memory streaming weights without a pause, keeps {most:.0%} of "
        "the multipliers busy. Either sub-batches share what they read, or it counts arrays "
        "that hold a tile as busy."
    )


def _waterfalls(study: Study, store: RunStore) -> Iterator[str]:
    yield "## From pimsim to the artifact, one departure at a time"
    yield ""
    yield (
        "Each step adds one thing that the artifact does differently from the hardware it stands "
        "for, to all three machines where they have it; the last bar is the artifact's presets. "
        "The order matters for the size of a step, not for the ends."
    )
    yield ""
    yield "![Waterfall](figures/neupims-waterfall.svg)"
    for point in waterfall_points(study):
        yield ""
        yield f"### {point}"
        yield ""
        columns = [waterfall(study, store, published, point) for published in study.published]
        rows = [("pimsim", *(_ratio(first) for first, _ in columns), "")]
        for i, step in enumerate(study.waterfall.steps):
            cells = [f"{steps[i].ratio:.2f} (x{steps[i].factor:.2f})" for _, steps in columns]
            rows.append((step.name, *cells, step.why))
        yield from _table(("", *(p.name for p in study.published), "the departure"), rows)


def _assumptions(study: Study, store: RunStore) -> Iterator[str]:
    yield "## Which assumption carries which ratio"
    yield ""
    yield (
        "For each ratio, the departures that move it most at the points above (product over the "
        "points' factors, as a geometric mean):"
    )
    yield ""
    points = waterfall_points(study)
    for published in study.published:
        factors = {}
        for i, step in enumerate(study.waterfall.steps):
            logs = [
                math.log(waterfall(study, store, published, point)[1][i].factor) for point in points
            ]
            factors[step.name] = math.exp(math.fsum(logs) / len(logs))
        ranked = sorted(factors.items(), key=lambda item: -abs(math.log(item[1])))[:3]
        said = "; ".join(f"{name} (x{factor:.2f})" for name, factor in ranked)
        yield f"- **{published.name}**: {said}."
    yield ""
    yield from _sub_batches(study, store)
    yield ""
    yield from _MECHANISMS


_MECHANISMS = (
    "What would explain the paper's averages, from the mechanisms above:",
    "",
    "- *NeuPIMs over NPU+PIM* is carried by the baseline's front end, not by the row buffer: the "
    "artifact's NPU+PIM hands out one PIM instruction a cycle for all channels together, its "
    "NeuPIMs any number. With equal front ends a second row buffer gains little by itself, as "
    "nothing else runs while one batch is in attention; it is what lets sub-batches overlap.",
    "- *NPU+PIM over NPU-only* and *NeuPIMs over NPU-only* are carried by attention in the "
    "NPU-only baseline: head by head, at the latency of the arrays, the artifact leaves the memory "
    "idle most of the time. An NPU that streams its KV cache at the bus's rate, as ours, is a much "
    "stronger baseline; the paper's averages lie between the two.",
    "- *Sub-batches* read every weight twice, once for each half. They pay where attention of a "
    "half lasts as long as what that costs: with long contexts, many requests and narrow models "
    "first. Halves are held back by the memory, a whole batch of 256 by the arrays: a memory that "
    "pauses during vector work and collectives costs halves nearly all of that time, a whole batch "
    "little. So the crossover is lower where weights come early, or, in the artifact, where vector "
    "work and links are free.",
    "- *Request lengths* are drawn from the published means; the paper's samples are not "
    "published, and longer contexts raise all three ratios.",
)
"""What follows from how the machines work, whatever the figures are."""


def _sub_batches(study: Study, store: RunStore) -> Iterator[str]:
    """Where sub-batches begin to pay, by mode."""
    for mode in MODES:
        pays = []
        for model in study.grid.models:
            for requests in study.grid.requests:
                gains = {
                    batch: ratio_at(
                        study, store, "sbi", "gmlbp", mode, StudyPoint(model, requests, batch)
                    )
                    for batch in study.grid.batches
                }
                first = next((b for b, gain in gains.items() if gain and gain > 1), None)
                pays.append(f"{model} {requests} {first or 'never'}")
        yield (
            f"- **Sub-batches, {_MODE_NAMES[mode]}**: the first batch of the grid at which they "
            f"raise throughput: {', '.join(pays)}."
        )
