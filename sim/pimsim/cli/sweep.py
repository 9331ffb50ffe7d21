"""``pimsim sweep``: many runs, resumable."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.prices import PricesOption, prices_of
from pimsim.cli.progress import says_how_to_go_on
from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from pimsim.explore.sweep import Progress

__all__ = ["sweep_command"]

_SHOWN = 10
_KINDS = 5
"""Points, and kinds of errors, that are printed."""


def sweep_command(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="Base, axes, constraints.")],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="The store; an earlier one goes on.")
    ],
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, max=256, help="Local processes.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="A Dask scheduler instead.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Simulate points that failed before again.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another sweep in --out.")
    ] = False,
    prices: PricesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Simulate every point of a sweep; nothing is simulated twice, an interrupted one goes on.

    Example: pimsim sweep study.yaml --out study --workers 4
    """
    from pimsim.config.files import write_whole
    from pimsim.explore.sweep import load_table, run_sweep

    folder, path, paid = given_path(out), given_path(sweep), prices_of(prices)
    last: list[Progress] = []
    given = [word for key, value in (("--workers", workers), ("--dask", dask))
             if value is not None for word in (key, str(value))]  # fmt: skip
    command = ["pimsim", "sweep", sweep, "--out", out, *given]

    def kept() -> str:
        return f"{last[-1].done if last else 0:,} points are kept in {out}"

    with says_how_to_go_on(kept, command), _progress() as show:

        def on_progress(progress: Progress) -> None:
            last[:] = [progress]
            if show is not None:
                show(progress)

        outcome = run_sweep(path, folder, workers, dask, on_progress, retry_failed, replace)
    for name in outcome.damaged:
        typer.echo(f"note: {name} was damaged; it was made anew", err=True)
    from pimsim.result.cost import priced_metrics, priced_table

    table = priced_table(load_table(folder), paid)
    import io

    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_whole(folder / "table.parquet", content.getvalue())
    if as_json:
        report = {
            "points": outcome.points, "simulated": outcome.simulated, "failed": outcome.failed,
            "damaged": list(outcome.damaged), "table": str(folder / "table.parquet"),
            "errors": dict(_errors(table)),
        }  # fmt: skip
        typer.echo(json.dumps(report))
    else:
        from pimsim.explore.spec import read_sweep

        _print(table, read_sweep(path).keys, outcome, folder, priced_metrics(paid))
    if outcome.points and outcome.failed == outcome.points:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A bar with the time that is left, on stderr; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True)) as bar:
        task = bar.add_task("sweep", total=None)

        def on_progress(progress: Progress) -> None:
            bar.update(
                task, total=progress.total, completed=progress.done,
                description=f"sweep, {progress.failed} failed",
            )  # fmt: skip

        yield on_progress


def _print(table: Any, keys: list[str], outcome: Any, folder: Path, priced: Sequence[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(
        Text(
            f"{folder}: {outcome.points:,} points, {outcome.simulated:,} simulated now, "
            f"{outcome.failed:,} failed; table.parquet has all"
        )
    )
    if "tokens_per_s" in table:
        console.print(_fastest(table, keys, priced))
    found = _errors(table)
    for error, count in found[:_KINDS]:
        console.print(Text(f"{count:,} failed: {error}"))
    if len(found) > _KINDS:
        console.print(Text(f"{len(found) - _KINDS} more kinds of errors: see 'error' in the table"))


def _errors(table: Any) -> list[tuple[str, int]]:
    """The first error of each kind, and how many points have one of that kind. Errors that differ
    in their numbers alone are of one kind."""
    kinds: dict[str, tuple[str, int]] = {}
    for error in table["error"].dropna():
        kind = re.sub(r"[0-9][0-9.,]*", "0", error)
        first, count = kinds.get(kind, (error, 0))
        kinds[kind] = first, count + 1
    return sorted(kinds.values(), key=lambda each: -each[1])


def _fastest(table: Any, keys: list[str], priced: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pimsim.explore.sweep import row_fidelity
    from pimsim.result.metrics import METRICS

    best = table.dropna(subset=["tokens_per_s"]).nlargest(_SHOWN, "tokens_per_s")
    shown = Table(title=f"the {len(best)} fastest", box=box.SIMPLE_HEAD, title_justify="left")
    for key in keys:
        shown.add_column(Text(key))
    metrics = [METRICS[name] for name in ("tokens_per_s", "tokens_per_j", *priced)]
    for heading in (*(metric.column for metric in metrics), "fidelity"):
        shown.add_column(heading, justify="right")
    for _, row in best.iterrows():
        shown.add_row(
            *(Text(str(row[key])) for key in keys),
            *(metric.number(metric.of(row)) for metric in metrics), row_fidelity(row),
        )  # fmt: skip
    return shown
