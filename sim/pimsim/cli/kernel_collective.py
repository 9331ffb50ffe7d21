"""``pimsim kernel collective``: one collective on links that do nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.tables import print_table

if TYPE_CHECKING:
    from pimsim.config.run import LinkConfig
    from pimsim.hardware.fabric.plan import Fabric
    from pimsim.hardware.fabric.schedule import Operation

__all__ = ["collective_command"]

_MAX_DEVICES = 1024
_MAX_BYTES = 2**60
_LEVELS = 2


def collective_command(
    size: Annotated[
        str,
        typer.Option(
            "--bytes",
            metavar="SIZE",
            help="What each device starts with (1MiB); of an all-gather its own part.",
        ),
    ],
    devices: Annotated[
        str,
        typer.Option(metavar="N[,M]", help="Devices; of two levels those of a group, and groups."),
    ],
    operation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="all_reduce, all_gather, reduce_scatter, all_to_all, or send: to the next device.",
        ),
    ] = "all_reduce",
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]", help="ring, switch, fully_connected, or given: with --links."
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME]", help="ring, direct, halving_doubling, or a plugin's."),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(metavar="RATE[,RATE]", help="Of a link in one direction: 450GB/s, 50GiB/s."),
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME[,TIME]", help="Of a link: 500ns.")
    ] = None,
    links: Annotated[
        str | None,
        typer.Option(
            metavar="A-B,C>D",
            help="Of topology given: a link each way, or one; nodes behind the devices are "
            "switches.",
        ),
    ] = None,
    congestion: Annotated[
        str | None,
        typer.Option(metavar="aware|unaware", help="Messages share links and queue, or are alone."),
    ] = None,
    timing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="exact, or as a simulator counts: astra_sim."),
    ] = None,
    hardware: Annotated[
        str, typer.Option(metavar="NAME", help="Preset or YAML whose links it is on.")
    ] = "neupims",
    nccl: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="As NCCL takes on GPUs of one node: a preset of configs/nccl, or its YAML.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run one collective: every message on every link, or as NCCL's protocols were measured.

    Example: pimsim kernel collective --bytes 4MiB --devices 8 --nccl h100
    """
    from pimsim.hardware.fabric.schedule import Operation

    chosen = Operation(_one_of("--operation", operation, [str(each) for each in Operation]))
    payload, counts = _size(size), _counts(devices)
    if nccl is not None:
        others = {
            "topology": topology, "algorithm": algorithm, "bandwidth": bandwidth,
            "latency": latency, "links": links, "congestion": congestion, "timing": timing,
        }  # fmt: skip
        _nccl(chosen, payload, counts, nccl, others, as_json)
        return
    link = _link(
        counts, topology, algorithm, bandwidth, latency, links, congestion, timing, hardware
    )
    from pimsim.hardware.fabric.plan import fabric_of

    total = counts[0] if len(counts) == 1 else counts[0] * counts[1]
    fabric = fabric_of(link, total)
    report = _report(fabric, chosen, payload)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    levels = [
        f"{level['devices']} by {level['algorithm']}, {level['topology']} of "
        f"{level['bandwidth_gb_per_s']:g} GB/s and {level['latency_ns']:g} ns"
        for level in report["levels"]
    ]
    print_table(
        f"{operation} of {payload:,} bytes over {total} devices",
        {
            "time": f"{report['time_ns']:,.3f} ns",
            "levels": "; then ".join(levels),
            "a device sends": f"{report['sent_bytes']:,.0f} bytes in {report['messages']:,} "
            f"messages, {report['rounds']:,} rounds",
            "on links": f"{report['carried_bytes']:,.0f} bytes a device",
            "messages that queued": f"{report['queued_messages']:,} a device",
            "bytes over time": f"{report['algorithm_gb_per_s']:,.2f} GB/s",
        },
    )


def _link(
    counts: Sequence[int], topology: str | None, algorithm: str | None, bandwidth: str | None,
    latency: str | None, links: str | None, congestion: str | None, timing: str | None,
    hardware: str,
) -> LinkConfig:  # fmt: skip
    """The links of a preset with what was asked for; a second level as an outer one."""
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_run
    from pimsim.config.plugins import module_names

    asked: list[dict[str, object]] = [{} for _ in counts]

    def ask(option: str, key: str, text: str | None, values: Sequence[object]) -> None:
        if text is None:
            return
        if len(values) not in (1, len(counts)):
            raise InputError(f"{option} {text}: {len(counts)} values are expected, or one for all")
        for number, level in enumerate(asked):
            level[key] = values[number if len(values) > 1 else 0]

    for option, key, kind, text in (
        ("--topology", "topology", "topology", topology),
        ("--algorithm", "collectives", "collective", algorithm),
    ):
        names = module_names(kind)
        values = [_one_of(option, each, names) for each in text.split(",")] if text else []
        ask(option, key, text, values)
    ask("--bandwidth", "bandwidth_gb_per_s", bandwidth, [_rate(b) for b in _parts(bandwidth)])
    ask("--latency", "latency_ns", latency, [_latency(each) for each in _parts(latency)])
    overrides: list[str] = []
    preset = load_run(hardware).config.link
    if len(counts) > 1:
        base = preset.outer or preset
        outer = {
            name: getattr(base, name)
            for name in ("bandwidth_gb_per_s", "latency_ns", "topology", "collectives")
        }
        overrides.append(f"link.outer={json.dumps({'group': counts[0], **outer, **asked[1]})}")
    elif preset.outer is not None:
        overrides.append("link.outer=null")
    overrides += [f"link.{key}={json.dumps(value)}" for key, value in asked[0].items()]
    for key, text in (("congestion", congestion), ("timing", timing)):
        overrides += [] if text is None else [f"link.{key}={json.dumps(text)}"]
    if links is not None:
        overrides.append(f"link.links={json.dumps(links.split(','))}")
    return load_run(hardware, overrides).config.link


def _report(fabric: Fabric, operation: Operation, payload: int) -> dict[str, Any]:
    from fractions import Fraction

    traffic = fabric.run(operation, Fraction(payload))
    return {
        "operation": str(operation),
        "bytes": payload,
        "devices": fabric.devices,
        "time_ns": traffic.time_ps / 1000,
        "time_s": traffic.time_ps * 1e-12,
        "levels": [
            {
                "devices": level.devices,
                "topology": level.topology,
                "algorithm": level.algorithm,
                "bandwidth_gb_per_s": float(level.link.bytes_per_ps * 1000),
                "latency_ns": float(level.link.latency_ps / 1000),
            }
            for level in fabric.levels
        ],
        "rounds": traffic.rounds,
        "messages": traffic.messages,
        "queued_messages": traffic.queued_messages,
        "sent_bytes": float(traffic.sent_bytes),
        "carried_bytes": float(traffic.carried_bytes),
        "algorithm_gb_per_s": payload * 1000 / traffic.time_ps if traffic.time_ps else 0.0,
    }


def _nccl(
    operation: Operation, payload: int, counts: Sequence[int], name: str,
    others: dict[str, str | None], as_json: bool,
) -> None:  # fmt: skip
    """By NCCL's protocols."""
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_nccl
    from pimsim.hardware.fabric.nccl import nccl_time
    from pimsim.hardware.fabric.schedule import Operation

    for option, value in others.items():
        if value is not None:
            raise InputError(f"--{option} {value}: --nccl has links and algorithms of its own")
    if len(counts) > 1:
        raise InputError("--nccl is for the devices of one node: --devices N")
    config, devices = load_nccl(name).config, counts[0]
    whole = payload * devices if operation is Operation.ALL_GATHER else payload
    found = nccl_time(operation, whole, devices, config)
    report = {
        "operation": str(operation),
        "bytes": payload,
        "devices": devices,
        "nccl": config.name,
        "protocol": str(found.protocol),
        "time_ns": found.time_ps / 1000,
        "time_s": found.time_ps * 1e-12,
        "sent_bytes": found.link_bytes,
        "algorithm_gb_per_s": payload * 1000 / found.time_ps if found.time_ps else 0.0,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    print_table(
        f"{operation} of {payload:,} bytes over {devices} devices, NCCL on {config.name}",
        {
            "time": f"{found.time_ps / 1e6:,.2f} us",
            "protocol": f"{found.protocol}, as NCCL's own model chooses it",
            "a device sends": f"{found.link_bytes:,} bytes",
            "bytes over time": f"{report['algorithm_gb_per_s']:,.2f} GB/s",
        },
    )


def _parts(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _one_of(option: str, value: str, allowed: Sequence[str]) -> str:
    from pimsim.config.errors import InputError, near_miss

    if value not in allowed:
        raise InputError(
            f"{option} {value!r}{near_miss(value, allowed)}; allowed: {', '.join(allowed)}"
        )
    return value


def _counts(text: str) -> list[int]:
    from pimsim.config.errors import InputError

    parts = text.split(",")
    fits = len(parts) <= _LEVELS and all(
        part.isascii() and part.isdigit() and 1 <= int(part[:6]) <= _MAX_DEVICES for part in parts
    )
    if not fits:
        raise InputError(
            f"--devices {text!r}: N, or N,M of two levels, is expected, each 1 to {_MAX_DEVICES}"
        )
    counts = [int(part) for part in parts]
    if len(counts) == _LEVELS and counts[0] == 1:
        raise InputError(f"--devices {text!r}: a group of two levels has two devices or more")
    return counts


def _size(text: str) -> int:
    from pimsim.config.errors import InputError
    from pimsim.config.units import parse_size

    try:
        found = parse_size(f"{text}B" if text.isascii() and text.isdigit() else text)
    except ValueError as error:
        raise InputError(f"--bytes: {error}") from None
    if found > _MAX_BYTES:
        raise InputError(f"--bytes {text}: at most {_MAX_BYTES:,} bytes")
    return found


def _rate(text: str) -> float:
    """GB/s of a bandwidth with its unit."""
    from pimsim.config.errors import InputError
    from pimsim.config.units import parse_size

    if not text.endswith("/s"):
        raise InputError(f"--bandwidth {text!r}: a rate with its unit is expected, such as 450GB/s")
    try:
        return parse_size(text.removesuffix("/s")) / 1e9
    except ValueError as error:
        raise InputError(f"--bandwidth {text!r}: {error}") from None


def _latency(text: str) -> float:
    """Nanoseconds of a time with its unit."""
    from pimsim.config.errors import InputError
    from pimsim.config.units import parse_time

    try:
        return parse_time(text) / 1000
    except ValueError as error:
        raise InputError(f"--latency: {error}") from None
