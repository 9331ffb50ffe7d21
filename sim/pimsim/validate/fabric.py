"""Collectives: ASTRA-sim's times on an idle network, and NCCL's as measured on GPUs of one node.

ASTRA-sim (518bd51, astra-network-analytical 599a047) counts whole nanoseconds: links, topologies
and schedules here are those of any run, with its way to count (``link.timing: astra_sim``). NCCL:
what its three protocols take is calibrated on rows of 2 GPUs (``configs/nccl``), and the others
test it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import cast

from pimsim.config.errors import InputError
from pimsim.config.loader import load_nccl
from pimsim.config.nccl import NcclConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.fabric.links import LinkSpec
from pimsim.hardware.fabric.nccl import nccl_time
from pimsim.hardware.fabric.plan import Fabric, Level
from pimsim.hardware.fabric.schedule import Operation
from pimsim.validate.nccl_fit import CALIBRATED_ON, Measured, fit_protocols
from pimsim.validate.types import ReferenceLine, References, Row, read_lines

__all__ = ["DEVICES", "astra_rows", "measured", "nccl_rows", "rows"]

_TOPOLOGIES = {"Ring": "ring", "Switch": "switch", "FullyConnected": "fully_connected"}
_ALGORITHMS = {"ring": "ring", "direct": "direct", "halvingDoubling": "halving_doubling"}
_QUEUES = {"aware": True, "unaware": False}
_OPERATIONS = {str(operation): operation for operation in Operation}
_TIMING = "astra_sim"
_NCCL_TABLE = "gpu/nccl_half.csv"
_HALF_BYTES = 2
_LARGE = 2**20
"""Bytes from which on more is asked of a prediction."""
DEVICES = {
    "a100_sxm": "a100", "h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200",
    "gb200": "gb200",
}  # fmt: skip
"""Our preset of each device of NCCL's table."""


def rows(references: References) -> Iterator[Row]:
    """Every collective of both; NCCL's only where a folder has them.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    yield from astra_rows(references)
    yield from nccl_rows(references)


def astra_rows(references: References) -> Iterator[Row]:
    """Every collective that ASTRA-sim ran: when the last device ends.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.

    References
    ----------
    ASTRA-sim 518bd51, astra-network-analytical 599a047.
    """
    timing = load_module("link_timing", _TIMING).Timing()
    for line in references.table("collectives.csv"):
        fabric = Fabric(tuple(_levels(line)), timing, line.known("backend", _QUEUES))
        if line.whole("chunks") != 1:
            raise InputError(f"{line.where}: chunks: 1 is expected, found {line['chunks']}")
        operation = line.known("collective", _OPERATIONS)
        traffic = fabric.run(operation, Fraction(line.whole("size_bytes")))
        case = "/".join(
            line[name] for name in (
                "backend", "topology", "npus", "bandwidth_GiBps", "latency_ns", "collective",
                "algorithm", "size_bytes",
            )
        )  # fmt: skip
        yield Row("fabric.collectives", case, "ns", line.number("time_ns"), traffic.time_ps / 1000)


def _levels(line: ReferenceLine) -> Iterator[Level]:
    """The inner level first, as the table has them."""
    columns = ("topology", "npus", "bandwidth_GiBps", "latency_ns", "algorithm")
    parts = [line[name].split("x") for name in columns]
    if len({len(part) for part in parts}) > 1:
        raise InputError(f"{line.where}: {', '.join(columns)}: one part for each level is expected")
    for values in zip(*parts, strict=True):
        own = ReferenceLine(dict(zip(columns, values, strict=True)), line.where)
        own.number("bandwidth_GiBps"), own.number("latency_ns")
        link = LinkSpec(
            Fraction(own["bandwidth_GiBps"]) * 2**30 / 10**12, Fraction(own["latency_ns"]) * 1000
        )
        yield Level(
            own.whole("npus"), own.known("topology", _TOPOLOGIES),
            own.known("algorithm", _ALGORITHMS), link,
        )  # fmt: skip


@cache
def _config(name: str) -> NcclConfig:
    return load_nccl(name).config


def measured(line: ReferenceLine) -> Measured:
    """A line of NCCL's times.

    Parameters
    ----------
    line
        Of the table of NCCL's times.

    Raises
    ------
    InputError
        With the line, for a value that is none.
    """
    return Measured(
        line.known("op_name", _OPERATIONS), _HALF_BYTES * line.whole("message_size"),
        line.whole("num_gpus"), line.number("latency_us"),
    )  # fmt: skip


def nccl_rows(references: References) -> Iterator[Row]:
    """What calibrates, what tests, and the constants as those rows give them anew.

    Parameters
    ----------
    references
        With NCCL's table, of ``--reference``; none without.
    """
    path = references.file(_NCCL_TABLE) if references.folder is not None else None
    if path is None:
        return
    found: dict[str, list[Measured]] = {}
    for line in read_lines(path):
        device, row = line.known("device", DEVICES), measured(line)
        found.setdefault(device, []).append(row)
        ours = nccl_time(row.operation, row.payload_bytes, row.devices, _config(device))
        if row.devices == CALIBRATED_ON:
            group = "fabric.nccl_calibrates"
        else:
            group = f"fabric.nccl_tests_{'large' if row.payload_bytes >= _LARGE else 'small'}"
        case = f"{device}/{row.operation}/{row.devices}/{row.payload_bytes}/{ours.protocol}"
        yield Row(group, case, "us", row.time_us, ours.time_ps * 1e-6)
    for device, members in found.items():
        config = _config(device)
        for protocol, fitted in fit_protocols(members, config).items():
            for key, value in fitted.model_dump().items():
                own = cast(float, getattr(getattr(config, protocol), key))
                yield Row("fabric.nccl_constants", f"{device}/{protocol}", key, value, own)
