"""Areas of building blocks, each with its source."""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel

__all__ = ["AreaConfig"]


class AreaConfig(ConfigModel):
    """What a device's area is added up from."""

    name: str
    """Of this set of numbers; no figure depends on it."""
    bank_mm2: float = Field(gt=0, le=1e4)
    """A DRAM bank of ``bank_bits``."""
    bank_bits: int = Field(gt=0, le=2**50)
    """Bits of that bank; others are scaled by theirs."""
    pim_lane_mm2: float = Field(ge=0, le=1e6)
    """A multiplier and adder beside a bank, in the DRAM process."""
    second_row_buffer_share: float = Field(ge=0, le=1e6)
    """What a second row buffer adds to a bank, as a share of it."""
    mac_um2: float = Field(gt=0, le=1e6)
    """A multiply-accumulate of a systolic array."""
    vector_lane_um2: float = Field(gt=0, le=1e6)
    """One lane of a vector unit."""
    sram_um2_per_bit: float = Field(gt=0, le=1e6)
    """Scratchpads and accumulators."""
    sources: dict[str, str]
    """Where each number was read."""
