"""Two clocks and one time: NPU cycles, memory cycles, picoseconds."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pimsim.hardware.ticks import Ticks

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """Converts between integer picoseconds and the cycles of both domains."""

    npu: Ticks
    memory: Ticks

    @classmethod
    def of(cls, npu_hz: int, memory_ps: Fraction | int) -> Clock:
        """NPU frequency in hertz, period of the memory's cycles in picoseconds; both exact."""
        return cls(Ticks.of_frequency(npu_hz), Ticks.of_period(memory_ps))

    @property
    def npu_ps(self) -> Fraction | int:
        """Exact period of the NPU, picoseconds."""
        return self.npu.ps

    @property
    def memory_ps(self) -> Fraction | int:
        """Exact period of the memory's cycles, picoseconds."""
        return self.memory.ps

    def npu_cycle(self, time_ps: int) -> int:
        """First NPU cycle that begins at or after ``time_ps``."""
        return self.npu.cycle(time_ps)

    def memory_cycle(self, time_ps: int) -> int:
        """First memory cycle that begins at or after ``time_ps``."""
        return self.memory.cycle(time_ps)
