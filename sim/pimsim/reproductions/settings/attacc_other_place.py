"""AttAcc's published simulator looks up the banks that a per-bank MAC bars one level too high."""

from __future__ import annotations

from pimsim.config.pim_stream import StreamRule

__all__ = ["KEY", "SECTION", "departs"]

SECTION = StreamRule
KEY = "other_place"


def departs(value: list[str] | None) -> bool:
    """Whether it does so with this value."""
    return value is not None
