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
    pim_array_factor: float = Field(ge=0, le=1e3)
    """Array energy of a byte that a dot product reads, as a multiple of a read's, I/O apart."""
    npu_mac_pj: float = Field(ge=0, le=1e6)
    """One multiply-accumulate of the systolic arrays."""
    vector_op_pj: float = Field(ge=0, le=1e6)
    """One lane's operation."""
    sram_pj_per_bit: float = Field(ge=0, le=1e6)
    """Scratchpad, per bit read or written."""
    link_pj_per_bit: float = Field(ge=0, le=1e6)
    """Per bit that leaves a device over its link to the others."""
    static_array_w_per_mac: float = Field(ge=0, le=1e5)
    """Static power of a multiply-accumulate of the arrays, all the time."""
    static_vector_w_per_lane: float = Field(ge=0, le=1e5)
    """Of a lane of a vector unit."""
    static_sram_w_per_mib: float = Field(ge=0, le=1e5)
    """Of a MiB of scratchpad or accumulator."""
    static_memory_w_per_gb_per_s: float = Field(ge=0, le=1e5)
    """Of the memory's controllers and PHYs, per GB/s at its pins; the DRAM's own standby and
    refresh are counted with its commands."""
    static_link_w_per_gb_per_s: float = Field(ge=0, le=1e5)
    """Of the links to other devices, per GB/s in one direction."""
    static_pim_w_per_lane: float = Field(ge=0, le=1e5)
    """Of a multiplier beside a bank."""
    static_rest_w: float = Field(ge=0, le=1e5)
    """Of all else in a device, whatever its size: control, network, host interface, clocks."""
