"""``pimsim search``: good configs by Optuna."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.cli.progress import says_how_to_go_on, time_left
from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from rich.table import Table

    from pimsim.explore.search import SearchOutcome
    from pimsim.explore.search_spec import SearchSpec

__all__ = ["search_command"]


def search_command(
    search: Annotated[str, typer.Argument(metavar="SEARCH.yaml", help="Space and objectives.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Store and study; goes on.")],
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=256, help="Local processes.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Search configs for several objectives: the front that no other point beats, and which key
    matters. Interrupted searches go on; points that a sweep or a search knows are not simulated.

    Example: pimsim search search.yaml --out found --workers 4
    """
    from pimsim.explore.search import run_search
    from pimsim.explore.search_spec import read_search

    path = given_path(search)
    spec = read_search(path)
    done, start = [0], time.monotonic()

    def on_progress(count: int, total: int) -> None:
        done[0] = count
        _progress(count, total, time.monotonic() - start)

    command = ["pimsim", "search", search, "--out", out, "--workers", str(workers)]
    with says_how_to_go_on(lambda: f"{done[0]:,} trials are kept in {out}", command):
        outcome = run_search(path, given_path(out), workers, on_progress)
    if as_json:
        typer.echo(json.dumps(asdict(outcome), indent=1))
    else:
        _print(spec, outcome)
    if not any(trial.values for trial in outcome.trials):
        raise typer.Exit(1)


def _progress(done: int, total: int, elapsed_s: float) -> None:
    if sys.stderr.isatty():
        said = f"{done} of {total} trials {time_left(elapsed_s, done, total)}"
        typer.echo(f"\r{said:<60}", err=True, nl=done == total)


def _print(spec: SearchSpec, outcome: SearchOutcome) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    tried = [trial for trial in outcome.trials if trial.tried and trial.same_as is None]
    failed = [trial for trial in tried if trial.error]
    left_out = sum(not trial.tried for trial in outcome.trials)
    console.print(
        Text(
            f"{spec.name}: {len(outcome.trials)} trials of {len(tried)} different configs, "
            f"{len(failed)} failed" + (f"; {left_out} not tried ('where')" if left_out else "")
        )
    )
    table = Table(title="the front", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("trial", justify="right")
    for key in spec.space:
        table.add_column(Text(key), justify="right")
    for objective in spec.objectives:
        table.add_column(f"{objective.metric} ({objective.sought})", justify="right")
    table.add_column("fidelity", justify="right")
    on_front = [trial for trial in outcome.trials if trial.number in outcome.front]
    for trial in sorted(on_front, key=lambda t: t.values):
        table.add_row(
            str(trial.number), *(Text(str(trial.point[key])) for key in spec.space),
            *(f"{value:,.6g}" for value in trial.values),
            "" if trial.fidelity is None else trial.fidelity.words,
        )  # fmt: skip
    console.print(table)
    if any(outcome.importance.values()):
        console.print(_which_key(spec, outcome))
    for error, trial in list({trial.error: trial for trial in reversed(failed)}.items())[:-4:-1]:
        console.print(Text(f"trial {trial.number} failed: {error}"))


def _which_key(spec: SearchSpec, outcome: SearchOutcome) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title="which key matters", box=box.SIMPLE_HEAD, title_justify="left")
    table.caption = "share of the variance over all points, and over the better half of them"
    table.caption_justify = "left"
    table.add_column("key")
    columns = []
    for metric, ends in outcome.importance.items():
        for name, heading in (("all", metric), ("good_end", "better half")):
            if name in ends:
                table.add_column(heading, justify="right")
                columns.append(ends[name])
    for key in spec.space:
        table.add_row(Text(key), *(f"{each.keys[key]:.0%}" for each in columns))
    table.add_row("in combination", *(f"{each.together:.0%}" for each in columns))
    return table
