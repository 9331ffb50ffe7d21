"""``docs/designs.md``: a study of designs as a page, every figure from the store of its points."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pimsim.config.files import make_folder, write_whole
from pimsim.explore.designs import Design, DesignGroup, DesignStudy, Place
from pimsim.explore.store import Store
from pimsim.report.design_figures import (
    Figures,
    Outcome,
    doubts,
    fastest,
    gains,
    mean_gain,
)
from pimsim.report.study_pages import Outcomes, left_out, outcomes_of, table_lines
from pimsim.result.metrics import METRICS

__all__ = ["write_study"]

_RATE, _FRUGALITY = METRICS["tokens_per_s"].unit, METRICS["tokens_per_j"].unit
_DENSITY = f"{_RATE}/mm2"
_METRICS = {"rate": _RATE, "per_j": _FRUGALITY, "per_mm2": _DENSITY}
_UNITS = {
    "npu": "multipliers of the NPU", "array": "the NPU's arrays as these products load them",
    "dram": "the memory's pins", "pim": "multipliers of PIM", "link": "links between devices",
    "pim_link": "the link to PIM's memory",
    "xpu_compute": "the GPU's arithmetic", "xpu_memory": "the GPU's memory",
}  # fmt: skip


def write_study(study: DesignStudy, store: Store, folder: Path) -> Path:
    """Write ``designs.md`` and ``designs.csv``.

    Parameters
    ----------
    study
        Of ``read_study``.
    store
        Of ``run_study``.
    folder
        Of the page.

    Returns
    -------
    Path
        Of the page.
    """
    known = {group.name: outcomes_of(study, store, group) for group in study.groups}
    make_folder(folder)
    write_whole(folder / "designs.csv", _csv(study, known).encode())
    sections = [
        _head(study, known),
        *(_conclusions(study, group, known[group.name]) for group in study.groups),
        *(_tables(study, group, known[group.name]) for group in study.groups),
        _checks(study, known),
        left_out(study),
    ]
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return write_whole(folder / "designs.md", text.encode())


def _number(value: float) -> str:
    """With three digits or all before the point; a dash where it is not known."""
    if value != value:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _where(place: Place) -> str:
    return f"{place.model}, context {place.context}, batch {place.batch}"


# head --------------------------------------------------------------------------------------


def _head(study: DesignStudy, known: Mapping[str, Outcomes]) -> Iterator[str]:
    all_of = [each for group in known.values() for of in group.values() for each in of.values()]
    ran = [each.figures for each in all_of if each.figures is not None]
    refused = sum(bool(each.error) for each in all_of)
    missing = len(all_of) - len(ran) - refused
    yield "# Designs side by side"
    yield ""
    yield (
        "Written by `pimsim designs --out DIR`: every figure is a simulation's, and "
        "[designs.csv](designs.csv) has them all. One decode step of a batch of equal requests, a "
        f"token each. {len(ran):,} points were run, {refused:,} cannot be (each says why), and "
        f"{missing:,} were not run."
    )
    if missing:
        yield ""
        yield from _not_run(study, known)
    notes = [f"{each.name}: {each.note}" for each in study.models if each.note]
    if notes:
        yield ""
        yield f"Models are the cards of `models/`. {'; '.join(notes)}."
    fast = [each for each in ran if each.fidelity == "fast"]
    if fast:
        errors = sorted(abs(each.error_mean) for each in fast)
        widest = max(abs(each.error_mean) + each.error_ci95 for each in fast)
        yield ""
        yield (
            f"{len(fast):,} points are of `fidelity: fast`: by a sample of each they are off from "
            f"the commands by {errors[len(errors) // 2]:.1%} in the median, {errors[-1]:.1%} at "
            f"most; the widest 95 % interval ends at {widest:.1%}. GPUs have one fidelity, a "
            "roofline with kernels' losses, and no area."
        )
    yield ""
    yield (
        f"A cell has {_RATE} of all devices, {_FRUGALITY}, {_DENSITY} (DRAM, PIM and compute "
        "silicon by `configs/area`), and the nearest bound with its share of the time: what is "
        "left of 100 % is what the machine loses beside it. Bounds: "
        + "; ".join(f"`{unit}` {words}" for unit, words in _UNITS.items())
        + "."
    )


def _not_run(study: DesignStudy, known: Mapping[str, Outcomes]) -> Iterator[str]:
    """Which points were run, by group, batch and context."""
    yield "Points that were run or refused, of those that the study has:"
    yield ""
    rows = []
    for group in study.groups:
        for context in study.contexts:
            row = [group.title, context]
            for batch in study.batches:
                of = [
                    outcome
                    for by_place in known[group.name].values()
                    for place, outcome in by_place.items()
                    if (place.context, place.batch) == (context, batch)
                ]
                row.append(f"{sum(each.known for each in of)} of {len(of)}")
            rows.append(row)
    yield from table_lines(["", "context", *(f"batch {each}" for each in study.batches)], rows)


# conclusions -------------------------------------------------------------------------------


def _conclusions(study: DesignStudy, group: DesignGroup, known: Outcomes) -> Iterator[str]:
    yield f"## {group.title}: what follows"
    yield ""
    yield group.about
    yield ""
    absent = [name for name, of in known.items() if not any(each.known for each in of.values())]
    if absent:
        yield f"Not run at all yet: {', '.join(absent)}. What follows is of the others alone."
        yield ""
    if not _compared(group, known):
        yield f"No other design has a point beside one of {group.baseline} yet."
        return
    yield from _sentences(study, group, known)
    yield ""
    yield (
        f"Against {group.baseline}, geometric means over the points that both can do, with the "
        "best and the worst of them:"
    )
    yield ""
    yield from table_lines(
        ["design", "on PIM", "points", *_METRICS.values(), f"best in {_RATE}", f"worst in {_RATE}"],
        _gain_rows(group, known),
    )
    for by in ("context", "batch", "model"):
        values = list(
            dict.fromkeys(
                getattr(place, by)
                for place, outcome in known[group.baseline].items()
                if outcome.figures is not None
            )
        )
        yield ""
        yield f"The same in {_RATE}, by {by}:"
        yield ""
        yield from table_lines(
            ["design", *map(str, values)],
            (
                [
                    design.name,
                    *(
                        _times(mean_gain(_gains(group, known, design.name, "rate"), by, value))
                        for value in values
                    ),
                ]
                for design in _compared(group, known)
            ),
        )
    yield ""
    yield f"The fastest, and how much faster it is than {group.baseline}:"
    yield ""
    yield from table_lines(
        ["model", "context", *(f"batch {each}" for each in study.batches)],
        _fastest_rows(study, group, known),
    )


def _compared(group: DesignGroup, known: Outcomes) -> list[Design]:
    """Designs that share a point with the baseline."""
    return [
        each
        for each in group.designs
        if each.name != group.baseline and _gains(group, known, each.name, "rate")
    ]


def _gains(group: DesignGroup, known: Outcomes, design: str, metric: str) -> dict[Place, float]:
    return gains(known[design], known[group.baseline], metric)


def _gain_rows(group: DesignGroup, known: Outcomes) -> Iterator[list[str]]:
    for design in _compared(group, known):
        by = {metric: _gains(group, known, design.name, metric) for metric in _METRICS}
        rates = by["rate"]
        ranked = sorted(rates, key=lambda place: -rates[place])
        ends = [f"{_times(rates[place])} ({_where(place)})" for place in (ranked[0], ranked[-1])]
        means = [_times(mean_gain(by[metric])) for metric in _METRICS]
        yield [design.name, design.does, str(len(rates)), *means, *ends]


def _fastest_rows(
    study: DesignStudy, group: DesignGroup, known: Outcomes
) -> Iterator[list[str]]:  # fmt: skip
    best = fastest(known, "rate")
    for model in study.models:
        for context in study.contexts:
            row = [model.name, context]
            for batch in study.batches:
                place = Place(model.name, context, batch)
                if place not in best:
                    row.append("")
                    continue
                gain = _gains(group, known, best[place], "rate").get(place)
                row.append(best[place] + (f" {_times(gain)}" if gain is not None else ""))
            if any(row[2:]):
                yield row


def _sentences(study: DesignStudy, group: DesignGroup, known: Outcomes) -> Iterator[str]:
    """What an architect takes from the tables, each from their figures."""
    for metric, words in _METRICS.items():
        best = Counter(fastest(known, metric).values())
        if best:
            told = ", ".join(f"{name} {n}" for name, n in best.most_common())
            yield f"- Best in {words}, of {best.total()} places where any design ran: {told}."
    for design in _compared(group, known):
        found = _gains(group, known, design.name, "rate")
        parts = [
            f"{sum(gain > 1.02 for gain in found.values())} of {len(found)} points faster by more "
            f"than 2 %, {sum(gain < 0.98 for gain in found.values())} slower"
        ]
        for by, order in (("batch", study.batches), ("context", list(study.contexts))):
            means = {
                value: mean
                for value in order
                if (mean := mean_gain(found, by, value)) is not None
            }  # fmt: skip
            if len(means) > 1:
                ends = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
                between = (f"{_times(means[value])} ({value})" for value in ends)
                parts.append(f"by {by} from {' to '.join(between)}")
        bounds = Counter(
            outcome.figures.bound
            for outcome in known[design.name].values()
            if outcome.figures is not None
        )
        unit, n = bounds.most_common(1)[0]
        parts.append(f"its nearest bound is `{unit}` at {n} of {bounds.total()} points")
        yield f"- {design.name}: {'; '.join(parts)}."


# tables ------------------------------------------------------------------------------------


def _tables(study: DesignStudy, group: DesignGroup, known: Outcomes) -> Iterator[str]:
    yield f"## {group.title}: the table"
    yield ""
    yield f"{_RATE} / {_FRUGALITY} / {_DENSITY}, nearest bound."
    notes: dict[str, int] = {}
    for model in study.models:
        for context in study.contexts:
            here = {name: _at(of, model.name, context) for name, of in known.items()}
            if not any(each.known for of in here.values() for each in of.values()):
                continue
            yield ""
            yield f"### {model.name}, context {context}" + (
                "" if group is study.groups[0] else f" ({group.title.lower()})"
            )
            yield ""
            yield from table_lines(
                ["design", "devices", *(f"batch {each}" for each in study.batches)],
                (
                    [
                        name,
                        _devices(of),
                        *(
                            _cell(of[Place(model.name, context, batch)], notes)
                            for batch in study.batches
                        ),
                    ]
                    for name, of in here.items()
                    if any(each.known for each in of.values())
                ),
            )
    if notes:
        yield ""
        yield f"Why not ({group.title.lower()}):"
        yield ""
        for error, at in notes.items():
            yield f"{at}. {' '.join(error.split())}"


def _at(of: Mapping[Place, Outcome], model: str, context: str) -> dict[Place, Outcome]:
    return {
        place: outcome
        for place, outcome in of.items()
        if (place.model, place.context) == (model, context)
    }


def _devices(of: Mapping[Place, Outcome]) -> str:
    found = {each.figures.devices for each in of.values() if each.figures is not None}
    return ", ".join(map(str, sorted(found)))


def _cell(outcome: Outcome, notes: dict[str, int]) -> str:
    if outcome.error:
        return f"no: {notes.setdefault(outcome.error, len(notes) + 1)}"
    figures = outcome.figures
    if figures is None:
        return "not run"
    numbers = " / ".join(_number(figures.value(metric)) for metric in _METRICS)
    return f"{numbers}, {figures.bound} {figures.bound_share:.0%}"


# checks, what is missing -------------------------------------------------------------------


def _checks(study: DesignStudy, known: Mapping[str, Outcomes]) -> Iterator[str]:
    yield "## Checks"
    yield ""
    yield (
        "Every run holds its laws (no operator beats its roofline; bytes and products are what "
        "its operators need), or it stands above as failed. No bound may exceed the time, and a "
        f"larger batch should not have fewer {_RATE}; where it has by more than 2 %, it is here:"
    )
    yield ""
    found = [
        f"- {group.title}, {name}: {line}"
        for group in study.groups
        for name, of in known[group.name].items()
        for line in doubts(of)
    ]
    yield from found or ["- none"]


def _csv(study: DesignStudy, known: Mapping[str, Outcomes]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = Figures.columns()
    writer.writerow(["group", "design", "model", "context", "batch", *fields, "error"])
    for group in study.groups:
        for name, of in known[group.name].items():
            for place, outcome in of.items():
                values = [""] * len(fields)
                if outcome.figures is not None:
                    values = [outcome.figures.text(each) for each in fields]
                error = outcome.error or ("" if outcome.known else "not run")
                writer.writerow(
                    [group.name, name, place.model, place.context, place.batch, *values, error]
                )
    return text.getvalue()
