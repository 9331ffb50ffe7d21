"""Integers of few bits in groups along the inputs, each with a scale of 16 bits.

``b + (16 + zero) / group`` bits a weight: AWQ (arXiv 2306.00978) and GPTQ (arXiv 2210.17323) store
them so, with groups of 128 unless told otherwise.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["GroupedIntegers", "GroupedIntegersSettings"]


class GroupedIntegersSettings(ConfigModel):
    """What integers share."""

    group: int = Field(default=128, ge=0, le=1_000_000)
    """Inputs that share a scale, 0: all of an output's; of a cache elements of a head's key or
    value, as many as it has at most."""
    zeros: bool = False
    """Each group has a zero point, too, as wide as an element."""


class GroupedIntegers(ElementFormat):
    """See the module."""

    Settings = GroupedIntegersSettings
    settings: GroupedIntegersSettings
    bits: ClassVar[int]
    """Of an element."""

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        zero_bits = self.bits if self.settings.zeros else 0
        return WeightFormat(f"int{self.bits}", self.bits, self.settings.group, zero_bits=zero_bits)

    def cache(self) -> CacheFormat:
        """See ``ElementFormat``."""
        zero_bits = self.bits if self.settings.zeros else 0
        return CacheFormat(f"int{self.bits}", self.bits, self.settings.group, zero_bits=zero_bits)
