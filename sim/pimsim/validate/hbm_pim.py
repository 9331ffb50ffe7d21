"""HBM-PIM against Samsung's PIMSimulator: kernels with PIM, and the host's traffic without.

``hbm_pim.csv`` and ``hbm_pim_extra.csv`` were measured with PIMSimulator b464dde, 64 channels,
shipped ini files. Its host reads all operands, waits, and writes the result, at consecutive
addresses (src/tests/PIMBenchTestCases.h).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.host_traffic import host_traffic
from pimsim.hardware.pim.stream import CommandStream, run_stream
from pimsim.validate.types import References, Row

__all__ = ["PRESET", "TABLES", "compare", "rows"]

PRESET = "hbm-pim-pimsimulator"
TABLES = ("hbm_pim.csv", "hbm_pim_extra.csv")


def rows(references: References) -> Iterator[Row]:
    """Groups ``hbm_pim.pim_cycles`` and ``hbm_pim.base_cycles``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    design = load_stream_pim(PRESET).config
    for name in TABLES:
        for line in references.table(name):
            yield from compare(design, line)


def compare(design: PimDesignConfig, line: Mapping[str, str]) -> Iterator[Row]:
    """Both rows of one line of a table.

    Parameters
    ----------
    design
        HBM-PIM's.
    line
        Of the table, by column.

    References
    ----------
    PIMSimulator b464dde, src/tests/PIMBenchTestCases.h.
    """
    kernel, batch = line["kernel"], int(line["batch"])
    outputs, inputs = int(line["out"]), int(line["in"])
    element = design.element_bytes
    why = ""
    if kernel == "gemv":
        case = f"gemv {outputs}x{inputs} batch {batch}"
        stream = mapping_of(design, "gemv")(design, outputs, inputs, batch)
        read = [outputs * inputs * element, inputs * batch * element]
        written = outputs * batch * element
    else:
        case = f"{kernel} {outputs}"
        stream = mapping_of(design, "elementwise")(design, kernel, outputs)
        read = [outputs * element] * (1 if kernel == "relu" else 2)
        written = outputs * element
        if outputs % _tile_elements(design):
            why = "PIMSimulator leaves out the elements behind the last whole tile"
    yield Row(
        "hbm_pim.pim_cycles", case, "cycles", float(line["pim_cycles"]),
        float(run_stream(design, stream).cycles), why,
    )  # fmt: skip
    yield Row(
        "hbm_pim.base_cycles", case, "cycles", float(line["base_cycles"]),
        float(run_stream(design, _host(design, read, written)).cycles),
    )  # fmt: skip


def _tile_elements(design: PimDesignConfig) -> int:
    """Elements of an elementwise tile: a register file's worth of columns of every bank."""
    org = design.organization
    columns = org.channels * org.bank_groups * org.banks_per_group
    return columns * design.capacities["grf_registers"] * org.burst_bytes // design.element_bytes


def _host(design: PimDesignConfig, read: list[int], written: int) -> CommandStream:
    """Reads of consecutive ranges of so many bytes, then, when all is there, the writes."""
    unit = design.organization.burst_bytes
    ranges, at = [], 0
    for size in read:
        ranges.append(("RD", at, size))
        at += -(-size // unit) * unit
    return host_traffic(design, [*ranges, ("WR", at, written)], [0] * len(read) + [1])
