"""The memory of one device: streams and PIM programs in, completion times out.

All channels share nothing but the work they are given, so each is simulated by itself, in windows
that end before anything of one channel could concern another: no group of requests can be complete
before the end of the window (its slowest channel still has too many requests left), and no softmax
that follows a PIM result can have issued its writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.artifact_order import OperandCounter, deal
from pimsim.hardware.dram.controller import run_channel
from pimsim.hardware.dram.hashing import ipoly_tables
from pimsim.hardware.dram.layout import (
    HASH_ROWS,
    INFINITY,
    MAX_INSTRUCTIONS,
    MAX_LISTED,
    MAX_PIM_WRITES,
    MAX_QUEUES,
    MAX_SEGMENTS,
    MAX_SOURCES,
    MAX_TICKETS,
    N_SEGMENT,
    P_GROUP,
    P_MARK,
    P_OP,
    P_READY,
    S_BLOCK,
    S_BLOCK_SHIFT,
    S_COMMON,
    S_COMMONS,
    S_COUNT,
    S_DELAY,
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
    make_board,
    make_channels,
    make_parameters,
)
from pimsim.hardware.dram.rules import Command, compile_rules
from pimsim.hardware.dram.sources import next_offer
from pimsim.hardware.dram.transfers import (
    BLOCK_BYTES,
    After,
    Follows,
    Group,
    Network,
    Rows,
    Scatter,
    Stream,
)

__all__ = [
    "BLOCK_BYTES",
    "After",
    "Follows",
    "Group",
    "MemorySystem",
    "Network",
    "Rows",
    "Scatter",
    "Stream",
    "group_bound",
]

Ints = NDArray[np.int64]
NO_PROGRESS_CYCLES = 20_000_000
"""A memory that answers nothing for so long is stuck."""


# columns of the after-state: next mark, last issue, latest finish so far (writes go in order),
# bursts spread so far, unit cycles used
N_AFTER = 5


@njit(cache=True)
def _write_later(ch: Any, now: int, ready: int, bursts: int) -> None:
    """``bursts`` of PIM's output may go to the channel's write queue from ``ready`` on."""
    last = (ch.pw_head + ch.pw_used - 1) & (MAX_PIM_WRITES - 1)
    if ch.pw_used == MAX_PIM_WRITES or (ch.pw_used > 0 and ch.pw[last, 0] == ready):
        ch.pw[last, 0] = ready
        ch.pw[last, 1] += bursts
    else:
        last = (ch.pw_head + ch.pw_used) & (MAX_PIM_WRITES - 1)
        ch.pw[last, 0] = ready
        ch.pw[last, 1] = bursts
        ch.pw_used += 1
    ch.pw_len += bursts
    ch.now = min(ch.now, max(ready, now))


@njit(cache=True)
def _settle(
    channels: Any, board: Any, now: int, first: int, info: Any, finish: Any, after: Any,
    unit_free: Any, spread: bool, not_before: int,
) -> None:  # fmt: skip
    """Schedule the vector work whose PIM results are known, in order, and its writes.

    What is known of a result lies at least the lookahead ahead of ``now``, so no channel has
    passed the cycle from which its writes may go.
    """
    total = len(finish)
    while after[0] < total and board.ticket[first + after[0], 0] == 0:
        mark = after[0]
        if info[mark, 0] < 0:
            finish[mark] = board.ticket[first + mark, 1]
            after[2] = max(after[2], finish[mark])
            after[0] = mark + 1
            continue
        start = max(board.ticket[first + mark, 1], after[1] + 1, not_before)
        if len(unit_free) > 0:
            unit = 0
            for i in range(1, len(unit_free)):
                if unit_free[i] < unit_free[unit]:
                    unit = i
            start = max(start, unit_free[unit])
            unit_free[unit] = start + info[mark, 0]
        after[1] = start
        after[4] += info[mark, 0]
        finish[mark] = start + info[mark, 0]
        after[2] = max(after[2], finish[mark])
        after[0] = mark + 1
        if spread:
            for _ in range(info[mark, 1]):
                _write_later(channels[after[3] % len(channels)], now, after[2], 1)
                after[3] += 1
        elif info[mark, 1] > 0:
            _write_later(channels[info[mark, 2]], now, after[2], info[mark, 1])


@njit(cache=True)
def group_bound(channels: Any, board: Any, now: int, ticket: int, each: int) -> int:
    """A cycle before which the group cannot be complete; exact once nothing is left."""
    bound = 0
    for c in range(len(channels)):
        left = board.ticket[ticket + c, 0]
        if left > 0:
            bound = max(bound, now + 1 + (left - 1) * each // 8)
        else:
            bound = max(bound, board.ticket[ticket + c, 1])
    return bound


@njit(cache=True)
def _all_done(channels: Any, board: Any, ticket: int) -> int:
    """Cycle at which the group's last result came, -1 while any is to come."""
    done = 0
    for c in range(len(channels)):
        if board.ticket[ticket + c, 0] > 0:
            return -1
        done = max(done, board.ticket[ticket + c, 1])
    return done


@njit(cache=True)
def _advance(
    channels: Any, parameters: Any, boards: Any, now: int, until: int, groups: Any,
    pim_group: int, first_mark: int, info: Any, finish: Any, after: Any, unit_free: Any,
    spread: bool, lookahead: int, overlap: bool, released: int,
) -> tuple[int, int]:  # fmt: skip
    """Simulate until a group is complete or ``until``; ``(cycle, index of the group or -1)``.

    ``groups``: (groups, 2) ticket and eight times the least cycles of each completion.
    ``released``: a window's most cycles while requests wait for the data of others.
    """
    p, board = parameters[0], boards[0]
    while True:
        horizon = min(until, now + released)
        fired = -1
        for g in range(len(groups)):
            bound = group_bound(channels, board, now, groups[g, 0], groups[g, 1])
            if g == pim_group:
                if after[0] < len(finish):
                    bound = max(bound, now + 1)
                    horizon = min(horizon, now + lookahead)
                else:
                    bound = max(bound, after[2])
                    for c in range(len(channels)):
                        if channels[c].pw_len > 0:
                            bound = max(bound, now - (-channels[c].pw_len // p.feed))
            if bound <= now and fired < 0:
                fired = g
            horizon = min(horizon, max(bound, now + 1))
        if fired >= 0 or now >= until:
            return now, fired
        for c in range(len(channels)):
            if released < INFINITY:
                ready = next_offer(channels[c], p, board, now - 1)
                channels[c].now = min(channels[c].now, ready)
            if channels[c].now < horizon:
                run_channel(channels[c], p, board, horizon)
        now = horizon
        if pim_group >= 0:
            ready = 0 if overlap else _all_done(channels, board, groups[pim_group, 0])
            if ready >= 0:
                _settle(
                    channels, board, now, first_mark, info, finish, after, unit_free, spread,
                    ready,
                )  # fmt: skip


def _ring_range(after: int, count: int, size: int, what: str) -> int:
    """Where ``count`` entries of a ring fit in one piece: at ``after``, or else at its begin."""
    bounded(count, size // 2, what)
    return after if after + count <= size else 0


class MemorySystem:
    """All channels of a device at ``command`` fidelity."""

    def __init__(
        self,
        memory: MemoryConfig,
        pim: PimConfig | None = None,
        log_entries: int = 0,
        network: Network | None = None,
        counter_wrap_bytes: int = 0,
    ) -> None:
        """``counter_wrap_bytes``: where the counter of streams with operands starts anew; 0:
        there are none."""
        self.memory = memory
        self.pim = pim
        self.cycle_ps = memory.tCK
        """Picoseconds of the cycles that this system counts."""
        self.counter = OperandCounter(memory, counter_wrap_bytes)
        self.parameters, self.channels = self._make_records()
        self.board = make_board(log_entries)
        self.now = 0
        """Cycle of tCK up to which everything is simulated."""
        self._active: list[Group] = []
        self._next_ticket = 0
        self._next_listed = 0
        self.network = network or Network()
        self._injected_ps = [0] * self.network.sources
        """When each core's injection ports will be free."""
        self._injected = [0] * self.network.sources
        """Requests that each core has injected since they last were, modulo its ports."""
        mapping = AddressMap.parse(memory.stream_map, memory.organization)
        self._channel_bit = mapping.position["ch"]
        self._channel_width = mapping.width["ch"]
        self._pim_state: dict[str, Any] = self._no_after()
        self._enter_network(self.network)

    def _make_records(self) -> tuple[Records, Records]:
        """Parameters and channels of the kernel."""
        rules = compile_rules(self.memory, self.pim)
        merge = 2 if self.counter.active else 0
        parameters = make_parameters(self.memory, self.pim, rules, merge=merge)
        return parameters, make_channels(self.memory, parameters)

    def _enter_network(self, network: Network) -> None:
        """Tell the channels how many cores they serve, and how."""
        channels = len(self.channels)
        bounded(network.sources, MAX_SOURCES, "cores that share a memory")
        p = self.parameters[0]
        p["sources"] = network.sources
        p["ring"] = MAX_SEGMENTS // (channels * network.sources)
        p["port_ps"] = network.period_ps
        p["inject_ps"] = network.period_ps * channels // network.ports
        if network.hashed:
            # only then do the requests of several ports meet at a channel
            p["ports"] = network.ports
            bounded(network.sources * network.ports, MAX_QUEUES, "injection ports of all cores")
            p["lane_hash"], p["lane_of"] = ipoly_tables(channels)

    @property
    def active(self) -> bool:
        """Whether any submitted group is not complete."""
        return bool(self._active)

    def _tickets(self, count: int) -> int:
        """A range of ``count`` tickets; they are used in turn, long after the last use."""
        first = _ring_range(self._next_ticket, count, MAX_TICKETS, "transfers at once")
        self._next_ticket = first + count
        self.board["ticket"][0, first : first + count] = 0
        return first

    def _share(self, burst: int | Ints) -> Ints:
        """How many bursts below ``burst`` each channel has, shape (channels,); for an array of
        shape (runs, 1), (runs, channels)."""
        channel = np.arange(len(self.channels), dtype=np.int64)
        low, width = self._channel_bit, self._channel_width
        whole = (burst >> (low + width)) << low
        rest = (burst & ((1 << (low + width)) - 1)) - (channel << low)
        share: Ints = whole + np.clip(rest, 0, 1 << low)
        return share

    def submit(
        self,
        start: int,
        streams: Sequence[Stream | Rows],
        scatters: Sequence[Scatter] = (),
        source: int = 0,
    ) -> Group:
        """Queue ``streams``, then ``scatters``, behind what core ``source`` has queued before."""
        count = len(self.channels)
        ticket = self._tickets(count)
        left = np.zeros(count, dtype=np.int64)
        queued: list[list[Ints]] = [[] for _ in range(count)]
        blocks = (0, 0)
        ahead = 0
        for stream in streams:
            if isinstance(stream, Rows):
                owner, runs = self._row_segments(stream)
                runs[:, S_READY] += ahead
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
            rows[..., S_READY] = ahead
            rows[..., S_DELAY] = stream.delay
            ahead += stream.total
            left += rows[..., S_COUNT].reshape(count, -1).sum(axis=1)
            for c in range(count):
                own = rows[c].reshape(-1, N_SEGMENT)
                queued[c].append(own[own[:, S_COUNT] > 0])
        for scatter in scatters:
            row = np.zeros(N_SEGMENT, dtype=np.int64)
            row[[S_WRITE, S_FIRST, S_COUNT, S_STRIDE, S_BLOCK]] = (
                int(scatter.write), scatter.first, scatter.count, scatter.stride, -1,
            )  # fmt: skip
            row[S_READY] = ahead
            ahead += scatter.count
            left[scatter.channel] += scatter.count
            queued[scatter.channel].append(row[None])
        self.board["ticket"][0, ticket : ticket + count, 0] = left
        self.board["ticket"][0, ticket : ticket + count, 1] = start
        self._append(queued, ticket, start, source)
        self._wake(start)
        kinds = {s.write for s in streams} | {s.write for s in scatters}
        lags = [s.follows.lag for s in streams if isinstance(s, Stream) and s.follows is not None]
        released = int(self.parameters[0]["read_delay"]) + min(lags) if lags else INFINITY
        each = self._least_eighths(False in kinds, True in kinds)
        group = Group(ticket, each, blocks, lookahead=released)
        self._active.append(group)
        return group

    def _least_eighths(self, reads: bool, writes: bool) -> int:
        """Least cycles between two completions on a channel, times eight: it takes ``feed``
        writes a cycle and reads every nBL; of both kinds, both at once."""
        nbl, feed = int(self.parameters[0]["nbl"]), int(self.parameters[0]["feed"])
        if not writes:
            return 8 * nbl
        return 8 * nbl // (1 + nbl * feed) if reads else 8 // feed

    def _row_segments(self, rows: Rows) -> tuple[Ints, Ints]:
        """Channels and segments of all runs, in order."""
        if self.network.hashed:
            run, channel, first, counts, before, lane = self._hashed_runs(rows)
        else:
            start = self._share(rows.first_burst[:, None])
            share = self._share((rows.first_burst + rows.bursts)[:, None]) - start
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
        first = self._share(stream.first_burst)
        rows = np.zeros((count, N_SEGMENT), dtype=np.int64)
        rows[:, S_WRITE] = int(stream.write)
        rows[:, S_FIRST] = first
        rows[:, S_COUNT] = self._share(stream.first_burst + stream.bursts) - first
        rows[:, S_STRIDE] = 1
        rows[:, S_BLOCK] = -1
        if not stream.track_blocks:
            return rows, (0, 0)
        length = max(BLOCK_BYTES // self.memory.organization.burst_bytes, 1)
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
        bursts, operand = self.counter.requests(stream.operands, stream.write)
        number = len(stream.operands)
        parts = number if follows is not None else 1
        at = _ring_range(self._next_listed, len(bursts), MAX_LISTED, "requests of a stream")
        self._next_listed = at + len(bursts)
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
        """Put segments behind those of core ``source``. Their ``S_READY``, so far the requests
        of this transfer before each, becomes the cycle, with a
        network the picosecond, at which it has come to the channel's port."""
        table, p = self.board["segment"][0], self.parameters[0]
        ring, ports = int(p["ring"]), int(p["ports"])
        cursors = self.channels["seg"][:, source * ports : (source + 1) * ports]
        ends = self.channels["seg_end"][:, source]
        period, begin = self.network.period_ps, max(start * self.cycle_ps, 0)
        if period:
            begin = max(begin, self._injected_ps[source])
            if begin > self._injected_ps[source]:
                self._injected[source] = 0  # its ports stood still: it begins with the first
        total, passed = 0, self._injected[source]
        for c, rows in enumerate(queued):
            if not any(map(len, rows)):
                continue
            fresh = np.concatenate(rows)
            end = int(ends[c])
            bounded(end - int(cursors[c].min()) + len(fresh), ring, "stream segments of a core")
            total += int(fresh[:, S_COUNT].sum())
            fresh[:, S_GROUP] = ticket + c
            fresh[:, S_PORT] = (fresh[:, S_PORT] + fresh[:, S_READY] + passed) % ports
            waited_ps = fresh[:, S_READY] * period // self.network.ports
            ready_ps = begin + self.network.latency_ps + waited_ps
            fresh[:, S_READY] = ready_ps
            if not period:
                fresh[:, S_READY] = np.maximum(-(-ready_ps // self.cycle_ps), start)
                fresh[:, S_READY] += fresh[:, S_DELAY]
            place = (c * self.network.sources + source) * ring
            table[place + (end + np.arange(len(fresh))) % ring] = fresh
            ends[c] = end + len(fresh)
        self._injected[source] = (passed + total) % ports
        self._injected_ps[source] = begin + total * period // self.network.ports

    def _wake(self, start: int) -> None:
        """Let every channel look again at ``start``."""
        np.minimum(self.channels["now"], max(start, self.now), out=self.channels["now"])

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: After | None = None
    ) -> Group:
        """Run a PIM program on each channel (arrays of N_INSTRUCTION columns; may be empty).

        ``P_MARK`` of an instruction is the (request, head) in 0..marks-1 that its result belongs
        to, or -1; ``P_READY`` counts from ``start``. One PIM operation runs at a time.
        """
        if any(group.is_pim for group in self._active):
            raise RuntimeError("a PIM operation is under way")
        count = len(self.channels)
        ticket = self._tickets(count)
        first_mark = self._tickets(max(marks, 1))
        sizes = np.array([len(program) for program in programs])
        total = bounded(int(sizes.sum()), MAX_INSTRUCTIONS, "PIM instructions in one operation")
        program = self.board["program"][0, :total]
        program[:] = np.concatenate([p for p in programs if len(p)]) if total else 0
        ends = np.cumsum(sizes)
        channel = np.repeat(np.arange(count), sizes)
        program[:, P_GROUP] = ticket + channel
        program[:, P_READY] += start
        marked = program[:, P_MARK] >= 0
        counts = np.bincount(program[marked, P_MARK], minlength=max(marks, 1))
        self.board["ticket"][0, first_mark : first_mark + len(counts), 0] = counts
        program[marked, P_MARK] += first_mark
        real = program[:, P_OP] != int(Command.HEADER)
        left = np.bincount(channel[real], minlength=count)
        self.board["ticket"][0, ticket : ticket + count, 0] = left
        self.board["ticket"][0, ticket : ticket + count, 1] = start
        channels = self.channels
        channels["pim_head"] = channels["pim_avail"] = ends - sizes
        channels["pim_end"] = ends
        channels["pim_last"] = start
        channels["pim_next"] = 0
        channels["pim_until"] = 0
        channels["pim_refreshed"] = 0
        channels["pim_estimate"] = -1
        channels["pim_scan"] = 0
        self._wake(start)
        group = Group(ticket, 8, marks=(first_mark, first_mark + marks), after=after, is_pim=True)
        self._active.append(group)
        self._pim_state = self._no_after() if after is None else self._start_after(start, after)
        if after is not None and after.spread and self.counter.active:
            # PIM's outputs lie where the counter stands, over all channels
            first = self.counter.burst
            self.channels["pw_burst"] = self._share(first)
            self._pim_state["after"][3] = first
            self.counter.skip(after.counter_bytes)
        return group

    def _no_after(self) -> dict[str, Any]:
        return {
            "info": np.zeros((0, 3), np.int64), "finish": np.zeros(0, np.int64),
            "after": np.zeros(N_AFTER, np.int64), "unit_free": np.zeros(0, np.int64),
            "spread": False, "lookahead": INFINITY, "overlap": True,
        }  # fmt: skip

    def _start_after(self, start: int, after: After) -> dict[str, Any]:
        shortest = max(int(after.duration.min()), 0) if len(after.duration) else 0
        state = np.zeros(N_AFTER, np.int64)
        state[1] = start - 1
        state[2] = start
        return {
            "info": np.stack([after.duration, after.bursts, after.channel], axis=1),
            "finish": np.zeros(len(after.duration), np.int64),
            "after": state,
            "unit_free": np.full(after.units, start, np.int64),
            "spread": after.spread,
            "overlap": after.overlap,
            "lookahead": int(self.parameters[0]["read_delay"]) + shortest,
        }

    def _left(self) -> int:
        """Transfers and PIM results still to come."""
        table, count = self.board["ticket"][0], len(self.channels)
        return sum(int(table[g.ticket : g.ticket + count, 0].sum()) for g in self._active)

    def advance(self, until: int) -> Group | None:
        """Simulate to the first completion of a group, or to ``until``; ``now`` tells which."""
        begun, left = self.now, self._left()
        self.now, fired = self._step(min(until, self.now + NO_PROGRESS_CYCLES))
        if fired < 0:
            if self.now - begun >= NO_PROGRESS_CYCLES and self._active and self._left() == left:
                raise RuntimeError(
                    f"simulator bug: nothing came in {self.now - begun} cycles, {left} to come"
                )
            return None
        group = self._active.pop(fired)
        group.done_cycle = self.now
        first, last = group.blocks
        group.block_cycles = self.board["ticket"][0, first:last, 1].copy()
        if group.is_pim:
            group.vector_busy_cycles = int(self._pim_state["after"][4])
        return group

    def _step(self, limit: int) -> tuple[int, int]:
        """Let the kernel run; the cycle, and the index of the group that is complete or -1."""
        groups = np.array([[g.ticket, g.eighths_each] for g in self._active], dtype=np.int64)
        groups = groups.reshape(-1, 2)
        pim = next((i for i, g in enumerate(self._active) if g.is_pim), -1)
        first_mark = self._active[pim].marks[0] if pim >= 0 else 0
        s = self._pim_state
        return _advance(
            self.channels, self.parameters, self.board, self.now, limit, groups, pim, first_mark,
            s["info"], s["finish"], s["after"], s["unit_free"], s["spread"], s["lookahead"],
            s["overlap"], min((g.lookahead for g in self._active), default=INFINITY),
        )  # fmt: skip
