"""GPUs: prefill's attention and products beside measured kernels."""

from __future__ import annotations

from pimsim.validate import gpu
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("gpu", "prefill on GPUs beside measured kernels", gpu.rows)
