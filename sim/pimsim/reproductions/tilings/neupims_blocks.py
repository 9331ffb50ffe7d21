"""The NeuPIMs artifact's tiles: halved until they fit, operands moved block by block.

Activations are loaded between the weights that they meet; sizes count in blocks of R x R elements
(MECHANISMS 0.5).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pimsim.config.npu import NpuConfig
from pimsim.hardware.dram.system import Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.tiling import GemmTile, tile_gemm
from pimsim.mapping.operands import operands
from pimsim.mapping.product_tiles import ProductTiles
from pimsim.mapping.tasks import GemmStep
from pimsim.mapping.tile_layouts import Tiled
from pimsim.reproductions.neupims_operands import TileBlock, gemm_operands, operand_stream
from pimsim.workload.operators import Operator

__all__ = ["Tiles", "check"]


def check(section: NpuConfig) -> None:
    """Raise where the NPU is none that the artifact's branches have.

    Parameters
    ----------
    section
        That asks for the tiling.

    Raises
    ------
    ValueError
        With the key.
    """
    for key, found, usual in (
        ("cores", section.cores, 1),
        ("network", section.network, None),
    ):
        if found != usual:
            raise ValueError(f"{key} is not for tiling {section.tiling!r}, which knows one core")
    if not issubclass(operands(section.operand_layout).layout, Tiled):
        raise ValueError(
            f"operand_layout {section.operand_layout!r} is not for tiling {section.tiling!r}"
        )


class Tiles(ProductTiles):
    """Tiles of the artifact's rule."""

    def steps(
        self, product: Operator, at: int, spill: bool
    ) -> tuple[list[GemmStep], list[GemmTile]]:
        """See ``ProductTiles``."""
        tiles = tile_gemm(
            product.m, product.n, product.k, self.element_bytes, self.npu.scratchpad,
            "halve-largest",
        )  # fmt: skip
        bias = max(product.weight_bytes - product.n * product.k * self.element_bytes, 0)
        if operands(self.npu.operand_layout).one_by_one:
            return [self._by_operand(product, tile, bias > 0) for tile in tiles], list(tiles)
        steps: list[GemmStep] = []
        for number, tile in enumerate(tiles):
            weights = tile.weight_bytes + (bias if number == 0 else 0)
            ride = tile.input_bytes + tile.partial_bytes if spill else 0
            loads = []
            if weights + ride:
                bursts = self.bursts(weights + ride)
                loads.append(Stream(at, bursts, track_blocks=True, weight_bytes=weights))
                at += self.bursts(tile.weight_bytes)
            stored = self.bursts(self.stored_bytes(product, tile.output_bytes)) if spill else 0
            stores = (Stream(self.activation_burst, stored, write=True),) if stored else ()
            block = min(product.m, self.npu.systolic.rows) * product.k * self.element_bytes
            scale = 1.0 + min(ride, block) / weights if ride and weights else 1.0
            plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
            steps.append(GemmStep(plan, tuple(loads), stores, 0, scale))
        return steps, list(tiles)

    def _by_operand(self, product: Operator, tile: GemmTile, has_bias: bool) -> GemmStep:
        """Loads and stores in the artifact's order, operand by operand."""
        found = gemm_operands(
            tile, self.npu.systolic.rows, self.element_bytes, has_bias,
            partial(self.stored_block, product, tile),
        )  # fmt: skip
        burst_bytes = self.memory.organization.burst_bytes
        plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
        stream = operand_stream(found.loads, burst_bytes, track=True)
        loads = (replace(stream, weight_bytes=found.weight_bytes),)
        stores = tuple(operand_stream((size,), burst_bytes, write=True) for size in found.stores)
        return GemmStep(
            plan, loads, stores, 0, needed=found.needed, stored_after=found.stored_after
        )

    def stored_bytes(self, product: Operator, output_bytes: int) -> int:
        """Of ``output_bytes`` of a tile's results, those that go back to memory."""
        del product
        return output_bytes

    def stored_block(self, product: Operator, tile: GemmTile, block: TileBlock) -> tuple[int, int]:
        """Rows and columns of a block of the tile's results that are written."""
        del product, tile
        return block.rows, block.columns
