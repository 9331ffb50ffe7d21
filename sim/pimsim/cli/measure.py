"""``pimsim measure``: what a technique does to a real model's text, and a run that has it so."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.config.errors import InputError

if TYPE_CHECKING:
    from pimsim.capture.measurements import Measured, Measurement

__all__ = ["measure_command"]


def measure_command(
    technique: Annotated[
        str,
        typer.Argument(
            metavar="TECHNIQUE", help="NAME or NAME:KEY=VALUE,KEY=VALUE; docs/techniques.md."
        ),
    ],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="With weights, as `pimsim export` takes it.")
    ] = "smollm2",
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE", help="In place of the standard library's texts."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="A run's YAML with the row that is chosen."),
    ] = None,
    run: Annotated[
        str, typer.Option("--run", metavar="RUN", help="What the YAML of --out extends.")
    ] = "npu-only",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure what a technique does to a model's text: acceptance of guesses, perplexity of a cache
    that is read in part, errors of a format, time of the host. --out writes what a run takes.

    Example: pimsim measure prompt_lookup --out lookup.yaml
    """
    from pimsim.config.plugins import ModuleName

    name = technique.partition(":")[0].strip()
    try:
        ModuleName("measurement").check(name)
    except ValueError as error:
        raise InputError(f"TECHNIQUE: {error}") from None
    from pimsim.capture.loading import load_model, require_torch

    require_torch()
    from pimsim.capture.measurements import Subject, load_measurement
    from pimsim.capture.text import DOMAINS, read_text, tokenizer_of
    from pimsim.config.extras import require_extra

    try:
        asked = load_measurement(technique)
    except ValueError as error:
        raise InputError(f"TECHNIQUE: {error}") from None
    require_extra(asked.EXTRA)
    if out is not None:
        from pimsim.simulate import resolve

        resolve(run)  # a wrong name is told before minutes are spent
    texts: Mapping[str, tuple[str, Callable[[], str]]] = DOMAINS
    if text is not None:
        given = read_text(text)
        texts = {given.name: (given.name, lambda: given.content)}
    loaded = load_model(model)
    if not loaded.real:
        raise InputError(f"model {loaded.name}: it has no weights to measure with")
    found = asked.measure(Subject(loaded, tokenizer_of(loaded), texts, _say))
    if out is not None:
        _write(out, run, name, loaded.name, found)
    if as_json:
        typer.echo(json.dumps(_report(technique, loaded.name, found), indent=1, allow_nan=False))
    else:
        _print(technique, loaded.name, asked, found)
        if out is not None:
            typer.echo(f"{out}: extends {run}; pimsim run {out} --model MODEL --requests REQUESTS")


def _report(technique: str, model: str, found: Measured) -> dict[str, Any]:
    rows = [
        {
            "name": row.name, "workload": dict(row.workload),
            **{key: value if isfinite(value) else None for key, value in row.figures.items()},
        }
        for row in found.rows
    ]  # fmt: skip
    return {
        "technique": technique, "model": model, "text": found.text, "rows": rows,
        "chosen": found.chosen, "why": found.why,
    }  # fmt: skip


def _write(out: str, run: str, name: str, model: str, found: Measured) -> None:
    """A run's YAML. Raises ``InputError`` where no row is good enough."""
    import yaml

    from pimsim.config.files import write_whole
    from pimsim.config.paths import given_path

    if found.chosen is None:
        raise InputError(f"{out} is not written: {found.why}: no row is")
    row = found.rows[found.chosen]
    figures = ", ".join(f"{key} {value:.4g}" for key, value in row.figures.items())
    head = (
        f"# pimsim measure {name}, {model}, {found.text}\n# {row.name}: {figures} ({found.why})\n"
    )
    body = yaml.safe_dump({"extends": run, "workload": dict(row.workload)}, sort_keys=False)
    write_whole(given_path(out), (head + body).encode())


def _say(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(what, err=True)


def _print(technique: str, model: str, asked: Measurement, found: Measured) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(Text(f"{technique} on {model}: {found.text}"))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading, _ in asked.FIGURES.values():
        table.add_column(heading, justify="right")
    for at, row in enumerate(found.rows):
        cells = [
            form.format(row.figures[key]) if key in row.figures else ""
            for key, (_, form) in asked.FIGURES.items()
        ]
        table.add_row(Text(f"{row.name}{' *' if at == found.chosen else ''}"), *cells)
    console.print(table)
    if found.chosen is None:
        console.print(Text(f"no row is what a run would be given: {found.why}"))
        return
    console.print(Text(f"* {found.why}"))
    for key, value in found.rows[found.chosen].workload.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        console.print(Text(f"workload.{key}: {shown}"))
