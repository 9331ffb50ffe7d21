"""``pimsim kernel gemv``, ``elementwise``, ``pim-trace``: one operation on a PIM design alone."""

from __future__ import annotations

import json
from math import fsum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.tables import print_table

if TYPE_CHECKING:
    from pimsim.config.pim import PimDesignConfig
    from pimsim.hardware.pim.stream import CommandStream, StreamResult

__all__ = ["elementwise_command", "gemv_command", "stream_attention", "trace_command"]

_MAX_SIZE = 2**31 - 1
_PS_PER_S = 1e12

PimOption = Annotated[
    str, typer.Option("--pim", metavar="NAME|FILE", help="A PIM that brings its own memory (aim).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def gemv_command(
    outputs: Annotated[
        int, typer.Argument(metavar="OUT", min=1, max=_MAX_SIZE, help="Rows of the matrix.")
    ],
    inputs: Annotated[
        int, typer.Argument(metavar="IN", min=1, max=_MAX_SIZE, help="Columns of the matrix.")
    ],
    pim: PimOption,
    batch: Annotated[
        int, typer.Option(metavar="B", min=1, max=1_000_000, help="Vectors, one after the other.")
    ] = 1,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Activation function of the outputs.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a matrix-vector product on PIM, with no other traffic.

    Example: pimsim kernel gemv 4096 1024 --pim aim --batch 4
    """
    from pimsim.config.errors import InputError

    design, operation = _operation(pim, overrides, "gemv")
    if activation is not None and not design.activations:
        raise InputError(f"--activation {activation}: {design.name} has no activation functions")
    options = {} if activation is None else {"activation": activation}
    stream = operation(design, outputs, inputs, batch, **options)
    title = f"{outputs} x {inputs}, {batch} vector{'s' * (batch > 1)}, on {design.name}"
    _report(title, design, stream, as_json, macs=outputs * inputs * batch)


def elementwise_command(
    function: Annotated[
        str, typer.Argument(metavar="FUNCTION", help="multiply, add ... or an activation function.")
    ],
    elements: Annotated[
        int, typer.Argument(metavar="N", min=1, max=_MAX_SIZE, help="Elements of the vectors.")
    ],
    pim: PimOption,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run an elementwise operation on PIM, with no other traffic.

    Example: pimsim kernel elementwise relu 65536 --pim hbm-pim
    """
    design, operation = _operation(pim, overrides, "elementwise")
    stream = operation(design, function, elements)
    _report(f"{function} of {elements} elements on {design.name}", design, stream, as_json)


def trace_command(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE", help="Host instructions in the design's format.")
    ],
    pim: PimOption = "aim",
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a trace of PIM host instructions (AiM's ISRs).

    Example: pimsim kernel pim-trace gemv.trace --pim aim
    """
    from pimsim.config.paths import given_path

    design, operation = _operation(pim, overrides, "trace")
    stream = operation(design, given_path(trace))
    _report(f"{trace} on {design.name}", design, stream, as_json, first_channel=True)


def stream_attention(
    pim: str,
    overrides: list[str] | None,
    heads: int,
    kv_heads: int,
    head_dim: int,
    context: int,
    as_json: bool,
) -> None:
    """``pimsim kernel attention`` on a design with commands of its own.

    Parameters
    ----------
    pim
        The design: a preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order; None: none.
    heads
        Of queries.
    kv_heads
        Of keys and values.
    head_dim
        Elements of a head.
    context
        Tokens.
    as_json
        Whether one JSON object is printed.

    Raises
    ------
    InputError
        For a design without attention.
    """
    design, operation = _operation(pim, overrides, "attention")
    stream = operation(design, heads, kv_heads, head_dim, context)
    title = f"{heads} heads of {head_dim} over {context} tokens on {design.name}"
    _report(title, design, stream, as_json, macs=2 * heads * head_dim * context)


def _operation(pim: str, overrides: list[str] | None, name: str) -> tuple[PimDesignConfig, Any]:
    """The design, and its function for an operation."""
    from pimsim.config.loader import load_stream_pim
    from pimsim.hardware.pim.designs import mapping_of

    design = load_stream_pim(pim, overrides or []).config
    return design, mapping_of(design, name)


def _report(
    title: str,
    design: PimDesignConfig,
    stream: CommandStream,
    as_json: bool,
    *,
    macs: int | None = None,
    first_channel: bool = False,
) -> None:
    """Run the stream and print what became of it. ``macs``: those that the operation needs."""
    from pimsim.hardware.pim.stream import run_stream

    result = run_stream(design, stream)
    report = _as_json(design, result, macs)
    if first_channel:
        report["channel_0_commands"] = {
            name: count for name, count in result.channel_commands[0].items() if count
        }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    shares = ", ".join(f"{name} {share:.2%}" for name, share in report["utilisation"].items())
    parts = ", ".join(f"{part} {pj:,.0f}" for part, pj in report["energy_parts_pj"].items())
    print_table(
        title,
        {
            "cycles": f"{result.cycles:,} of {design.tCK / 1000:g} ns",
            "time": f"{report['time_s'] * 1e6:,.3f} us",
            "commands": _counts(report["commands"]),
            "channel 0": _counts(report.get("channel_0_commands", {})),
            "utilisation": shares,
            "energy": f"{report['energy_pj']:,.0f} pJ, dynamic ({parts})" if parts else "",
            "power": f"{report['stack_w']:.3g} W in the fullest stack, "
            f"{report['static_stack_w']:.3g} W at rest",
        },
    )


def _counts(commands: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in commands.items())


def _as_json(design: PimDesignConfig, result: StreamResult, macs: int | None) -> dict[str, Any]:
    """A stream's run as JSON. ``utilisation.banks``: share of time in which the channels'
    banks compute; ``macs``: multiply-accumulates of the operation, of the most possible."""
    from pimsim.hardware.energy.limits import check_limits
    from pimsim.hardware.energy.pim import (
        cap_of,
        fullest_stack_w,
        static_stack_w,
        stream_energy_pj,
    )
    from pimsim.hardware.pim.stream import peak_interval_cycles

    commands = result.commands
    stack_w = fullest_stack_w(design, result.channel_commands, result.cycles * design.tCK)
    check_limits(cap_of(design, stack_w, "power_cap_w"))
    parts = {name: round(pj, 3) for name, pj in stream_energy_pj(design, commands).items()}
    shares: dict[str, float] = {}
    peak = design.peak
    if peak is not None and result.cycles:
        slots = result.cycles * design.organization.channels / peak_interval_cycles(design)
        shares["banks"] = commands.get(peak.command, 0) / slots
        if macs is not None:
            shares["macs"] = macs / (slots * design.peak_macs)
    return {
        "cycles": result.cycles,
        "time_s": result.cycles * design.tCK / _PS_PER_S,
        "commands": commands,
        "utilisation": shares,
        "energy_pj": round(fsum(parts.values()), 3),
        "energy_parts_pj": parts,
        "stack_w": stack_w,
        "static_stack_w": static_stack_w(design),
        "pim": design.name,
        "tck_ps": design.tCK,
    }
