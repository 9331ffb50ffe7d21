"""The NeuPIMs artifact writes no new keys and values."""

from __future__ import annotations

from pimsim.config.run import ScheduleConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = ScheduleConfig
KEY = "kv_append"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``kv_append``.
    """
    return not value
