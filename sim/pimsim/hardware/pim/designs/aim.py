"""GDDR6-AiM: how its host instructions and a GEMV become commands.

Each of a channel's 16 banks multiplies a 32 B column (16 BF16 weights) by the same column of the
channel's global buffer and adds to its accumulator (ISSCC 2022; ISRs as in arkhadem/aim_simulator).
"""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.pim_stream import StreamPimConfig
from pimsim.hardware.pim.stream import Stream, StreamBuilder

__all__ = ["gemv"]


def gemv(design: StreamPimConfig, outputs: int, inputs: int, batch: int = 1) -> Stream:
    """``batch`` times ``outputs`` dot products of ``inputs`` elements.

    A bank holds whole outputs, cut into pieces as long as the global buffer. A piece of the
    vector is written to the buffer once and used for all outputs (Newton's order); sums of
    earlier pieces come back as the accumulators' bias.
    """
    org = design.organization
    per_column = org.column_bytes // design.element_bytes
    per_row = min(org.row_bytes, design.capacities["global_buffer_bytes"]) // design.element_bytes
    units = -(-outputs // org.banks)
    rounds, extra = divmod(units, org.channels)
    pieces = -(-inputs // per_row)
    rows = (rounds + (extra > 0)) * pieces
    if rows > org.rows - design.capacities["activation_tables"]:
        raise InputError(
            f"{design.name}: a {outputs} x {inputs} matrix takes {rows} rows of each bank; "
            f"there are {org.rows - design.capacities['activation_tables']}"
        )
    copies = [count for count in (extra, org.channels - extra if rounds else 0) if count]
    builder = StreamBuilder(design, copies)
    used = range(len(copies))
    for _ in range(batch):
        row = 0
        for piece in range(pieces):
            length = min(per_row, inputs - piece * per_row)
            columns = -(-length // per_column)
            builder.add("WRGB", count=columns, channels=used)
            for turn in range(rounds + (extra > 0)):
                channels = used if turn < rounds else range(1)
                builder.add("WRMAC16", channels=channels)
                builder.add("MAC16", row=row, count=columns, channels=channels)
                builder.add("RDMAC16", channels=channels, blocking=True)
                row += 1
    builder.add("EOC", channels=used, wait="completed", blocking=True)
    return builder.build()
