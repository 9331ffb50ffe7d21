"""What the units of a PIM design can read at most."""

from __future__ import annotations

from pimsim.config.delay import evaluate_delay
from pimsim.config.pim import PimDesignConfig

__all__ = ["unit_bandwidth"]

_PS_PER_S = 10**12


def unit_bandwidth(design: PimDesignConfig, command: str) -> float:
    """Bytes a second of all channels when ``command`` goes out as often as its rules allow.

    Only rules between two of them at one channel count: all others bind commands to fewer banks.

    Parameters
    ----------
    design
        Whose units read.
    command
        Name of one of its commands, whose reach counts.

    Returns
    -------
    float
        Bytes a second.
    """
    spacing = max(
        [1]
        + [
            evaluate_delay(rule.delay, design.all_timings, design.name)
            for rule in design.all_rules
            if rule.level == "channel" and command in rule.first and command in rule.then
        ]
    )
    organization = design.organization
    width = organization.burst_bytes * design.banks_reached(command)
    return organization.channels * width * _PS_PER_S / (spacing * design.tCK)
