"""``pimsim import-routing``: where a server sent its tokens, as a routing trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pimsim.config.paths import given_path

__all__ = ["import_routing_command"]


def import_routing_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Answers of vLLM or SGLang with routed_experts (JSON, or JSON Lines), .npy or "
            ".npz arrays of them, files of SGLang's expert distribution recorder.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="What the server ran: a card's name or file, or an operator trace.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="The trace; MODEL.routing.parquet by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write what an inference server recorded of its experts as a routing trace for
    `pimsim run --routing`. It is checked against the model: blocks, dense ones, experts, choices;
    what the server does not tell (token ids, positions) is said.

    Example: pimsim import-routing answers.jsonl --model qwen3-30b-a3b
    """
    from pimsim.workload.batch import moe_shape
    from pimsim.workload.routing.file import write_routing
    from pimsim.workload.routing.servers import import_routing

    shape = moe_shape(model)
    found = import_routing([given_path(name) for name in files], shape)
    trace = found.trace
    path = given_path(f"{Path(shape.model).name}.routing.parquet" if out is None else out)
    write_routing(trace, path)
    sequences = len(set(trace.sequence.tolist()))
    if as_json:
        report = {
            "trace": str(path), "model": trace.model, "source": trace.source,
            "tokens": trace.tokens, "sequences": sequences, "layers": trace.layers,
            "moe_layers": list(trace.moe_layers), "experts": trace.experts,
            "experts_per_token": trace.experts_per_token, "notes": list(found.notes),
        }  # fmt: skip
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    typer.echo(
        f"{path}: {trace.tokens:,} tokens of {sequences:,} sequences, {len(trace.moe_layers)} of "
        f"{trace.layers} blocks with experts, {trace.experts_per_token} of {trace.experts} experts "
        "a token"
    )
    for note in found.notes:
        typer.echo(f"note: {note}")
