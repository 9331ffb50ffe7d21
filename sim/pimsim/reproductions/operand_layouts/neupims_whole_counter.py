"""The NeuPIMs artifact, branch npu-only, has a counter of addresses that is not shared by devices.

It starts anew after 5 E^2 elements of the whole model; all else is as on branch main.
"""

from __future__ import annotations

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.reproductions.operand_layouts import neupims_counter
from pimsim.reproductions.operand_layouts.neupims_counter import check

__all__ = ["Operands", "check"]


class Operands(neupims_counter.Operands):
    """Operands where that counter stands."""

    def request_order(self, memory: MemoryConfig, hidden: int, tp: int) -> RequestOrder:
        """The counter, of the whole model."""
        del tp
        return super().request_order(memory, hidden, 1)
