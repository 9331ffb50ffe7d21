"""What happened: operators and stages with their times, units with their causes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from pimsim.engine.work import WorkOverTime

__all__ = ["OperatorRecord", "Recorder", "StageRecord", "StepRecord", "WorkTotals"]


@dataclass(frozen=True)
class OperatorRecord:
    """One operator's run. Times in picoseconds, causes in NPU cycles."""

    name: str
    kind: str
    unit: str
    layer: int
    stage: str
    start_ps: int
    end_ps: int
    flops: int
    bytes: int
    bound_ps: int
    """No machine of this size does it faster: bytes over bandwidth or work over units; without
    loads that began before it."""
    loads_ps: int = 0
    """Least time of all its loads on the data buses."""
    channel_end_ps: tuple[int, ...] = ()
    """When each channel's last command of a PIM operation went out."""
    lead_ps: int = 0
    """Time before its start in which its first loads were under way."""
    posted_bytes: int = 0
    """Of ``bytes``: writes that were still queued at its end, and what may have come before it in
    a burst that two operands share."""
    executed_flops: int = 0
    """Of the arrays, where that is more than ``flops``; 0: as many."""
    part: int = 0
    """Number of the (sub-)batch; below 0: of all of them."""
    entries: tuple[int, ...] = ()
    """Numbers of the entries of its (sub-)batch that it works for; empty: all of them."""


@dataclass(frozen=True)
class StageRecord:
    """One stage: what ran between two barriers."""

    name: str
    start_ps: int
    end_ps: int
    npu_busy_cycles: int
    pim_busy_cycles: int
    bound_ps: int
    operators: tuple[int, int] = (0, 0)
    """Its operators among the run's: the first, and the one behind the last."""


@dataclass(frozen=True)
class StepRecord:
    """What a step of a machine took. Times in picoseconds since the machine was switched on."""

    start_ps: int
    end_ps: int
    stages: tuple[int, int]
    """Its stages among the recorder's, and their totals: the first, and the one behind the last."""
    operators: tuple[int, int]
    """The same of its operators."""

    @property
    def time_ps(self) -> int:
        """From its first task's start to its last one's end."""
        return self.end_ps - self.start_ps


@dataclass(frozen=True)
class WorkTotals:
    """Everything that costs energy, from the start of the run on."""

    counter: NDArray[np.int64]
    """The channels' counters, added up."""
    macs: int = 0
    vector_lane_ops: int = 0
    sram_bytes: int = 0
    link_bytes: int = 0
    pim_read_bytes: int = 0
    """Bytes that dot products read in the banks, by commands of the memory's controller."""
    stream_bytes: int = 0
    """The same by those of a PIM design's own controller."""
    stream_macs: int = 0
    """Multiply-accumulates that operations of such a design are."""
    stream_fj: int = 0
    """What its commands cost, in femtojoule."""
    pim_link_bytes: int = 0
    """Bytes over the link to PIM's own memory."""
    pim_counter: NDArray[np.int64] | int = 0
    """Counters of the channels of that memory, added up; 0: there is none."""

    def __sub__(self, before: WorkTotals) -> WorkTotals:
        return WorkTotals(
            *(getattr(self, each.name) - getattr(before, each.name) for each in fields(self))
        )

    def __add__(self, other: WorkTotals) -> WorkTotals:
        return WorkTotals(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )


@dataclass
class Recorder:
    """Collects records while an iteration runs."""

    operators: list[OperatorRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    stage: str = ""
    totals: list[WorkTotals] = field(default_factory=list)
    """At the end of each stage."""
    npu_causes: Counter[str] = field(default_factory=Counter)
    """NPU cycles of the NPU side by cause."""
    npu_busy_cycles: int = 0
    """Cycles in which the arrays compute."""
    array_cycles: int = 0
    """Least cycles in which the arrays are taken up, the operand that stays put in included."""
    vector_unit_cycles: int = 0
    vector_lane_ops: int = 0
    sram_bytes: int = 0
    link_bytes: int = 0
    macs: Counter[str] = field(default_factory=Counter)
    work: WorkOverTime = field(default_factory=WorkOverTime)
    """The same, but for DRAM and PIM, by when it was done."""
    pim_read: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    """After each PIM operation: dot product steps of all channels, and bytes that dot products
    read, since the start."""
    stream_bytes: int = 0
    stream_macs: int = 0
    stream_fj: int = 0
    """Of a PIM design with a controller of its own (``WorkTotals``)."""
    pim_link_bytes: int = 0
    pim_commands: Counter[str] = field(default_factory=Counter)
    """The same by name, of all channels."""
    bytes_needed: Counter[str] = field(default_factory=Counter)
    bytes_moved: Counter[str] = field(default_factory=Counter)

    def total(
        self, counter: NDArray[np.int64], pim_counter: NDArray[np.int64] | int = 0
    ) -> WorkTotals:
        """All work so far, beside the channels' counters: of the device's memory, and of PIM's
        own."""
        return WorkTotals(
            counter, self.macs["npu"], self.vector_lane_ops, self.sram_bytes, self.link_bytes,
            self.bytes_moved["pim_weight"] + self.bytes_moved["pim_kv"] - self.stream_bytes,
            self.stream_bytes, self.stream_macs, self.stream_fj,
            self.pim_link_bytes, pim_counter,
        )  # fmt: skip
