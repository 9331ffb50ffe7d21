"""The NeuPIMs artifact's tiles with the outputs that it writes back (MECHANISMS B2).

Its output indices are not transposed, so that of a product of B tokens and N outputs only
B * min(N, R * ceil(B / R)) are stored, with arrays of R rows.
"""

from __future__ import annotations

from pimsim.hardware.npu.tiling import GemmTile
from pimsim.reproductions.neupims_operands import TileBlock
from pimsim.reproductions.tilings import neupims_blocks
from pimsim.reproductions.tilings.neupims_blocks import check
from pimsim.workload.operators import Operator

__all__ = ["Tiles", "check"]


class Tiles(neupims_blocks.Tiles):
    """Results that lie within the transposed shape alone."""

    def stored_bytes(self, product: Operator, output_bytes: int) -> int:
        """The rest is never written."""
        rows = self.npu.systolic.rows
        kept = product.m * min(product.n, rows * -(-product.m // rows)) * self.element_bytes
        return min(output_bytes, kept)

    def stored_block(self, product: Operator, tile: GemmTile, block: TileBlock) -> tuple[int, int]:
        """Block (b, c) holds rows from c, not b."""
        down = min(block.size, product.m - tile.n_start - block.column * block.size)
        across = min(block.size, product.n - tile.m_start - block.row * block.size)
        return max(down, 0), max(across, 0)
