"""Energy constants, each with its source in the YAML."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pimsim.config.base import ConfigModel

__all__ = ["EnergyConfig"]


class EnergyConfig(ConfigModel):
    """Energy per event. ``pj`` is picojoule, ``w`` watt."""

    name: str
    """Of this set of constants; no figure depends on it."""
    sources: dict[str, str]
    """Source of each constant, by its key."""
    dram_model: Literal["currents", "pj_per_bit"] = "currents"
    """``currents``: by command from IDD currents. ``pj_per_bit``: constants below."""
    dram_activate_pj_per_bit: float = Field(ge=0, le=1e6)
    """ACT, per bit of the row, for ``pj_per_bit``."""
    dram_column_pj_per_bit: float = Field(ge=0, le=1e6)
    """Cell array to bank-group multiplexer and GIO, per bit moved."""
    dram_io_pj_per_bit: float = Field(ge=0, le=1e6)
    """TSV, interposer and PHY, per bit that leaves the stack; added under both models."""
    dram_refresh_pj: float = Field(ge=0, le=1e12)
    """One all-bank REF of one rank, for ``pj_per_bit``."""
    dram_background_w_per_channel: float = Field(ge=0, le=1e4)
    """Static power of a channel, for ``pj_per_bit``."""
    pim_mac_pj: float = Field(ge=0, le=1e6)
    """One multiply-accumulate beside a bank."""
    pim_buffer_pj_per_bit: float = Field(ge=0, le=1e6)
    """Global (operand) buffer, per bit read or written."""
    pim_read_factor: float = Field(ge=0, le=1e3)
    """Array energy of one bank's COMP column as a multiple of a read's array energy."""
    npu_mac_pj: float = Field(ge=0, le=1e6)
    """One multiply-accumulate of the systolic arrays."""
    vector_op_pj: float = Field(ge=0, le=1e6)
    """One lane's operation."""
    sram_pj_per_bit: float = Field(ge=0, le=1e6)
    """Scratchpad, per bit read or written."""
    link_pj_per_bit: float = Field(ge=0, le=1e6)
    """Per bit that leaves a device over its link to the others."""
    npu_static_w: float = Field(ge=0, le=1e5)
    """Static power of one device's NPU, all the time."""
