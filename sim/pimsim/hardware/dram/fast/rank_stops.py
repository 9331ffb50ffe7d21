"""Refreshes of one of several ranks, which stop the streams in it and those in others not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pimsim.hardware.dram.fast.flow import TICKS
from pimsim.hardware.dram.transfers import Stream

if TYPE_CHECKING:
    from pimsim.hardware.dram.fast.probe import Probe

__all__ = ["RankStops", "find_rank_stops"]

LEAD_CYCLES = 512
"""For which a stream has been under way when a refresh falls due, its queues full."""
PLACES = 16
"""A stream's run in a rank is looked at in such steps."""


@dataclass(frozen=True)
class RankStops:
    """What a refresh of one rank costs a stream, which lies in one rank after the other."""

    run: int = 0
    """Bursts that lie in a rank before the next one's begin; 0: a stream is in all at once."""
    stall: int = 0
    """Ticks for which a stream in the rank that is refreshed stands still."""
    ahead: int = 0
    """Bursts at the end of a rank's run that wait at their banks for the refresh while those of the
    next rank pass."""


def find_rank_stops(probe: Probe) -> RankStops:
    """Of streams of reads, where refreshes of ranks are far enough apart to see each; those of a
    single rank, which stop the clock, and of banks, are no such stops.

    Parameters
    ----------
    probe
        Whose streams and refresh are known.

    Returns
    -------
    RankStops
        Of zeros where there are no such stops.
    """
    memory = probe.memory
    if memory.controller.refresh != "all-bank" or memory.organization.ranks == 1:
        return RankStops()
    run = 1 << probe.map.position["ra"]
    ticks, interval = probe.quiet.reads.ticks, probe.interval * TICKS
    begun = min(LEAD_CYCLES * TICKS, interval // 4) // ticks
    bursts = min(begun + 2 * run, interval * 3 // 4 // ticks)
    if run < PLACES:
        return RankStops()

    def lost(left: int) -> int:
        """Ticks, with so many bursts of its rank to come when the refresh falls due: both are the
        second."""
        stream = Stream(2 * run - left - begun, bursts)
        start = 2 * probe.interval - (begun * ticks + probe.reads.latency) // TICKS
        stopped, alone = (one.cycles_from(start, stream) for one in (probe, probe.quiet))
        return (stopped - alone) * TICKS

    full = [lost(run * (PLACES - 1 - at) // PLACES) for at in range(PLACES // 4)]
    stall = sum(full) // len(full)
    passed, held = 0, min(run * 3 // 4, bursts - begun - stall // ticks)
    while held - passed > 1:
        left = (passed + held) // 2
        if lost(left) < stall // 2:
            passed = left
        else:
            held = left
    return RankStops(run, stall, passed) if stall > 0 else RankStops()
