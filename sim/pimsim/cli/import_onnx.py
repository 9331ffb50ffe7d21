"""``pimsim import-onnx``: a decoder's ONNX graph to an operator trace."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pimsim.config.errors import InputError

__all__ = ["import_onnx_command"]


def import_onnx_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The .onnx file.")],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The trace; NAME.json by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="What the trace is called.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Write the trace though nodes are left out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Read a decoder's graph, with or without a KV cache; weights are not loaded. Operators that
    are not known are listed, and stop it unless --allow-unknown.

    Example: pimsim import-onnx decoder.onnx --out decoder.json
    """
    from pimsim.config.files import write_whole
    from pimsim.workload.onnx_import.importing import import_onnx
    from pimsim.workload.trace import dump_trace

    found = import_onnx(Path(file), model)
    counts = Counter(f"{each.domain}.{each.op_type}" for each in found.unknown)
    listed = ", ".join(f"{name} x {count}" for name, count in counts.most_common())
    if found.unknown and not allow_unknown:
        first = found.unknown[0]
        raise InputError(
            f"{file}: {len(found.unknown)} nodes belong to no operator that is known ({listed}), "
            f"the first is {first.name or first.op_type!r}; --allow-unknown leaves them out"
        )
    text = dump_trace(found.trace)
    path = write_whole(f"{found.trace.model}.json" if out is None else out, text.encode())
    if as_json:
        report = {
            "trace": str(path), "source": found.trace.source,
            "facts": found.trace.facts.model_dump(), "formats": found.formats,
            "unknown": [asdict(each) for each in found.unknown],
        }  # fmt: skip
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    facts = found.trace.facts
    typer.echo(
        f"{path}: {len(text) / 1000:,.1f} kB; {facts.layers} blocks, {facts.heads} query and "
        f"{facts.kv_heads} key heads, {facts.parameters:,} parameters"
    )
    typer.echo(f"{found.formats}: a run moves these bytes and computes as its activations' type")
    if found.unknown:
        typer.echo(f"left out: {listed}")
