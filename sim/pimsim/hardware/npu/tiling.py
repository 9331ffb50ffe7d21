"""Cutting a matrix product into tiles that fit the scratchpad, and what each tile moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Literal

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.npu import ScratchpadConfig
from pimsim.hardware.npu.plan import Count, ceil_div

__all__ = [
    "GemmTile",
    "TilingPolicy",
    "cut_tiles",
    "least_traffic",
    "operand_passes",
    "tile_gemm",
    "tile_places",
    "tile_sizes",
]

TilingPolicy = Literal["least-traffic", "halve-largest"]

MAX_TILES = 200_000
MAX_PRODUCT = 1 << 60
"""m n k of a product; below it no sum of elements leaves 64 bits."""


@dataclass(frozen=True)
class GemmTile:
    """One tile of C[m, n] = A[m, k] B[k, n], in the order in which tiles run.

    Bytes are those that move between DRAM and the scratchpad for this tile; an operand that the
    tile before has left on chip moves nothing.
    """

    m: int
    n: int
    k: int
    m_start: int
    n_start: int
    k_start: int
    weight_bytes: int
    input_bytes: int
    partial_bytes: int
    """Partial sums that come back from DRAM, when other tiles ran between two parts of k."""
    output_bytes: int
    """Results, or partial sums, that leave when this tile is done."""

    @property
    def load_bytes(self) -> int:
        """Bytes that must arrive for the tile."""
        return self.weight_bytes + self.input_bytes + self.partial_bytes

    @property
    def traffic_bytes(self) -> int:
        """Bytes in both directions."""
        return self.load_bytes + self.output_bytes


@lru_cache(maxsize=1024)
def tile_gemm(
    m: int,
    n: int,
    k: int,
    dtype_bytes: int,
    scratchpad: ScratchpadConfig,
    policy: TilingPolicy = "least-traffic",
) -> tuple[GemmTile, ...]:
    """Tiles that each fit the scratchpad, or half of it where it is double buffered.

    A tile holds its weights, inputs and outputs. ``least-traffic`` takes, among tile sizes of about
    dimension / c with c = 1, 2, 3, 4, 6, 8, 12, ... and all loop orders, the one that moves the
    fewest bytes, then the fewest weights, then cuts k the least, then the fewest tiles; operands
    that two tiles in a row share are not loaded twice. ``halve-largest`` halves the largest
    dimension until a tile fits (MECHANISMS 4.10); each tile loads its own operands.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n].
    dtype_bytes
        Of an element.
    scratchpad
        Its capacity, and whether it is double buffered.
    policy
        ``least-traffic`` or ``halve-largest``.

    Raises
    ------
    InputError
        When not even one element of each operand fits, or when the product would take more than 200
        000 tiles.
    """
    capacity = scratchpad.capacity // (2 if scratchpad.double_buffered else 1)
    room = capacity // dtype_bytes
    if min(m, n, k, dtype_bytes) < 1:
        raise InputError(f"gemm {m} x {n} x {k} of {dtype_bytes} bytes: sizes must be at least 1")
    if room < 3:
        raise InputError(
            f"npu.scratchpad.capacity {scratchpad.capacity} B leaves {capacity} B a tile: "
            f"less than one element of {dtype_bytes} B of weights, inputs and outputs each"
        )
    if policy == "halve-largest":
        sizes = _halve_largest(m, n, k, room)
        order, keep = "mnk", False
    else:
        sizes, order = least_traffic(m, n, k, room)
        keep = True
    counts = [ceil_div(dim, size) for dim, size in zip((m, n, k), sizes, strict=True)]
    if counts[0] * counts[1] * counts[2] > MAX_TILES:
        raise InputError(
            f"npu.scratchpad.capacity {scratchpad.capacity} B: gemm {m} x {n} x {k} would take "
            f"{counts[0] * counts[1] * counts[2]} tiles, more than {MAX_TILES}"
        )
    places = tile_places((m, n, k), sizes, order)
    return cut_tiles(places, (m, n, k), sizes, keep, dtype_bytes)


def _elements(m: int, n: int, k: int) -> int:
    return m * k + k * n + m * n


def _halve_largest(m: int, n: int, k: int, room: int) -> tuple[int, int, int]:
    sizes = [m, n, k]
    while _elements(*sizes) > room:
        largest = max(range(3), key=sizes.__getitem__)
        sizes[largest] = ceil_div(sizes[largest], 2)
    return sizes[0], sizes[1], sizes[2]


def tile_sizes(dim: int) -> list[int]:
    """Even parts of ``dim``; independent of the capacity, so more of it never costs traffic.

    Parameters
    ----------
    dim
        Elements along one dimension.

    Returns
    -------
    list[int]
        Falling, from ``dim`` to 1.
    """
    sizes = {dim, 1}
    parts = 2
    while parts < 2 * dim:
        sizes |= {ceil_div(dim, parts), ceil_div(dim, parts + parts // 2)}
        parts *= 2
    return sorted(sizes, reverse=True)


def least_traffic(m: int, n: int, k: int, room: int) -> tuple[tuple[int, int, int], str]:
    """Sizes and loop order that move the fewest elements, of tiles of up to ``room`` elements.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n].
    room
        Elements of a tile's operands, at most.

    Returns
    -------
    sizes
        (m, n, k) of a tile.
    order
        Of the loops, from the outermost.

    Raises
    ------
    InputError
        Where the elements that might move are beyond counting.
    """
    if _elements(m, n, k) <= room:
        return (m, n, k), "nmk"
    if m * n * k > MAX_PRODUCT:
        raise InputError(f"gemm {m} x {n} x {k}: more than {MAX_PRODUCT:.1e} products")
    tile_m, tile_n = (
        each.ravel()
        for each in np.meshgrid(
            np.array(tile_sizes(m), np.int64), np.array(tile_sizes(n), np.int64), indexing="ij"
        )
    )
    # the largest part of k that fits: a smaller one fits too and never moves less
    parts_of_k = np.array(tile_sizes(k)[::-1], np.int64)
    fits = np.searchsorted(parts_of_k, (room - tile_m * tile_n) // (tile_m + tile_n), side="right")
    tile_m, tile_n, fits = tile_m[fits > 0], tile_n[fits > 0], fits[fits > 0]
    tile_k = parts_of_k[fits - 1]
    counts = (-(-m // tile_m), -(-n // tile_n), -(-k // tile_k))
    tiles = counts[0] * counts[1] * counts[2]
    keys = []
    for order in _ORDERS:
        reload_a, reload_b, reload_c = operand_passes(counts, order)
        weights = n * k * reload_b
        # Outputs leave each time and come back each time but the first.
        traffic = m * k * reload_a + weights + m * n * (2 * reload_c - 1)
        keys.append((traffic, weights, counts[2], tiles))
    best = np.arange(len(_ORDERS) * len(tiles))
    for key in zip(*keys, strict=True):
        values = np.stack(key, axis=1).ravel()[best]
        best = best[values == values.min()]
    at, which = divmod(int(best[0]), len(_ORDERS))
    return (int(tile_m[at]), int(tile_n[at]), int(tile_k[at])), _ORDERS[which]


_ORDERS = tuple("".join(order) for order in permutations("nmk"))
_LOOPS = {"m": 0, "n": 1, "k": 2}


def operand_passes(counts: tuple[Count, Count, Count], order: str) -> tuple[Count, Count, Count]:
    """How often A, B and C move: the product of the loops that do not index the operand and run
    outside one that does.

    Parameters
    ----------
    counts
        Tiles along m, n and k; whole numbers or arrays.
    order
        Of the loops, from the outermost: ``"nmk"`` and so on.
    """

    def passes(free: str) -> Count:
        inner = order[order.index(free) + 1 :]
        moves = sum((counts[_LOOPS[loop]] > 1 for loop in inner), start=0 * counts[0]) > 0
        return 1 + (counts[_LOOPS[free]] - 1) * moves

    return passes("n"), passes("m"), passes("k")  # A[m, k], B[k, n], C[m, n] are free of these


def tile_places(
    dims: tuple[int, int, int], sizes: tuple[int, int, int], order: str
) -> list[dict[str, int]]:
    """First m, n and k of each tile.

    Parameters
    ----------
    dims
        (m, n, k) of the product.
    sizes
        (m, n, k) of a tile.
    order
        Of the loops, from the outermost.
    """
    starts = [range(0, dims[_LOOPS[loop]], sizes[_LOOPS[loop]]) for loop in order]
    return [dict(zip(order, values, strict=True)) for values in product(*starts)]


def cut_tiles(
    places: Sequence[dict[str, int]],
    dims: tuple[int, int, int],
    sizes: tuple[int, int, int],
    keep: bool,
    dtype_bytes: int,
) -> tuple[GemmTile, ...]:
    """Tiles that one core works on, and the bytes that each moves.

    Parameters
    ----------
    places
        First m, n and k of each tile, in order.
    dims
        (m, n, k) of the product.
    sizes
        (m, n, k) of a tile; those at the edges are smaller.
    keep
        An operand that the tile before has left on chip is not loaded again.
    dtype_bytes
        Of an element.
    """
    tiles: list[GemmTile] = []
    for index, place in enumerate(places):
        before = places[index - 1] if index else None
        after = places[index + 1] if index + 1 < len(places) else None
        m, n, k = (min(sizes[i], dims[i] - place[loop]) for loop, i in _LOOPS.items())

        def shared(other: dict[str, int] | None, loops: str, place: dict[str, int] = place) -> bool:
            return other is not None and all(other[loop] == place[loop] for loop in loops)

        inputs_kept = keep and shared(before, "mk")
        weights_kept = keep and shared(before, "nk")
        partial_returns = place["k"] > 0 and not shared(before, "mn")
        tiles.append(
            GemmTile(
                m=m,
                n=n,
                k=k,
                m_start=place["m"],
                n_start=place["n"],
                k_start=place["k"],
                weight_bytes=0 if weights_kept else n * k * dtype_bytes,
                input_bytes=0 if inputs_kept else m * k * dtype_bytes,
                partial_bytes=m * n * dtype_bytes if partial_returns else 0,
                output_bytes=0 if shared(after, "mn") else m * n * dtype_bytes,
            )
        )
    return tuple(tiles)
