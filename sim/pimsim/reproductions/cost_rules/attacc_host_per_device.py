"""AttAcc's simulator gives each device's attention a socket, and its link, of its own."""

from __future__ import annotations

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_rules import CostRules

__all__ = ["Rules", "check"]


def check(section: SystemConfig) -> None:
    """Raise where the host does no attention.

    Parameters
    ----------
    section
        That asks for the rule.

    Raises
    ------
    ValueError
        With the key.
    """
    if section.attention != "host":
        raise ValueError(
            "cost_rules: attacc_host_per_device is of attention on the host, found attention on "
            f"{section.attention}"
        )


class Rules(CostRules):
    """A socket for each device."""

    def host_shares(self, config: SystemConfig) -> float:
        """One, however many devices there are."""
        del config
        return 1.0
