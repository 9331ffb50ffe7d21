"""The NeuPIMs artifact's vector work on the NPU side has zero elements (MECHANISMS B3).

It is done with vectors that were moved from, so that a layernorm costs its trees and scalars alone.
Softmax behind PIM takes bytes for elements, and units never queue (MECHANISMS 4.11).
"""

from __future__ import annotations

from pimsim.hardware.npu.vector_timing import VectorTiming

__all__ = ["Timing"]


class Timing(VectorTiming):
    """Vectors of no elements."""

    queues = False

    def elements(self, kind: str, width: int) -> int:
        """None, but of a softmax."""
        return width if kind == "softmax" else 0

    def pim_scores(self, context: int, element_bytes: int) -> int:
        """Bytes of the scores."""
        return context * element_bytes

    def npu_softmax_cycles(self, cycles: int) -> int:
        """None."""
        del cycles
        return 0
