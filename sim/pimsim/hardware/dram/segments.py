"""Streams of several cores as segments that the channels read: what is queued, and where.

A stream is consecutive bursts of the linear address space, rows of a matrix, or operands in the
memory's request order; on a channel it is one segment or more (``layout.S_*``). Each core has a
list of segments on each channel, in which what it asks for stands in order (``sources``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.hashing import ipoly_tables
from pimsim.hardware.dram.layout import (
    HASH_ROWS,
    MAX_LISTED,
    MAX_QUEUES,
    MAX_SEGMENTS,
    MAX_SOURCES,
    N_SEGMENT,
    S_BLOCK,
    S_BLOCK_SHIFT,
    S_COMMON,
    S_COMMONS,
    S_COUNT,
    S_FIRST,
    S_GROUP,
    S_LAG,
    S_LANE,
    S_LISTED,
    S_PORT,
    S_READY,
    S_STRIDE,
    S_WAIT,
    S_WAITS,
    S_WRITE,
    Records,
    bounded,
)
from pimsim.hardware.dram.ranges import Ranges
from pimsim.hardware.dram.request_order import RequestOrder, deal
from pimsim.hardware.dram.transfers import (
    BLOCK_BYTES,
    SC_CHANNEL,
    SC_COUNT,
    SC_FIRST,
    SC_STRIDE,
    SC_WRITE,
    Network,
    Rows,
    Scatter,
    Stream,
    scatter_table,
)

__all__ = ["StreamTable"]

Ints = NDArray[np.int64]
_CLOSE_UP = 16
"""Segments that are through before those behind them move."""
_FINEST = 10_000
"""Parts of a picosecond that a network's period may have; finer ones are rounded."""


class StreamTable:
    """The segments of a device's memory, in its ``board``."""

    def __init__(
        self,
        memory: MemoryConfig,
        parameters: Records,
        channels: Records,
        board: Records,
        network: Network,
        order: RequestOrder | None,
        tickets: Callable[[int], int],
        cycle_ps: Fraction | int,
    ) -> None:
        """``tickets``: gives a range of so many tickets, by its first; ``cycle_ps``: of the cycles
        that the channels count."""
        self.network = network
        self.parameters, self.channels, self.board = parameters, channels, board
        self.order = order
        self._tickets = tickets
        self.listed = Ranges(MAX_LISTED, "requests of streams with operands")
        """Entries of their lists, until the transfer is complete."""
        self._injected_time = [0] * network.sources
        """When each core's injection ports will be free."""
        self._injected = [0] * network.sources
        """Requests that each core has injected since they last were, modulo its ports."""
        period = Fraction(network.period_ps).limit_denominator(_FINEST)
        self._unit = lcm(cycle_ps.denominator, period.denominator)
        """Parts of a picosecond in which the network's times are whole numbers."""
        self._cycle_time = int(cycle_ps * self._unit)
        self._period_time = int(period * self._unit)
        self._latency_time = round(network.latency_ps * self._unit)
        self._burst_bytes = memory.organization.burst_bytes
        self.stream_map = AddressMap.parse(memory.stream_map, memory.organization)
        self._channel_bit = self.stream_map.position["ch"]
        self._channel_width = self.stream_map.width["ch"]
        self._enter_network()

    def _enter_network(self) -> None:
        """Tell the channels how many cores they serve, and how."""
        channels, network = len(self.channels), self.network
        bounded(network.sources, MAX_SOURCES, "cores that share a memory")
        p = self.parameters[0]
        p["sources"] = network.sources
        p["room"] = MAX_SEGMENTS // (channels * network.sources)
        p["cycle_time"] = self._cycle_time
        p["port_time"] = self._period_time
        p["inject_time"] = self._period_time * channels // network.ports
        if network.hashed:
            # only then do the requests of several ports meet at a channel
            p["ports"] = network.ports
            bounded(network.sources * network.ports, MAX_QUEUES, "injection ports of all cores")
            p["lane_hash"], p["lane_of"] = ipoly_tables(channels)

    def add(
        self,
        streams: Sequence[Stream | Rows],
        scatters: Sequence[Scatter],
        ticket: int,
        start: int,
        source: int,
    ) -> tuple[Ints, tuple[int, int]]:
        """Queue ``streams``, then ``scatters``, behind what core ``source`` has queued before.

        The requests of each channel, (channels,), which count ``ticket`` and those after it down,
        and the tickets of the blocks of the tracked stream.
        """
        count = len(self.channels)
        left = np.zeros(count, dtype=np.int64)
        queued: list[list[Ints]] = [[] for _ in range(count)]
        blocks = (0, 0)
        # a request waits for those before it only where a network passes on one after the other
        step = 1 if self.network.period_ps else 0
        ahead = 0
        for stream in streams:
            if isinstance(stream, Rows):
                owner, runs = self._row_segments(stream)
                runs[:, S_READY] = (runs[:, S_READY] + ahead) * step
                ahead += stream.total
                np.add.at(left, owner, runs[:, S_COUNT])
                for c in range(count):
                    queued[c].append(runs[owner == c])
                continue
            if stream.operands:
                rows, tracked = self._listed_segments(stream, blocks[0])
            else:
                rows, tracked = self._stream_segments(stream)
            blocks = tracked if stream.track_blocks else blocks
            rows[..., S_READY] = ahead if step else stream.delay
            ahead += stream.total
            left += rows[..., S_COUNT].reshape(count, -1).sum(axis=1)
            for c in range(count):
                own = rows[c].reshape(-1, N_SEGMENT)
                queued[c].append(own[own[:, S_COUNT] > 0])
        if scatters:
            table = scatter_table(scatters)
            owner, counts = table[:, SC_CHANNEL], table[:, SC_COUNT]
            runs = np.zeros((len(table), N_SEGMENT), dtype=np.int64)
            runs[:, S_WRITE], runs[:, S_FIRST] = table[:, SC_WRITE], table[:, SC_FIRST]
            runs[:, S_COUNT], runs[:, S_STRIDE] = counts, table[:, SC_STRIDE]
            runs[:, S_BLOCK] = -1
            runs[:, S_READY] = (np.cumsum(counts) - counts + ahead) * step
            np.add.at(left, owner, counts)
            for c in np.unique(owner).tolist():
                queued[c].append(runs[owner == c])
        self._append(queued, ticket, start, source)
        return left, blocks

    def _row_segments(self, rows: Rows) -> tuple[Ints, Ints]:
        """Channels and segments of all runs, in order."""
        if self.network.hashed:
            run, channel, first, counts, before, lane = self._hashed_runs(rows)
        else:
            start = self.stream_map.below(rows.first_burst[:, None])
            share = self.stream_map.below((rows.first_burst + rows.bursts)[:, None]) - start
            run, channel = np.nonzero(share)
            first, counts = start[run, channel], share[run, channel]
            before = lane = np.zeros(len(run), dtype=np.int64)
        found = np.zeros((len(run), N_SEGMENT), dtype=np.int64)
        found[:, S_WRITE] = int(rows.write)
        found[:, S_FIRST] = first
        found[:, S_COUNT] = counts
        found[:, S_STRIDE] = 1
        found[:, S_BLOCK] = -1
        found[:, S_PORT] = -lane
        found[:, S_READY] = (np.cumsum(rows.bursts) - rows.bursts)[run] + before
        return channel, found

    def _hashed_runs(self, rows: Rows) -> tuple[Ints, ...]:
        """Run, channel, first burst, length, place in the run, and place among its neighbours of
        each piece: the whole rows of neighbours of a run are one on every channel, what lies
        before and after them is one a burst, on the channel that the hash says."""
        channels, width = len(self.channels), self._channel_width
        begin, end = rows.first_burst, rows.first_burst + rows.bursts
        whole, after = -(-begin // channels), end // channels
        inside = whole < after
        runs = np.arange(len(begin))
        run = np.repeat(runs[inside], channels)
        pieces = [
            (run, np.tile(np.arange(channels), int(inside.sum())), whole[run],
             (after - whole)[run], (whole * channels - begin)[run], 0 * run)
        ]  # fmt: skip
        head = np.where(inside, whole * channels, end) - begin
        tail = np.where(inside, end - after * channels, 0)
        table = self.parameters[0]["lane_hash"]
        order = np.argsort(self.parameters[0]["lane_of"][:channels])
        for first, length in ((begin, head), (end - tail, tail)):
            run = np.repeat(runs, length)
            place = np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)
            burst = first[run] + place
            row = burst >> width
            channel = table[row % HASH_ROWS] ^ order[burst & (channels - 1)]
            lane, one = burst & (channels - 1), np.ones(len(run), np.int64)
            pieces.append((run, channel, row, one, burst - begin[run], lane))
        columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
        sort = np.lexsort((columns[4], columns[0]))
        return tuple(column[sort] for column in columns)

    def _stream_segments(self, stream: Stream) -> tuple[Ints, tuple[int, int]]:
        """A stream's segment on each channel, (channels, N_SEGMENT), and its blocks' tickets."""
        count = len(self.channels)
        first = self.stream_map.below(stream.first_burst)
        rows = np.zeros((count, N_SEGMENT), dtype=np.int64)
        rows[:, S_WRITE] = int(stream.write)
        rows[:, S_FIRST] = first
        rows[:, S_COUNT] = self.stream_map.below(stream.first_burst + stream.bursts) - first
        rows[:, S_STRIDE] = 1
        rows[:, S_BLOCK] = -1
        if not stream.track_blocks:
            return rows, (0, 0)
        length = stream.block_bursts or max(BLOCK_BYTES // self._burst_bytes, 1)
        number = -(-stream.bursts // length)
        block = self._tickets(number)
        sizes = np.full(number, length, dtype=np.int64)
        sizes[-1] = stream.bursts - length * (number - 1)
        self.board["ticket"][0, block : block + number, 0] = sizes
        rows[:, S_BLOCK] = block
        rows[:, S_BLOCK_SHIFT] = length.bit_length() - 1
        rows[:, S_LANE] = (np.arange(count) - (stream.first_burst >> self._channel_bit)) % count
        return rows, (block, block + number)

    def _listed_segments(self, stream: Stream, before: int) -> tuple[Ints, tuple[int, int]]:
        """The same of a stream with operands; its blocks are the operands.

        ``before``: first ticket of the stream that it follows; then each operand has segments of
        its own, (channels, operands, N_SEGMENT).
        """
        count, low, follows = len(self.channels), self._channel_bit, stream.follows
        assert self.order is not None, "a stream names its operands, the memory has no order"
        bursts, operand = self.order.requests(stream.operands, stream.write)
        number = len(stream.operands)
        parts = number if follows is not None else 1
        at = self.listed.take(len(bursts))
        sizes = deal(
            bursts, operand, count, parts, low, self._channel_width,
            self.board["listed"][0, at : at + len(bursts)],
        )  # fmt: skip
        rows = np.zeros((count, parts, N_SEGMENT), dtype=np.int64)
        rows[..., S_WRITE] = int(stream.write)
        rows[..., S_COUNT] = sizes.reshape(count, parts)
        rows[..., S_LISTED] = (at + np.cumsum(sizes) - sizes + 1).reshape(count, parts)
        rows[..., S_BLOCK] = -1
        if follows is not None:
            first = before + 1 + follows.common
            rows[..., S_WAIT] = first + np.arange(parts) * follows.each
            rows[..., [S_WAITS, S_COMMON, S_COMMONS, S_LAG]] = (
                follows.each, before + 1, follows.common, follows.lag,
            )  # fmt: skip
        if not stream.track_blocks:
            return rows, (0, 0)
        block = self._tickets(number)
        self.board["ticket"][0, block : block + number, 0] = np.bincount(operand, minlength=number)
        rows[..., S_BLOCK] = block
        return rows, (block, block + number)

    def _append(self, queued: list[list[Ints]], ticket: int, start: int, source: int) -> None:
        """Put segments behind those of core ``source``.

        Their ``S_READY``, so far cycles from ``start``, becomes the cycle from which each may be
        taken. With a network it was the requests of this transfer before each, and becomes the
        network's time at which it has come to the channel's port.
        """
        table, p = self.board["segment"][0], self.parameters[0]
        room, ports = int(p["room"]), int(p["ports"])
        cursors = self.channels["seg"][:, source * ports : (source + 1) * ports]
        ends = self.channels["seg_end"][:, source]
        period, begin = self._period_time, max(start * self._cycle_time, 0)
        if period:
            begin = max(begin, self._injected_time[source])
            if begin > self._injected_time[source]:
                self._injected[source] = 0  # its ports stood still: it begins with the first
        total, passed = 0, self._injected[source]
        for c, rows in enumerate(queued):
            if not any(map(len, rows)):
                continue
            fresh = np.concatenate(rows)
            place = (c * self.network.sources + source) * room
            self._close_up(table[place : place + room], cursors[c], ends[c : c + 1], len(fresh))
            end = int(ends[c])
            bounded(end + len(fresh), room, "stream segments of a core")
            total += int(fresh[:, S_COUNT].sum())
            fresh[:, S_GROUP] = ticket + c
            if period:
                fresh[:, S_PORT] = (fresh[:, S_PORT] + fresh[:, S_READY] + passed) % ports
                waited = fresh[:, S_READY] * period // self.network.ports
                fresh[:, S_READY] = begin + self._latency_time + waited
            else:
                fresh[:, S_READY] += start
            table[place + end : place + end + len(fresh)] = fresh
            ends[c] = end + len(fresh)
        self._injected[source] = (passed + total) % ports
        self._injected_time[source] = begin + total * period // self.network.ports

    @staticmethod
    def _close_up(own: Ints, cursors: Ints, end: Ints, fresh: int) -> None:
        """Move the segments in ``own`` that are not through to its front, where more lie before
        them than they are, or ``fresh`` ones have no room: so as much of it is used as was ever
        queued at once."""
        first = int(cursors.min())
        left = int(end[0]) - first
        if first < max(left, _CLOSE_UP) and int(end[0]) + fresh <= len(own):
            return
        own[:left] = own[first : first + left]
        cursors -= first
        end -= first
