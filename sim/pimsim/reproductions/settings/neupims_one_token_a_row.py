"""The NeuPIMs artifact has the keys of one token in a row of each bank (NeuPIMSAttend.cc).

Keys that fill a part of it leave the rest empty.
"""

from __future__ import annotations

from pimsim.config.pim import PimConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimConfig
KEY = "keys_share_rows"


def departs(value: bool) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``keys_share_rows``.
    """
    return not value
