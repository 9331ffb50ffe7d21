"""AttAcc's simulator lets a softmax of no time hide projections and transfers.

It is a stream at the stacks' pins, counted as zero; the attention commands already contain it.
"""

from __future__ import annotations

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_rules import CostRules
from pimsim.mapping.kernels import Streamed

__all__ = ["Rules", "check"]


def check(section: SystemConfig) -> None:
    """Raise where no stacks do attention.

    Parameters
    ----------
    section
        That asks for the rule.

    Raises
    ------
    ValueError
        With the key.
    """
    if section.attention != "pim":
        raise ValueError(
            "cost_rules: attacc_hiding_softmax is of attention on pim, found attention on "
            f"{section.attention}"
        )


class Rules(CostRules):
    """A softmax beside the program of the stacks."""

    def hiding_softmax_s(self, softmax: Streamed, config: SystemConfig) -> float:
        """Its bytes, or its operations, at the pins' rate in bytes a second."""
        stacks = config.stacks
        assert stacks is not None
        rate = stacks.count * stacks.bandwidth_gb_per_s * 1e9
        return max(softmax.moved_bytes, softmax.flops) / rate
