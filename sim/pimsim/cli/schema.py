"""``pimsim schema``: what files look like, for editors and for those who read them."""

from __future__ import annotations

from typing import Annotated

import typer

from pimsim.config.errors import InputError, near_miss

__all__ = ["schema_command"]

_KINDS = ("result",)


def schema_command(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="result: result.json, and what run --json prints.")
    ],
) -> None:
    """Print the JSON Schema of a kind of file."""
    from pimsim.result.schema import schema_text

    if kind not in _KINDS:
        raise InputError(
            f"no schema {kind!r}{near_miss(kind, _KINDS)}; there are: {', '.join(_KINDS)}"
        )
    typer.echo(schema_text(), nl=False)
