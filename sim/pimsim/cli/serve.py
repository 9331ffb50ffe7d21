"""``pimsim serve``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.cli.completion import presets_of
from pimsim.cli.edge import Stopped

if TYPE_CHECKING:
    from pimsim.result.service import ServiceResult
    from pimsim.services import ServiceProgress, ServiceRun

__all__ = ["serve_command"]


def serve_command(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="A preset's name or a YAML path.",
            autocompletion=presets_of("service"),
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", metavar="TIME", help="Stop at this simulated time (60s)."),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            "--max-requests",
            metavar="N",
            min=1,
            max=100_000_000,
            help="Stop when so many requests have ended.",
        ),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(
            "--fidelity",
            metavar="NAME",
            help="Of a machine: command (each step simulated) or fast (most interpolated).",
        ),
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            "--max-error",
            metavar="SHARE",
            help="Of interpolated steps (2%): more are simulated until it is kept.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write config, result, requests and steps (Parquet) there.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from what an earlier run has left in --out."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Serve requests: throughput, TTFT, TPOT, gaps, goodput, who waits, what the cache holds.

    Ctrl-C stops, tells and writes what is known, says the command that goes on, and ends with 130.

    Example: pimsim serve chat --max-time 60s --out chat
    """
    from pimsim.services import ServiceRun, prepare, stop_time

    until_ps = stop_time(max_time)
    options = {"machine.fidelity": fidelity, "steps.max_error": max_error}
    named = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    with ServiceRun(prepare(service, [*named, *(overrides or [])]), out, resume) as running:
        try:
            with _progress(service) as on_progress:
                running.run(until_ps, max_requests, on_progress)
        except Stopped:
            if _tell(running, as_json):
                limits = {"--max-time": max_time, "--max-requests": max_requests}
                given = [word for key, value in limits.items() if value is not None
                         for word in (key, str(value))]  # fmt: skip
                _say_how_to_go_on(service, overrides or [], out or "", given)
            raise
        _tell(running, as_json)


def _say_how_to_go_on(service: str, overrides: list[str], out: str, more: list[str]) -> None:
    changes = [word for text in overrides for word in ("--set", text)]
    command = ["pimsim", "serve", service, *changes, *more, "--out", out, "--resume"]
    typer.echo(f"to go on: {shlex.join(command)}", err=True)


def _tell(running: ServiceRun, as_json: bool) -> bool:
    """Write the folder, then print. Whether the service can go on from there."""
    result = running.result()
    goes_on = running.save(result)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        _print(result)
    return goes_on


def _print(result: ServiceResult) -> None:
    from pimsim.cli.tables import output_width, print_table
    from pimsim.result.service_view import service_lines

    print_table(result.name, service_lines(result), output_width())


@contextmanager
def _progress(name: str) -> Iterator[Callable[[ServiceProgress], None] | None]:
    from pimsim.cli.progress import status_line

    with status_line(name) as tell:
        if tell is None:
            yield None
            return

        def on_progress(now: ServiceProgress) -> None:
            left = "" if now.left_s is None else f", {now.left_s:,.0f} s left"
            tell(
                f"{now.time_ps / 1e12:,.1f} s simulated, {now.finished:,} of {now.requests:,} "
                f"requests done{left}"
            )

        yield on_progress
