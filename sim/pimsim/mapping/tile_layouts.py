"""How the operands of a tile of a matrix product lie in memory: what its loads and stores are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.dram.system import Rows, Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.mapping.tasks import GemmBlock, GemmStep

__all__ = ["GemmPlaces", "RowMajor", "TileLayout", "Tiled"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GemmPlaces:
    """Where a product's operands lie: bursts of the linear address space."""

    weights: int
    inputs: int | None
    """None: the activations are on chip and do not move."""
    outputs: int | None


@dataclass
class TileLayout(ABC):
    """How a tile's operands lie in memory."""

    dims: tuple[int, int, int]
    places: GemmPlaces
    element_bytes: int
    systolic: SystolicConfig
    burst_bytes: int
    packed: tuple[int, int]
    """Bytes of weights as they are stored, of so many on chip."""
    takes_packed: ClassVar[bool] = False
    """Weights may be stored in a narrower format than they are computed in."""

    def bursts(self, size: int) -> int:
        """Bursts of ``size`` bytes."""
        return -(-size // self.burst_bytes)

    def plan(self, tile: GemmTile) -> GemmPlan:
        """The tile on the arrays."""
        return plan_gemm(tile.m, tile.n, tile.k, self.systolic, self.element_bytes)

    @abstractmethod
    def step(self, core: int, tile: GemmTile, extra: int) -> GemmStep:
        """The tile's loads and stores, ``extra`` bytes of parameters beside its weights."""


@dataclass
class Tiled(TileLayout):
    """Each tile in one piece; weights in the order in which the folds use them."""

    takes_packed: ClassVar[bool] = True
    placed: dict[tuple[int, int], int] = field(default_factory=dict)
    """First burst of each tile of weights by its ``(n_start, k_start)``, from the region's."""
    weights_end: int = 0

    def _weights_at(self, tile: GemmTile, bursts: int) -> int:
        """Where the tile's weights lie: in the order of first use; a later pass over them, for
        other rows of activations, finds them in the same place."""
        key = tile.n_start, tile.k_start
        if key not in self.placed:
            self.placed[key] = self.weights_end
            self.weights_end += bursts
        return self.placed[key]

    def step(self, core: int, tile: GemmTile, extra: int) -> GemmStep:
        """The tile's loads, inputs first, and its stores."""
        at = self.places
        stored, elements = self.packed
        weights = -(-tile.weight_bytes * stored // elements) + extra
        inputs = tile.input_bytes + tile.partial_bytes if at.inputs is not None else 0
        loads: list[Stream] = []
        if inputs and at.inputs is not None:
            loads.append(Stream(at.inputs, self.bursts(inputs)))
        if weights:
            first = at.weights + self._weights_at(tile, self.bursts(weights))
            loads.append(
                Stream(first, self.bursts(weights), track_blocks=True, weight_bytes=weights)
            )
        stores: tuple[Stream, ...] = ()
        if tile.output_bytes and at.outputs is not None:
            stores = (Stream(at.outputs, self.bursts(tile.output_bytes), write=True),)
        scale = stored / elements
        return GemmStep(self.plan(tile), tuple(loads), stores, inputs, scale, core=core)


class RowMajor(TileLayout):
    """Activations [m][k], weights [n][k], results [m][n], rows of bursts each.

    A tile runs as blocks of one array's columns by as many rows as it has: for each block of
    columns all blocks of rows. The first one of either brings its operand.
    """

    def step(self, core: int, tile: GemmTile, extra: int) -> GemmStep:
        """The tile's blocks, with the rows of each operand that they move."""
        rows, cols = self.systolic.rows, self.systolic.cols
        blocks = []
        for n in range(0, tile.n, cols):
            width = min(cols, tile.n - n)
            for m in range(0, tile.m, rows):
                height = min(rows, tile.m - m)
                blocks.append(
                    GemmBlock(
                        plan_gemm(height, width, tile.k, self.systolic, self.element_bytes),
                        self._loads(tile, m, height, n, width, extra if m == n == 0 else 0),
                        self._stores(tile, m, height, n, width),
                    )
                )
        return GemmStep(self.plan(tile), (), (), 0, core=core, blocks=tuple(blocks))

    def run_bursts(self, start: Ints, size: int) -> Ints:
        """Bursts that are asked for of runs of ``size`` bytes from byte ``start`` of each."""
        found: Ints = (start + size - 1) // self.burst_bytes - start // self.burst_bytes + 1
        return found

    def _loads(
        self, tile: GemmTile, m: int, height: int, n: int, width: int, extra: int
    ) -> tuple[Rows, ...]:
        at, k = self.places, (self.dims[2], tile.k_start, tile.k)
        loads: list[Rows] = []
        if tile.weight_bytes and m == 0:
            rows = self._rows(at.weights, tile.n_start + n, width, *k)
            loads.append(replace(rows, weight_bytes=width * tile.k * self.element_bytes))
        if extra:
            end = at.weights + self.bursts(self.dims[1] * self.dims[2] * self.element_bytes)
            run = np.array([end]), np.array([self.bursts(extra)])
            loads.append(Rows(*run, weight_bytes=extra))
        if tile.input_bytes and n == 0 and at.inputs is not None:
            loads.append(self._rows(at.inputs, tile.m_start + m, height, *k))
        if tile.partial_bytes and at.outputs is not None:
            loads.append(self._results(tile, at.outputs, m, height, n, width, write=False))
        return tuple(loads)

    def _stores(self, tile: GemmTile, m: int, height: int, n: int, width: int) -> tuple[Rows, ...]:
        if not tile.output_bytes or self.places.outputs is None:
            return ()
        return (self._results(tile, self.places.outputs, m, height, n, width, write=True),)

    def _results(
        self, tile: GemmTile, base: int, m: int, height: int, n: int, width: int, write: bool
    ) -> Rows:
        pitch, column = self.dims[1], tile.n_start + n
        return self._rows(base, tile.m_start + m, height, pitch, column, width, write)

    def _rows(
        self, base: int, row: int, rows: int, pitch: int, column: int, columns: int,
        write: bool = False,
    ) -> Rows:  # fmt: skip
        """Bursts of ``columns`` elements of each of ``rows`` rows; neighbours as one run."""
        start = ((row + np.arange(rows, dtype=np.int64)) * pitch + column) * self.element_bytes
        first = start // self.burst_bytes
        bursts = self.run_bursts(start, columns * self.element_bytes)
        # a burst that two runs share moves once
        ends = np.maximum.accumulate(first + bursts)
        first[1:] = np.maximum(first[1:], ends[:-1])
        bursts = ends - first
        joined = first[1:] == ends[:-1]
        begins = np.flatnonzero(np.concatenate([[True], ~joined]))
        return Rows(base + first[begins], np.add.reduceat(bursts, begins), write=write)
