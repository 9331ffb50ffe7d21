"""From a matrix product to the tiles of the arrays and what each of them moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import TILINGS, NpuConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.mapping.gemm import gemm_steps, tile_product
from pimsim.mapping.tasks import GemmStep
from pimsim.mapping.tile_layouts import GemmPlaces
from pimsim.workload.operators import Operator

__all__ = ["ProductTiles", "product_tiles"]


@dataclass(frozen=True)
class ProductTiles:
    """The tiles of ``mapping.gemm``, on all cores, of the tilings that are no module.

    A module of kind ``tiling`` offers a subclass of it, ``Tiles``.
    """

    npu: NpuConfig
    memory: MemoryConfig
    element_bytes: int
    """Of an element of operands on chip."""
    activation_burst: int
    """First burst of the region of activations."""

    def steps(
        self, product: Operator, at: int, spill: bool
    ) -> tuple[Sequence[GemmStep], list[GemmTile]]:
        """Steps of a single product and their tiles, in the same order.

        ``at``: first burst of its weights; ``spill``: its activations cross the memory's bus.
        """
        dims, first = (product.m, product.n, product.k), self.activation_burst
        places = GemmPlaces(
            at,
            first if spill else None,
            first + self.bursts(product.input_bytes + product.kv_read_bytes) if spill else None,
        )
        size = self.element_bytes
        tiling = tile_product(*dims, size, self.npu, self.memory, activations_move=spill)
        steps = gemm_steps(dims, tiling, places, size, self.npu, self.memory, product.weight_bytes)
        return steps, list(chain(*tiling.cores))

    def bursts(self, size: int) -> int:
        """Bursts of ``size`` bytes."""
        return -(-size // self.memory.organization.burst_bytes)


@cache
def product_tiles(tiling: str) -> type[ProductTiles]:
    """What ``npu.tiling`` asks for.

    Parameters
    ----------
    tiling
        One of ``TILINGS``, or the name of a module of that kind.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    if tiling in TILINGS:
        return ProductTiles
    made: type[ProductTiles] = load_module("tiling", tiling).Tiles
    return made
