"""``pimsim validate``: held against references, row by row."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.progress import count_line, count_words, says_how_to_go_on, status_line
from pimsim.config.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from pimsim.validate.judge import GroupSummary
    from pimsim.validate.types import References, Row, Suite

__all__ = ["validate_command"]

_MOST_ROWS = 40
"""Rows of one group that a terminal is shown without ``--all``; the worst of them."""


def validate_command(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="dram, npu, pim, neupims, attacc, gpu, serving, servers, fabric or papers; else "
            "all.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="DIR",
            help="Folder with other projects' own files, which do not ship: dram/configs, "
            "neupims/requests, attacc/attention_cycles.csv, gpu, serving. Rows that need them are "
            "skipped without it. Tables in it take the place of ours: neupims/cycles.csv, "
            "npu/onnxim.csv and so on.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Write rows (CSV) and a figure a suite there."),
    ] = None,
    ranges: Annotated[
        str | None,
        typer.Option(
            "--ranges",
            metavar="FILE",
            help="Write each group's range of errors into the block of a page (docs/limits.md).",
        ),
    ] = None,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="With neupims: simulate the paper's whole grid and write neupims.md with its "
            "figures to --out; some 10 minutes, resumed where it was interrupted.",
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=256, help="Processes of --grid.")
    ] = 2,
    show_all: Annotated[
        bool, typer.Option("--all", help="Print every row, not the worst of each group.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Hold the timing models against independent simulators and papers; exit 1 outside limits.

    Example: pimsim validate npu --reference ../shared/reference
    """
    from pimsim.config.files import make_folder
    from pimsim.config.paths import given_path
    from pimsim.config.resources import data_dir
    from pimsim.validate.suites import load_suites
    from pimsim.validate.tolerances import load_tolerances
    from pimsim.validate.types import References

    suites = load_suites(suite)
    load_tolerances()  # what is wrong in it is said before the first simulation
    if grid and (suite != "neupims" or out is None):
        raise InputError("--grid goes with the suite neupims and --out DIR")
    references = References(data_dir("tests/data"), _folder(reference))
    page = None if ranges is None else given_path(ranges)
    if page is not None:
        from pimsim.validate.ranges import split_page

        split_page(page)  # a page that has no place for them is said before the first simulation
    folder = None if out is None else make_folder(out)
    again = ["pimsim", *sys.argv[1:]]
    done: list[str] = []

    def kept() -> str:
        return f"{len(done):,} rows were compared, of which nothing is kept"

    with says_how_to_go_on(kept, again, "to begin again"):
        found = [(each, _collect(each, references, done)) for each in suites]
    if grid and folder is not None:
        found = [(each, [*rows, *_grid_rows(folder, workers)]) for each, rows in found]
    from pimsim.validate.judge import judge

    summaries = [(each, rows, judge(rows)) for each, rows in found]
    if folder is not None:
        _write(folder, found)
    if page is not None:
        from pimsim.validate.ranges import write_ranges

        write_ranges(page, [group for _, _, groups in summaries for group in groups])
    failures = [line for _, _, groups in summaries for group in groups for line in group.failures]
    if as_json:
        typer.echo(json.dumps(_report(summaries, references), indent=1, allow_nan=False))
    else:
        _print(summaries, show_all, references)
    if failures:
        raise CheckFailed(f"{len(failures)} outside the limits; the first: {failures[0]}")


def _folder(reference: str | None) -> Path | None:
    if reference is None:
        return None
    from pimsim.config.paths import given_path

    path = given_path(reference)
    if not path.is_dir():
        raise InputError(f"--reference {reference}: not a folder")
    return path


def _collect(suite: Suite, references: References, done: list[str]) -> list[Row]:
    """Rows of a suite; their cases go to ``done`` as they come. How many there are is known of the
    last time, as what a suite has depends on the files that it finds."""
    from pimsim.config.kept import keep, kept_file, read_kept

    files = "ours" if references.folder is None else "theirs"
    last = kept_file(f"rows-{suite.name}-{files}.json")
    before = read_kept(last) or ""
    total = int(before) if before.isdecimal() else None
    with count_line(suite.name, "rows", total, about=True) as tell:
        rows: list[Row] = []
        for row in suite.rows(references):
            rows.append(row)
            done.append(row.case)
            if tell is not None:
                tell(len(rows), row.case)
    if len(rows) != total:
        keep(last, str(len(rows)))
    return rows


def _grid_rows(out: Path, workers: int) -> list[Row]:
    """Simulate the grid, write the page, and give the published averages as rows."""
    from pimsim.validate.neupims.explain import explain

    begun, last = time.monotonic(), [0, 0]
    first: list[int] = []
    """Points that an earlier call has done."""

    def kept() -> str:
        return f"{last[0]:,} points of {last[1]:,} are kept in {out}"

    with (
        says_how_to_go_on(kept, ["pimsim", *sys.argv[1:]]),
        status_line("neupims grid") as tell,
    ):

        def on_point(done: int, of: int) -> None:
            last[:] = done, of
            first.append(done)
            if tell is not None:
                here = time.monotonic() - begun, done - first[0], of - first[0]
                tell(count_words(*here, f"points, {first[0]:,} before" if first[0] else "points"))

        return explain(out, workers, on_point)


def _write(out: Path, found: Sequence[tuple[Suite, Sequence[Row]]]) -> None:
    from pimsim.validate.figures import write_figure
    from pimsim.validate.tolerances import tolerance_of
    from pimsim.validate.write import write_rows

    write_rows(out / "rows.csv", [(suite.name, row) for suite, rows in found for row in rows])
    for suite, rows in found:
        # what is only reported (another definition, a paper's average) would set the scale
        rows = [row for row in rows if tolerance_of(row.group).judges]
        write_figure(out / suite.name, suite.title, rows)


def _report(
    summaries: Sequence[tuple[Suite, Sequence[Row], Sequence[GroupSummary]]],
    references: References,
) -> dict[str, Any]:
    from dataclasses import asdict

    from pimsim.validate.judge import status_of, verdict_of

    return {
        "reference": str(references.folder) if references.folder else None,
        "passed": not any(group.failures for _, _, groups in summaries for group in groups),
        "suites": {
            suite.name: {
                "groups": [asdict(group) | {"verdict": verdict_of(group)} for group in groups],
                "rows": [
                    asdict(row)
                    | {
                        "error": row.error if math.isfinite(row.error) else None,
                        "status": status_of(row),
                    }
                    for row in rows
                ],
            }
            for suite, rows, groups in summaries
        },
    }


def _print(
    summaries: Sequence[tuple[Suite, Sequence[Row], Sequence[GroupSummary]]],
    show_all: bool,
    references: References,
) -> None:
    from rich.console import Console

    from pimsim.validate.tables import row_table, summary_table

    console = Console(
        width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, soft_wrap=False
    )
    for suite, rows, groups in summaries:
        console.print(f"{suite.name}: {suite.title}")
        for group in groups:
            members = [row for row in rows if row.group == group.group]
            console.print(row_table(group.group, members, None if show_all else _MOST_ROWS))
        console.print(summary_table(groups))
        for group in groups:
            for line in group.failures:
                console.print(f"outside: {group.group}: {line}")
    if references.folder is None:
        console.print(
            "Rows that need files of other projects were left out: give their folder with "
            "--reference DIR."
        )
