"""Throughput processors by their roofline: a GPU (``xpu``), and a host that takes attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.units import Bytes

__all__ = [
    "FlashConfig",
    "HostConfig",
    "KernelConfig",
    "RooflineConfig",
    "TilingConfig",
    "XpuConfig",
    "XpuEnergy",
    "XpuStatic",
]

PeakShare = Annotated[float, Field(ge=0.001, le=1)]
"""A part of a peak that is reached."""


class XpuEnergy(ConfigModel):
    """Energy per event, in picojoule."""

    memory_pj_per_bit: float = Field(ge=0, le=1e6)
    """From the memory's cells to the device."""
    l2_pj_per_bit: float = Field(ge=0, le=1e6)
    """From L2 to an L1."""
    l1_pj_per_bit: float = Field(ge=0, le=1e6)
    """From an L1 to registers."""
    register_pj: float = Field(ge=0, le=1e6)
    """One operand of a multiply-accumulate; each has three."""
    mac_pj: float = Field(ge=0, le=1e6)
    """One multiply-accumulate, its operands apart."""


class XpuStatic(ConfigModel):
    """Static power by part, all the time."""

    core_w: float = Field(ge=0, le=1e4)
    """Of a core's multipliers."""
    sram_w_per_mib: float = Field(ge=0, le=1e4)
    """Of L1 and L2."""
    memory_w_per_gb_per_s: float = Field(ge=0, le=1e4)
    """Of the memory at rest, its controllers and PHYs, per GB/s of its peak."""
    link_w: float = Field(ge=0, le=1e5)
    """Of the links to other devices."""
    rest_w: float = Field(ge=0, le=1e5)
    """Of all else."""


class RooflineConfig(ConfigModel):
    """What bounds any processor: arithmetic and memory."""

    name: str
    """Of the processor; no figure depends on it."""
    description: str = ""
    """One line for ``pimsim list``."""
    sources: dict[str, str]
    """Source of each number, by its key."""
    peak_tflops: float = Field(ge=0.001, le=1e6)
    """With elements of two bytes; a multiply-add is two. Elements of one byte go twice as fast."""
    compute_utilisation: PeakShare
    """Part of the peak that a product reaches when all cores have a block."""
    memory_bandwidth_gb_per_s: float = Field(ge=0.001, le=1e6)
    """Peak, GB/s (10^9 bytes); of a host, one socket's."""
    memory_utilisation: PeakShare
    """Part of the bandwidth that a stream reaches when all cores have a block."""
    memory_capacity: Bytes = Field(ge=1, le=2**50)
    """Room for weights and KV cache; of a host, one socket's. Too little in all gives a warning."""


class HostConfig(RooflineConfig):
    """A processor that only streams the KV cache: one read of it, no launch, no waves."""

    sockets: int = Field(ge=1, le=64)
    """They share the devices' attention evenly."""
    transfer_gb_per_s: float = Field(ge=0.001, le=1e6)
    """One socket's link to its devices, one direction."""
    static_w: float = Field(default=0.0, ge=0, le=1e5)
    """One socket and its memory at rest."""
    memory_pj_per_bit: float = Field(default=0.0, ge=0, le=1e6)
    """A bit read from its memory."""
    flop_pj: float = Field(default=0.0, ge=0, le=1e6)
    """One operation."""


class KernelConfig(ConfigModel):
    """A kernel that streams its tensors once: a launch and a rate."""

    launch_ns: float = Field(ge=0, le=1e9)
    """Time before its first byte moves."""
    bandwidth_share: float = Field(ge=0.001, le=100)
    """Rate of inputs and output together, as a part of the memory's bandwidth; above 1 where the
    tensors are still in L2."""


class TilingConfig(ConfigModel):
    """Which tiles a product may be cut into."""

    edges: list[Annotated[int, Field(ge=1, le=65536)]] = Field(min_length=1)
    """Rows or columns of a thread block's tile."""
    block_k: int = Field(ge=1, le=65536)
    """Steps of the summed dimension that a core holds in L1."""
    l2_k_parts: int = Field(ge=1, le=65536)
    """The summed dimension passes through L2 in this many parts."""
    register_edge: int = Field(ge=1, le=65536)
    """Rows and columns of the tile that a tensor core holds in registers."""


class FlashConfig(ConfigModel):
    """The tile of fused attention, where it fits L1; unless given, what FlashAttention-2 takes for
    a paged cache."""

    query_rows: int = Field(default=64, ge=1, le=65536)
    """Queries of a head that a thread block has."""
    key_columns: int = Field(default=128, ge=1, le=65536)
    """Keys that it multiplies at a time."""


class XpuConfig(RooflineConfig):
    """A GPU: cores that take thread blocks in waves, an L1 each and one L2."""

    cores: int = Field(ge=1, le=65536)
    """Each takes one thread block at a time."""
    l1_per_core: Bytes = Field(ge=1, le=2**30)
    """L1 with shared memory; the tile of a thread block must fit."""
    l2: Bytes = Field(ge=1, le=2**40)
    """Shared by all cores; holds the tiles of several blocks."""
    tiling: TilingConfig
    flash: FlashConfig = FlashConfig()
    """Attention of several new tokens (prefill)."""
    exponential_tops: float | None = Field(default=None, ge=0.001, le=1e6)
    """10^12 exponentials a second, which the softmax of such attention takes beside the matrix
    units; None: they hold nothing back."""
    activation: KernelConfig
    add_norm: KernelConfig
    """Residual sum and norm in one kernel."""
    energy: XpuEnergy
    static: XpuStatic
    tdp_w: float | None = Field(default=None, ge=0.001, le=1e6)
    """The most that a device draws, memory included; a run above it is refused. None: not known."""

    @model_validator(mode="after")
    def _fits(self) -> XpuConfig:
        edge = min(self.tiling.edges)
        # Four bytes is the widest element that a card may have.
        need = 4 * edge * (2 * self.tiling.block_k + edge)
        if need > self.l1_per_core:
            raise ValueError(
                f"l1_per_core is {self.l1_per_core} bytes, but the smallest tile "
                f"({edge} x {edge}) needs {need}"
            )
        return self
