"""NVFP4: 16 elements of e2m1 share a scale of e4m3, 4.5 bits a weight.

NVIDIA, "Pretraining Large Language Models with NVFP4", arXiv 2509.25149; the scale of a whole
tensor, four bytes, is not counted.
"""

from __future__ import annotations

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["FORMAT", "Nvfp4", "Nvfp4Settings"]


class Nvfp4Settings(ConfigModel):
    """It leaves nothing open."""


class Nvfp4(ElementFormat):
    """See the module."""

    Settings = Nvfp4Settings
    settings: Nvfp4Settings

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        return WeightFormat("f4e2m1", 4, 16, scale_dtype="f8e4m3fn", scale_bits=8)

    def cache(self) -> CacheFormat:
        """See ``ElementFormat``."""
        return CacheFormat("f4e2m1", 4, 16, 8, scale_dtype="f8e4m3fn")


FORMAT = Nvfp4
