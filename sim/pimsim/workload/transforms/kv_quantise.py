"""A KV cache of narrower elements: fewer bytes to read, write and hold; the same arithmetic.

Scales are taken as one per tensor, hence of no size, and widening as part of the datapath.
"""

from __future__ import annotations

from dataclasses import replace

from pimsim.config.errors import InputError
from pimsim.workload.cards import ELEMENT_BYTES
from pimsim.workload.operators import Iteration, Operator, map_operators
from pimsim.workload.transforms import Transform

__all__ = ["kv_quantise"]


def kv_quantise(*, dtype_bytes: int) -> Transform:
    """Keep each element of K and V in ``dtype_bytes`` bytes.

    Raises ``InputError`` for widths that are none of ``ELEMENT_BYTES``.
    """
    if dtype_bytes not in ELEMENT_BYTES:
        allowed = ", ".join(map(str, ELEMENT_BYTES))
        raise InputError(f"kv_quantise: dtype_bytes is {dtype_bytes}; allowed: {allowed}")

    def transform(iteration: Iteration) -> Iteration:
        before = iteration.kv_dtype_bytes

        def narrower(operator: Operator) -> Operator:
            return replace(
                operator,
                kv_read_bytes=operator.kv_read_bytes // before * dtype_bytes,
                kv_write_bytes=operator.kv_write_bytes // before * dtype_bytes,
            )

        return replace(map_operators(iteration, narrower), kv_dtype_bytes=dtype_bytes)

    return transform
