"""AttAcc's published scheduler holds moves between buffers too while a row hit waits at their bank.

A move needs no row, but its address names a bank; it goes when it is the oldest.
"""

from __future__ import annotations

from pimsim.config.pim_controller import PimControllerConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimControllerConfig
KEY = "hits_hold_moves"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``hits_hold_moves``.
    """
    return value
