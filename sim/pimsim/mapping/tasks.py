"""What the units are asked to do: the program of an iteration, one task an operator.

A task is what is left of an operator once it has been placed: bytes at addresses, a plan for the
arrays, cycles of a vector unit, commands for each channel. It knows no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.system import ResultWork, Rows, Scatter, Stream
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.hardware.pim.operations import PimOperation

__all__ = [
    "WHOLE_BATCH", "AnyTask", "BlockProgram", "GemmBlock", "GemmStep", "NpuTask", "PimTask",
    "StreamTask", "Task", "TaskId",
]  # fmt: skip

WHOLE_BATCH = -1
"""The part of a task that is of all sub-batches."""


class TaskId(NamedTuple):
    """Which task of a step: its place in the program."""

    part: int
    """Number of the (sub-)batch, or ``WHOLE_BATCH``."""
    block: int
    """Number of the simulated block; what lies outside the blocks has numbers behind them."""
    number: int
    """Of the block's tasks."""


@dataclass(frozen=True)
class Task:
    """What every task says about the operator that it carries out."""

    name: str
    kind: str
    unit: str
    """``systolic``, ``vector``, ``dma``, ``pim`` or ``link``."""
    layer: int
    flops: int
    weight_bytes: int
    kv_bytes: int
    id: TaskId = field(default=TaskId(0, 0, 0), kw_only=True)
    after: tuple[TaskId, ...] = field(default=(), kw_only=True)
    """Tasks that must be done before this one starts."""
    feeds_pim: bool = field(default=False, kw_only=True)
    """A task of PIM in its block waits for it, if not for it alone."""
    entries: tuple[int, ...] = field(default=(), kw_only=True)
    """The request group: numbers of the entries of its (sub-)batch that it works for; empty: all of
    them."""


@dataclass(frozen=True)
class GemmBlock:
    """A block of a tile's results, all of the tile's k: as large as one array."""

    plan: GemmPlan
    loads: tuple[Rows, ...]
    """Operands that no earlier block of the tile has brought; each is waited for as a whole."""
    stores: tuple[Rows, ...]


@dataclass(frozen=True)
class GemmStep:
    """One tile of a matrix product: what must be loaded, computed and stored."""

    plan: GemmPlan
    loads: tuple[Stream | Rows, ...]
    stores: tuple[Stream | Rows, ...]
    inputs_first: int
    """Bytes of the loads that lie before the weights."""
    scale: float = 1.0
    """Bytes of the tracked stream for each byte of weights, where other operands ride along."""
    core: int = 0
    """Core that works on it."""
    lane: int = 0
    """Of the core's lanes, whose arrays work on it (``NpuTask.lanes``)."""
    scatters: tuple[Scatter, ...] = ()
    """What it loads from single channels, behind ``loads``."""
    waiting_cycles: int = 0
    """Of the plan's cycles, those in which the arrays wait for the vector units."""
    softmax_cycles: NDArray[np.int64] | None = None
    """Of vector units, added over units, for each step of ``plan`` that is a tile of attention,
    shape (steps,); None: they do nothing."""
    blocks: tuple[GemmBlock, ...] = ()
    """Where operands come and results leave block by block; loads and stores are then theirs."""
    needed: NDArray[np.int64] | None = None
    """Operands of the tracked stream that each step of ``plan`` waits for, shape (preloads,
    steps of each, 2), where their arrival is known one by one; else ``weight_bytes_needed``."""
    stored_after: tuple[int, ...] = ()
    """Step of ``plan`` that completes each of ``stores``; empty: the last one completes all."""


@dataclass(frozen=True)
class NpuTask(Task):
    """A task of the NPU side."""

    steps: tuple[GemmStep, ...] = ()
    """Tiles, for the systolic arrays."""
    lanes: int = 1
    """Into how many groups that work side by side each core's arrays are parted."""
    executed_macs: int = 0
    """Multiply-accumulates that the arrays do; 0: those that ``flops`` says. Tiles on the diagonal
    of causal attention are done in full."""
    weights_chosen: bool = False
    """Which weights its tiles load is known only when the tasks before it are done."""
    streams: tuple[Stream | Rows, ...] = ()
    """Loads and stores of a task without tiles, in order."""
    stream_cores: tuple[int, ...] = ()
    """The core that asks for each of the streams, which are then transfers of their own; none: all
    are one transfer of core 0."""
    scatters: tuple[Scatter, ...] = ()
    compute_cycles: int = 0
    """NPU cycles of a task without tiles, beside its loads and stores."""
    streamed_cycles: int = 0
    """Of ``compute_cycles`` of the arrays: operands stream."""
    loading_cycles: int = 0
    """The same: the operand that stays is put into the arrays and nothing streams."""
    tail_cycles: int = 0
    """NPU cycles that must follow the last load."""
    vector_unit_cycles: int = 0
    """Cycles of vector units, added over units."""
    vector_each: int = 1
    """Of these, what one vector takes, which one unit does; 1 where vectors differ."""
    vector_lane_ops: int = 0
    sram_bytes: int = 0
    link_ps: int = 0
    """Time on the links between devices."""
    link_bytes: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the arrays."""
        if self.executed_macs:
            return self.executed_macs
        return self.flops // 2 if self.unit == "systolic" else 0


@dataclass(frozen=True)
class PimTask(Task):
    """Commands for each channel, and the vector work that follows their results."""

    programs: tuple[NDArray[np.int64], ...] = ()
    marks: int = 0
    vector_work: ResultWork | None = None
    """What the vector units do with its results."""
    vector_lane_ops: int = 0
    sram_bytes: int = 0
    """Results that come, and what the vector units read and write."""
    element_bytes: int = 2
    """Width of what lies in the banks."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates beside the banks."""
        return self.flops // 2


@dataclass(frozen=True)
class StreamTask(Task):
    """An operation of a PIM design with a controller of its own."""

    operation: PimOperation
    sram_bytes: int = 0
    """Operands that go to it, and results that come."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates beside the banks."""
        return self.flops // 2


AnyTask = PimTask | NpuTask | StreamTask


@dataclass(frozen=True)
class BlockProgram:
    """One decoder block for one (sub-)batch, each group in an order that its edges allow."""

    before: tuple[NpuTask | StreamTask, ...]
    """Up to what attention needs: norm, QKV, rope, KV append."""
    attention: tuple[AnyTask, ...]
    after: tuple[NpuTask | StreamTask, ...]
    """From the projection on, what needs no expert: all to the block's end where it has none."""
    late: tuple[NpuTask | StreamTask, ...] = ()
    """The NPU's experts, and what needs any expert."""
    experts: tuple[PimTask | StreamTask, ...] = ()
    """Experts on PIM: they wait for their inputs, and what combines experts waits for them."""

    @property
    def end(self) -> tuple[AnyTask, ...]:
        """What follows attention."""
        return (*self.after, *self.late, *self.experts)

    @property
    def tasks(self) -> tuple[AnyTask, ...]:
        """All of them."""
        return (*self.before, *self.attention, *self.end)
