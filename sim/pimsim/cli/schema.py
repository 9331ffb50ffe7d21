"""``pimsim schema``: what files look like, for editors and for those who read them."""

from __future__ import annotations

from typing import Annotated

import typer

from pimsim.config.errors import InputError, near_miss

__all__ = ["schema_command"]

_KINDS = ("result", "service", "service-result")


def schema_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="result: what run --json prints, and result.json; service: the YAML of "
            "serve; service-result: what serve --json prints, and its result.json.",
        ),
    ],
) -> None:
    """Print the JSON Schema of a kind of file."""
    if kind not in _KINDS:
        raise InputError(
            f"no schema {kind!r}{near_miss(kind, _KINDS)}; there are: {', '.join(_KINDS)}"
        )
    typer.echo(_text(kind), nl=False)


def _text(kind: str) -> str:
    if kind == "service":
        from pimsim.config.service_schema import service_schema_text

        return service_schema_text()
    if kind == "service-result":
        from pimsim.result.service_schema import service_result_schema_text

        return service_result_schema_text()
    from pimsim.result.schema import schema_text

    return schema_text()
