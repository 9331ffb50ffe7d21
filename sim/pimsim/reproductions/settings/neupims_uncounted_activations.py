"""The NeuPIMs artifact's G_ACT neither counts nor waits in tFAW's window of four (MECHANISMS 4.2).

An ACT and a G_ACT may follow each other in 4 or 6 cycles (timing.cc).
"""

from __future__ import annotations

from pimsim.config.pim import PimConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimConfig
KEY = "windowed_activations"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``windowed_activations``.
    """
    return not value
