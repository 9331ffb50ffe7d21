"""The NPU: systolic arrays, vector units, scratchpad."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.units import Bytes, Hertz

__all__ = ["NpuConfig", "ScratchpadConfig", "SystolicConfig", "VectorConfig"]

Dataflow = Literal["ws", "os", "is"]
Preload = Literal["exposed", "hidden", "artifact-overlapped", "artifact-serial"]


class SystolicConfig(ConfigModel):
    """``arrays`` systolic arrays of ``rows`` x ``cols`` processing elements."""

    arrays: int = Field(ge=1, le=4096)
    """Number of arrays that share the work of one GEMM."""
    rows: int = Field(ge=1, le=4096)
    cols: int = Field(ge=1, le=4096)
    dataflow: Dataflow = "ws"
    """Which operand stays in the array: weight, output or input."""
    preload: Preload = "hidden"
    """``exposed``: SCALE-Sim 3's closed form, folds never overlap. ``hidden``: the next fold's
    stationary operand loads while the current one computes (ONNXim: max(streamed, rows) a fold).
    ``artifact-overlapped`` and ``artifact-serial`` are what the NeuPIMs artifact does on its
    branches main and npu-only (MECHANISMS 4.10), for presets that reproduce it."""


class VectorConfig(ConfigModel):
    """SIMD units for softmax, normalisation, activation and residual adds (latencies in cycles)."""

    units: int = Field(ge=1, le=4096)
    lanes: int = Field(ge=1, le=65536)
    add_latency: int = Field(default=1, ge=1)
    mul_latency: int = Field(default=1, ge=1)
    exp_latency: int = Field(default=1, ge=1)
    gelu_latency: int = Field(default=1, ge=1)
    sqrt_latency: int = Field(default=1, ge=1)
    add_tree_latency: int = Field(default=1, ge=1)
    artifact_free: bool = False
    """The artifact's moved-from vector bug: every vector operation of the NPU side works on
    zero elements (MECHANISMS B3) and units never queue (MECHANISMS 4.11)."""


class ScratchpadConfig(ConfigModel):
    """On-chip SRAM. Tiles of weights and activations live here, two at a time."""

    capacity: Bytes
    double_buffered: bool = True
    """Load the next tile while this one computes; each tile then has half the capacity."""
    activations: Literal["dram", "scratchpad"] = "scratchpad"
    """Where activations live between operators. ``dram``: every operator loads and stores them
    (ONNXim, the NeuPIMs artifact). ``scratchpad``: they stay on chip while they fit."""


class NpuConfig(ConfigModel):
    """The matrix side of the device."""

    frequency: Hertz
    systolic: SystolicConfig
    vector: VectorConfig
    scratchpad: ScratchpadConfig
    prefetch_weights: bool = False
    """Stream the next operator's weights while this one computes, as far as the scratchpad
    has room."""
    launch_cycles: int = Field(default=0, ge=0, le=1_000_000)
    """NPU cycles from the end of one operator to the start of the next."""
    artifact_request_order: Literal["none", "device", "model"] = "none"
    """The artifact's loads and stores take their addresses from one counter and go out in the
    order of a hash set, operand by operand (MECHANISMS 0.2, Common.cc ``from_instruction``). The
    counter starts anew after 5 E^2 elements (E: hidden size), of the ``device``'s share under
    tensor parallelism or of the whole ``model``. ``none``: in order of address."""
    artifact_store_bug: bool = False
    """The artifact writes back only B * min(N, 128 * ceil(B / 128)) outputs of a GEMM
    (transposed index, MECHANISMS B2)."""
    artifact_attention: bool = False
    """npu-only branch: attention of one request at a time, head by head, 271 cycles per started
    block of 128 tokens (MECHANISMS 4.12)."""

    @model_validator(mode="after")
    def _orderly(self) -> NpuConfig:
        if self.artifact_request_order != "none":
            if not self.systolic.preload.startswith("artifact"):
                raise ValueError(
                    "artifact_request_order is the artifact's: systolic.preload must be "
                    f"'artifact-overlapped' or 'artifact-serial', found {self.systolic.preload!r}"
                )
            if self.scratchpad.activations != "dram":
                raise ValueError("artifact_request_order needs scratchpad.activations 'dram'")
        return self
