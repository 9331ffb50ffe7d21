"""``pimsim export``: a real decoder to an operator trace."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.config.errors import CheckFailed, InputError
from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from pimsim.capture.agree import Agreement
    from pimsim.capture.export import Export
    from pimsim.capture.loading import LoadedModel

__all__ = ["export_command"]

_LARGEST_DIFFERENCE = 1e-3
"""Of the largest logit; float32 gives some 1e-6."""


def export_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder with config.json, a .gguf, a config.json alone, or a known name.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The trace; MODEL.json by default.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Run real weights both ways and compare; there must be weights.",
        ),
    ] = True,
    allow_unplaced: Annotated[
        bool,
        typer.Option("--allow-unplaced", help="Write the trace though operations are left out."),
    ] = False,
    routing: Annotated[
        str | None,
        typer.Option(
            "--routing",
            metavar="FILE",
            help="Run a text on the real weights and write where its tokens went (Parquet).",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE", help="That text; Python's docstrings by default."),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            "--tokens",
            metavar="N",
            min=16,
            max=1_000_000,
            help="Tokens of it, in sequences of 256.",
        ),
    ] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Trace prefill and decode of a real decoder: operators, operands, bytes, symbolic in size.

    Example: pimsim export path/to/model --out mine.json --check
    """
    from pimsim.config.files import write_whole
    from pimsim.workload.trace import dump_trace

    if routing is not None:
        _routing(model, given_path(routing), text, tokens)
        return
    with _no_collection():
        loaded, export = _trace(model)
    if export.unplaced and not allow_unplaced:
        several = ", ".join(
            f"{each.op} in {each.module or 'the model'}" for each in export.unplaced
        )
        raise InputError(
            f"model {loaded.name}: operations that belong to no operator that is known: {several}; "
            "--allow-unplaced leaves them out"
        )
    # transformers loads packed weights with other packages only, and computes on them otherwise
    has_weights = loaded.folder is not None and loaded.weights is None
    agreement = _agreement(model, has_weights) if check else None
    text = dump_trace(export.trace)
    path = write_whole(f"{loaded.name}.json" if out is None else out, text.encode())
    if as_json:
        report = _report(export, agreement, path, len(text)) | {"notes": _notes(loaded)}
        typer.echo(json.dumps(report, allow_nan=False))
        return
    _print(export, agreement, path, len(text))
    for note in _notes(loaded):
        typer.echo(f"note: {note}")


def _notes(loaded: LoadedModel) -> list[str]:
    """How the config was read."""
    weights = [] if loaded.weights is None else [f"products have weights of {loaded.weights.words}"]
    return [*weights, *loaded.notes]


def _trace(model: str) -> tuple[LoadedModel, Export]:
    from pimsim.capture.loading import load_model, require_torch

    require_torch()
    with _status(f"{model}: building it on the meta device"):
        loaded = load_model(model, weights=False)
    from pimsim.capture.export import export_trace

    with _status(f"{loaded.name}: tracing prefill and decode"):
        return loaded, export_trace(loaded)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Importing PyTorch makes millions of objects that stay: looking through them for garbage is a
    fifth of the time of an export."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _routing(model: str, path: Path, text: str | None, tokens: int) -> None:
    from pimsim.capture.loading import load_model, require_torch

    require_torch()
    from pimsim.capture.text import read_text, token_ids

    measured_text = read_text(text)
    with _status(f"{model}: loading its weights"):
        loaded = load_model(model)
    if not loaded.real:
        raise InputError(f"model {loaded.name}: it has no weights, so its tokens go nowhere")
    from pimsim.capture.routing import capture_routing
    from pimsim.workload.routing.file import write_routing

    width = min(256, tokens)
    ids = token_ids(loaded, measured_text.content, tokens)
    with _status(f"{loaded.name}: {tokens} tokens"):
        trace = capture_routing(loaded, ids, width, measured_text.name)
    write_routing(trace, path)
    typer.echo(
        f"{path}: {trace.tokens:,} tokens, {len(trace.moe_layers)} blocks with {trace.experts} "
        f"experts, {path.stat().st_size / 1000:,.1f} kB"
    )


def _agreement(model: str, has_weights: bool) -> Agreement | None:
    """The comparison where there are weights; raises ``CheckFailed`` where they disagree."""
    from pimsim.capture.loading import load_model

    if not has_weights:
        return None
    with _status(f"{model}: loading its weights"):
        loaded = load_model(model)
    if not loaded.real:
        return None
    from pimsim.capture.agree import compare_with_model

    with _status(f"{loaded.name}: comparing with its own output"):
        found = compare_with_model(loaded.model)
    if found.relative > _LARGEST_DIFFERENCE:
        raise CheckFailed(
            f"model {loaded.name}: the traced path differs from the model by {found.relative:.2e} "
            f"of its largest logit (limit {_LARGEST_DIFFERENCE:g}); nothing written"
        )
    return found


def _report(export: Export, agreement: Agreement | None, path: Path, size: int) -> dict[str, Any]:
    from dataclasses import asdict

    facts = export.trace.facts
    return {
        "trace": str(path),
        "bytes": size,
        "model": export.trace.model,
        "source": export.trace.source,
        "facts": facts.model_dump(),
        "blocks": {
            name: {kind: len(operators) for kind, operators in phase.blocks.items()}
            for name, phase in export.trace.phases.items()
        },
        "unplaced": [asdict(each) for each in export.unplaced],
        "agreement": None
        if agreement is None
        else asdict(agreement) | {"relative": agreement.relative},
    }


def _print(export: Export, agreement: Agreement | None, path: Path, size: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts, console = export.trace.facts, Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{path}: {size / 1000:,.1f} kB"))
    console.print(
        Text(
            f"{export.trace.model}: {facts.architecture}, {facts.parameters:,} parameters, "
            f"{facts.layers} blocks, {facts.kv_bytes_per_token:,} bytes of KV cache a token"
        )
    )
    table = Table(box=None)
    for heading in ("phase", "block", "operators"):
        table.add_column(heading, justify="right" if heading == "operators" else "left")
    for name, phase in export.trace.phases.items():
        for kind, operators in phase.blocks.items():
            table.add_row(name, Text(kind), str(len(operators)))
    console.print(table)
    for each in export.unplaced:
        console.print(Text(f"left out: {each.op} in {each.module}"))
    if agreement is not None:
        console.print(
            Text(
                f"same as the model's own output: largest difference "
                f"{agreement.largest_difference:.2e} of logits up to {agreement.largest_logit:.1f} "
                f"over a prompt of {agreement.prompt_tokens} tokens and {agreement.steps} decode "
                f"steps; best token the same at {agreement.same_top1} of {agreement.positions}"
            )
        )


def _status(text: str) -> Any:
    from contextlib import nullcontext

    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.markup import escape

    return Console(stderr=True).status(escape(text))
