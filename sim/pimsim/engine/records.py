"""What happened: operators and stages with their times, units with their causes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["OperatorRecord", "Recorder", "StageRecord"]


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
    """No machine of this size does it faster: bytes over bandwidth or work over units."""
    channel_end_ps: tuple[int, ...] = ()
    """When each channel's last command of a PIM operation went out."""


@dataclass(frozen=True)
class StageRecord:
    """One stage: what ran between two barriers."""

    name: str
    start_ps: int
    end_ps: int
    npu_busy_cycles: int
    pim_busy_cycles: int
    bound_ps: int


@dataclass
class Recorder:
    """Collects records while an iteration runs."""

    operators: list[OperatorRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    stage: str = ""
    npu_causes: Counter[str] = field(default_factory=Counter)
    """NPU cycles of the NPU side by cause."""
    npu_busy_cycles: int = 0
    """Cycles in which the arrays compute."""
    vector_unit_cycles: int = 0
    vector_lane_ops: int = 0
    sram_bytes: int = 0
    link_bytes: int = 0
    macs: Counter[str] = field(default_factory=Counter)
    bytes_needed: Counter[str] = field(default_factory=Counter)
    bytes_moved: Counter[str] = field(default_factory=Counter)
