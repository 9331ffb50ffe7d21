"""The NeuPIMs artifact's instructions: which operands a task loads and stores, in which order.

One MOVIN or MOVOUT moves one operand: a block of R x R elements of a matrix product, or a row of a
vector operation. The artifact issues all MOVINs of a tile at once, in program order, so its loads
are one list of operands (MatMul.cc ``initialize_instructions``, LayerNorm.cc, Add.cc, Gelu.cc).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.system import Stream
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.workload.operators import Operator

__all__ = ["TileBlock", "TileOperands", "gemm_operands", "operand_stream", "vector_operands"]


@dataclass(frozen=True)
class TileBlock:
    """A block of a tile's results, and how many of them are the tile's."""

    row: int
    """Its number along the batch."""
    column: int
    size: int
    """Rows and columns of a full block."""
    rows: int
    columns: int


@dataclass(frozen=True)
class TileOperands:
    """Operands of one tile of a matrix product; sizes in bytes."""

    loads: tuple[int, ...]
    """Bias, then block by block the weights and the activations that they meet."""
    needed: NDArray[np.int64]
    """Weights and activations of each compute step, indices into ``loads``, shape (preloads,
    steps of each, 2)."""
    stores: tuple[int, ...]
    """Blocks of results that are written back."""
    stored_after: tuple[int, ...]
    """Compute step that completes each of them."""
    weight_bytes: int
    """Of the loads, those of weights and of the bias, of which there is one block's for each block
    of the batch, whatever its length."""


def _blocks(size: int, block: int) -> list[int]:
    return [min(block, size - at) for at in range(0, size, block)]


def gemm_operands(
    tile: GemmTile, block: int, element_bytes: int, has_bias: bool,
    stored: Callable[[TileBlock], tuple[int, int]],
) -> TileOperands:  # fmt: skip
    """Operands of a tile of C[m, n] = A[m, k] B[k, n].

    The steps run over batch blocks, k blocks, output blocks. Weights are loaded in the first batch
    block's steps, activations in each batch block's first step of a k block.

    Parameters
    ----------
    tile
        Of the product.
    block
        Rows, and columns, of a block.
    element_bytes
        Of an element.
    has_bias
        Whether one is loaded with the first tile along k.
    stored
        Rows and columns of a block of results that are written.

    References
    ----------
    The NeuPIMs artifact, MatMul.cc.
    """
    rows, depths, columns = (_blocks(size, block) for size in (tile.m, tile.k, tile.n))
    loads: list[int] = []
    if has_bias and tile.k_start == 0:
        loads += [min(block, tile.n) * element_bytes] * len(rows)
    weight_bytes = sum(loads) + tile.n * tile.k * element_bytes
    weights = np.zeros((len(depths), len(columns)), dtype=np.int64)
    needed = np.zeros((len(rows), len(depths), len(columns), 2), dtype=np.int64)
    for b, row in enumerate(rows):
        for d, depth in enumerate(depths):
            if b == 0:
                weights[d, 0] = len(loads)
                loads.append(columns[0] * depth * element_bytes)
            needed[b, d, :, 1] = len(loads)
            loads.append(row * depth * element_bytes)
            if b == 0:
                weights[d, 1:] = len(loads) + np.arange(len(columns) - 1)
                loads += [column * depth * element_bytes for column in columns[1:]]
    needed[..., 0] = weights
    stores, stored_after = [], []
    if tile.output_bytes:
        for b, row in enumerate(rows):
            for c, column in enumerate(columns):
                down, across = stored(TileBlock(b, c, block, row, column))
                if down > 0 and across > 0:
                    stores.append(down * across * element_bytes)
                    stored_after.append(((b + 1) * len(depths) - 1) * len(columns) + c)
    by_preload = needed.reshape(-1, len(columns), 2)
    return TileOperands(tuple(loads), by_preload, tuple(stores), tuple(stored_after), weight_bytes)


def vector_operands(operator: Operator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Loads and stores of a vector operation: both parameters of a norm, then row by row.

    Parameters
    ----------
    operator
        Of vectors.

    Returns
    -------
    tuple
        Bytes of each load, and of each store.
    """
    row = operator.output_bytes // operator.rows
    parameters = (operator.weight_bytes // 2,) * 2 if operator.weight_bytes else ()
    loads = (*parameters, *(row,) * (operator.input_bytes // row))
    return loads, (row,) * operator.rows


def operand_stream(
    operands: tuple[int, ...], burst_bytes: int, write: bool = False, track: bool = False
) -> Stream:
    """Operands of these bytes, where the artifact's counter stands.

    Parameters
    ----------
    operands
        Bytes of each.
    burst_bytes
        Of the memory.
    write
        Whether they are written.
    track
        Whether somebody waits for each.
    """
    return Stream(0, -(-sum(operands) // burst_bytes), write, track, operands)
