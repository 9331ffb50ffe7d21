"""Attention of several new tokens as one fused kernel on a GPU: FlashAttention-2's way of cutting.

A thread block has the rows of one query tile of one head and passes the keys that they see by, tile
by tile; scores stay in its registers (Dao, arXiv 2307.08691, section 3). Tiles that no row sees are
left out, those on the diagonal are multiplied whole. All requests of a step are one launch.

Blocks differ in length under a causal mask. They start longest first, ``cores`` at a time, and a
wave takes as long as its longest block.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.roofline import Bound, Cost, bandwidth, peak_flops

__all__ = ["FlashAttention", "FlashPart", "FlashWork", "flash", "flash_tile", "flash_work"]

_BITS = 8


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
    wave_pairs: int
    """Those of the longest block of each wave: what each core is given time for."""
    memory_bytes: int
    l2_bytes: int
    l1_bytes: int

    def fill(self, cores: int) -> float:
        """Part of the cores' time in which they have work."""
        return self.pairs / (self.wave_pairs * cores)


def flash_tile(work: FlashAttention, xpu: XpuConfig) -> tuple[int, int]:
    """Query rows and keys of a tile: those of the config, halved until they fit L1, keys first.

    Raises ``InputError`` where the smallest does not fit.
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


_Ints = NDArray[np.int64]


def _key_tiles(
    work: FlashAttention, part: FlashPart, rows: int, columns: int
) -> tuple[_Ints, _Ints]:
    """Of each query tile of ``part``: tiles of keys, and keys that they hold."""
    first = np.arange(0, part.new_tokens, rows, dtype=np.int64)
    end = np.full_like(first, part.context)
    if part.causal:
        end = part.cached + np.minimum(first + rows, part.new_tokens)
    start = np.full_like(first, part.context - part.keys)
    if part.causal and work.window is not None:
        start = np.maximum(part.cached + first - work.window + 1, 0)
    start //= columns
    return -(-end // columns) - start, end - start * columns


def flash_work(work: FlashAttention, xpu: XpuConfig) -> FlashWork:
    """Tiles, waves and traffic of ``work``."""
    rows, columns = flash_tile(work, xpu)
    lengths, counts, memory, l2 = [], [], 0, 0
    queries = (work.key_dim + work.value_dim) * work.element_bytes  # a row of them and its result
    for part in work.parts:
        tiles, held = _key_tiles(work, part, rows, columns)
        heads = part.requests * work.heads
        lengths.append(tiles)
        counts.append(np.full(len(tiles), heads, dtype=np.int64))
        passed = heads * part.new_tokens * queries
        memory += passed + int(
            part.requests * work.kv_heads * part.keys * work.key_value_bytes
            * _reads(work, part, len(tiles), xpu)
        )  # fmt: skip
        l2 += passed + int(heads * int(held.sum()) * work.key_value_bytes)
    length, count = np.concatenate(lengths), np.concatenate(counts)
    order = np.argsort(-length, kind="stable")
    length, count = length[order], count[order]
    behind = np.cumsum(count)
    # A wave starts at each multiple of the cores: as many in a class of equal blocks as there are
    # multiples among their numbers.
    waves = -(-behind // xpu.cores) + (-(behind - count) // xpu.cores)
    tile = rows * columns
    pairs = tile * sum(int(n) * int(c) for n, c in zip(length, count, strict=True))
    edge = xpu.tiling.register_edge
    # Per pair: queries once for each register tile of keys, keys and values for each of queries.
    registers = work.key_dim * work.element_bytes + work.key_value_bytes
    return FlashWork(
        blocks=int(behind[-1]),
        pairs=pairs,
        wave_pairs=tile * int((waves * length).sum()),
        memory_bytes=memory,
        l2_bytes=l2,
        l1_bytes=int(pairs * registers / edge),
    )


def _reads(work: FlashAttention, part: FlashPart, tiles: int, xpu: XpuConfig) -> int:
    """How often memory delivers a head's keys and values.

    Once where they fit L2; else once for each wave of the blocks that share them, which pass them
    in step.
    """
    if part.keys * work.key_value_bytes <= xpu.l2:
        return 1
    sharing = tiles * work.heads // work.kv_heads
    return -(-sharing // xpu.cores)


def flash(work: FlashAttention, xpu: XpuConfig) -> Cost:
    """Time and energy: the slowest of matrix units, exponentials and memory."""
    done = flash_work(work, xpu)
    dims = work.key_dim + work.value_dim
    rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation / xpu.cores
    times: dict[Bound, float] = {
        "compute": 2 * done.wave_pairs * dims / rate,
        "memory": done.memory_bytes
        / (bandwidth(xpu) * xpu.memory_utilisation * done.fill(xpu.cores)),
    }
    if xpu.exponential_tops is not None:
        times["exponentials"] = done.wave_pairs / (xpu.exponential_tops * 1e12 / xpu.cores)
    bound = max(times, key=times.__getitem__)
    energy = xpu.energy
    caches = done.l2_bytes * energy.l2_pj_per_bit + done.l1_bytes * energy.l1_pj_per_bit
    macs = done.pairs * dims
    return Cost(
        time_s=times[bound],
        bound=bound,
        memory_pj=done.memory_bytes * _BITS * energy.memory_pj_per_bit,
        core_pj=caches * _BITS
        + macs * (3 * energy.register_pj + energy.mac_pj)
        + work.softmax_flops / 2 * energy.mac_pj,
    )
