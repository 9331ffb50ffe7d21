"""The NeuPIMs artifact's scheduler walks requests channel by channel, not in the batch's order."""

from __future__ import annotations

from pimsim.config.run import ScheduleConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = ScheduleConfig
KEY = "request_order"


def departs(value: str) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``request_order``.
    """
    return value == "channel"
