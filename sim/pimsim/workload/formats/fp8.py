"""FP8: elements of e4m3 in blocks with a scale of 32 bits.

Blocks of 128 x 128 are those of DeepSeek-V3 (arXiv 2412.19437, section 3.3). A
cache of it has one scale a tensor, which takes no room.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["FORMAT", "Fp8", "Fp8Settings"]


class Fp8Settings(ConfigModel):
    """What elements share."""

    block: int = Field(default=128, ge=0, le=1_000_000)
    """Inputs and outputs of a matrix that share a scale; 0: all of them."""


class Fp8(ElementFormat):
    """See the module."""

    Settings = Fp8Settings
    settings: Fp8Settings

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        block = self.settings.block
        return WeightFormat("f8e4m3fn", 8, block, block or 2**62, "f32", 32)

    def cache(self) -> CacheFormat:
        """See ``ElementFormat``."""
        return CacheFormat("f8e4m3fn", 8, scale_bits=0)


FORMAT = Fp8
