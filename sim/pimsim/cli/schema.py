"""``pimsim schema``: what files look like, for editors and for those who read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.config.errors import InputError, near_miss

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["schema_command"]

_DOCUMENTS = {
    "run": "hardware", "system": "system", "memory": "memory", "pim": "pim", "energy": "energy",
    "area": "area", "xpu": "xpu", "nccl": "nccl", "model": "model",
}  # fmt: skip
"""Kinds of YAML, and of the presets that are such files."""
_STUDIES = ("sweep", "search", "prices")
_KINDS = (*_DOCUMENTS, *_STUDIES, "service", "result", "service-result")


def schema_command(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="Of a YAML: run, system, memory, pim, energy, area, xpu, nccl, model, sweep, "
            "search, service, prices. result: what run --json prints, and result.json; "
            "service-result: what serve --json prints, and its result.json.",
        ),
    ],
) -> None:
    """Print the JSON Schema of a kind of file, for completion and checks in an editor.

    Example: pimsim schema run > run.schema.json; editors with a YAML language server read it where
    a file begins with `# yaml-language-server: $schema=run.schema.json`.
    """
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
    if kind == "result":
        from pimsim.result.schema import schema_text

        return schema_text()
    from pimsim.config.document_schema import document_schema
    from pimsim.config.documents import layout_of

    layout = layout_of(_DOCUMENTS[kind]) if kind in _DOCUMENTS else None
    found = document_schema(f"{kind} of pimsim", _model(kind), layout)
    return json.dumps(found, indent=1) + "\n"


def _model(kind: str) -> type[BaseModel]:
    """What checks a YAML of the kind."""
    if kind == "sweep":
        from pimsim.explore.spec import SweepSpec

        return SweepSpec
    if kind == "search":
        from pimsim.explore.search_spec import SearchSpec

        return SearchSpec
    if kind == "prices":
        from pimsim.config.prices import Prices

        return Prices
    if kind == "model":
        from pimsim.workload.cards import ModelCard

        return ModelCard
    from pimsim.config.loader import CONFIG_MODELS

    return CONFIG_MODELS[_DOCUMENTS[kind]]
