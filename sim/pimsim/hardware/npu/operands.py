"""What the arrays read from the scratchpad and write to it, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PARTIAL_BYTES", "ArrayTraffic", "shared_reads"]

PARTIAL_BYTES = 4
"""Width of a partial sum."""


@dataclass(frozen=True)
class ArrayTraffic:
    """Elements that one product moves between the arrays and the SRAM beside them.

    Each fold reads its own block of either operand once, whatever another fold read, and writes
    its block of results; where an earlier fold has left sums of them, it reads these first.
    """

    input_reads: int
    weight_reads: int
    result_writes: int
    partial_reads: int = 0

    @property
    def operand_reads(self) -> int:
        """Elements of both operands."""
        return self.input_reads + self.weight_reads

    def sram_bytes(self, results: int, element_bytes: int, follows: bool, goes_on: bool) -> int:
        """Bytes read and written by the arrays.

        Parameters
        ----------
        results
            Elements of the product's result, m n.
        element_bytes
            Of operands and finished results; partial sums have ``PARTIAL_BYTES``.
        follows, goes_on
            Whether sums of an earlier part of k are taken up, and whether a later part takes
            these up.
        """
        reads = self.partial_reads + (results if follows else 0)
        sums = self.result_writes - (0 if goes_on else results)
        finished = 0 if goes_on else results
        return (self.operand_reads + finished) * element_bytes + (reads + sums) * PARTIAL_BYTES


def shared_reads(m: int, n: int, k: int, reuse: int) -> ArrayTraffic:
    """Of a dataflow that does not say what it reads: each read of an element serves ``reuse``
    multipliers at once (a broadcast array's smaller side), and never less than each operand once
    is read.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n].
    reuse
        Multipliers that one read serves.

    Returns
    -------
    ArrayTraffic
        In elements.
    """
    streamed = -(-m * n * k // reuse)
    return ArrayTraffic(max(streamed, m * k), max(streamed, n * k), m * n)
