"""``pimsim run`` and ``pimsim compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from pimsim.config.errors import InputError

__all__ = ["compare_command", "run_command"]


def run_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A preset's name or a YAML path.")] = (
        "neupims"
    ),
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
) -> None:
    """Simulate one decode iteration."""
    from pimsim.config.loader import load_run

    load_run(run, overrides or [])
    raise InputError("not built yet")


def compare_command() -> None:
    """Compare runs."""
    raise InputError("not built yet")
