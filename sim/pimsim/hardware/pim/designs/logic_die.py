"""PIM that reads bundles of banks: Duplex's Logic-PIM, and its bank and bank-group rivals.

A column command reads all banks of a bundle at once; behind each pseudo channel a GEMM module
multiplies what comes with the vectors in its buffer. Weights are read once for all vectors of a
pass, so that a product with few vectors takes the time of the reads, with many that of the
multipliers (Duplex, MICRO 2024, IV-B: Op/B 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from pimsim.config.errors import InputError
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, Wait

__all__ = ["bundle_places", "column_bytes", "column_time_ps", "gemv"]


def column_bytes(design: PimDesignConfig) -> int:
    """Bytes that one command brings to a pseudo channel's GEMM module.

    Parameters
    ----------
    design
        Its command ``RDB`` is meant.
    """
    return design.banks_reached("RDB") * design.organization.burst_bytes


def column_time_ps(design: PimDesignConfig, vectors: int) -> int:
    """Picoseconds that a GEMM module takes to multiply one column with ``vectors``.

    Parameters
    ----------
    design
        Its capacities ``mac_clock_ps`` and ``macs_per_pseudo_channel`` are the rate.
    vectors
        That share the column.
    """
    macs = vectors * column_bytes(design) // design.element_bytes
    return -(-macs * design.capacity("mac_clock_ps") // design.capacity("macs_per_pseudo_channel"))


def bundle_places(design: PimDesignConfig) -> list[tuple[int, int, int]]:
    """Where the bundles of a pseudo channel are.

    Parameters
    ----------
    design
        Its command ``RDB`` says which levels a bundle spans.

    Returns
    -------
    list[tuple[int, int, int]]
        (rank, bank group, bank) of each bundle's first bank.
    """
    command = design.all_commands["RDB"]
    ranges = []
    for level, count in zip(LEVELS[2:], design.organization.counts[1:], strict=True):
        wide = level in command.broadcast
        block = command.bank_block if level == "bank" and command.bank_block else count
        ranges.append(range(0, count, block) if wide else range(count))
    return [(rank, group, bank) for rank, group, bank in product(*ranges)]


@dataclass
class _Region:
    """Consecutive columns of every pseudo channel, row by row over the bundles in use."""

    builder: StreamBuilder
    design: PimDesignConfig
    bundles: list[tuple[int, int, int]]
    first_row: int

    def rows(self, columns: int) -> int:
        """Rows of each bank that so many columns take."""
        return -(-columns // (self.design.organization.columns * len(self.bundles)))

    def access(self, command: str, first: int, columns: int, wait: Wait) -> None:
        """All pseudo channels access ``columns`` from column ``first``."""
        per_row, end = self.design.organization.columns, first + columns
        while first < end:
            count = min(per_row - first % per_row, end - first)
            turn, bundle = divmod(first // per_row, len(self.bundles))
            for pseudo in range(self.design.organization.pseudo_channels):
                self.builder.add(
                    command,
                    row=self.first_row + turn,
                    place=(pseudo, *self.bundles[bundle]),
                    count=count,
                    lane=pseudo * len(self.bundles) + bundle,
                    wait=wait,
                )
                wait = "none"
            first += count


def gemv(design: PimDesignConfig, outputs: int, inputs: int, batch: int = 1) -> CommandStream:
    """An ``outputs`` x ``inputs`` matrix times ``batch`` vectors.

    Outputs are spread evenly over the pseudo channels. As many vectors as the input buffer holds
    share a pass over the matrix. Vectors are read from the banks and results written to them;
    results leave the buffer when it is full.

    Parameters
    ----------
    design
        Of bundles.
    outputs
        Rows of the matrix.
    inputs
        Columns of the matrix, elements of a vector.
    batch
        Vectors.

    Raises
    ------
    InputError
        For another number format, or what buffers, bundles or rows cannot hold.
    """
    if (design.dtype, design.element_bytes) != ("fp16", 2):
        raise InputError(
            f"{design.name}: found dtype {design.dtype!r} of {design.element_bytes} bytes; its "
            "multipliers take fp16 of 2 bytes"
        )
    org, element = design.organization, design.element_bytes
    input_buffer, spread = design.capacity("input_buffer_bytes"), design.capacity("bundles")
    modules = org.channels * org.pseudo_channels
    resident = input_buffer // (inputs * element)
    if resident < 1:
        raise InputError(
            f"{design.name}: a vector of {inputs} elements; the input buffer holds "
            f"{input_buffer // element}"
        )
    places = bundle_places(design)
    if not 1 <= spread <= len(places):
        raise InputError(
            f"{design.name}: capacities.bundles: found {spread}; allowed: 1 to {len(places)}"
        )
    passes = -(-batch // resident)
    vectors = -(-batch // passes)
    bundles = places[:spread]
    builder = StreamBuilder(design, [org.channels], lanes=org.pseudo_channels * len(bundles))
    weights = _Region(builder, design, bundles, 0)
    each = -(-outputs // modules)
    vectors_at = weights.rows(_columns(design, each * inputs))
    vector_area = _Region(builder, design, bundles, vectors_at)
    results_at = vectors_at + vector_area.rows(_columns(design, batch * inputs, modules))
    result_area = _Region(builder, design, bundles, results_at)
    rows = results_at + result_area.rows(_columns(design, batch * each))
    if rows > org.rows:
        raise InputError(
            f"{design.name}: a {outputs} x {inputs} matrix and {batch} vectors take {rows} rows "
            f"of each bank in {len(bundles)} of {len(places)} bundles; there are {org.rows}"
        )
    slice_outputs = max(
        1, min(each, design.capacity("result_buffer_bytes") // (modules * vectors * element))
    )
    for turn in range(passes):
        here = min(vectors, batch - turn * vectors)
        first = _columns(design, turn * vectors * inputs, modules)
        vector_area.access("RDI", first, _columns(design, here * inputs, modules), "completed")
        wait: Wait = "completed"
        for done in range(0, each, slice_outputs):
            count = min(slice_outputs, each - done)
            at = _columns(design, done * inputs)
            weights.access("RDB", at, _columns(design, (done + count) * inputs) - at, wait)
            for pseudo in range(org.pseudo_channels):
                builder.add("DRAIN", place=(pseudo, 0, 0, 0), lane=pseudo * len(bundles),
                            wait="issued")  # fmt: skip
            result_area.access("WRB", _columns(design, (turn * each + done) * vectors),
                               _columns(design, count * here), "completed")  # fmt: skip
            wait = "issued"
    return builder.build(timings=_unit_timings(design, vectors))


def _columns(design: PimDesignConfig, elements: int, modules: int = 1) -> int:
    """Columns of each of ``modules`` that hold so many elements together."""
    return -(-elements * design.element_bytes // (column_bytes(design) * modules))


def _unit_timings(design: PimDesignConfig, vectors: int) -> dict[str, int]:
    """The GEMM module's times with so many vectors, in cycles."""
    column_ps = column_time_ps(design, vectors)
    buffered = design.capacity("buffered_columns")
    return {
        "nCOLUMN": -(-column_ps // design.tCK),
        "nBUFFER": -(-buffered * column_ps // design.tCK),
    }
