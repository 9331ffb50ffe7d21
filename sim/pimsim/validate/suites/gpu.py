"""GPUs: kernels and decoding beside measured ones."""

from __future__ import annotations

from pimsim.validate import gpu
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("gpu", gpu.TITLE, gpu.rows)
