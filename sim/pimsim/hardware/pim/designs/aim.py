"""GDDR6-AiM: how matrix-vector products and elementwise work become commands.

Each of a channel's 16 banks multiplies a 32 B column (16 BF16 weights) by the same column of the
channel's global buffer and adds to its accumulator; element by element it multiplies two banks
of a bank group into a third (ISSCC 2022; ISRs as in arkhadem/aim_simulator's README). Softmax,
norms and additions are not AiM's: CENT and IANUS do them elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pimsim.config.errors import InputError, near_miss
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.aim_isr import isr_stream, read_isr_trace, table_row
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder, check_reach, deal_channels

__all__ = ["elementwise", "gemv", "trace"]


def gemv(
    design: PimDesignConfig,
    outputs: int,
    inputs: int,
    batch: int = 1,
    activation: str | None = None,
) -> CommandStream:
    """``batch`` times ``outputs`` dot products of ``inputs`` elements, then an ``activation``.

    A bank holds whole outputs, cut into pieces as long as the global buffer. A piece of the
    vector is written to the buffer once and used for all outputs (Newton's order); sums of
    earlier pieces come back as the accumulators' bias. Nothing of the matrix is reused from one
    vector of the batch to the next.

    Parameters
    ----------
    design
        GDDR6-AiM's.
    outputs
        Rows of the matrix.
    inputs
        Columns of the matrix, elements of a vector.
    batch
        Vectors.
    activation
        Name of a function that is applied to each output; None: none.

    Raises
    ------
    InputError
        For a function that it lacks, a matrix that its rows cannot hold, or banks that a command
        does not reach.
    """
    org = design.organization
    per_column = _elements(design)
    buffered = design.capacity("global_buffer_bytes") // org.burst_bytes
    per_piece = min(org.columns, buffered) * per_column
    table = None if activation is None else _table(design, activation)
    for command in ("MAC16", *(() if table is None else ("AF16",))):
        check_reach(design, command, 1)
    copies, turns = deal_channels(-(-outputs // org.channel_banks), org.channels)
    pieces = -(-inputs // per_piece)
    _check_rows(design, len(turns) * pieces, f"a {outputs} x {inputs} matrix")
    builder = StreamBuilder(design, copies)
    if table is not None:
        builder.pause()  # the host selects the function (W CFR)
    for _ in range(batch):
        row = 0
        for piece in range(pieces):
            columns = -(-min(per_piece, inputs - piece * per_piece) // per_column)
            builder.add("WRGB", count=columns, channels=turns[0])
            for channels in turns:
                builder.add("WRMAC16", channels=channels)
                builder.add("MAC16", row=row, count=columns, channels=channels)
                if table is not None and piece == pieces - 1:
                    builder.add("AF16", row=table, channels=channels)
                    builder.add("RDAF16", channels=channels, blocking=True)
                else:
                    builder.add("RDMAC16", channels=channels, blocking=True)
                row += 1
    return _ended(builder, copies)


def elementwise(design: PimDesignConfig, function: str, elements: int) -> CommandStream:
    """``multiply``: two vectors that lie in banks 0 and 1 of the bank groups; or an activation
    function of values that the host writes to the accumulators and reads back.

    Parameters
    ----------
    design
        GDDR6-AiM's.
    function
        ``multiply``, or the name of one of the design's ``activations``.
    elements
        Of each vector.

    Raises
    ------
    InputError
        For a function that it lacks, or vectors that its rows cannot hold.
    """
    org = design.organization
    if function == "multiply":
        per_column = org.bank_groups * _elements(design)
        copies, turns = deal_channels(-(-elements // per_column), org.channels)
        _check_rows(design, -(-len(turns) // org.columns), f"a vector of {elements}")
        builder = StreamBuilder(design, copies)
        for row, first in enumerate(range(0, len(turns), org.columns)):
            for channels, count in _runs(turns[first : first + org.columns]):
                builder.add("EWMUL16", row=row, count=count, channels=channels)
        return _ended(builder, copies)
    table = _table(design, function)
    check_reach(design, "AF16", 1)
    copies, turns = deal_channels(-(-elements // org.channel_banks), org.channels)
    builder = StreamBuilder(design, copies)
    builder.pause()  # the host selects the function (W CFR)
    for channels in turns:
        builder.add("WRMAC16", channels=channels)
        builder.add("AF16", row=table, channels=channels)
        builder.add("RDAF16", channels=channels, blocking=True)
    return _ended(builder, copies)


def trace(design: PimDesignConfig, path: Path) -> CommandStream:
    """The host instructions of a trace file of the public AiM simulator.

    Parameters
    ----------
    design
        GDDR6-AiM's.
    path
        Of the trace.

    Raises
    ------
    InputError
        With the line that is wrong.
    """
    return isr_stream(read_isr_trace(path, design), design)


def _elements(design: PimDesignConfig) -> int:
    """Elements in a column of one bank."""
    return design.organization.burst_bytes // design.element_bytes


def _runs(turns: list[range]) -> Iterator[tuple[range, int]]:
    """Equal turns in a row, and how many."""
    start = 0
    for at in range(1, len(turns) + 1):
        if at == len(turns) or turns[at] != turns[start]:
            yield turns[start], at - start
            start = at


def _check_rows(design: PimDesignConfig, rows: int, what: str) -> None:
    free = max(0, table_row(design, 0))
    if rows > free:
        raise InputError(
            f"{design.name}: {what} takes {rows} rows of each bank; there are {free} beside the "
            "activation tables"
        )


def _table(design: PimDesignConfig, activation: str) -> int:
    known = design.activations
    if activation not in known:
        raise InputError(
            f"{design.name} has no activation function {activation!r}"
            f"{near_miss(activation, known)}; it has: {', '.join(known)}"
        )
    return table_row(design, known.index(activation))


def _ended(builder: StreamBuilder, copies: list[int]) -> CommandStream:
    builder.add("EOC", channels=range(len(copies)), wait="completed", blocking=True)
    return builder.build()
