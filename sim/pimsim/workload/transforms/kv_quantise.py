"""A KV cache of narrower elements: fewer bytes to read, write and hold; the same arithmetic.

Scales are taken as one per tensor, hence of no size, and widening as part of the datapath.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pimsim.config.errors import InputError
from pimsim.workload.cards import ELEMENT_BYTES
from pimsim.workload.operators import ForwardPass, Operator, OperatorKind, map_operators
from pimsim.workload.transforms import Transform

__all__ = ["kv_quantise"]


def kv_quantise(*, dtype_bytes: int) -> Transform:
    """Keep each element of K and V in ``dtype_bytes`` bytes, however many bits it had.

    Parameters
    ----------
    dtype_bytes
        Of an element of K or V.

    Raises
    ------
    InputError
        For widths that are none of ``ELEMENT_BYTES``.
    """
    if dtype_bytes not in ELEMENT_BYTES:
        allowed = ", ".join(map(str, ELEMENT_BYTES))
        raise InputError(f"kv_quantise: dtype_bytes is {dtype_bytes}; allowed: {allowed}")

    def transform(forward: ForwardPass) -> ForwardPass:
        def stored(operator: Operator) -> Operator:
            read, written = _cached_elements(operator, forward.contexts, forward.kv_dtype_bytes)
            return replace(
                operator, kv_read_bytes=read * dtype_bytes, kv_write_bytes=written * dtype_bytes
            )

        return replace(map_operators(forward, stored), kv_dtype_bytes=dtype_bytes)

    return transform


def _cached_elements(
    operator: Operator, contexts: Sequence[int], kv_dtype_bytes: int
) -> tuple[int, int]:
    """Elements of the cache that an operator reads and writes.

    They follow from its dims, as elements of a 4-bit cache are less than
    ``ForwardPass.kv_dtype_bytes``.
    """
    seen = sum(min(context, operator.window or context) for context in contexts)
    read = operator.kv_heads * operator.head_dim * seen if operator.kv_read_bytes else 0
    if operator.kind is OperatorKind.GEMM:  # latents that are expanded again
        read = operator.kv_read_bytes // kv_dtype_bytes
    written = operator.rows * operator.width if operator.kv_write_bytes else 0
    return read, written
