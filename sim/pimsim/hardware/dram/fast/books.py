"""What transfers count at ``fast`` fidelity: commands by bursts, and how much of them by now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.probe import Probe, StreamRate
from pimsim.hardware.dram.layout import C_BUS_BUSY, C_RD, C_REFRESHES, C_WR
from pimsim.hardware.dram.samples import shares
from pimsim.hardware.dram.transfers import Group

__all__ = ["Transfer"]

Ints = NDArray[np.int64]
_OWN = [C_RD, C_WR, *C_REFRESHES]
"""Counters of which others keep the books."""


@dataclass
class Transfer:
    """Work of a group on each channel, in ticks since the start of the run."""

    group: Group
    first: Ints
    end: Ints
    lag: Ints
    """Of what comes behind it that has come before."""
    reads: Ints
    """Bursts by channel."""
    writes: Ints
    blocks: NDArray[np.float64]
    """Of the stream whose blocks count, see ``Work``."""
    begun: int
    """Tick of its submission."""
    work: tuple[Ints, Ints]
    """Where all of its work begins and ends, by channel; ``first``: that of the stream whose blocks
    count, ``end``: without the writes that are posted."""

    def counts(self, probe: Probe) -> Ints:
        """What the channels count of it, (channels, N_COUNTERS)."""
        return sum(
            (_counts(probe, bursts, at, rate) for bursts, at, rate in self._bursts(probe)),
            np.zeros((len(self.reads), *probe.reads.counts.shape), np.int64),
        )

    def is_drained(self, done: Ints) -> bool:
        """Whether all of its work is behind ``done``, posted writes included."""
        return not bool((self.work[1] > done).any())

    def drained(self, probe: Probe, done: Ints, counted: bool) -> Ints:
        """What all channels together count of the work behind ``done``, (N_COUNTERS,); where all of
        it is ``counted``, below 0: what is not done of it."""
        found = np.zeros(probe.reads.counts.shape, np.int64)
        for bursts, at, rate in self._bursts(probe):
            part = int(shares(*self.work, done, bursts).sum())
            part -= int(bursts.sum()) if counted else 0
            others = rate.counts * part // rate.bursts
            others[_OWN] = 0
            others[C_BUS_BUSY], others[at] = part * int(probe.parameters[0]["tccd_s"]), part
            found += others
        return found

    def begun_burst_cycles(self, probe: Probe, done: Ints) -> int:
        """Cycles that the buses have given to bursts which ``drained`` does not count yet, over all
        channels: it counts whole ones, and a bus that is never idle would seem to move one more
        between two looks than it can."""
        slot = int(probe.parameters[0]["tccd_s"])
        return sum(
            int((shares(*self.work, done, bursts * slot)).sum())
            - slot * int(shares(*self.work, done, bursts).sum())
            for bursts, _, _ in self._bursts(probe)
        )

    def _bursts(self, probe: Probe) -> Iterator[tuple[Ints, int, StreamRate]]:
        if self.reads.any():
            yield self.reads, C_RD, probe.reads
        if self.writes.any():
            yield self.writes, C_WR, probe.writes


def _counts(probe: Probe, bursts: Ints, at: int, rate: StreamRate) -> Ints:
    """What so many bursts of a kind count, (len(bursts), N_COUNTERS)."""
    counts: Ints = bursts[:, None] * rate.counts[None, :] // rate.bursts
    counts[:, _OWN] = 0
    counts[:, C_BUS_BUSY] = bursts * int(probe.parameters[0]["tccd_s"])
    counts[:, at] = bursts
    return counts
