"""N:M sparsity: of each run of M inputs N weights are stored, each with its place in the run.

Mishra et al. 2021, arXiv 2104.08378: ``N/M (b + log2 M)`` bits a weight, so 0.5 b + 1 of 2:4 and
0.5 b + 1.5 of 4:8. Weights are spread to dense ones on their way to the multipliers, which skip
nothing.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, Self

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.workload.formats import ElementFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["FORMAT", "SemiStructured", "SemiStructuredSettings"]


class SemiStructuredSettings(ConfigModel):
    """Which weights are kept."""

    keeps: int = Field(default=2, ge=1, le=64)
    """N: weights of a run that are stored."""
    of: int = Field(default=4, ge=2, le=64)
    """M: inputs of a run."""
    bits: Literal[3, 4, 8, 16] = 16
    """Of a weight that is stored, 16: the model's own; below they are integers in groups with
    scales."""
    group: int = Field(default=128, ge=0, le=1_000_000)
    """Inputs, stored or not, that share a scale of weights below 16 bits; 0: all of an output's."""

    @model_validator(mode="after")
    def _leaves_some_out(self) -> Self:
        if self.keeps >= self.of:
            raise ValueError(f"keeps is {self.keeps} of {self.of}: it must be less")
        return self


class SemiStructured(ElementFormat):
    """See the module."""

    Settings = SemiStructuredSettings
    settings: SemiStructuredSettings

    def weights(self, element_bits: int) -> WeightFormat:
        """See ``ElementFormat``."""
        asked = self.settings
        whole = asked.bits == 16
        return WeightFormat(
            "" if whole else f"int{asked.bits}", element_bits if whole else asked.bits,
            asked.group, scale_bits=0 if whole else 16, kept=Fraction(asked.keeps, asked.of),
            index_bits=(asked.of - 1).bit_length(), period=asked.of,
        )  # fmt: skip


FORMAT = SemiStructured
