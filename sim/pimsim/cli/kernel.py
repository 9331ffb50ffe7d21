"""``pimsim kernel``: one timing model run alone."""

from __future__ import annotations

import typer

__all__ = ["kernel_app"]

kernel_app = typer.Typer(help="Run one timing model alone.", no_args_is_help=True)
