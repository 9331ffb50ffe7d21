"""Attention of several new tokens as one fused kernel on a GPU: FlashAttention's way of cutting.

A thread block has the rows of one query tile of one head and passes the keys that they see by, tile
by tile; scores stay in its registers (Dao, arXiv 2307.08691, section 3). Tiles that no row sees are
left out, those on the diagonal are multiplied whole. All requests of a step are one launch.

Blocks differ in length under a causal mask. They start in the order of their launch, and a core
takes the next when it has done one. A tile takes the time of its multiply-adds and, not hidden
behind them, ``softmax_cost`` times that of its exponentials; queries, results, keys and values,
and the write of new ones into the cache come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.earliest import take_earliest
from pimsim.hardware.xpu.gemm import silicon_of
from pimsim.hardware.xpu.roofline import Bound, Cost, bandwidth, peak_flops

__all__ = [
    "FlashAttention", "FlashBlocks", "FlashPart", "FlashWork", "flash", "flash_blocks",
    "flash_energy", "flash_tile", "flash_work", "list_schedule", "stream_s", "tile_times",
]  # fmt: skip

_BITS = 8
_MOST_SCHEDULED = 65_536
"""Blocks that are dealt to cores one by one."""
_L2_UTILISATION = 0.5
"""Assumed: part of L2's bandwidth that a stream of keys reaches."""


@dataclass(frozen=True, slots=True)
class FlashPart:
    """Requests that are asked the same."""

    requests: int
    new_tokens: int
    context: int
    """Keys at the end, those of the new tokens included."""
    keys: int
    """Of them, those that at least one new token attends to: the last ones."""
    pairs: int
    """Of a new token and a key that it attends to, of one head of one request."""
    causal: bool = True

    @property
    def cached(self) -> int:
        """Keys before those of the new tokens."""
        return self.context - self.new_tokens


@dataclass(frozen=True, slots=True)
class FlashAttention:
    """Attention of one device's heads over all requests, one launch."""

    parts: tuple[FlashPart, ...]
    heads: int
    """Query heads."""
    kv_heads: int
    """Each is shared by a group of query heads."""
    key_dim: int
    value_dim: int
    window: int | None = None
    """A token sees so many last ones, itself among them; None: all before it."""
    element_bytes: int = 2
    """Of queries and results."""
    key_value_bytes: int | Fraction = 512
    """Key and value of one token and one head, with what their format adds."""
    softmax_flops: int = 0
    warm: bool = False
    """All operands lie in L2 before, where they fit: a kernel that is measured again and again."""

    @property
    def macs(self) -> int:
        """Multiply-adds of the pairs that the mask leaves."""
        pairs = sum(part.requests * part.pairs for part in self.parts)
        return pairs * self.heads * (self.key_dim + self.value_dim)

    @property
    def kv_bytes(self) -> int:
        """Keys and values that are read, each once."""
        keys = sum(part.requests * part.keys for part in self.parts)
        return int(keys * self.kv_heads * self.key_value_bytes)


@dataclass(frozen=True, slots=True)
class FlashWork:
    """What the thread blocks do, all requests and heads together."""

    blocks: int
    pairs: int
    """Of a query row and a key that are multiplied, masked ones and rows beyond the last included:
    whole tiles."""
    memory_bytes: int
    l2_bytes: int
    l1_bytes: int


_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FlashBlocks:
    """Blocks of all requests by their length, in the order of their launch within a head."""

    rows: int
    columns: int
    """Of a tile."""
    tiles: _Ints
    """Tiles of keys of a block of each class."""
    counts: _Ints
    """Blocks of each class: one for each head of each request."""
    keys: _Ints
    """Keys that the tiles of a block hold."""
    parts: tuple[int, ...]
    """Classes of each part of the work."""

    @property
    def pairs(self) -> int:
        """Of a query row and a key that are multiplied: whole tiles."""
        tile = self.rows * self.columns
        return tile * sum(int(n) * int(c) for n, c in zip(self.tiles, self.counts, strict=True))


def flash_tile(work: FlashAttention, xpu: XpuConfig) -> tuple[int, int]:
    """Query rows and keys of a tile: those of the config, halved until they fit L1, keys first.

    Parameters
    ----------
    work
        Its head's dimensions and bytes count.
    xpu
        Its ``flash`` and ``l1_per_core`` (bytes).

    Returns
    -------
    tuple[int, int]
        Query rows, keys.

    Raises
    ------
    InputError
        Where the smallest does not fit.
    """
    rows, keys, least = xpu.flash.query_rows, xpu.flash.key_columns, xpu.tiling.register_edge

    def held() -> int:
        queries = rows * work.key_dim * work.element_bytes
        return queries + int(keys * work.key_value_bytes)

    while held() > xpu.l1_per_core:
        if keys // 2 >= least:
            keys //= 2
        elif rows // 2 >= least:
            rows //= 2
        else:
            raise InputError(
                f"xpu.l1_per_core: {xpu.l1_per_core} bytes; attention with heads of "
                f"{work.key_dim} takes {held()} for a tile of {rows} queries and {keys} keys"
            )
    return rows, keys


def _group(work: FlashAttention, xpu: XpuConfig) -> int:
    """Heads whose queries are rows of one block."""
    packs = xpu.silicon is not None and xpu.silicon.flash.packs_groups
    return work.heads // work.kv_heads if packs else 1


def _key_tiles(
    work: FlashAttention, part: FlashPart, rows: int, columns: int, group: int
) -> tuple[_Ints, _Ints]:
    """Of each query tile of ``part``: tiles of keys, and keys that they hold."""
    first = np.arange(0, part.new_tokens * group, rows, dtype=np.int64)
    last = np.minimum(first + rows, part.new_tokens * group) - 1
    end = np.full_like(first, part.context)
    if part.causal:
        end = part.cached + last // group + 1
    start = np.full_like(first, part.context - part.keys)
    if part.causal and work.window is not None:
        start = np.maximum(part.cached + first // group - work.window + 1, 0)
    start //= columns
    return -(-end // columns) - start, end - start * columns


def flash_blocks(work: FlashAttention, xpu: XpuConfig) -> FlashBlocks:
    """The thread blocks of ``work``.

    Parameters
    ----------
    work
        All parts of a step.
    xpu
        Its tile cuts them.
    """
    rows, columns = flash_tile(work, xpu)
    group = _group(work, xpu)
    lengths, counts, keys = [], [], []
    for part in work.parts:
        tiles, held = _key_tiles(work, part, rows, columns, group)
        lengths.append(tiles)
        keys.append(held)
        heads = part.requests * work.heads // group
        counts.append(np.full(len(tiles), heads, dtype=np.int64))
    return FlashBlocks(
        rows, columns, np.concatenate(lengths), np.concatenate(counts), np.concatenate(keys),
        tuple(len(each) for each in lengths),
    )  # fmt: skip


def flash_work(work: FlashAttention, xpu: XpuConfig) -> FlashWork:
    """Tiles and traffic of ``work``.

    Parameters
    ----------
    work
        All parts of a step.
    xpu
        Its tile, register tile and caches.
    """
    blocks = flash_blocks(work, xpu)
    queries = (work.key_dim + work.value_dim) * work.element_bytes  # a row of them and its result
    memory = passed_bytes = 0
    for part, tiles in zip(work.parts, blocks.parts, strict=True):
        passed = part.requests * work.heads * part.new_tokens * queries
        passed_bytes += passed
        memory += passed + int(
            part.requests * work.kv_heads * part.keys * work.key_value_bytes
            * _reads(work, part, tiles, xpu)
        )  # fmt: skip
    held = int((blocks.keys * blocks.counts).sum())
    edge = xpu.tiling.register_edge
    # Per pair: queries once for each register tile of keys, keys and values for each of queries.
    registers = work.key_dim * work.element_bytes + work.key_value_bytes
    return FlashWork(
        blocks=int(blocks.counts.sum()),
        pairs=blocks.pairs,
        memory_bytes=memory,
        l2_bytes=passed_bytes + int(held * work.key_value_bytes),
        l1_bytes=int(blocks.pairs * registers / edge),
    )


def _reads(work: FlashAttention, part: FlashPart, tiles: int, xpu: XpuConfig) -> int:
    """How often memory delivers a head's keys and values.

    Once where they fit L2; else once for each wave of the blocks that share them, which pass them
    in step.
    """
    if part.keys * work.key_value_bytes <= xpu.l2:
        return 1
    sharing = tiles * work.heads // work.kv_heads // _group(work, xpu)
    return -(-sharing // xpu.cores)


def flash_energy(work: FlashAttention, xpu: XpuConfig) -> tuple[float, float]:
    """Picojoule of memory, and of caches and arithmetic.

    Parameters
    ----------
    work
        All parts of a step.
    xpu
        Its ``energy`` prices them.
    """
    done, energy = flash_work(work, xpu), xpu.energy
    caches = done.l2_bytes * energy.l2_pj_per_bit + done.l1_bytes * energy.l1_pj_per_bit
    macs = done.pairs * (work.key_dim + work.value_dim)
    core = caches * _BITS + macs * (3 * energy.register_pj + energy.mac_pj)
    core += work.softmax_flops / 2 * energy.mac_pj
    return done.memory_bytes * _BITS * energy.memory_pj_per_bit, core


def tile_times(
    work: FlashAttention, xpu: XpuConfig, rows: int, columns: int
) -> tuple[float, float]:
    """Seconds in which one core multiplies a tile, and those that softmax adds.

    Parameters
    ----------
    work
        Its head's dimensions and element bytes count.
    xpu
        With ``silicon.flash``; its peaks.
    rows
        Queries of a tile.
    columns
        Keys of a tile.
    """
    silicon = silicon_of(xpu)
    rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation / xpu.cores
    multiply_s = 2 * rows * columns * (work.key_dim + work.value_dim) / rate
    if xpu.exponential_tops is None:
        return multiply_s, 0.0
    exponentials_s = rows * columns / (xpu.exponential_tops * 1e12 / xpu.cores)
    return multiply_s, silicon.flash.softmax_cost * exponentials_s


def stream_s(moved_bytes: float, warm: bool, utilisation: float, xpu: XpuConfig) -> float:
    """Seconds in which ``moved_bytes`` come from memory, or, ``warm`` and small, from L2.

    Parameters
    ----------
    moved_bytes
        0 or more.
    warm
        Whether they were used just before.
    utilisation
        Part of the memory's peak that is reached.
    xpu
        Its memory, and its L2 (bytes).
    """
    if warm and moved_bytes <= xpu.l2:
        return moved_bytes / (silicon_of(xpu).l2_gb_per_s * 1e9 * _L2_UTILISATION)
    return moved_bytes / (bandwidth(xpu) * utilisation)


@njit(cache=True)
def list_schedule(lengths: NDArray[np.float64], repeats: _Ints, firsts: _Ints, slots: int) -> float:
    """When the last block ends, if ``slots`` take them in their order.

    Part ``i`` launches ``repeats[i]`` times the blocks ``lengths[firsts[i]:firsts[i + 1]]``.

    Parameters
    ----------
    lengths
        (blocks of all parts,): seconds of each.
    repeats
        (parts,): how often a part's blocks are launched.
    firsts
        (parts + 1,): where each part begins in ``lengths``.
    slots
        That take a block each.

    Returns
    -------
    float
        Seconds.
    """
    free = np.zeros(slots)  # when each slot takes its next block
    end = 0.0
    for part in range(repeats.size):
        for _ in range(repeats[part]):
            for block in range(firsts[part], firsts[part + 1]):
                done = free[0] + lengths[block]
                end = max(end, done)
                take_earliest(free, done)
    return end


def _blocks_s(work: FlashAttention, xpu: XpuConfig, block_s: float) -> tuple[float, float]:
    """Seconds of all blocks, and of them the part in which softmax holds the tiles back."""
    kernel = silicon_of(xpu).flash
    blocks = flash_blocks(work, xpu)
    multiply_s, softmax_s = tile_times(work, xpu, blocks.rows, blocks.columns)
    lengths = np.asarray(blocks.tiles * (multiply_s + softmax_s) + block_s, dtype=np.float64)
    count = int(blocks.counts.sum())
    sharing = kernel.blocks_per_core if count > xpu.cores else 1
    lengths = lengths * sharing
    slots = xpu.cores * sharing
    if count > _MOST_SCHEDULED:  # the end, uneven by less than one block, is then below 1 %
        time_s = float((lengths * blocks.counts).sum()) / slots + float(lengths.max()) / 2
    else:
        firsts = np.cumsum([0, *blocks.parts])
        if kernel.longest_first:
            for first, end in pairwise(firsts):
                lengths[first:end] = lengths[first:end][::-1]
        time_s = float(list_schedule(lengths, blocks.counts[firsts[:-1]], firsts, slots))
    return time_s, softmax_s / (multiply_s + softmax_s) * time_s


def flash(work: FlashAttention, xpu: XpuConfig) -> Cost:
    """Time and energy of ``work`` in one launch.

    Parameters
    ----------
    work
        All parts of a step.
    xpu
        With ``silicon.flash``.

    Returns
    -------
    Cost
        Seconds and picojoule.

    References
    ----------
    Dao, FlashAttention-2, arXiv 2307.08691, section 3.
    """
    kernel = silicon_of(xpu).flash
    blocks_s, softmax_s = _blocks_s(work, xpu, kernel.block_ns * 1e-9)
    new = sum(part.requests * part.new_tokens for part in work.parts) * work.kv_heads
    moved = flash_work(work, xpu).memory_bytes + 2 * int(new * work.key_value_bytes)
    times: dict[Bound, float] = {
        "launch": kernel.launch_ns * 1e-9,
        "compute": blocks_s - softmax_s,
        "exponentials": softmax_s,
        "memory": stream_s(moved, work.warm, xpu.memory_utilisation, xpu),
    }
    memory_pj, core_pj = flash_energy(work, xpu)
    return Cost(fsum(times.values()), max(times, key=times.__getitem__), memory_pj, core_pj)
