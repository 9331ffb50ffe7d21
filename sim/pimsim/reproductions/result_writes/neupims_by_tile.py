"""The NeuPIMs artifact writes attention's outputs for contexts above one row only (B7).

It adds and stores the values of such contexts tile by tile of banks, each time as many bytes as a
head has (NeuPIMSAttend.cc), over all channels.
"""

from __future__ import annotations

from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping import result_writes

__all__ = ["ResultWrites"]


class ResultWrites(result_writes.ResultWrites):
    """Tile by tile, over all channels."""

    spread = True

    def parts(self, shape: AttentionShape) -> int:
        """Tiles of as many dimensions as there are banks."""
        return -(-shape.value_dim // shape.banks)

    def value_bytes(self, head_bytes: int, partial: bool) -> int:
        """All of the head's, for each tile; nothing where one row holds the context."""
        return head_bytes if partial else 0
