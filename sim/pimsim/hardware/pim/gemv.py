"""A matrix in the banks times vectors: how a GEMV becomes PIM commands.

Newton (MICRO 2020, section III-C; He et al.) keeps a matrix so that rows of it lie one in each bank
and the vector comes from the channel's global buffer a DRAM row's worth (a chunk) at a time: for
each chunk the buffer is filled once (GWRITE) and used by all tiles of matrix rows, whose partial
sums are read out and added outside. Here:

- a *tile* is as many matrix rows as there are banks, one in each;
- a *chunk* is as many elements of the vector as a DRAM row holds. The last one may be shorter;
  then several tiles share a DRAM row, and the buffer holds the vector's end once for each of them;
- the DRAM rows, all tiles of the first chunk, then of the next, are dealt to channels in equal
  runs: a channel so needs the fewest chunks of the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import (
    N_INSTRUCTION,
    P_COMPS,
    P_LAST,
    P_MARK,
    P_OP,
    P_READS,
    P_ROUNDS,
    P_ROW,
)
from pimsim.hardware.dram.pim_program import loop
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.columns import check_column

__all__ = ["GemvShape", "emit", "emit_dot", "gemv_program"]

Ints = NDArray[np.int64]


def emit(
    op: Command, row: int, comps: int = 0, reads: int = 0, mark: int = -1, last: int = 0
) -> list[int]:
    """One instruction of a PIM program, ``N_INSTRUCTION`` columns.

    Parameters
    ----------
    op
        What it does.
    row
        Of the banks; of the bank that GWRITE reads.
    comps
        Dot products; of the whole tile in a header.
    reads
        Result reads that a header announces.
    mark
        Ticket of its request and head; -1: none.
    last
        1 at the last instruction of a tile, else 0.
    """
    instruction = [0] * N_INSTRUCTION
    instruction[P_OP] = int(op)
    instruction[P_ROW] = row
    instruction[P_COMPS] = comps
    instruction[P_READS] = reads
    instruction[P_MARK] = mark
    instruction[P_LAST] = last
    instruction[P_ROUNDS] = 1
    return instruction


def emit_dot(composite: bool, row: int, comps: int, mark: int, last: int) -> list[list[int]]:
    """``comps`` dot products and the read of their result.

    Parameters
    ----------
    composite
        Whether one command, GEMV, does both.
    row
        Of the banks.
    comps
        Dot products.
    mark
        Ticket of its request and head; -1: none.
    last
        1 at the end of a tile, else 0.

    Returns
    -------
    list[list[int]]
        One instruction or two, of ``N_INSTRUCTION`` columns each.
    """
    if composite:
        return [emit(Command.GEMV, row, comps, mark=mark, last=last)]
    return [
        emit(Command.COMP, row, comps, mark=-1),
        emit(Command.READRES, row, mark=mark, last=last),
    ]


@dataclass(frozen=True)
class GemvShape:
    """A matrix of ``n`` rows (outputs) and ``k`` columns (inputs) in the banks."""

    n: int
    k: int
    banks: int
    """Banks of a channel, which multiply at once."""
    row_elements: int
    elements_per_comp: int

    @classmethod
    def of(
        cls, n: int, k: int, memory: MemoryConfig, pim: PimConfig, element_bytes: int
    ) -> GemvShape:
        """The matrix on ``memory``. Raises ``InputError`` where a dot product
        would read more than a column access gives."""
        org = memory.organization
        row = org.row_bytes // element_bytes
        check_column(pim, memory, element_bytes)
        return cls(n, k, org.ranks * org.banks, row, pim.elements_per_comp)

    @property
    def tiles(self) -> int:
        """Tiles of matrix rows."""
        return -(-self.n // self.banks)

    @property
    def full_chunks(self) -> int:
        """Chunks that fill a DRAM row."""
        return self.k // self.row_elements

    @property
    def chunks(self) -> int:
        """Pieces in which the vector comes."""
        return -(-self.k // self.row_elements)

    @property
    def last_comps(self) -> int:
        """Dot products over a chunk that does not fill a row; 0: there is none."""
        return -(-(self.k % self.row_elements) // self.elements_per_comp)

    @property
    def tiles_per_row(self) -> int:
        """Tiles whose last chunk shares a DRAM row."""
        if not self.last_comps:
            return 1
        return self.row_elements // (self.last_comps * self.elements_per_comp)

    @property
    def rows(self) -> int:
        """DRAM rows, in each bank of one channel; of several channels, added."""
        last = -(-self.tiles // self.tiles_per_row) if self.last_comps else 0
        return self.tiles * self.full_chunks + last

    def share(self, channel: int, channels: int) -> tuple[int, int]:
        """First DRAM row of ``channel``'s run, and the one after its last."""
        return self.rows * channel // channels, self.rows * (channel + 1) // channels

    def rows_per_channel(self, channels: int) -> int:
        """DRAM rows of the fullest channel."""
        return -(-self.rows // channels)

    def chunks_of(self, run: tuple[int, int]) -> range:
        """Chunks that a run of DRAM rows multiplies."""
        first, end = run
        if first >= end:
            return range(0)
        return range(self._chunk(first), self._chunk(end - 1) + 1)

    def _chunk(self, row: int) -> int:
        return min(row // self.tiles, self.full_chunks) if self.tiles else 0

    def chunk_elements(self, chunk: int) -> int:
        """Elements of the global buffer that a chunk fills, repeated ones included."""
        if chunk < self.full_chunks:
            return self.row_elements
        return self.tiles_per_row * self.last_comps * self.elements_per_comp


def gemv_program(
    shape: GemvShape, run: tuple[int, int], first_row: int, sources: Sequence[int], mark: int,
    composite: bool,
) -> Ints:  # fmt: skip
    """One vector times some DRAM rows of a matrix.

    Parameters
    ----------
    shape
        Of the matrix in the banks.
    run
        First of its DRAM rows, and the one behind the last.
    first_row
        Row of the channel where the run begins.
    sources
        Rows that hold the vector's chunks of this run, in order.
    mark
        Ticket that all results belong to.
    composite
        Whether one command does the dot products and the read of their result.

    Returns
    -------
    Ints
        (instructions, ``N_INSTRUCTION``).

    References
    ----------
    He et al., Newton, MICRO 2020, section III-C.
    """
    pieces: list[Ints] = []
    first, end = run
    for chunk, source in zip(shape.chunks_of(run), sources, strict=True):
        pieces.append(np.array([emit(Command.GWRITE, source)], dtype=np.int64))
        is_full = chunk < shape.full_chunks
        start = chunk * shape.tiles
        stop = start + shape.tiles if is_full else shape.rows
        at, stop = max(start, first), min(stop, end)
        comps = -(-shape.row_elements // shape.elements_per_comp) if is_full else shape.last_comps
        per_row = 1 if is_full else shape.tiles_per_row
        # of the last row of a short chunk not all of it may be used
        left = shape.tiles - (shape.rows - 1 - start) * per_row if not is_full else 1
        uneven = stop == shape.rows and left != per_row
        pieces.append(_rows(comps, per_row, stop - at - uneven, first_row + at - first,
                            mark, composite))  # fmt: skip
        if uneven:
            pieces.append(_rows(comps, left, 1, first_row + stop - 1 - first, mark, composite))
    empty = np.zeros((0, N_INSTRUCTION), dtype=np.int64)
    return np.concatenate(pieces) if pieces else empty


def _rows(comps: int, reads: int, count: int, first_row: int, mark: int, composite: bool) -> Ints:
    """``count`` DRAM rows with ``reads`` results each."""
    one = [emit(Command.HEADER, 0, comps * reads, reads)]
    for read in range(reads):
        one += emit_dot(composite, 0, comps, mark, int(read == reads - 1))
    rows = np.array(one, dtype=np.int64)
    rows[:, P_ROW] = first_row
    return loop(rows, count, 1)
