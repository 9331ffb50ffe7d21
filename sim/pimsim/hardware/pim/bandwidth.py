"""What the units of a PIM design can read at most."""

from __future__ import annotations

from pimsim.config.delay import evaluate_delay
from pimsim.config.pim_stream import StreamPimConfig
from pimsim.hardware.energy.pim_stream import banks_reached

__all__ = ["unit_bandwidth"]

_PS_PER_S = 10**12


def unit_bandwidth(design: StreamPimConfig, command: str) -> float:
    """Bytes a second of all channels when ``command`` goes out as often as its rules allow.

    Only rules between two of them at one channel count: all others bind commands to fewer banks.
    """
    spacing = max(
        [1]
        + [
            evaluate_delay(rule.delay, design.timings, design.name)
            for rule in design.rules
            if rule.level == "channel" and command in rule.first and command in rule.then
        ]
    )
    organization = design.organization
    width = organization.column_bytes * banks_reached(design, design.commands[command])
    return organization.channels * width * _PS_PER_S / (spacing * design.tCK)
