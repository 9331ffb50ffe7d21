"""Bytes that a task reads from the scratchpad and writes to it."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.hardware.npu.tiling import GemmTile
from pimsim.mapping.tasks import GemmStep

__all__ = ["gemm_sram_bytes", "softmax_sram_bytes"]


def gemm_sram_bytes(
    steps: Sequence[GemmStep],
    tiles: Sequence[GemmTile],
    k: int,
    element_bytes: int,
    burst_bytes: int,
) -> int:
    """Of one product: what its folds read and write, and what passes on to and from DRAM.

    Parameters
    ----------
    steps
        Of one product.
    tiles
        Of each step.
    k
        Of the whole product, of which a tile may have a part.
    element_bytes
        Of an operand.
    burst_bytes
        Of the memory.
    """
    total = 0
    for step, tile in zip(steps, tiles, strict=True):
        assert step.plan.traffic is not None  # plan_gemm puts it in
        total += step.plan.traffic.sram_bytes(
            tile.m * tile.n,
            element_bytes,
            follows=tile.k_start > 0,
            goes_on=tile.k_start + tile.k < k,
        )
        moved = (s.total for part in (step.blocks or (step,)) for s in (*part.loads, *part.stores))
        total += sum(moved) * burst_bytes
    return total


def softmax_sram_bytes(contexts: Sequence[int], heads: int, element_bytes: int) -> int:
    """Scores read and probabilities written.

    Parameters
    ----------
    contexts
        Scores of each request's heads.
    heads
        Of a request.
    element_bytes
        Of a score.
    """
    return 2 * heads * sum(contexts) * element_bytes
