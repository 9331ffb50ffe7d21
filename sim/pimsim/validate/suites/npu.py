"""NPU: SCALE-Sim's closed forms and ONNXim's products with their traffic."""

from __future__ import annotations

from pimsim.validate import npu
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("npu", "systolic arrays against SCALE-Sim 3 and ONNXim", npu.rows)
