"""Units beside the banks, of one bank or shared by several, and a buffer a channel.

What a command of such a design is called, what it reaches, how often it may come and how large the
buffer is are the YAML's (``gemv``, ``commands``, ``rules``, ``banks_per_unit``, ``capacities``);
how a product becomes commands is here: the vector goes to the buffer piece by piece, every unit
multiplies columns of its banks with it, and the host reads the sums.
"""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, check_reach, deal_channels

__all__ = ["gemv"]


def gemv(design: PimDesignConfig, outputs: int, inputs: int, batch: int = 1) -> CommandStream:
    """``batch`` times ``outputs`` dot products of ``inputs`` elements.

    A bank holds whole outputs, cut into pieces as long as the buffer. A piece of the vector is
    loaded once and used for all outputs (Newton's order); banks that share a unit take turns, and
    the sums of a piece are read after each of them, for the host to add. Nothing of the matrix is
    reused from one vector of the batch to the next.

    Parameters
    ----------
    design
        With a section ``gemv``.
    outputs
        Rows of the matrix.
    inputs
        Columns of the matrix, elements of a vector.
    batch
        Vectors.

    Raises
    ------
    InputError
        Where the matrix has no room, or the design lacks what this needs.
    """
    names = design.gemv
    if names is None:
        raise InputError(f"{design.name}: key gemv is missing; design {design.design!r} needs it")
    org = design.organization
    per_column = org.burst_bytes // design.element_bytes
    buffered = min(design.capacity("global_buffer_bytes") // org.burst_bytes, org.columns)
    check_reach(design, names.multiply, design.banks_per_unit)
    copies, turns = deal_channels(-(-outputs // org.channel_banks), org.channels)
    piece_elements = buffered * per_column
    pieces, per_row = -(-inputs // piece_elements), org.columns // buffered
    rows = -(-pieces * len(turns) // per_row)
    if rows > org.rows:
        raise InputError(
            f"{design.name}: a {outputs} x {inputs} matrix takes {rows} rows of each bank; there "
            f"are {org.rows}"
        )
    builder = StreamBuilder(design, copies)
    for _ in range(batch):
        for piece in range(pieces):
            left = inputs - piece * piece_elements
            columns = -(-min(piece_elements, left) // per_column)
            builder.add(names.load, count=columns, channels=turns[0])
            for turn, channels in enumerate(turns):
                row = (piece * len(turns) + turn) // per_row
                for bank in range(design.banks_per_unit):
                    place = (0, 0, 0, bank)
                    builder.add(
                        names.multiply, row=row, place=place, count=columns, channels=channels
                    )
                    builder.add(names.read, place=place, channels=channels, blocking=True)
    return builder.build()
