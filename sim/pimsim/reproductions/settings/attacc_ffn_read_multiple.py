"""AttAcc's simulator reads FFN weights on PIM at a multiple of the pins' bandwidth.

16, 8 or 1 times it by placement (bank, bank group, buffer), 9, 3 or 1 times under the power limit,
whatever rate the MAC commands have.
"""

from __future__ import annotations

from pimsim.config.system import StacksConfig

__all__ = ["KEY", "SECTION", "departs"]

SECTION = StacksConfig
KEY = "ffn_read_multiple"


def departs(value: float | None) -> bool:
    """Whether it does so with this value.

    Parameters
    ----------
    value
        Of the key ``ffn_read_multiple``.
    """
    return value is not None
