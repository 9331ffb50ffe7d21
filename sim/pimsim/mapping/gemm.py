"""A matrix product to steps: each core's tiles, and the bursts that each tile moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig, SystolicConfig
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.system import Network, Rows, Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.hardware.npu.search import CoreTiling, tile_for_cores
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.mapping.tasks import GemmBlock, GemmStep

__all__ = ["GemmPlaces", "bytes_per_kcycle", "core_network", "gemm_steps", "tile_product"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class GemmPlaces:
    """Where a product's operands lie: bursts of the linear address space."""

    weights: int
    inputs: int | None
    """None: the activations are on chip and do not move."""
    outputs: int | None


def bytes_per_kcycle(npu: NpuConfig, memory: MemoryConfig) -> int:
    """Bytes that the memory moves in 1000 NPU cycles at its full rate: a burst in each slot of
    every data bus, or one request a network cycle at every channel, whichever is less."""
    bursts_per_ps = data_buses(memory) / burst_slot_ps(memory)
    if npu.network is not None:
        of_ports = memory.organization.channels * Fraction(npu.network.frequency, 10**12)
        bursts_per_ps = min(bursts_per_ps, of_ports)
    kcycle_ps = Fraction(1000 * 10**12, npu.frequency)
    return int(memory.organization.burst_bytes * bursts_per_ps * kcycle_ps)


def core_network(npu: NpuConfig) -> Network:
    """What the memory must know of the cores."""
    if npu.network is None:
        return Network(sources=npu.cores)
    network = npu.network
    period_ps = Fraction(10**12, network.frequency)
    return Network(
        npu.cores, period_ps, network.latency_cycles * period_ps, network.ports_per_core,
        network.channel_hash == "ipoly",
    )  # fmt: skip


def tile_product(
    m: int,
    n: int,
    k: int,
    element_bytes: int,
    npu: NpuConfig,
    memory: MemoryConfig,
    explain: bool = False,
) -> CoreTiling:
    """The cut of C[m, n] = A[m, k] B[k, n] that ``npu.tiling`` picks, and why."""
    return tile_for_cores(m, n, k, element_bytes, npu, bytes_per_kcycle(npu, memory), explain)


def gemm_steps(
    dims: tuple[int, int, int],
    tiling: CoreTiling,
    places: GemmPlaces,
    element_bytes: int,
    npu: NpuConfig,
    memory: MemoryConfig,
    weight_bytes: int | None = None,
) -> tuple[GemmStep, ...]:
    """Steps of all cores, a core's in order.

    ``weight_bytes``: of the parameters as they are stored; None: elements alone. Those of a
    narrower format move in proportion and are widened on chip; what is more than the elements
    (biases) is loaded with the first tile. Raises ``InputError`` for a narrower format in rows.
    """
    elements = dims[1] * dims[2] * element_bytes
    stored = elements if weight_bytes is None else weight_bytes
    bias_bytes = max(stored - elements, 0)
    if npu.operand_layout == "tiled":
        layout: _Layout = _Tiled(
            dims, places, element_bytes, npu.systolic, memory.organization.burst_bytes,
            npu.artifact_short_runs, (min(stored, elements), elements),
        )  # fmt: skip
    elif stored < elements:
        raise InputError(
            f"npu.operand_layout 'row-major': weights of {stored} B for {dims[1]} x {dims[2]} "
            f"elements of {element_bytes} B are packed; allowed: 'tiled'"
        )
    else:
        layout = _RowMajor(
            dims, places, element_bytes, npu.systolic, memory.organization.burst_bytes,
            npu.artifact_short_runs,
        )  # fmt: skip
    steps: list[GemmStep] = []
    for core, tiles in enumerate(tiling.cores):
        for tile in tiles:
            steps.append(layout.step(core, tile, 0 if steps else bias_bytes))
    return tuple(steps)


@dataclass
class _Layout(ABC):
    """How a tile's operands lie in memory."""

    dims: tuple[int, int, int]
    places: GemmPlaces
    element_bytes: int
    systolic: SystolicConfig
    burst_bytes: int
    short_runs: bool

    def _bursts(self, size: int) -> int:
        return -(-size // self.burst_bytes)

    def plan(self, tile: GemmTile) -> GemmPlan:
        """The tile on the arrays."""
        return plan_gemm(tile.m, tile.n, tile.k, self.systolic, self.element_bytes)

    @abstractmethod
    def step(self, core: int, tile: GemmTile, extra: int) -> GemmStep:
        """The tile's loads and stores, ``extra`` bytes of parameters beside its weights."""


@dataclass
class _Tiled(_Layout):
    """Each tile in one piece; weights in the order in which the folds use them."""

    packed: tuple[int, int]
    """Bytes of weights as they are stored, of so many on chip."""
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
            loads.append(Stream(at.inputs, self._bursts(inputs)))
        if weights:
            first = at.weights + self._weights_at(tile, self._bursts(weights))
            loads.append(
                Stream(first, self._bursts(weights), track_blocks=True, weight_bytes=weights)
            )
        stores: tuple[Stream, ...] = ()
        if tile.output_bytes and at.outputs is not None:
            stores = (Stream(at.outputs, self._bursts(tile.output_bytes), write=True),)
        scale = stored / elements
        return GemmStep(self.plan(tile), tuple(loads), stores, inputs, scale, core=core)


class _RowMajor(_Layout):
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

    def _loads(
        self, tile: GemmTile, m: int, height: int, n: int, width: int, extra: int
    ) -> tuple[Rows, ...]:
        at, k = self.places, (self.dims[2], tile.k_start, tile.k)
        loads: list[Rows] = []
        if tile.weight_bytes and m == 0:
            rows = self._rows(at.weights, tile.n_start + n, width, *k)
            loads.append(replace(rows, weight_bytes=width * tile.k * self.element_bytes))
        if extra:
            end = at.weights + self._bursts(self.dims[1] * self.dims[2] * self.element_bytes)
            run = np.array([end]), np.array([self._bursts(extra)])
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
        bursts = (start + columns * self.element_bytes - 1) // self.burst_bytes - first + 1
        if self.short_runs:
            bursts[:] = self._bursts(columns * self.element_bytes)
        # a burst that two runs share moves once
        ends = np.maximum.accumulate(first + bursts)
        first[1:] = np.maximum(first[1:], ends[:-1])
        bursts = ends - first
        joined = first[1:] == ends[:-1]
        begins = np.flatnonzero(np.concatenate([[True], ~joined]))
        return Rows(base + first[begins], np.add.reduceat(bursts, begins), write=write)
