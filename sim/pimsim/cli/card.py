"""``pimsim card``: a model card from a Hugging Face config."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pimsim.config.paths import given_path

__all__ = ["card_command"]

_MAX_BYTES = 16 << 20


def card_command(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG.json", help="A model's config.json, or its folder.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="What the card is called; the file's or folder's name."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The card; NAME.yaml by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write the card of a model from its config.json, without PyTorch, for `--model`. It says what
    an export says, group by group, or it is refused.

    Example: pimsim card Llama-3.1-8B/config.json, then pimsim run --model Llama-3.1-8B.yaml
    """
    from pimsim.capture.hf_card import card_of_config
    from pimsim.config.emit import emit_yaml
    from pimsim.config.errors import InputError
    from pimsim.config.files import write_whole
    from pimsim.config.reading import parse_json, read_text

    path = given_path(config)
    if path.is_dir():
        path = path / "config.json"
    data = parse_json(read_text(path, "a model's config.json", _MAX_BYTES), str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: no model's config: it is no JSON object")
    inner = path.absolute().parent.name if path.name == "config.json" else path.stem
    found = card_of_config(str(path), inner if name is None else name, data)
    values = found.card.model_dump(exclude_defaults=True)
    written = write_whole(given_path(f"{found.card.name}.yaml" if out is None else out),
                          emit_yaml(values).encode())  # fmt: skip
    if as_json:
        report = {"card": str(written), "values": values, "notes": list(found.notes)}
        typer.echo(json.dumps(report, allow_nan=False))
        return
    typer.echo(f"{written}: {found.card.layers} blocks, hidden {found.card.hidden}, "
               f"{found.card.heads} heads, {found.card.kv_heads} of keys and values")  # fmt: skip
    for note in found.notes:
        typer.echo(f"note: {note}")
