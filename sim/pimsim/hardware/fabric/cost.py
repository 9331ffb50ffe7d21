"""What a collective costs each device."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Collective"]


@dataclass(frozen=True)
class Collective:
    """What one collective costs each device."""

    time_ps: int
    link_bytes: int
    """Bytes that leave one device over its link."""

    def cycles(self, frequency_hz: int) -> int:
        """The time in started cycles of a clock."""
        return -(-self.time_ps * frequency_hz // 10**12)
