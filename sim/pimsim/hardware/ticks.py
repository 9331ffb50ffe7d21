"""Edges of a clock in integer picoseconds, without drift.

The event clock counts picoseconds; a clock of 1.2 GHz has a period of 833 1/3. Its edges lie at the
nearest picosecond of the exact time, edge ``n`` at ``round(n x period)``, so that the millionth is
as right as the first. This is the one place that rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ticks"]

Ints = NDArray[np.int64]
_PS_PER_S = 10**12
_WHOLE = 1 << 62
"""Products above it leave 64 bits; they are worked out one by one."""


@dataclass(frozen=True)
class Ticks:
    """A clock by its exact period.

    Parameters
    ----------
    period : Fraction
        Picoseconds, above 0.
    """

    period: Fraction

    @classmethod
    def of_frequency(cls, hertz: int) -> Ticks:
        """The clock of so many hertz."""
        return cls(Fraction(_PS_PER_S, hertz))

    @classmethod
    def of_period(cls, picoseconds: Fraction | int) -> Ticks:
        """The clock of that period."""
        return cls(Fraction(picoseconds))

    @property
    def ps(self) -> Fraction | int:
        """The period, an ``int`` where it is whole."""
        return int(self.period) if self.period.denominator == 1 else self.period

    @overload
    def edge_ps(self, number: int) -> int: ...
    @overload
    def edge_ps(self, number: Ints) -> Ints: ...
    def edge_ps(self, number: int | Ints) -> int | Ints:
        """Picosecond of edge ``number``: of so many periods from 0, halves rounded up."""
        top, bottom = self.period.numerator, self.period.denominator
        if isinstance(number, np.ndarray):
            if bottom == 1:
                return number * top
            if len(number) and int(np.abs(number).max()) > _WHOLE // (2 * top) - 1:
                return np.array([self.edge_ps(int(each)) for each in number], dtype=np.int64)
            return (2 * number * top + bottom) // (2 * bottom)
        number = int(number)
        return number * top if bottom == 1 else (2 * number * top + bottom) // (2 * bottom)

    @overload
    def cycle(self, time_ps: int) -> int: ...
    @overload
    def cycle(self, time_ps: Ints) -> Ints: ...
    def cycle(self, time_ps: int | Ints) -> int | Ints:
        """Number of the first edge at or after ``time_ps``."""
        top, bottom = self.period.numerator, self.period.denominator
        if isinstance(time_ps, np.ndarray):
            if bottom == 1:
                return -(-time_ps // top)
            return np.array([self.cycle(int(each)) for each in time_ps], dtype=np.int64)
        time_ps = int(time_ps)
        if bottom == 1:
            return -(-time_ps // top)
        # round(n x period) >= t where 2 n x period + 1 >= 2 t
        return max(-(-(2 * time_ps - 1) * bottom // (2 * top)), 0) if time_ps > 0 else 0

    def later(self, time_ps: int, cycles: int) -> int:
        """``cycles`` periods after ``time_ps``: from an edge to an edge, and as far behind an edge
        as ``time_ps`` was."""
        if self.period.denominator == 1:
            return time_ps + cycles * self.period.numerator
        before = self.cycle(time_ps)
        if self.edge_ps(before) > time_ps:
            before -= 1
        return self.edge_ps(before + cycles) + time_ps - self.edge_ps(before)
