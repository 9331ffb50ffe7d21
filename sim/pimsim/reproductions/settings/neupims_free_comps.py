"""The NeuPIMs artifact's last dot products before a precharge cost nothing (MECHANISMS 0.6, B4).

A bank may precharge 5 cycles after COMPS_READRES although its dot products still run.
"""

from __future__ import annotations

from pimsim.config.pim import PimConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimConfig
KEY = "timed_comps"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``timed_comps``.
    """
    return not value
