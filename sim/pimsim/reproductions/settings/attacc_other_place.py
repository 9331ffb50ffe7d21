"""AttAcc's published simulator looks up the banks that a per-bank MAC bars one level too high."""

from __future__ import annotations

from pimsim.config.rules import Rule

__all__ = ["KEY", "SECTION", "departs"]

SECTION = Rule
KEY = "other_place"


def departs(value: list[str] | None) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``other_place``.
    """
    return value is not None
