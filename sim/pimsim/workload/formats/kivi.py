"""KIVI: a cache of 2 or 4 bits, keys packed by channel and values by token.

Liu et al. 2024, arXiv 2402.02750. Groups of 32 elements share a scale and a zero point of 16 bits
each, so 3.0 bits an element of 2; keys' groups go over 32 tokens of a channel, so that the last
``residual`` tokens wait in the model's own elements. Each token is written as it comes and, once it
is none of the last, packed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_cache import CacheFormat

__all__ = ["FORMAT", "Kivi", "KiviSettings"]


class KiviSettings(ConfigModel):
    """How the cache is packed."""

    bits: Literal[2, 4] = 2
    """Of an element."""
    group: int = Field(default=32, ge=1, le=1_000_000)
    """Elements that share a scale and a zero point: tokens of a key's channel, channels of a
    token's value."""
    residual: int = Field(default=128, ge=0, le=1_000_000)
    """Last tokens that are not packed."""


class Kivi(ElementFormat):
    """See the module."""

    Settings = KiviSettings
    settings: KiviSettings

    def cache(self) -> CacheFormat:
        """See ``ElementFormat``."""
        asked = self.settings
        return CacheFormat(
            f"int{asked.bits}",
            asked.bits,
            asked.group,
            16,
            16,
            asked.residual,
            keys_by_channel=True,
        )


FORMAT = Kivi
