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
from pimsim.hardware.dram.controller import run_channel, segment_ready
from pimsim.hardware.dram.layout import (
    INFINITY,
    MAX_INSTRUCTIONS,
    MAX_LISTED,
    MAX_PIM_WRITES,
    MAX_SEGMENTS,
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
    S_FIRST,
    S_GROUP,
    S_LAG,
    S_LANE,
    S_LISTED,
    S_READY,
    S_STRIDE,
    S_WAIT,
    S_WAITS,
    S_WRITE,
    bounded,
    make_board,
    make_channels,
    make_parameters,
)
from pimsim.hardware.dram.rules import Command, compile_rules
from pimsim.hardware.dram.transfers import After, Follows, Group, Scatter, Stream

__all__ = ["After", "Follows", "Group", "MemorySystem", "Scatter", "Stream"]

Ints = NDArray[np.int64]
NO_PROGRESS_CYCLES = 20_000_000
"""A memory that answers nothing for so long is stuck."""
BLOCK_BYTES = 32 * 1024
"""Arrival of a stream is known block by block: one 128x128 tile of 2-byte elements."""


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
def _bound(channels: Any, board: Any, now: int, ticket: int, each: int) -> int:
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
            bound = _bound(channels, board, now, groups[g, 0], groups[g, 1])
            if g == pim_group:
                if after[0] < len(finish):
                    bound = max(bound, now + 1)
                    horizon = min(horizon, now + lookahead)
                else:
                    bound = max(bound, after[2])
                    for c in range(len(channels)):
                        if channels[c].pw_len > 0:
                            bound = max(bound, now + channels[c].pw_len)
            if bound <= now and fired < 0:
                fired = g
            horizon = min(horizon, max(bound, now + 1))
        if fired >= 0 or now >= until:
            return now, fired
        for c in range(len(channels)):
            if released < INFINITY and channels[c].seg < channels[c].seg_end:
                ready = segment_ready(board, channels[c].seg)
                channels[c].now = min(channels[c].now, max(ready, now))
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
        self, memory: MemoryConfig, pim: PimConfig | None = None, log_entries: int = 0,
        counter_wrap_bytes: int = 0,
    ) -> None:  # fmt: skip
        """``counter_wrap_bytes``: where the counter of streams with operands starts anew."""
        self.memory = memory
        self.pim = pim
        self.parameters = make_parameters(
            memory, pim, compile_rules(memory, pim), merge=2 if counter_wrap_bytes else 0
        )
        self.channels = make_channels(memory, self.parameters)
        self.board = make_board(log_entries)
        self.now = 0
        """Cycle of tCK up to which everything is simulated."""
        self._active: list[Group] = []
        self._next_ticket = 0
        self._next_segment = 0
        self._next_listed = 0
        self.counter = OperandCounter(memory, counter_wrap_bytes)
        mapping = AddressMap.parse(memory.stream_map, memory.organization)
        self._channel_bit = mapping.position["ch"]
        self._channel_width = mapping.width["ch"]
        self._pim_state: dict[str, Any] = self._no_after()

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

    def _share(self, burst: int) -> Ints:
        """How many bursts below ``burst`` each channel has, shape (channels,)."""
        channel = np.arange(len(self.channels), dtype=np.int64)
        low, width = self._channel_bit, self._channel_width
        whole = (burst >> (low + width)) << low
        rest = (burst & ((1 << (low + width)) - 1)) - (channel << low)
        share: Ints = whole + np.clip(rest, 0, 1 << low)
        return share

    def submit(
        self, start: int, streams: Sequence[Stream], scatters: Sequence[Scatter] = ()
    ) -> Group:
        """Queue ``streams``, then ``scatters``, behind what the NPU side has queued before."""
        count = len(self.channels)
        ticket = self._tickets(count)
        left = np.zeros(count, dtype=np.int64)
        queued: list[list[Ints]] = [[] for _ in range(count)]
        blocks = (0, 0)
        for stream in streams:
            if stream.operands:
                rows, tracked = self._listed_segments(stream, blocks[0])
            else:
                rows, tracked = self._stream_segments(stream)
            rows[..., S_READY] = stream.delay
            blocks = tracked if stream.track_blocks else blocks
            left += rows[..., S_COUNT].reshape(count, -1).sum(axis=1)
            for c in range(count):
                own = rows[c].reshape(-1, N_SEGMENT)
                queued[c].append(own[own[:, S_COUNT] > 0])
        for scatter in scatters:
            row = np.zeros(N_SEGMENT, dtype=np.int64)
            row[[S_WRITE, S_FIRST, S_COUNT, S_STRIDE, S_BLOCK]] = (
                int(scatter.write), scatter.first, scatter.count, scatter.stride, -1,
            )  # fmt: skip
            left[scatter.channel] += scatter.count
            queued[scatter.channel].append(row[None])
        self.board["ticket"][0, ticket : ticket + count, 0] = left
        self.board["ticket"][0, ticket : ticket + count, 1] = start
        self._append(queued, ticket, start)
        self._wake(start)
        kinds = {s.write for s in streams} | {s.write for s in scatters}
        # a channel takes ``feed`` writes a cycle and reads every nBL; of both kinds, both at once
        nbl, feed = int(self.parameters[0]["nbl"]), int(self.parameters[0]["feed"])
        each = 8 * nbl // (1 + nbl * feed) if len(kinds) == 2 else 8 // feed
        lags = [s.follows.lag for s in streams if s.follows is not None]
        ahead = int(self.parameters[0]["read_delay"]) + min(lags) if lags else INFINITY
        group = Group(ticket, each if True in kinds else 8 * nbl, blocks, lookahead=ahead)
        self._active.append(group)
        return group

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

    def _append(self, queued: list[list[Ints]], ticket: int, start: int) -> None:
        """Put segments, a list of tables for each channel, behind those it still has."""
        table = self.board["segment"][0]
        channels = self.channels
        waiting = channels["seg_end"] - channels["seg"]
        sizes = waiting + np.array([sum(map(len, rows)) for rows in queued])
        total = int(sizes.sum())
        at = _ring_range(self._next_segment, total, MAX_SEGMENTS, "stream segments")
        self._next_segment = at + total
        for c, rows in enumerate(queued):
            old = int(waiting[c])
            if old:
                first = int(channels["seg"][c])
                table[at : at + old] = table[first : first + old].copy()
            if rows:
                fresh = np.concatenate(rows)
                fresh[:, S_GROUP] = ticket + c
                fresh[:, S_READY] += start
                table[at + old : at + old + len(fresh)] = fresh
            channels["seg"][c] = at
            at += int(sizes[c])
            channels["seg_end"][c] = at

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
        groups = np.array([[g.ticket, g.eighths_each] for g in self._active], dtype=np.int64)
        groups = groups.reshape(-1, 2)
        pim = next((i for i, g in enumerate(self._active) if g.is_pim), -1)
        first_mark = self._active[pim].marks[0] if pim >= 0 else 0
        s = self._pim_state
        begun, left = self.now, self._left()
        limit = min(until, self.now + NO_PROGRESS_CYCLES)
        self.now, fired = _advance(
            self.channels, self.parameters, self.board, self.now, limit, groups, pim, first_mark,
            s["info"], s["finish"], s["after"], s["unit_free"], s["spread"], s["lookahead"],
            s["overlap"], min((g.lookahead for g in self._active), default=INFINITY),
        )  # fmt: skip
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
            group.vector_busy_cycles = int(s["after"][4])
        return group
