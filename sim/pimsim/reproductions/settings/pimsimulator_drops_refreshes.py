"""PIMSimulator keeps one refresh that is due: one that is late when the next is due is lost."""

from __future__ import annotations

from pimsim.config.pim_controller import RefreshConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = RefreshConfig
KEY = "drops_late"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``drops_late``.
    """
    return value
