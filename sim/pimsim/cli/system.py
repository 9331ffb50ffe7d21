"""``pimsim system``, which ``pimsim run`` has taken the place of: the line to type now."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

import typer

__all__ = ["system_command"]

_OUTPUT_TOKENS = 128
_CONTEXTS = 3


def system_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset of GPUs or a YAML path.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="A model card.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="NAME", help="An operator trace.")
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            "--batch", metavar="N", min=1, max=1_000_000, help="Requests; run has it, too."
        ),
    ] = 1,
    input_tokens: Annotated[
        int,
        typer.Option(
            "--input", metavar="L", min=1, max=1_000_000, help="Of a prompt; run: equal:L."
        ),
    ] = 2048,
    output_tokens: Annotated[
        int,
        typer.Option(
            "--output", metavar="L", min=2, max=1_000_000, help="Made; run: --steps, one less."
        ),
    ] = _OUTPUT_TOKENS,
    contexts: Annotated[
        int,
        typer.Option(
            "--contexts", metavar="N", min=1, max=1_000_000, help="Run: attention_contexts."
        ),
    ] = _CONTEXTS,
    phase: Annotated[
        Literal["decode", "prefill"], typer.Option("--phase", help="As in run.")
    ] = "decode",
    chunk: Annotated[
        int | None, typer.Option("--chunk", metavar="N", min=1, max=1_000_000, help="As in run.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As in run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As in run.")] = False,
) -> None:
    """Retired: says the line of pimsim run that does the same."""
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_system

    attention = load_system(name, overrides or []).config.attention
    words = ["pimsim", "run", name]
    if model is not None:
        words += ["--model", model]
    if trace is not None:
        words += ["--trace", trace]
    made = "" if phase == "prefill" else "+1"
    words += ["--requests", f"equal:{input_tokens}{made}", "--batch", str(batch)]
    given = list(overrides or [])
    if phase == "prefill":
        words += ["--phase", "prefill", *([] if chunk is None else ["--chunk", str(chunk)])]
        given.append("workload.outside=true")
    else:
        words += ["--steps", str(output_tokens - 1)]
        if attention == "pim":
            given.append(f"attention_contexts={max(contexts, 2)}")
    for each in given:
        words += ["--set", each]
    if as_json:
        words.append("--json")
    raise InputError(f"pimsim system is pimsim run now; type: {shlex.join(words)}")
