"""How a GPU cuts a matrix product into tiles, and what each level of its memory then moves.

Two levels, as in AttAcc's simulator (ASPLOS 2024): a thread block's tile in the L1 of a core, and a
tile of several blocks in L2. A tile reads its rows and columns once, so an operand is read as often
as there are tiles along the other dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from pimsim.config.xpu import XpuConfig

__all__ = ["LevelBytes", "Product", "Tiles", "tiles", "traffic", "wave_utilisation"]


@dataclass(frozen=True, slots=True)
class Product:
    """``count`` products C[m, n] = A[m, k] B[k, n] at once."""

    m: int
    n: int
    k: int
    count: int = 1
    element_bytes: int = 2
    """Of A and C."""
    b_bytes: int | Fraction = 2
    """Of an element of B, with what its format adds to it: weights with scales, zero points and a
    bias, or the KV cache. A whole B is a whole number of bytes."""
    tiled: bool = True
    """Each tile is a thread block. Not in decode attention, where a head is one."""

    @property
    def macs(self) -> int:
        """Multiply-adds of all of them."""
        return self.m * self.n * self.k * self.count

    @property
    def stored_bytes(self) -> int:
        """All of B, once."""
        return int(self.n * self.k * self.b_bytes * self.count)

    @property
    def least_bytes(self) -> int:
        """Bytes when each element moves once."""
        return self.count * _moved(self, self.m, self.n)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Rows and columns of a tile of C at both levels, and the thread blocks that make it."""

    block_m: int
    block_n: int
    l2_m: int
    l2_n: int
    blocks: int


@dataclass(frozen=True, slots=True)
class LevelBytes:
    """Bytes between a level and the next one nearer to the arithmetic."""

    memory_bytes: int
    l2_bytes: int
    l1_bytes: int


def _moved(product: Product, tile_m: int, tile_n: int) -> int:
    """Bytes that one product reads and writes with tiles of that size."""
    a = -(-product.n // tile_n) * product.m * product.k * product.element_bytes
    b = int(-(-product.m // tile_m) * product.n * product.k * product.b_bytes)
    return a + b + product.m * product.n * product.element_bytes


def wave_utilisation(blocks: int, cores: int) -> float:
    """Part of the cores' time with a block, in ``ceil(blocks / cores)`` waves.

    Parameters
    ----------
    blocks
        Thread blocks, 1 or more.
    cores
        That take a block each.
    """
    return blocks / (-(-blocks // cores) * cores)


def tiles(product: Product, xpu: XpuConfig) -> Tiles:
    """The tiles of least traffic.

    A block's tile has least L2 traffic over the square of the cores' utilisation, among those that
    fit L1; the tile in L2, whole blocks, has least memory traffic among those that fit.

    Parameters
    ----------
    product
        Equal ones are cut alike.
    xpu
        Its ``tiling``, and the bytes of L1 and L2.
    """
    tiling = xpu.tiling
    edges = tuple(sorted(tiling.edges))
    block_m, block_n, blocks = _block_tile(
        product, edges, tiling.block_k, xpu.l1_per_core, xpu.cores
    )
    l2_m, l2_n = _l2_tile(product, block_m, block_n, tiling.l2_k_parts, xpu.l2)
    return Tiles(block_m, block_n, l2_m, l2_n, blocks)


@lru_cache(maxsize=4096)
def _block_tile(
    product: Product, edges: tuple[int, ...], block_k: int, l1_bytes: int, cores: int
) -> tuple[int, int, int]:
    best = (float("inf"), 0, 0, 0)
    rows = dict.fromkeys(min(edge, product.m) for edge in edges)
    columns = dict.fromkeys(min(edge, product.n) for edge in edges)
    for m in rows:
        for n in columns:
            if _held_bytes(product, m, n, block_k) > l1_bytes:
                continue
            blocks = product.count
            if product.tiled:
                blocks *= -(-product.m // m) * -(-product.n // n)
            moved = product.count * _moved(product, m, n)
            cost = moved / wave_utilisation(blocks, cores) ** 2
            if cost < best[0]:
                best = (cost, m, n, blocks)
    return best[1:]


@lru_cache(maxsize=4096)
def _l2_tile(
    product: Product, block_m: int, block_n: int, k_parts: int, l2_bytes: int
) -> tuple[int, int]:
    """For each number of rows the most columns that fit: more columns never move more."""
    part_k = product.k / k_parts
    best = (_moved(product, block_m, block_n), block_m, block_n)
    for m in [*range(block_m, product.m, block_m), product.m]:
        # (m element_bytes + n b_bytes) part_k + m n element_bytes <= l2_bytes, solved for n.
        left = l2_bytes - m * part_k * product.element_bytes
        fitting = int(left / (part_k * product.b_bytes + m * product.element_bytes))
        n = product.n if fitting >= product.n else fitting // block_n * block_n
        if n <= 0:
            break  # nor do more rows fit
        moved = _moved(product, m, n)
        if moved < best[0]:
            best = (moved, m, n)
    return best[1], best[2]


def _held_bytes(product: Product, m: int, n: int, k: float) -> float:
    """A tile's operands for ``k`` steps, and its results."""
    return (m * product.element_bytes + n * product.b_bytes) * k + m * n * product.element_bytes


def traffic(product: Product, xpu: XpuConfig) -> LevelBytes:
    """Bytes that memory, L2 and L1 deliver or take, all products together.

    Parameters
    ----------
    product
        Equal ones, all of which count.
    xpu
        Its ``tiling``, and the bytes of L1 and L2.
    """
    tile = tiles(product, xpu)
    edge = xpu.tiling.register_edge
    return LevelBytes(
        memory_bytes=product.count * _moved(product, tile.l2_m, tile.l2_n),
        l2_bytes=product.count * _moved(product, tile.block_m, tile.block_n),
        l1_bytes=product.count * _moved(product, edge, edge),
    )
