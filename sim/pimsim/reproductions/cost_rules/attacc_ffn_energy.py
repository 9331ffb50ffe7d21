"""AttAcc's simulator charges the FFN's part on PIM as if the device had done it."""

from __future__ import annotations

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_rules import CostRules

__all__ = ["Rules", "check"]


def check(section: SystemConfig) -> None:
    """Raise where no part of the FFN is on PIM.

    Parameters
    ----------
    section
        That asks for the rule.

    Raises
    ------
    ValueError
        With the key.
    """
    if not section.ffn_split:
        raise ValueError("cost_rules: attacc_ffn_energy is of an FFN on PIM: it needs ffn_split")


class Rules(CostRules):
    """All of a product's energy is the device's."""

    def energy_share(self, device_share: float) -> float:
        """Whole, whatever PIM does."""
        del device_share
        return 1.0
