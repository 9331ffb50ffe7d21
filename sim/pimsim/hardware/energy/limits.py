"""Powers that the input sets a limit to: of a device, of PIM in a stack, of DRAM at its pins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pimsim.config.errors import InputError

__all__ = ["PowerLimit", "check_limits"]

_TOLERANCE = 1e-9
"""Relative; sums of a few floats."""


@dataclass(frozen=True)
class PowerLimit:
    """A power that the input sets a limit to."""

    key: str
    """Key of the limit."""
    what: str
    found_w: float
    allowed_w: float


def check_limits(limits: Iterable[PowerLimit]) -> None:
    """Check that no power is above its limit.

    Parameters
    ----------
    limits
        In the order in which they are looked at.

    Raises
    ------
    InputError
        For the first power that is above its limit, by more than sums of floats are off.
    """
    for limit in limits:
        if limit.found_w > limit.allowed_w * (1 + _TOLERANCE):
            raise InputError(
                f"{limit.key}: {limit.what} draws {limit.found_w:.4g} W; allowed: "
                f"{limit.allowed_w:.4g} W"
            )
