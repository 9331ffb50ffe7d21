"""Two clocks and one time: NPU cycles, memory cycles, picoseconds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """Converts between integer picoseconds and the cycles of both domains."""

    npu_ps: int
    memory_ps: int

    @classmethod
    def of(cls, npu_hz: int, memory_ps: int) -> Clock:
        """NPU frequency in hertz (its period is rounded to a picosecond), tCK in picoseconds."""
        return cls(max(round(10**12 / npu_hz), 1), memory_ps)

    def npu_cycle(self, time_ps: int) -> int:
        """First NPU cycle that begins at or after ``time_ps``."""
        return -(-time_ps // self.npu_ps)

    def memory_cycle(self, time_ps: int) -> int:
        """First memory cycle that begins at or after ``time_ps``."""
        return -(-time_ps // self.memory_ps)
