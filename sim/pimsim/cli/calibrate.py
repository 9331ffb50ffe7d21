"""``pimsim calibrate``: what fast fidelity goes by, as the command engine shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from pimsim.cli.run import (
    BatchOption,
    JsonOption,
    LayersOption,
    ModelOption,
    RequestsOption,
    RoutingOption,
    RunArgument,
    SetOption,
    TraceOption,
    stage_line,
)
from pimsim.config.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["calibrate_command"]


def calibrate_command(
    run: RunArgument = "neupims",
    model: ModelOption = None,
    requests: RequestsOption = None,
    layers: LayersOption = None,
    batch: BatchOption = None,
    trace: TraceOption = None,
    routing: RoutingOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure on the command engine what runs at fast fidelity go by, and keep it.

    Example: pimsim calibrate --batch 64 --layers 1
    """
    from pimsim.simulate import calibration, on_npu, overrides_of, resolve

    on_npu(resolve(run), "a calibration")
    options = overrides_of(model, requests, layers, batch, "fast", trace, routing)
    resolved = on_npu(resolve(run, [*options, *(overrides or [])]))
    with stage_line(resolved.config.name) as on_stage:
        found = calibration(resolved, on_stage)
    if found is None:
        raise InputError(f"{run}: runs command by command at any fidelity; there are no rates")
    if as_json:
        typer.echo(json.dumps(found, indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(width=110)
    for table in _tables(found):
        console.print(table)
    if found["file"]:
        typer.echo(f"kept in {found['file']}")


def _tables(found: dict[str, Any]) -> list[Table]:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    streams = Table(title="streams of one channel", box=SIMPLE_HEAD, title_justify="left")
    for name in ("", "cycles/burst", "GB/s", "of the bus", "first after"):
        streams.add_column(name, justify="right")
    for name in ("reads", "writes"):
        one = found[name]
        streams.add_row(
            name, f"{one['cycles_per_burst']:.3f}", f"{one['gb_per_s']:.2f}",
            f"{one['bus_share']:.1%}", f"{one['latency_cycles']:.0f} cycles",
        )  # fmt: skip
    streams.caption = f"a refresh stops them for {found['refresh_stall_cycles']:.0f} cycles"
    chains = Table(title="reads, two under way", box=SIMPLE_HEAD, title_justify="left")
    for name in ("bursts each", "cycles/burst", "ends after its turn by"):
        chains.add_column(name, justify="right")
    for one in found["chains"]:
        chains.add_row(
            str(one["bursts"]), f"{one['cycles_per_burst']:.3f}", f"{one['lag_cycles']:.0f} cycles"
        )
    tables = [streams, chains]
    for operation in found["pim"]:
        table = Table(
            title=f"PIM operation {operation['name']}", box=SIMPLE_HEAD, title_justify="left"
        )
        for name in ("piece", "times", "alone", "beside reads", "reads get"):
            table.add_column(name, justify="right" if name != "piece" else "left")
        for kind in operation["kinds"]:
            table.add_row(
                kind["piece"], f"{kind['times']:,}", f"{kind['cycles']:.0f} cycles",
                f"{kind['cycles_beside']:.0f} cycles", f"{kind['stream_share']:.1%}",
            )  # fmt: skip
        table.caption = (
            f"a refresh stops it for {operation['refresh_stall_cycles']:.0f} cycles, in which "
            f"reads get {operation['stall_share']:.1%}"
        )
        tables.append(table)
    return tables
