"""What a long stream gets of a memory's peak rate: asked of the command engine."""

from __future__ import annotations

from fractions import Fraction

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.transfers import Stream

__all__ = ["sustained_share"]

_SLOTS = 12_000
"""Burst slots of a channel in the measured stream: some refresh intervals of any memory."""


def sustained_share(memory: MemoryConfig) -> Fraction:
    """Of the peak rate, what one linear stream over all channels gets: refresh, row changes and
    turns of the bus take the rest.

    Parameters
    ----------
    memory : MemoryConfig
        Of a device.

    Returns
    -------
    Fraction
        Above 0, at most 1.
    """
    system = make_memory_system(memory)
    bursts = _SLOTS * data_buses(memory)
    group = system.submit(0, [Stream(0, bursts)])
    while group.done_cycle < 0:
        system.advance(group.done_cycle + 2**40)
    least_ps = _SLOTS * burst_slot_ps(memory)
    return min(Fraction(least_ps) / (group.done_cycle * Fraction(system.cycle_ps)), Fraction(1))
