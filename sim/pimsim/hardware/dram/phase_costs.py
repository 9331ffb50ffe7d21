"""What it costs to find the memory in another phase: a refresh more or less, another open row."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.parameters import refresh_interval

__all__ = ["PhaseCosts", "phase_costs"]


@dataclass(frozen=True)
class PhaseCosts:
    """Times in picoseconds, at most, where nothing else is done meanwhile."""

    refresh_interval: float | None
    """From one refresh of a channel to the next; None: there are none."""
    refresh: float
    """One of them: the bank is closed, refreshed and opened again."""
    row: float
    """Another row is open: it is closed, the right one opened."""


def phase_costs(memory: MemoryConfig) -> PhaseCosts:
    """What a phase costs, of the memory's own timings.

    Parameters
    ----------
    memory
        Of a device; its timings are clocks of ``tCK``, which is in picoseconds.

    Returns
    -------
    PhaseCosts
        tRFC (tRFCpb where banks are refreshed one by one), tRP and tRCDRD.
    """
    t, tck = memory.timings, float(memory.tCK)
    row = (t["tRP"] + t["tRCDRD"]) * tck
    interval = refresh_interval(memory)
    if interval >= INFINITY:
        return PhaseCosts(None, 0.0, row)
    stop = t["tRFCpb"] if memory.controller.refresh == "per-bank" else t["tRFC"]
    return PhaseCosts(interval * tck, stop * tck + row, row)
