"""The NeuPIMs artifact, branch npu+pim, fills the adder pipeline at one COMP a cycle (timing.cc).

It waits tCCD_S * 6 from the first COMP to READRES, although a COMP takes a burst's time.
"""

from __future__ import annotations

from pimsim.config.pim import PimConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimConfig
KEY = "pipeline_fill"


def departs(value: str) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``pipeline_fill``.
    """
    return value == "tCCD_S"
