"""``pimsim check``: golden cycle counts, exact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.config.errors import CheckFailed, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from pimsim.result.golden import Difference, GoldenCase
    from pimsim.result.types import Result

__all__ = ["check_command"]

DEFAULT_FILE = "golden.yaml"


def check_command(
    golden: Annotated[
        str, typer.Option("--golden", metavar="FILE", help="Cases and their cycles.")
    ] = DEFAULT_FILE,
    update: Annotated[
        bool, typer.Option("--update", help="Write the cycles found to the file; needs --reason.")
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why cycles moved, kept with --update."),
    ] = None,
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.")
    ] = None,
    markdown: Annotated[
        str | None,
        typer.Option("--markdown", metavar="FILE", help="Write a summary in Markdown there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Simulate golden cases and compare cycles, exactly; exit 1 where one moved.

    Example: pimsim check --golden golden.yaml --junit cycles.xml
    """
    if update and not (reason or "").strip():
        raise InputError("--update needs --reason TEXT: why the cycle counts moved")
    if reason is not None and not update:
        raise InputError("--reason goes with --update: a check writes nothing")
    from pimsim.result.golden import differences, read_golden, updated, write_golden

    path = Path(golden)
    known = read_golden(path)
    cases = known.cases
    results = _simulate(cases, path)
    moved = [(case, differences(case, result)) for case, result in zip(cases, results, strict=True)]
    changed = sum(bool(found) for _, found in moved)
    if update and changed:
        new = [
            updated(case, result, " ".join((reason or "").split()))
            for case, result in zip(cases, results, strict=True)
        ]
        write_golden(known.model_copy(update={"cases": new}), path)
    _write_reports(golden, moved, junit, markdown)
    if as_json:
        typer.echo(json.dumps(_report(golden, moved, results, update), indent=1, allow_nan=False))
    elif changed:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(_table(moved))
    if changed and not update:
        raise CheckFailed(f"{changed} of {len(cases)} golden cases moved ({golden})")
    if not as_json:
        did = f"{changed} updated" if update else "none moved"
        typer.echo(f"{len(cases)} golden cases, {did} ({golden})")


def _write_reports(
    golden: str, moved: list[tuple[GoldenCase, list[Difference]]], junit: str | None,
    markdown: str | None,
) -> None:  # fmt: skip
    """What CI shows, before the check fails."""
    from pimsim.config.files import write_whole
    from pimsim.result import golden_report

    wanted = ((junit, golden_report.junit), (markdown, golden_report.markdown))
    for path, write in wanted:
        if path is not None:
            write_whole(path, write(golden, moved).encode())


def _simulate(cases: list[GoldenCase], path: Path) -> list[Result]:
    """Results of all cases; every config is read before the first simulation starts."""
    from pimsim.result.golden import source_of
    from pimsim.simulate import resolve, simulate

    ready = []
    for case in cases:
        try:
            ready.append(resolve(source_of(case, path), case.set))
        except InputError as error:
            raise InputError(f"{path}: case {case.name!r}: {error}") from None
    from pimsim.cli.progress import count_line, says_how_to_go_on

    results: list[Result] = []

    def kept() -> str:
        return f"{len(results)} of {len(ready)} cases were simulated, of which nothing is kept"

    with (
        says_how_to_go_on(kept, ["pimsim", *sys.argv[1:]], "to begin again"),
        count_line(path.name, "cases", len(ready)) as tell,
    ):
        for case, resolved in zip(cases, ready, strict=True):
            if tell is not None:
                tell(len(results), case.name)
            try:
                results.append(simulate(resolved))
            except InputError as error:
                raise InputError(f"{path}: case {case.name!r}: {error}") from None
    return results


def _report(
    golden: str, moved: list[tuple[GoldenCase, list[Difference]]], results: list[Result],
    update: bool,
) -> dict[str, object]:  # fmt: skip
    from pimsim.result.golden import stage_cycles

    return {
        "golden": golden,
        "passed": not any(found for _, found in moved),
        "updated": update,
        "cases": [
            {
                "name": case.name,
                "passed": not found,
                "cycles": result.cycles,
                "fidelity": result.fidelity.words,
                "stages": stage_cycles(result),
                "differences": [
                    {
                        "what": one.what, "expected": one.expected, "found": one.found,
                        "percent": one.percent,
                    }
                    for one in found
                ],
            }
            for (case, found), result in zip(moved, results, strict=True)
        ],
    }  # fmt: skip


def _table(moved: list[tuple[GoldenCase, list[Difference]]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="cycles that moved")
    table.add_column("case")
    table.add_column("stage")
    for heading in ("expected", "found", "change"):
        table.add_column(heading, justify="right")
    for case, found in moved:
        for at, one in enumerate(found):
            percent = "" if one.percent is None else f"{one.percent:+.3f} %"
            table.add_row(
                escape(case.name) if at == 0 else "", escape(one.what), _count(one.expected),
                _count(one.found), percent,
            )  # fmt: skip
    return table


def _count(cycles: int | None) -> str:
    return "none" if cycles is None else f"{cycles:,}"
