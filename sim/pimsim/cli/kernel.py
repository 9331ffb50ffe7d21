"""``pimsim kernel``: one timing model run alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from pimsim.cli.kernel_attention import attention_command
from pimsim.cli.kernel_collective import collective_command
from pimsim.cli.kernel_gemm import gemm_command
from pimsim.cli.kernel_pim import elementwise_command, gemv_command, trace_command
from pimsim.cli.memories import read_memory
from pimsim.cli.tables import print_table

if TYPE_CHECKING:
    from pimsim.config.memory import MemoryConfig
    from pimsim.hardware.dram.replay import ReplayResult

__all__ = ["kernel_app"]

kernel_app = typer.Typer(help="Run one timing model alone.", no_args_is_help=True)

_JEDEC_COMMANDS = ("ACT", "PRE", "RD", "WR", "REF")
"""Printed also when there were none; other commands only when they occurred."""

_PJ_PER_J = 1e12
_MAX_SIZE = 2**31 - 1

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@kernel_app.command("dram")
def dram_command(
    trace: Annotated[
        str | None,
        typer.Argument(
            metavar="TRACE",
            help="Lines '0xADDR READ|WRITE CYCLE', '0xADDR R|W', 'LD|ST 0xADDR' or 'R|W VECTOR'; "
            "'#' starts a comment; '-' is stdin.",
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            "--memory", metavar="NAME|FILE", help="A preset, our YAML, or a DRAMsim3 .ini."
        ),
    ] = "hbm2",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    commands_file: Annotated[
        str | None,
        typer.Option(
            "--commands", metavar="FILE", help="Write every command, as DRAMsim3 does; .gz packs."
        ),
    ] = None,
    checked_file: Annotated[
        str | None,
        typer.Option(
            "--check-commands",
            metavar="FILE",
            help="In place of TRACE: whether the commands in FILE keep the memory's rules.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Replay a DRAM trace, every command under every timing rule; or check a command trace.

    A request is offered at its cycle or as soon after as the controller takes it: in order, up
    to one for each channel in a cycle.

    Example: pimsim kernel dram trace.txt --memory hbm2-neupims
    """
    from pathlib import Path

    from pimsim.config.errors import InputError

    config = read_memory(memory, overrides or [])
    if checked_file is not None:
        if trace is not None or commands_file is not None:
            raise InputError("--check-commands takes no TRACE and no --commands")
        from pimsim.cli.command_trace import check_command_trace

        check_command_trace(Path(checked_file), config, as_json)
        return
    if trace is None:
        raise InputError("kernel dram needs a TRACE, or --check-commands FILE")
    from pimsim.hardware.dram.address import AddressMap
    from pimsim.hardware.dram.trace_file import read_trace

    capacity = config.organization.capacity_bytes
    mapping = AddressMap.parse(config.address_map, config.organization)
    if trace == "-":
        with _stdin() as stream:
            requests = read_trace(stream, capacity, mapping)
    else:
        requests = read_trace(Path(trace), capacity, mapping)
    from pimsim.hardware.dram.layout import MAX_LOG
    from pimsim.hardware.dram.replay import replay

    entries = 0 if commands_file is None else MAX_LOG
    from pimsim.cli.progress import count_line

    total = len(requests.addresses)
    with count_line(f"{trace} on {config.name}", "requests", total) as tell:
        result = replay(
            config, requests.addresses, requests.writes, requests.arrivals, entries,
            None if tell is None else lambda done: tell(min(done, total), ""),
        )  # fmt: skip
    if commands_file is not None:
        from pimsim.hardware.dram.command_trace import write_command_trace

        write_command_trace(Path(commands_file), result.trace_lines(), config)
    report = _dram_report(config, result)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    commands = ", ".join(f"{name} {count:,}" for name, count in report["commands"].items())
    parts = ", ".join(f"{part} {pj:,.0f}" for part, pj in report["energy_parts_pj"].items())
    print_table(
        f"{report['requests']:,} requests on {config.name}",
        {
            "cycles": f"{result.cycles:,} of {report['tick_ps'] / 1000:g} ns",
            "bandwidth": f"{report['bandwidth_gbps']:.2f} GB/s on the bus, "
            f"{report['answered_gbps']:.2f} GB/s answered",
            "commands": commands,
            "row hits": f"{result.row_hits:,}",
            "read latency": f"{result.avg_read_latency_cycles:.1f} cycles on average",
            "writes left in the queue": f"{result.undrained_writes:,}",
            "energy": f"{report['energy_pj']:,.0f} pJ, I/O apart ({parts})",
        },
    )


def _dram_report(memory: MemoryConfig, result: ReplayResult) -> dict[str, Any]:
    """The replay as JSON. ``bandwidth_gbps`` counts the bytes on the data buses, a burst for each
    RD and WR; ``answered_gbps`` those of all requests, of which some are answered together, or
    from a write that still waits.

    Cycles are of ``tick_ps``: half a clock where the command bus uses both edges. RD, WR, PRE and
    REF count all reads, writes, precharges and refreshes that were sent; RDA and WRA say how many
    closed their bank, PREA and REFpb how many were of all banks, or of one.

    Energy is what DRAMsim3 counts, from IDD currents and without I/O, but times tCK.
    """
    from pimsim.config.loader import load_energy
    from pimsim.hardware.energy.dram import count_dram, dram_energy

    commands = {
        name: count for name, count in result.commands.items() if count or name in _JEDEC_COMMANDS
    }
    commands["PRE"] += result.commands["PREA"]
    commands["REF"] += result.commands["REFpb"]
    commands["RD"] += result.commands["RDA"]
    commands["WR"] += result.commands["WRA"]
    tick_ps = memory.tCK / result.ticks_per_clock
    energy = dram_energy(
        count_dram(
            memory, result.commands, result.active_rank_cycles, result.cycles,
            result.time_ps(memory),
        ),
        memory,
        load_energy("default").config.model_copy(update={"dram_model": "currents"}),
    )  # fmt: skip
    report: dict[str, Any] = {
        "cycles": result.cycles,
        "commands": commands,
        "row_hits": result.row_hits,
        "bandwidth_gbps": result.bytes_moved / (result.cycles * tick_ps / 1000),
        "answered_gbps": result.bytes_answered / (result.cycles * tick_ps / 1000),
        "bytes_moved": result.bytes_moved,
        "bytes_answered": result.bytes_answered,
        "energy_pj": _picojoule(energy.core_j),
        "energy_parts_pj": {
            "activate": _picojoule(energy.activate_j),
            "read": _picojoule(energy.read_j),
            "write": _picojoule(energy.write_j),
            "refresh": _picojoule(energy.refresh_j),
            "background": _picojoule(energy.background_j),
        },
        "avg_read_latency_cycles": result.avg_read_latency_cycles,
        "undrained_writes": result.undrained_writes,
        "requests": result.requests,
        "memory": memory.name,
        "tck_ps": memory.tCK,
        "tick_ps": tick_ps,
    }
    if result.row_misses is not None:
        report |= {"row_misses": result.row_misses, "row_conflicts": result.row_conflicts}
    return report


def _picojoule(joule: float) -> float:
    """Picojoule to a femtojoule, below which are rounding errors only."""
    return round(joule * _PJ_PER_J, 3)


kernel_app.command("gemm")(gemm_command)


kernel_app.command("attention")(attention_command)


@contextmanager
def _stdin() -> Iterator[TextIO]:
    """Standard input as text whose wrong bytes do not stop the parser before it says where."""
    from pimsim.config.errors import InputError, reason

    try:
        with open(0, encoding="utf-8-sig", errors="backslashreplace", closefd=False) as stream:
            yield stream
    except OSError as error:
        raise InputError(f"standard input cannot be read: {reason(error)}") from None


kernel_app.command("gemv")(gemv_command)
kernel_app.command("elementwise")(elementwise_command)
kernel_app.command("pim-trace")(trace_command)
kernel_app.command("collective")(collective_command)
