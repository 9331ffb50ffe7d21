"""Unstructured sparsity: weights that are not zero are stored, and a bit of each says which.

``(1 - zeros) b + 1`` bits a weight, as SparseGPT (arXiv 2301.00774) counts it; without the bitmap
zeros are stored, too, and nothing is saved. Weights are spread to dense ones on their way to the
multipliers, which skip nothing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["FORMAT", "Unstructured", "UnstructuredSettings"]


class UnstructuredSettings(ConfigModel):
    """Which weights are kept."""

    zeros: float = Field(default=0.5, gt=0, lt=1)
    """Part of the weights that is zero."""
    index: Literal["bitmap", "none"] = "bitmap"
    """How the others are found; ``none``: zeros are stored, too."""
    bits: Literal[3, 4, 8, 16] = 16
    """Of a weight, 16: the model's own; below they are integers in groups with scales."""
    group: int = Field(default=128, ge=0, le=1_000_000)
    """Inputs, stored or not, that share a scale of weights below 16 bits; 0: all of an output's."""


class Unstructured(ElementFormat):
    """See the module."""

    Settings = UnstructuredSettings
    settings: UnstructuredSettings

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        asked = self.settings
        whole, found = asked.bits == 16, asked.index == "bitmap"
        return WeightFormat(
            "" if whole else f"int{asked.bits}", element_bits if whole else asked.bits,
            asked.group, scale_bits=0 if whole else 16, bitmap=found,
            kept=1 - Fraction(str(asked.zeros)) if found else Fraction(1),
        )  # fmt: skip


FORMAT = Unstructured
