"""Attention of single tokens on a GPU: flash-decoding.

A thread block has the queries of a group that share keys, padded to ``query_rows``, and one piece
of their keys; a second pass combines the pieces (Dao et al., Flash-Decoding for long-context
inference, 2023). How many tiles a piece has is what takes the least time. Blocks multiply as in
``flash``; keys and values stream beside it, from so many cores as have a block (Little's law).

FlashAttention-2's kernel for batches of several lengths cuts keys only where queries share them
(``splits_single``), and copies queries and results where several requests have groups over several
heads of keys (flash-attention 2.7, ``mha_varlen_fwd``).
"""

from __future__ import annotations

from functools import lru_cache
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.flash import FlashAttention, flash_tile, stream_s, tile_times
from pimsim.hardware.xpu.gemm import OVERLAP, saturating_cores, silicon_of
from pimsim.hardware.xpu.roofline import Bound, Cost

__all__ = ["decode_attention"]

_MOST_PIECES = 128
"""FlashAttention's limit."""
_SUM_BYTES = 4
"""Of a sum that is not complete."""
_BITS = 8


def decode_attention(work: FlashAttention, xpu: XpuConfig) -> Cost:
    """Time and energy of attention of single tokens, in one launch.

    Parameters
    ----------
    work
        All of whose parts have one new token.
    xpu
        With ``silicon.decode``.

    Returns
    -------
    Cost
        Seconds and picojoule.

    References
    ----------
    Dao et al., Flash-Decoding for long-context inference, 2023.
    """
    silicon = silicon_of(xpu)
    kernel = silicon.decode
    _, columns = flash_tile(work, xpu)
    requests = sum(part.requests for part in work.parts)
    group = work.heads // work.kv_heads
    heads = work.kv_heads * -(-group // kernel.query_rows)
    tiles = np.array([-(-part.keys // columns) for part in work.parts], dtype=np.int64)
    counts = np.array([part.requests * heads for part in work.parts], dtype=np.int64)
    tile_s = fsum(tile_times(work, xpu, kernel.query_rows, columns))
    streaming_s = stream_s(work.kv_bytes, work.warm, kernel.memory_utilisation, xpu)
    need = saturating_cores(xpu, kernel.memory_utilisation)
    sums = 2 * requests * work.heads * work.value_dim * _SUM_BYTES  # of one piece, both ways
    splits = kernel.splits_single or group > 1
    piece = _pieces(int(tiles.max())) if splits else tiles.max(keepdims=True)
    pieces = -(-tiles[:, None] // piece)  # of each part, for each length of a piece
    blocks = (pieces * counts[:, None]).sum(axis=0)
    sharing = np.where(blocks > xpu.cores, silicon.flash.blocks_per_core, 1)
    block_s = (piece * tile_s + kernel.block_ns * 1e-9) * sharing
    compute_s = -(-blocks // (xpu.cores * sharing)) * block_s
    memory_s = streaming_s * np.maximum(1.0, need / np.minimum(blocks, xpu.cores))
    longer = np.maximum(compute_s, memory_s)
    shorter = np.minimum(compute_s, memory_s)
    both_s = longer * (1 + (shorter / longer) ** OVERLAP) ** (1 / OVERLAP)
    most = pieces.max(axis=0)
    combined_s = kernel.combine_ns * 1e-9 + most * stream_s(sums, True, 1.0, xpu)
    times_s = both_s + np.where(most > 1, combined_s, 0.0)
    at = int(times_s.argmin())
    blocks_s = float(times_s[at])
    bound: Bound = "compute" if compute_s[at] > memory_s[at] else "memory"
    launch_s = kernel.launch_ns * 1e-9
    if not kernel.splits_single and group > 1 and work.kv_heads > 1 and requests > 1:
        launch_s += kernel.regroup_ns * 1e-9
    queries = requests * work.heads * (work.key_dim + work.value_dim) * work.element_bytes
    time_s = launch_s + blocks_s + stream_s(queries, work.warm, xpu.memory_utilisation, xpu)
    memory_pj, core_pj = _energy(work, xpu)
    return Cost(time_s, "launch" if launch_s > blocks_s else bound, memory_pj, core_pj)


def _energy(work: FlashAttention, xpu: XpuConfig) -> tuple[float, float]:
    """Picojoule of memory, and of caches and arithmetic: rows that fill a tile up draw nothing."""
    energy = xpu.energy
    queries = sum(part.requests for part in work.parts) * work.heads * work.element_bytes
    moved = work.kv_bytes + queries * (work.key_dim + work.value_dim)
    pairs = work.macs / (work.key_dim + work.value_dim)
    registers = work.key_dim * work.element_bytes + work.key_value_bytes
    l1_bytes = pairs * float(registers) / xpu.tiling.register_edge
    core_pj = _BITS * (moved * energy.l2_pj_per_bit + l1_bytes * energy.l1_pj_per_bit)
    core_pj += work.macs * (3 * energy.register_pj + energy.mac_pj)
    core_pj += work.softmax_flops / 2 * energy.mac_pj
    return moved * _BITS * energy.memory_pj_per_bit, core_pj


@lru_cache(maxsize=4096)
def _pieces(tiles: int) -> NDArray[np.int64]:
    """Lengths of pieces that cut ``tiles`` into different numbers of them."""
    numbers = np.arange(1, min(tiles, _MOST_PIECES) + 1)
    return np.unique(-(-tiles // numbers))[::-1]
