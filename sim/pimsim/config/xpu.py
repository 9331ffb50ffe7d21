"""Throughput processors by their roofline: a GPU (``xpu``), and a host that takes attention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName
from pimsim.config.units import Bytes, Hertz

__all__ = [
    "DecodeKernel", "ExpertTile", "ExpertsKernel", "FlashConfig", "FlashKernel", "GemmKernel",
    "HostConfig", "KernelConfig", "RooflineConfig", "SiliconConfig", "TilingConfig", "XpuConfig",
    "XpuEnergy", "XpuStatic",
]  # fmt: skip

PeakShare = Annotated[float, Field(ge=0.001, le=1)]
"""A part of a peak that is reached."""
Edge = Annotated[int, Field(ge=1, le=65536)]
"""Elements of a side of a tile."""


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
    """With elements of two bytes; a multiply-add is two."""
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


class GemmKernel(ConfigModel):
    """Dense products as cuBLAS makes them."""

    tiles: list[Annotated[list[Edge], Field(min_length=2, max_length=2)]] = Field(min_length=1)
    """Rows and columns of a thread block's tile, as the instructions of the matrix units allow."""
    cluster_blocks: int = Field(ge=1, le=16)
    """Blocks that L2 sends an operand that they share once (multicast)."""
    launch_ns: float = Field(ge=0, le=1e6)
    """From the launch to the first operand, and from the last result to the end."""
    reduction_ns: float = Field(ge=0, le=1e6)
    """Adding what several blocks summed of one tile, where tiles are cut along the depth."""
    burst_utilisation: PeakShare
    """Part of the peak that a product reaches before power lowers the clock."""
    settle_us: float = Field(ge=0.001, le=1e6)
    """Arithmetic after which the rate is half way from there to ``compute_utilisation``."""


class FlashKernel(ConfigModel):
    """Fused attention of several new tokens."""

    blocks_per_core: int = Field(ge=1, le=32)
    """Thread blocks that share a core and its rate, where there are more blocks than cores."""
    packs_groups: bool
    """The queries of a group that share keys are rows of one block."""
    longest_first: bool
    """A head's blocks start with the last queries, which see the most keys; else with the first."""
    launch_ns: float = Field(ge=0, le=1e6)
    """All that comes before and after the blocks: launches, the write of new keys and values."""
    block_ns: float = Field(ge=0, le=1e6)
    """A block's first loads and last stores."""
    softmax_cost: float = Field(ge=0, le=100)
    """What the matrix units wait for softmax, as a multiple of the time of its exponentials."""


class DecodeKernel(ConfigModel):
    """Attention of single tokens, keys cut into pieces (flash-decoding)."""

    query_rows: int = Field(ge=1, le=65536)
    """Rows of a block's tile; a group of queries fills it with copies of nothing."""
    launch_ns: float = Field(ge=0, le=1e6)
    """All that comes before and after the blocks, but for combining and regrouping."""
    block_ns: float = Field(ge=0, le=1e6)
    """A block's first loads and last stores."""
    combine_ns: float = Field(ge=0, le=1e6)
    """Combining the results of pieces, where keys are cut."""
    regroup_ns: float = Field(ge=0, le=1e6)
    """Copies of queries and results, where several requests have groups over several heads."""
    memory_utilisation: PeakShare
    """Part of the bandwidth that the stream of keys and values reaches."""
    splits_single: bool
    """Keys are cut where each head has its own, too; else only where queries share them."""

    @model_validator(mode="after")
    def _regroups(self) -> DecodeKernel:
        if self.splits_single and self.regroup_ns:
            raise ValueError(
                f"regroup_ns is {self.regroup_ns:g}, but splits_single is true: queries are "
                "regrouped only where it is false"
            )
        return self


class ExpertTile(ConfigModel):
    """The tile of experts' products, for steps within all bounds that are given."""

    most_tokens: int | None = Field(default=None, ge=1, le=2**30)
    """Tokens of the step, before each goes to several experts."""
    most_tokens_per_expert: float | None = Field(default=None, ge=0.001, le=2**30)
    """Tokens of the step, before each goes to several experts, over experts of the device."""
    least_columns: int = Field(default=0, ge=0, le=2**30)
    """Columns of the experts' first product."""
    rows: Edge
    """Tokens of an expert that a thread block has; each expert's are padded to whole tiles."""
    columns: Edge
    """Columns of a product that a thread block has."""
    depth: Edge
    """Steps of the summed dimension between two waits for loads."""


class ExpertsKernel(ConfigModel):
    """Experts as one launch for each of their two products."""

    tiles: list[ExpertTile] = Field(min_length=1)
    """The first that fits is taken; the last has no bounds."""
    stages: int = Field(ge=2, le=64)
    """Tiles of operands that a block holds: one is multiplied, the others are on their way."""
    launch_ns: float = Field(ge=0, le=1e6)
    """All launches: routing, sorting, two products, activation, sum."""
    step_ns: float = Field(ge=0, le=1e5)
    """What a step of the summed dimension waits for, beside its arithmetic."""
    memory_utilisation: PeakShare
    """Part of the bandwidth that the stream of experts' weights reaches."""
    overlap: float = Field(ge=1, le=16)
    """Exponent of the norm by which arithmetic and loads hide one another; 1: not at all."""
    fuses_activation: bool
    """The activation is part of the first product."""
    skips_remote: bool
    """Rows of experts on other devices cost nothing; else they are filled with zeros and summed."""

    @model_validator(mode="after")
    def _last_takes_all(self) -> ExpertsKernel:
        last = self.tiles[-1]
        if last.most_tokens or last.most_tokens_per_expert or last.least_columns:
            raise ValueError("tiles: the last one must take every step: it has a bound")
        return self


class SiliconConfig(ConfigModel):
    """What kernels do on the device, as its data sheet and measurements say."""

    l2_gb_per_s: float = Field(ge=0.001, le=1e7)
    """From L2 to all cores."""
    memory_latency_ns: float = Field(ge=0.001, le=1e6)
    """Of a load from memory under load."""
    gemm: GemmKernel
    flash: FlashKernel
    decode: DecodeKernel
    experts: ExpertsKernel | None = None
    """None: not measured on this device."""


class XpuConfig(RooflineConfig):
    """A GPU: cores that take thread blocks in waves, an L1 each and one L2."""

    kernels: Annotated[str, ModuleName("gpu_kernels", ("silicon",))] = "silicon"
    """How time comes about: as measured devices (``silicon``), or as the module of that name."""
    silicon: SiliconConfig | None = None
    """What ``kernels: silicon`` needs."""
    fp8_tflops: float | None = Field(default=None, ge=0.001, le=1e6)
    """Peak with elements of one byte; None: twice ``peak_tflops``."""
    frequency: Hertz = Field(ge=10**6, le=10**11)
    """Clock of the cores at which ``peak_tflops`` holds; cycles are counted in it."""
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
        if self.kernels == "silicon" and self.silicon is None:
            raise ValueError("kernels is 'silicon', which needs a silicon section")
        if self.kernels != "silicon" and self.silicon is not None:
            raise ValueError(f"kernels is {self.kernels!r}, beside which silicon would not act")
        edge = min(self.tiling.edges)
        # Four bytes is the widest element that a card may have.
        need = 4 * edge * (2 * self.tiling.block_k + edge)
        if need > self.l1_per_core:
            raise ValueError(
                f"l1_per_core is {self.l1_per_core} bytes, but the smallest tile "
                f"({edge} x {edge}) needs {need}"
            )
        return self
