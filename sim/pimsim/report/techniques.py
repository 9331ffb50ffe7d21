"""A study of techniques as a page, a table and a heat map, every figure from its store."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from math import log2
from pathlib import Path

from pimsim.config.files import make_folder, write_whole
from pimsim.explore.designs import DesignStudy, Place
from pimsim.explore.store import Store
from pimsim.explore.techniques import PLAIN
from pimsim.report.design_figures import Outcome, gains, mean_gain
from pimsim.report.study_pages import Outcomes, left_out, outcomes_of, table_lines
from pimsim.result.metrics import METRICS

__all__ = ["write_techniques"]

Known = Mapping[str, Outcomes]
"""Outcomes by machine, technique and place."""
_SLACK = 0.02
_RATE, _FRUGALITY = METRICS["tokens_per_s"].unit, METRICS["tokens_per_j"].unit


def write_techniques(study: DesignStudy, store: Store, folder: Path) -> Path:
    """Write ``technique-study.md``, ``technique-study.csv`` and ``technique-study.svg``.

    Parameters
    ----------
    study
        Of ``as_designs``.
    store
        Of ``run_study``.
    folder
        Of the page.

    Returns
    -------
    Path
        Of the page.
    """
    known: Known = {group.title: outcomes_of(study, store, group) for group in study.groups}
    make_folder(folder)
    write_whole(folder / "technique-study.csv", _csv(known).encode())
    write_whole(folder / "technique-study.svg", _heat_map(known).encode())
    sections = [_head(known), _conclusions(known), _means(known)]
    sections += [_table_of(study, name, of) for name, of in known.items()]
    sections.append(left_out(study))
    text = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return write_whole(folder / "technique-study.md", text.encode())


def _techniques(known: Known) -> list[str]:
    return [name for name in next(iter(known.values())) if name != PLAIN]


def _gain(of: Outcomes, technique: str, metric: str = "rate") -> (
    float | None
):  # fmt: skip
    return mean_gain(gains(of[technique], of[PLAIN], metric))


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _head(known: Known) -> Iterator[str]:
    every = [o for of in known.values() for by in of.values() for o in by.values()]
    ran = sum(each.figures is not None for each in every)
    refused = sum(bool(each.error) for each in every)
    yield "# Techniques on machines"
    yield ""
    yield (
        "Written by `pimsim study techniques --out DIR` from simulations; "
        "[technique-study.csv](technique-study.csv) has every figure. One decode step of a batch "
        f"of equal requests, {_RATE} of a machine with a technique over those of the same machine "
        f"without. {ran:,} points were run, {refused:,} cannot be (each says why), "
        f"{len(every) - ran - refused:,} were not run."
    )
    yield ""
    yield "![Mean speed-up by technique and machine](technique-study.svg)"


def _conclusions(known: Known) -> Iterator[str]:
    """What follows, each sentence from the figures."""
    yield "## What follows"
    yield ""
    for machine, of in known.items():
        found = {name: mean for name in _techniques(known) if (mean := _gain(of, name)) is not None}
        if not found:
            yield f"- {machine}: no technique has a point beside one without."
            continue
        ranked = sorted(found, key=found.__getitem__, reverse=True)
        best = ", ".join(f"{name} ({found[name]:.2f})" for name in ranked[:3])
        worse = [name for name in ranked if found[name] < 1 - _SLACK]
        lost = f"; slower with {', '.join(worse)}" if worse else ""
        yield f"- {machine}: most is gained by {best}{lost}."
    for name in _techniques(known):
        means = {
            machine: mean for machine, of in known.items() if (mean := _gain(of, name)) is not None
        }
        if len(means) > 1:
            low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
            moved = Counter(
                pair for of in known.values() for pair in _moved(of[PLAIN], of[name]) if pair
            )
            words = ""
            if moved:
                (source, target), count = moved.most_common(1)[0]
                words = f"; the nearest bound moves from `{source}` to `{target}` at {count} points"
            yield (
                f"- `{name}`: {means[high]:.2f} on {high}, {means[low]:.2f} on {low}, geometric "
                f"means{words}."
            )


def _moved(
    before: Mapping[Place, Outcome], after: Mapping[Place, Outcome]
) -> Iterator[tuple[str, str] | None]:
    """From which unit to which the nearest bound moved, at each place that both can do."""
    for place, outcome in after.items():
        plain = before[place].figures
        if outcome.figures is None or plain is None or outcome.figures.bound == plain.bound:
            yield None
        else:
            yield plain.bound, outcome.figures.bound


def _means(known: Known) -> Iterator[str]:
    yield "## Means"
    yield ""
    yield (
        f"Times as many {_RATE}, and behind the stroke {_FRUGALITY}, as the machine has without; "
        "geometric means over the points that both can do, which differ from cell to cell where "
        "some are refused (in brackets: how many)."
    )
    yield ""

    def cell(machine: str, name: str) -> str:
        of = known[machine]
        found = gains(of[name], of[PLAIN], "rate")
        if not found:
            return "-"
        joule = _times(_gain(of, name, "per_j"))
        return f"{_times(mean_gain(found))} / {joule} ({len(found)})"

    yield from table_lines(
        ["technique", *known],
        ([name, *(cell(machine, name) for machine in known)] for name in _techniques(known)),
    )


def _table_of(study: DesignStudy, machine: str, of: Outcomes) -> Iterator[str]:
    """Each technique of a machine at each place."""
    yield f"## {machine}"
    yield ""
    yield (
        f"Times as many {_RATE} / {_FRUGALITY}, and the unit whose bound is nearest "
        "(without and with, where it moved)."
    )
    notes: dict[str, int] = {}
    several = len(study.models) > 1
    for place_model in study.models:
        for context in study.contexts:
            places = [Place(place_model.name, context, batch) for batch in study.batches]
            if not any(by[place].known for by in of.values() for place in places):
                continue
            yield ""
            yield (f"{place_model.name}, " if several else "") + f"context {context}:"
            yield ""
            yield from table_lines(
                ["technique", *(f"batch {each}" for each in study.batches)],
                (
                    [name, *(_cell(of[PLAIN][place], by[place], notes) for place in places)]
                    for name, by in of.items()
                    if name != PLAIN
                ),
            )
    if notes:
        yield ""
        yield "Why not:"
        yield ""
        for error, at in notes.items():
            yield f"{at}. {' '.join(error.split())}"


def _cell(plain: Outcome, outcome: Outcome, notes: dict[str, int]) -> str:
    error = outcome.error or plain.error
    if error:
        return f"no: {notes.setdefault(error, len(notes) + 1)}"
    if outcome.figures is None or plain.figures is None:
        return "not run"
    before, after = plain.figures, outcome.figures
    unit = after.bound if after.bound == before.bound else f"{before.bound} → {after.bound}"
    joule = after.per_j / before.per_j
    return f"{after.rate / before.rate:.2f} / {joule:.2f}, {unit}"


def _csv(known: Known) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["machine", "technique", "model", "context", "batch", "speed_up", "tokens_per_j_gain",
         "tokens_per_s", "bound", "bound_without", "error"]
    )  # fmt: skip
    for machine, of in known.items():
        for name, by in of.items():
            rates, joules = (gains(by, of[PLAIN], metric) for metric in ("rate", "per_j"))
            for place, outcome in by.items():
                own, plain = outcome.figures, of[PLAIN][place].figures
                writer.writerow(
                    [
                        machine, name, place.model, place.context, place.batch,
                        *(f"{of_place[place]:.6g}" if place in of_place else ""
                          for of_place in (rates, joules)),
                        f"{own.rate:.6g}" if own is not None else "",
                        own.bound if own is not None else "",
                        plain.bound if plain is not None else "",
                        outcome.error or ("" if outcome.known else "not run"),
                    ]
                )  # fmt: skip
    return text.getvalue()


_CELL, _LINE, _LEFT, _TOP = 92, 24, 170, 34
"""Of the heat map, in pixels: a cell's width and height, names of techniques and of machines."""
_FULL = 2.0
"""Doublings at which a colour is as strong as it gets."""


def _heat_map(known: Known) -> str:
    """Mean speed-ups as coloured cells, green above 1 and red below, with their figures."""
    names, machines = _techniques(known), list(known)
    width, height = _LEFT + _CELL * len(machines), _TOP + _LINE * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>Mean speed-up by technique and machine</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for column, machine in enumerate(machines):
        at = _LEFT + column * _CELL + _CELL / 2
        parts.append(f'<text x="{at}" y="{_TOP - 10}" text-anchor="middle">{machine}</text>')
    for line, name in enumerate(names):
        y = _TOP + line * _LINE
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 16}" text-anchor="end">{name}</text>')
        for column, machine in enumerate(machines):
            x, gain = _LEFT + column * _CELL, _gain(known[machine], name)
            said = "-" if gain is None else f"{gain:.2f}"
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_LINE - 2}" '
                f'fill="{_colour(gain)}"/><text x="{x + _CELL / 2}" y="{y + 16}" '
                f'text-anchor="middle">{said}</text>'
            )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(gain: float | None) -> str:
    """White at 1, green above and red below it, grey where nothing is known."""
    if gain is None:
        return "#e6e6e6"
    strength = min(abs(log2(gain)) / _FULL, 1.0)
    full = (120, 190, 130) if gain >= 1 else (230, 120, 110)
    mixed = (round(255 + (one - 255) * strength) for one in full)
    return "#" + "".join(f"{one:02x}" for one in mixed)
