"""Transfers as work of each channel: ticks at the rates that the command engine shows.

A stream takes its rate for each burst, or that of a chain where others are under way, which short
streams keep up less well; where it lies in the banks of the one under way, but not behind it, both
lose. Scattered bursts are timed as they are; of writes, which are answered when they are taken, the
channel has work left for whatever comes behind them. What lies where decides about the last two:
they are known by exactly what the command engine was given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.fast.arrivals import work_when_come
from pimsim.hardware.dram.fast.probe import STREAM_BURSTS, Probe
from pimsim.hardware.dram.transfers import (
    BLOCK_BYTES,
    SC_CHANNEL,
    SC_COUNT,
    SC_WRITE,
    Rows,
    Scatter,
    Stream,
    scatter_table,
)

__all__ = ["StreamWork", "Work"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
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
    posted: Ints
    """Of the ticks, those at the end that nobody waits for: writes that were answered before."""
    writing: Ints
    """Of the ticks, those of writes, the last of them."""
    stretches: Ints
    """Of the ticks, those of each stream, ranks where it lies, as far as is known, (streams,
    channels, 3): ticks, place of its first burst among those of a run in all ranks, ticks of a run
    in a rank; (0, channels, 3) where refreshes of ranks do not stop streams one by one."""
    blocks: Floats
    """Share of its tracked stream's work that is done when each block has come, on the channel
    where that is latest; none where no stream is tracked."""


class StreamWork:
    """What the transfers of one run cost, one after the other."""

    def __init__(self, memory: MemoryConfig, probe: Probe) -> None:
        self.probe = probe
        self._map = AddressMap.parse(memory.stream_map, memory.organization)
        self._channels = memory.organization.channels
        self._row_set = row_set(self._map)
        self._before: Stream | None = None

    @property
    def beside(self) -> int:
        """Bursts a channel of the streams that are asked for now."""
        return STREAM_BURSTS[-1] if self._before is None else self._before.bursts

    def runs(self, stream: Stream | Rows) -> tuple[Ints, Ints]:
        """First burst, in the channel's own numbers, and bursts of each run on each channel,
        (runs, channels)."""
        first = np.asarray(stream.first_burst, np.int64).reshape(-1, 1)
        bursts = np.asarray(stream.bursts, np.int64).reshape(-1, 1)
        begin, end = self._map.below(np.stack([first, first + bursts]))
        return begin, end - begin

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
        writing = ticks.copy()
        parts = [self.runs(stream) for stream in streams]
        sizes = [bursts.sum(axis=0) for _, bursts in parts]
        counted = np.zeros((2, self._channels), np.int64)  # reads, writes
        stretches: list[Ints] = []
        for stream, own in zip(streams, sizes, strict=True):
            counted[int(stream.write)] += own
        read_ticks = np.where(idle, probe.reads.ticks, probe.chain_ticks(counted[0]))
        for stream, (begin, bursts), own in zip(streams, parts, sizes, strict=True):
            last = own * (probe.writes.ticks if stream.write else read_ticks)
            lost = self._lost(stream, begin, bursts, bool(idle.all()))
            spent = last + np.where(own > 0, lost, 0)
            ticks += spent
            stretches.append(self._stretch(begin, bursts, own, spent))
            if stream.write:
                writing += last
        posted = np.zeros(self._channels, np.int64)
        if scatters:
            answered, posted = self._scattered(scatters, counted)
            ticks += answered + posted
            stretches.append(self._anywhere(answered + posted))
            if any(scatter.write for scatter in scatters):
                writing += answered + posted
        blocks = np.zeros(0)
        for stream, (begin, bursts) in zip(streams, parts, strict=True):
            if isinstance(stream, Stream) and stream.track_blocks:
                blocks = self._blocks(stream, begin[0], bursts[0])
        known = np.zeros((0, self._channels, 3), np.int64)
        if probe.rank_stops.run:
            known = np.array(stretches, np.int64).reshape(-1, self._channels, 3)
        return Work(ticks, last, counted[0], counted[1], posted, writing, known, blocks)

    def _anywhere(self, ticks: Ints) -> Ints:
        """A row of ``Work.stretches`` of work that lies anywhere."""
        found = np.zeros((self._channels, 3), np.int64)
        found[:, 0] = ticks
        return found

    def _stretch(self, begin: Ints, bursts: Ints, own: Ints, ticks: Ints) -> Ints:
        """A row of ``Work.stretches`` of a stream, ``own`` bursts in all of its runs."""
        found = self._anywhere(ticks)
        run = self.probe.rank_stops.run
        if run and (begin[1:] == begin[:-1] + bursts[:-1]).all():
            place = begin[0] % (run * self.probe.memory.organization.ranks)
            found[:, 1] = place * ticks // np.maximum(own, 1)
            found[:, 2] = run * ticks // np.maximum(own, 1)
        return found

    def _blocks(self, stream: Stream, begin: Ints, bursts: Ints) -> Floats:
        """What ``Work.blocks`` says of a stream that has these bursts on each channel."""
        rows, channels = self._row_set, self._channels
        length = max(BLOCK_BYTES // self.probe.memory.organization.burst_bytes, 1)
        place = stream.first_burst % (rows * channels) if rows else stream.first_burst
        return self.probe.blocks.get(
            (place, stream.bursts, channels),
            lambda: work_when_come(
                self.probe, begin, bursts, max(length // channels, 1),
                -(-stream.bursts // length), rows,
            ),
        )  # fmt: skip

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
        both = lowered(before, replace(own, bursts=min(size, MOST_BURSTS)), self._row_set)
        return self.probe.lost_ticks(*both)

    def _scattered(self, scatters: Sequence[Scatter], counted: Ints) -> tuple[Ints, Ints]:
        """Ticks by channel until all are answered, and those that are left then; counts the bursts
        in. The fullest channel says what a burst takes."""
        table = scatter_table(scatters)
        channel, count = table[:, SC_CHANNEL], table[:, SC_COUNT]
        np.add.at(counted, (table[:, SC_WRITE], channel), count)
        bursts = np.zeros(self._channels, dtype=np.int64)
        np.add.at(bursts, channel, count)
        fullest = int(bursts.argmax())
        answered, left = self.probe.scatter_ticks(table[channel == fullest])
        return bursts * answered, bursts * left // max(int(bursts[fullest]), 1)


def row_set(address_map: AddressMap) -> int:
    """Bursts of a channel from a row to the next one of the same bank; 0 where a row is not the
    highest part of a burst's place in its channel, so that this says nothing of the row."""
    position, width = address_map.position, address_map.width
    row, channel = position["ro"], position["ch"]
    inner = (name for name, bits in width.items() if bits and name not in ("ro", "ch"))
    if any(position[name] > row for name in inner):
        return 0
    return 1 << (row - width["ch"] if channel < row else row)


def lowered(before: Stream, own: Stream, rows: int) -> tuple[Stream, Stream]:
    """The same streams as low in memory as they can be without a difference to their commands:
    banks and columns stay, and rows that both have; which other rows they are plays no role.

    ``rows``: bursts of a row of all banks; 0: nothing is moved.
    """
    if not rows:
        return before, own
    down = before.first_burst // rows
    before = replace(before, first_burst=before.first_burst - down * rows)
    row, place = divmod(own.first_burst, rows)
    last = (before.first_burst + before.bursts - 1) // rows
    row -= down
    if row > last or row + (place + own.bursts - 1) // rows < 0:
        row = last + 1  # they share none
    if row < 0:
        before = replace(before, first_burst=before.first_burst - row * rows)
        row = 0
    return before, replace(own, first_burst=row * rows + place)
