"""``pimsim system``: prefill and decoding on GPUs, with a KV cache on them, their host, or PIM."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pimsim.config.documents import Resolved
    from pimsim.config.system import SystemConfig
    from pimsim.engine.xpu_prefill import Prefilling
    from pimsim.engine.xpu_steps import MeanStep
    from pimsim.engine.xpu_system import Decoding
    from pimsim.workload.cards import ModelCard
    from pimsim.workload.trace import OperatorTrace

__all__ = ["system_command"]

_MODEL = "gpt3-175b"
_MAX_BATCH = 65_536
_MAX_TOKENS = 10_000_000
_MAX_CONTEXTS = 4096
_OUTPUT_TOKENS = 128
_PHASES = ("decode", "prefill")
_FILE_WIDTH = 120


def system_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A system preset or a YAML path.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help=f"A model card's name or YAML path; {_MODEL} by default.",
        ),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="NAME",
            help="An operator trace's name or JSON path, instead of a card.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, max=_MAX_BATCH, help="Requests.")
    ] = 1,
    input_tokens: Annotated[
        int,
        typer.Option(
            "--input", metavar="L", min=1, max=_MAX_TOKENS, help="Prompt of each request."
        ),
    ] = 2048,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            "--output",
            metavar="L",
            min=2,
            max=_MAX_TOKENS,
            help=f"Tokens that each makes; {_OUTPUT_TOKENS} by default.",
        ),
    ] = None,
    contexts: Annotated[
        int | None,
        typer.Option(
            "--contexts",
            metavar="N",
            min=1,
            max=_MAX_CONTEXTS,
            help="Steps whose attention on PIM is simulated; those between are interpolated; 3 by "
            "default.",
        ),
    ] = None,
    phase: Annotated[
        str,
        typer.Option(
            "--phase",
            metavar="decode|prefill",
            help="What is simulated: the tokens after the first, or the prompts up to it.",
        ),
    ] = "decode",
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            metavar="N",
            min=1,
            max=_MAX_TOKENS,
            help="With prefill: at most N new tokens of a request in a step; more steps.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """A batch on a server of GPUs: tokens/s, the mean step's parts, energy and bounds.

    Decoding, or with --phase prefill the prompts, whole or in chunks. Embedding and sampling are
    not counted; the output layer only in prefill.
    """
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_system
    from pimsim.config.resources import find_source
    from pimsim.workload.cards import load_card
    from pimsim.workload.trace import OperatorTrace, load_trace

    if model is not None and trace is not None:
        raise InputError("--model and --trace: a system runs one of them")
    _check_phase(phase, output_tokens, contexts, chunk)
    resolved = load_system(name, overrides or [])
    source = (
        load_card(model or _MODEL) if trace is None else load_trace(find_source("operators", trace))
    )
    case: dict[str, Any] = {
        "system": resolved.config.name,
        "model": source.model if isinstance(source, OperatorTrace) else source.name,
        "devices": resolved.config.devices,
        "phase": phase,
        "batch": batch,
        "input_tokens": input_tokens,
    }
    result: Decoding | Prefilling
    if phase == "prefill":
        from pimsim.engine.xpu_prefill import prefill

        result = prefill(resolved.config, source, batch, input_tokens, chunk)
        case["chunk"] = result.chunk
        title = f"{batch} prompts of {input_tokens} tokens"
    else:
        from pimsim.engine.xpu_system import PIM_CONTEXTS, decode

        made = output_tokens or _OUTPUT_TOKENS
        result = decode(
            resolved.config, source, batch, input_tokens, made, contexts or PIM_CONTEXTS
        )
        case["output_tokens"] = made
        title = f"{batch} requests of {input_tokens} + {made} tokens"
    if as_json:
        typer.echo(json.dumps(_report(case, result, resolved, source), indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(
        width=None if sys.stdout.isatty() else _FILE_WIDTH, markup=False, highlight=False
    )
    console.print(f"{case['model']} on {case['system']}: {title}")
    console.print(_summary(result))
    console.print(_kernels(result))
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _check_phase(
    phase: str, output_tokens: int | None, contexts: int | None, chunk: int | None
) -> None:
    """Raises ``InputError`` for a phase that is none, and for options of the other."""
    from pimsim.config.errors import InputError, near_miss

    if phase not in _PHASES:
        raise InputError(
            f"--phase: unknown {phase!r}{near_miss(phase, _PHASES)}; allowed: {', '.join(_PHASES)}"
        )
    others: dict[str, int | None] = (
        {"--output": output_tokens, "--contexts": contexts}
        if phase == "prefill"
        else {"--chunk": chunk}
    )
    for option, value in others.items():
        if value is not None:
            right = next(each for each in _PHASES if each != phase)
            raise InputError(f"{option} {value}: it is for --phase {right}, found {phase}")


def _report(
    case: dict[str, Any],
    result: Decoding | Prefilling,
    resolved: Resolved[SystemConfig],
    source: ModelCard | OperatorTrace,
) -> dict[str, Any]:
    from pimsim import __version__
    from pimsim.config.content import digest, run_content

    return {
        **case,
        "tokens_per_s": result.tokens_per_s,
        "step_s": result.step_s,
        "steps": result.steps,
        **_of_phase(result),
        "parts_s": dict(result.parts_s),
        "gemm_s": dict(result.gemm_s),
        "energy_j": {**result.energy_j, "total": result.total_j},
        "power_w": dict(result.power_w),
        "static_w": dict(result.static_w),
        "tdp_w": result.tdp_w,
        "tokens_per_j": result.tokens_per_j,
        "bound": result.bound,
        "bound_s": dict(result.bound_s),
        "kernels": [
            {"name": each.name, "unit": each.unit, "time_s": each.time_s, "bound": each.bound}
            for each in result.kernels
        ],
        "memory": {
            "need_bytes": result.need_bytes,
            "capacity_bytes": result.capacity_bytes,
            "fits": result.need_bytes <= result.capacity_bytes,
        },
        "warnings": list(result.warnings),
        "provenance": {
            "config_sha256": resolved.sha256,
            "content_sha256": run_content(
                resolved, {"case": digest(case), "model": digest(source.model_dump(mode="json"))}
            ),
            "model_source": source.source,
            "version": __version__,
        },
    }


def _of_phase(result: Decoding | Prefilling) -> dict[str, Any]:
    """What only one of the phases has."""
    from pimsim.engine.xpu_prefill import Prefilling

    if not isinstance(result, Prefilling):
        return {"simulated_contexts": result.simulated_contexts}
    return {
        "time_s": result.time_s,
        "flops": result.flops,
        "attention_flops": result.attention_flops,
        "executed_attention_flops": result.executed_attention_flops,
        "kv_written_bytes": result.kv_written_bytes,
    }


def _power(result: MeanStep) -> str:
    """Watt by part, of one device."""
    parts = ", ".join(
        f"{name} {watt:.1f}" for name, watt in result.power_w.items() if watt and name != "total"
    )
    limit = "" if result.tdp_w is None else f", TDP {result.tdp_w:,.0f} W"
    return f"{result.power_w['total']:.1f} W: {parts}{limit}"


def _summary(result: Decoding | Prefilling) -> Table:
    from rich.table import Table

    from pimsim.engine.xpu_prefill import Prefilling

    def ms(parts: dict[str, float]) -> str:
        return ", ".join(f"{name} {1e3 * value:.3f}" for name, value in parts.items() if value)

    joules = ", ".join(f"{name} {value:.3f}" for name, value in result.energy_j.items() if value)
    largest = result.bound
    if isinstance(result, Prefilling):
        many = "the one" if result.steps == 1 else f"the mean of {result.steps}"
        about = f"{many}, at most {result.chunk} tokens of a request each"
        own = {
            "prefill": f"{1e3 * result.time_s:.3f} ms, to the logits of the first tokens",
            "FLOPs": f"{result.flops:,} needed, of them {result.attention_flops:,} of attention "
            f"({result.executed_attention_flops:,} done)",
            "keys and values": f"{result.kv_written_bytes:,} B written",
        }
    else:
        about = (
            f"the mean of {result.steps} "
            f"(attention simulated at {result.simulated_contexts} contexts)"
        )
        own = {}
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in {
        "tokens/s": f"{result.tokens_per_s:,.2f}",
        **own,
        "step": f"{1e3 * result.step_s:.3f} ms, {about}",
        "parts, ms": ms(dict(result.parts_s)),
        "gemm, ms": ms(dict(result.gemm_s)),
        "energy of a step": f"{result.total_j:.3f} J: {joules}",
        "power of a device": _power(result),
        "static power": ", ".join(f"{name} {watt:.1f}" for name, watt in result.static_w.items()),
        "tokens/J": f"{result.tokens_per_j:,.3f}",
        "least time, ms": ms(dict(result.bound_s)),
        "bound": f"{largest}, {result.bound_s[largest] / result.step_s:.1%} of the step",
        "memory": f"{result.need_bytes / 2**30:,.0f} of {result.capacity_bytes / 2**30:,.0f} GiB",
    }.items():
        table.add_row(what, text)
    return table


def _kernels(result: MeanStep) -> Table:
    from rich.table import Table

    table = Table(
        title="the last step's kernels, once a block, nothing overlapped", title_justify="left"
    )
    for heading in ("kernel", "unit"):
        table.add_column(heading)
    table.add_column("us", justify="right")
    table.add_column("bound")
    for each in result.kernels:
        table.add_row(each.name, each.unit, f"{1e6 * each.time_s:.3f}", each.bound)
    return table
