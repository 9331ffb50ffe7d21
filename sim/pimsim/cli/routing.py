"""``pimsim routing``: what a routing trace shows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.config.errors import InputError

if TYPE_CHECKING:
    from pimsim.workload.routing.file import RoutingTrace

__all__ = ["routing_command"]


def routing_command(
    traces: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE...",
            help="Shipped names or Parquet files; of several, checkpoints in order, the last one "
            "is held against the others.",
        ),
    ],
    capacity_factor: Annotated[
        float,
        typer.Option("--capacity-factor", metavar="F", help="An expert takes F even shares."),
    ] = 1.25,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """OpenMoE's three findings, the load of experts, and experts hit by a batch; a uniform routing
    of the same tokens stands beside each trace.

    Example: pimsim routing tiny-moe-step-0 tiny-moe --capacity-factor 1.25
    """
    from pimsim.config.resources import find_source
    from pimsim.workload.routing.file import read_routing
    from pimsim.workload.routing.findings import uniform_control

    if not (math.isfinite(capacity_factor) and capacity_factor > 0):
        raise InputError(f"--capacity-factor is {capacity_factor}; a number above 0 is expected")
    read = [read_routing(find_source("routing", name)) for name in traces]
    named = dict(zip(_distinct(traces), read, strict=True)) | {"uniform": uniform_control(read[-1])}
    report = _report(named, capacity_factor)
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    _print(report)


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({at})" for at, name in enumerate(names)]


def _report(named: dict[str, RoutingTrace], factor: float) -> dict[str, Any]:
    from pimsim.workload.routing.findings import agreement_with, experts_hit, findings

    last = list(named.values())[-2]
    rows = {}
    for name, trace in named.items():
        comparable = trace.moe_layers == last.moe_layers and trace.tokens == last.tokens
        rows[name] = {
            "model": trace.model,
            "source": trace.source,
            "tokens": trace.tokens,
            "layers": [_finite(asdict(each)) for each in findings(trace, factor)],
            "same_first_choice_as_last": agreement_with(trace, last)
            if comparable and (trace.token == last.token).all()
            else None,
            "experts_hit": {str(k): v for k, v in experts_hit(trace).items()},
        }
    return {
        "experts": last.experts, "experts_per_token": last.experts_per_token,
        "capacity_factor": factor, "traces": rows,
    }  # fmt: skip


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _print(report: dict[str, Any]) -> None:
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    factor = report["capacity_factor"]
    first = next(iter(report["traces"].values()))
    console.print(
        Text(
            f"{report['experts']} experts, {report['experts_per_token']} a token, "
            f"{first['tokens']:,} tokens; capacity factor {factor:g}"
        )
    )
    table = Table(box=box.SIMPLE_HEAD)
    for heading in (
        "trace", "block", "same token", "any two", "first choice as last", "max/mean", "min/mean",
        "dead", "dropped by quarter (%)",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    for name, row in report["traces"].items():
        agreed = row["same_first_choice_as_last"] or [None] * len(row["layers"])
        for at, (layer, same) in enumerate(zip(row["layers"], agreed, strict=True)):
            drops = " ".join(f"{100 * share:5.1f}" for share in layer["dropped_by_quarter"])
            table.add_row(
                Text(name if at == 0 else ""), str(layer["layer"]),
                _two(layer["same_token_overlap"]), _two(layer["random_overlap"]), _two(same),
                _two(layer["max_over_mean"]), _two(layer["min_over_mean"]), str(layer["dead"]),
                drops,
            )  # fmt: skip
    console.print(table)
    hits = Table(title="experts hit in a block, by tokens of a decode batch", box=box.SIMPLE_HEAD)
    sizes = list(first["experts_hit"])
    hits.add_column("trace")
    for size in sizes:
        hits.add_column(size, justify="right")
    for name, row in report["traces"].items():
        hits.add_row(Text(name), *(f"{row['experts_hit'][size][0]:.1f}" for size in sizes))
    hits.add_row(
        Text("independent choices"), *(f"{first['experts_hit'][size][1]:.1f}" for size in sizes)
    )
    console.print(hits)


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
