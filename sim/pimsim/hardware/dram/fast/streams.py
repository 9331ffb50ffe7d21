"""Transfers as work of each channel: ticks at the rates that the command engine shows.

A stream takes its rate for each burst, or that of a chain where others are under way, which short
streams keep up less well; where it lies in the banks of the one under way, but not behind it, both
lose. Scattered bursts are timed as they are. What lies where decides about the last two, so that
what one run has found out is not another's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.fast.probe import STREAM_BURSTS, Probe
from pimsim.hardware.dram.transfers import Rows, Scatter, Stream

__all__ = ["StreamWork", "Work"]

Ints = NDArray[np.int64]
MOST_BURSTS = 1024
"""Of each of two streams that are run at once to see what they lose."""


@dataclass(frozen=True)
class Work:
    """Of what was asked for at once, by channel."""

    ticks: Ints
    last: Ints
    """Ticks of its last stream."""
    reads: Ints
    """Bursts."""
    writes: Ints


class StreamWork:
    """What the transfers of one run cost."""

    def __init__(self, memory: MemoryConfig, probe: Probe) -> None:
        org = memory.organization
        self.probe = probe
        self._map = AddressMap.parse(memory.stream_map, org)
        self._channels = org.channels
        self._row_set = org.columns * org.banks * org.ranks
        """Bursts of a channel from a row to the next one of the same bank."""
        self._before: Stream | None = None
        self._known: dict[Hashable, int] = {}

    @property
    def beside(self) -> int:
        """Bursts a channel of the streams that are asked for now."""
        return STREAM_BURSTS[-1] if self._before is None else self._before.bursts

    def join(self, other: StreamWork) -> None:
        """Be of the same run as ``other``: know what it does, and the other way round."""
        self._known = other._known

    def runs(self, stream: Stream | Rows) -> tuple[Ints, Ints]:
        """First burst, in the channel's own numbers, and bursts of each run on each channel,
        (runs, channels)."""
        first = np.asarray(stream.first_burst, np.int64).reshape(-1, 1)
        bursts = np.asarray(stream.bursts, np.int64).reshape(-1, 1)
        begin = self._map.below(first)
        return begin, self._map.below(first + bursts) - begin

    def share(self, stream: Stream | Rows, channel: int) -> list[Stream | Rows]:
        """The part of a stream that lies on ``channel``, in that channel's own numbers."""
        begin, bursts = (each[:, channel] for each in self.runs(stream))
        kept = bursts > 0
        if not kept.any():
            return []
        if isinstance(stream, Rows):
            return [Rows(begin[kept], bursts[kept], stream.write)]
        return [replace(stream, first_burst=int(begin[0]), bursts=int(bursts[0]))]

    def of(
        self, streams: Sequence[Stream | Rows], scatters: Sequence[Scatter], idle: NDArray[np.bool_]
    ) -> Work:  # fmt: skip
        """Take note of streams and scatters in order. ``idle``: channels where nothing is under
        way."""
        probe = self.probe
        ticks = np.zeros(self._channels, np.int64)
        last = ticks
        parts = [self.runs(stream) for stream in streams]
        sizes = [bursts.sum(axis=0) for _, bursts in parts]
        counted = np.zeros((2, self._channels), np.int64)  # reads, writes
        for stream, own in zip(streams, sizes, strict=True):
            counted[int(stream.write)] += own
        read_ticks = np.where(idle, probe.reads.ticks, probe.chain_ticks(counted[0]))
        for stream, (begin, bursts), own in zip(streams, parts, sizes, strict=True):
            last = own * (probe.writes.ticks if stream.write else read_ticks)
            lost = self._lost(stream, begin, bursts, bool(idle.all()))
            ticks += last + np.where(own > 0, lost, 0)
        if scatters:
            ticks += self._scattered(scatters, counted)
        return Work(ticks, last, counted[0], counted[1])

    def _lost(self, stream: Stream | Rows, begin: Ints, bursts: Ints, idle: bool) -> int:
        """Ticks that a stream and the one before it lose to each other."""
        channel = int(bursts.sum(axis=0).argmax())
        size = int(bursts[:, channel].sum())
        if not size:
            return 0
        own = Stream(int(begin[0, channel]), size, write=stream.write)
        before, self._before = self._before, own
        follows = before is not None and before.first_burst + before.bursts == own.first_burst
        if before is None or follows or idle or isinstance(stream, Rows):
            return 0
        late = max(before.bursts - MOST_BURSTS, 0)
        before = replace(before, first_burst=before.first_burst + late, bursts=before.bursts - late)
        own = replace(own, bursts=min(size, MOST_BURSTS))
        where = [(s.first_burst % self._row_set, s.bursts, s.write) for s in (before, own)]
        rows = [s.first_burst // self._row_set for s in (before, own)]
        key = ("lost", *where, rows[0] == rows[1])
        if key not in self._known:
            self._known[key] = self.probe.lost_ticks(before, own)
        return self._known[key]

    def _scattered(self, scatters: Sequence[Scatter], counted: Ints) -> Ints:
        """Ticks by channel; counts the bursts in. The fullest channel says what a burst takes."""
        bursts = np.zeros(self._channels, dtype=np.int64)
        for scatter in scatters:
            bursts[scatter.channel] += scatter.count
            counted[int(scatter.write), scatter.channel] += scatter.count
        fullest = int(bursts.argmax())
        own = [scatter for scatter in scatters if scatter.channel == fullest]
        key = ("scatter", *sorted((s.count, s.stride, s.write) for s in own))
        if key not in self._known:
            self._known[key] = self.probe.scatter_ticks(own)
        return bursts * self._known[key]
