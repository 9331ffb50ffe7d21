"""MXFP4: 32 elements of e2m1 share a scale of e8m0, 4.25 bits a weight.

OCP Microscaling Formats (MX) 1.0, section 5.
"""

from __future__ import annotations

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["FORMAT", "Mxfp4", "Mxfp4Settings"]


class Mxfp4Settings(ConfigModel):
    """It leaves nothing open."""


class Mxfp4(ElementFormat):
    """See the module."""

    Settings = Mxfp4Settings
    settings: Mxfp4Settings

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        return WeightFormat("f4e2m1", 4, 32, scale_dtype="f8e8m0", scale_bits=8)

    def cache(self) -> CacheFormat:
        """See ``ElementFormat``."""
        return CacheFormat("f4e2m1", 4, 32, 8, scale_dtype="f8e8m0")


FORMAT = Mxfp4
