"""``pimsim system``: decoding on GPUs, with attention on them, on their host, or on PIM."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pimsim.config.loader import Resolved
    from pimsim.config.system import SystemConfig
    from pimsim.engine.xpu_system import Decoding
    from pimsim.workload.cards import ModelCard
    from pimsim.workload.trace import OperatorTrace

__all__ = ["system_command"]

_MODEL = "gpt3-175b"
_MAX_BATCH = 65_536
_MAX_TOKENS = 10_000_000
_MAX_CONTEXTS = 4096
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
        int,
        typer.Option(
            "--output", metavar="L", min=2, max=_MAX_TOKENS, help="Tokens that each makes."
        ),
    ] = 128,
    contexts: Annotated[
        int,
        typer.Option(
            "--contexts",
            metavar="N",
            min=1,
            max=_MAX_CONTEXTS,
            help="Steps whose attention on PIM is simulated; those between are interpolated.",
        ),
    ] = 3,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Decode a batch on a server of GPUs: tokens/s, the mean step's parts, energy and bounds.

    Prefill, embedding and output layer are not counted.
    """
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_system
    from pimsim.config.resources import find_source
    from pimsim.engine.xpu_system import decode
    from pimsim.workload.cards import load_card
    from pimsim.workload.trace import OperatorTrace, load_trace

    if model is not None and trace is not None:
        raise InputError("--model and --trace: a system runs one of them")
    resolved = load_system(name, overrides or [])
    source = (
        load_card(model or _MODEL) if trace is None else load_trace(find_source("operators", trace))
    )
    result = decode(resolved.config, source, batch, input_tokens, output_tokens, contexts)
    model_name = source.model if isinstance(source, OperatorTrace) else source.name
    case = {
        "system": resolved.config.name,
        "model": model_name,
        "devices": resolved.config.devices,
        "batch": batch,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    if as_json:
        typer.echo(json.dumps(_report(case, result, resolved, source), indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(
        width=None if sys.stdout.isatty() else _FILE_WIDTH, markup=False, highlight=False
    )
    console.print(
        f"{model_name} on {resolved.config.name}: {batch} requests of {input_tokens} + "
        f"{output_tokens} tokens"
    )
    console.print(_summary(result, batch))
    console.print(_kernels(result))
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _report(
    case: dict[str, Any],
    result: Decoding,
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
        "simulated_contexts": result.simulated_contexts,
        "parts_s": dict(result.parts_s),
        "gemm_s": dict(result.gemm_s),
        "energy_j": {**result.energy_j, "total": result.total_j},
        "power_w": dict(result.power_w),
        "static_w": dict(result.static_w),
        "tdp_w": result.tdp_w,
        "tokens_per_j": case["batch"] / result.total_j,
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


def _power(result: Decoding) -> str:
    """Watt by part, of one device."""
    parts = ", ".join(
        f"{name} {watt:.1f}" for name, watt in result.power_w.items() if watt and name != "total"
    )
    limit = "" if result.tdp_w is None else f", TDP {result.tdp_w:,.0f} W"
    return f"{result.power_w['total']:.1f} W: {parts}{limit}"


def _summary(result: Decoding, tokens: int) -> Table:
    from rich.table import Table

    def ms(parts: dict[str, float]) -> str:
        return ", ".join(f"{name} {1e3 * value:.3f}" for name, value in parts.items() if value)

    joules = ", ".join(f"{name} {value:.3f}" for name, value in result.energy_j.items() if value)
    largest = result.bound
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, text in {
        "tokens/s": f"{result.tokens_per_s:,.2f}",
        "step": f"{1e3 * result.step_s:.3f} ms, the mean of {result.steps} "
        f"(attention simulated at {result.simulated_contexts} contexts)",
        "parts, ms": ms(dict(result.parts_s)),
        "gemm, ms": ms(dict(result.gemm_s)),
        "energy of a step": f"{result.total_j:.3f} J: {joules}",
        "power of a device": _power(result),
        "static power": ", ".join(f"{name} {watt:.1f}" for name, watt in result.static_w.items()),
        "tokens/J": f"{tokens / result.total_j:,.3f}",
        "least time, ms": ms(dict(result.bound_s)),
        "bound": f"{largest}, {result.bound_s[largest] / result.step_s:.1%} of the step",
        "memory": f"{result.need_bytes / 2**30:,.0f} of {result.capacity_bytes / 2**30:,.0f} GiB",
    }.items():
        table.add_row(what, text)
    return table


def _kernels(result: Decoding) -> Table:
    from rich.table import Table

    table = Table(title="a block of the last step, nothing overlapped", title_justify="left")
    for heading in ("kernel", "unit"):
        table.add_column(heading)
    table.add_column("us", justify="right")
    table.add_column("bound")
    for each in result.kernels:
        table.add_row(each.name, each.unit, f"{1e6 * each.time_s:.3f}", each.bound)
    return table
