"""The NeuPIMs artifact's GWRITE always reads the same row, which so stays open (MECHANISMS 4.1)."""

from __future__ import annotations

from pimsim.config.pim import PimConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = PimConfig
KEY = "operand_rows"


def departs(value: int) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``operand_rows``.
    """
    return value == 1
