"""The NPU: systolic arrays, vector units, scratchpad."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName
from pimsim.config.units import Bytes, Hertz

__all__ = ["NetworkConfig", "NpuConfig", "ScratchpadConfig", "SystolicConfig", "VectorConfig"]

Dataflow = Annotated[str, ModuleName("dataflow")]
TILINGS = ("least-traffic", "least-time", "gemmini")
Tiling = Annotated[str, ModuleName("tiling", TILINGS)]
OperandLayout = Annotated[str, ModuleName("operand_layout", ("tiled", "row-major"))]
Preload = Literal["exposed", "hidden"]


class SystolicConfig(ConfigModel):
    """``arrays`` systolic arrays of ``rows`` x ``cols`` processing elements."""

    arrays: int = Field(ge=1, le=4096)
    """Arrays of one core; they share the work of each of its tiles."""
    rows: int = Field(ge=1, le=4096)
    """Processing elements along k of C[m, n] = A[m, k] B[k, n] (B: weights); ``os``: along m."""
    cols: int = Field(ge=1, le=4096)
    """Along n; ``is``: along m."""
    dataflow: Dataflow = "ws"
    """Which operand stays in the array: weight (``ws``), output (``os``) or input (``is``), or a
    plugin's."""
    preload: Preload = "hidden"
    """``exposed``: SCALE-Sim 3's closed form, folds never overlap. ``hidden``: the next fold's
    stationary operand loads while the current one computes (ONNXim: max(streamed, rows) a fold)."""
    fetch_cycles: int = Field(default=0, ge=0, le=10_000)
    """From the scratchpad to the array's edge; only an array that works hides it, so that one
    which has drained starts so much later (ONNXim's SystolicWS: rows - 1)."""


class VectorConfig(ConfigModel):
    """SIMD units for softmax, normalisation, activation and residual adds (latencies in cycles)."""

    units: int = Field(ge=1, le=4096)
    """Of all cores; each works on one vector (a row, the scores of a head) at a time."""
    lanes: int = Field(ge=1, le=65536)
    """Elements that one unit takes in a pass."""
    add_latency: int = Field(default=1, ge=1, le=100_000)
    """A pass of additions, or of another operation that has no key here (comparisons, ReLU)."""
    mul_latency: int = Field(default=1, ge=1, le=100_000)
    """A pass of multiplications, or a scalar one of a norm."""
    exp_latency: int = Field(default=1, ge=1, le=100_000)
    """A pass of exponentials, in softmax and SiLU."""
    gelu_latency: int = Field(default=1, ge=1, le=100_000)
    """A pass of GELU."""
    sqrt_latency: int = Field(default=1, ge=1, le=100_000)
    """A square root, one for each vector of a norm."""
    add_tree_latency: int = Field(default=1, ge=1, le=100_000)
    """A pass of the tree that sums ``lanes`` elements, or finds their maximum."""
    timing: Annotated[str, ModuleName("vector_timing", ("passes",))] = "passes"
    """What an operation takes. ``passes``: the passes of its formula over all of its elements, and
    it waits for a unit that is free. Or as the module of that name has it."""


class ScratchpadConfig(ConfigModel):
    """On-chip SRAM. Tiles of weights and activations live here, two at a time."""

    capacity: Bytes = Field(ge=1, le=2**40)
    """Of one core."""
    double_buffered: bool = True
    """Load the next tile while this one computes; each tile then has half the capacity."""
    activations: Literal["dram", "scratchpad"] = "scratchpad"
    """Where activations live between operators. ``dram``: every operator loads and stores them
    (ONNXim, the NeuPIMs artifact). ``scratchpad``: they stay on chip while they fit."""
    accumulator: Bytes | None = Field(default=None, ge=1, le=2**40)
    """SRAM of its own for results and partial sums of 4 bytes (Gemmini, ONNXim), two tiles at a
    time like the rest; None: they take space of the scratchpad, in the model's data type."""


class NetworkConfig(ConfigModel):
    """The on-chip network from the cores to the memory's channels: a port at each channel."""

    frequency: Hertz = Field(ge=10**6, le=10**11)
    """A channel's port takes one request in a cycle of the network."""
    latency_cycles: int = Field(default=0, ge=0, le=10_000)
    """Cycles of the network from a core's request to the channel's port."""
    ports_per_core: int = Field(default=1, ge=1, le=64)
    """Injection ports of a core, each with a queue for each channel; a port passes one request
    in a cycle of the network (ONNXim's ``icnt_injection_ports_per_core``)."""
    channel_hash: Literal["none", "ipoly"] = "none"
    """How neighbouring bursts lie on the channels. ``ipoly``: in an order that changes from row
    to row (ONNXim, up to 16 channels), so that a core's requests to a channel come from all its
    ports."""


class NpuConfig(ConfigModel):
    """The matrix side of the device."""

    frequency: Hertz = Field(ge=10**6, le=10**11)
    """Clock of arrays and vector units; NPU cycles are of it."""
    systolic: SystolicConfig
    vector: VectorConfig
    scratchpad: ScratchpadConfig
    cores: int = Field(default=1, ge=1, le=64)
    """Cores, each with the arrays and the scratchpad above; a GEMM's tiles are dealt to them,
    and they share the memory."""
    network: NetworkConfig | None = None
    """None: a channel takes a request each cycle, of one core after the other's."""
    tiling: Tiling = "least-traffic"
    """How a GEMM is cut into tiles. ``least-traffic``: the fewest bytes, of the cuts that leave
    neither arrays nor memory busy for longer than another does. ``least-time``: the
    least of the greater of computing and moving, with the first load and the last store, over
    all cores. ``gemmini``: square output tiles that fill the accumulator (Gemmini's tiled_matmul,
    ONNXim's Mapping.cc), more of them where there are fewer than cores. Or as the module of that
    name cuts it."""
    core_assignment: Literal["round-robin", "least-loaded"] = "round-robin"
    """Which core works on an output tile: in turn (ONNXim), or the one with the least work."""
    operand_layout: OperandLayout = "tiled"
    """How operands lie in DRAM. ``tiled``: each tile in one piece, in the order of use.
    ``row-major``: activations as rows of k, weights as rows of k for each output (ONNXim); a
    fold starts when all k of its columns have come, results leave a block of columns at a time,
    and bursts that a tile uses in part count in full. Or as the module of that name has them."""
    tdp_w: float | None = Field(default=None, ge=0.001, le=1e6)
    """The most that a device of it draws, memory included, as it was measured or is sold; a run
    above it is refused. None: not known."""
    prefetch_weights: bool = False
    """Stream the next product's first two tiles of weights while this one's last tile and the
    vector work and links between them are under way. Only where the scratchpad has room, two
    buffers, and weights come by themselves: activations stay on chip, operands lie in tiles."""
    launch_cycles: int = Field(default=0, ge=0, le=1_000_000)
    """NPU cycles from the end of one operator to the start of the next."""
    attention: Annotated[str, ModuleName("npu_attention", ("by-products",))] = "by-products"
    """What scores and values of one new token take. ``by-products``: a matrix product for each head
    of keys, dealt to the arrays. Or as the module of that name has it."""

    @property
    def prefetches(self) -> bool:
        """Whether weights come before the product that makes the inputs is done."""
        own = self.scratchpad.activations == "scratchpad" and self.operand_layout == "tiled"
        return self.prefetch_weights and own and self.scratchpad.double_buffered

    @model_validator(mode="after")
    def _consistent(self) -> NpuConfig:
        if self.tiling == "gemmini" and self.scratchpad.accumulator is None:
            raise ValueError("tiling 'gemmini' needs scratchpad.accumulator")
        return self
