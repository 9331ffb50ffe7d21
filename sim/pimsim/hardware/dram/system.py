"""The memory of one device: streams and PIM programs in, completion times out.

All channels share nothing but the work they are given, so each is simulated by itself, in windows
that end before anything of one channel could concern another: no group of requests can be complete
before the end of the window (its slowest channel still has too many requests left), and no softmax
that follows a PIM result can have issued its writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any
from weakref import proxy

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.controller import run_channel
from pimsim.hardware.dram.layout import (
    INFINITY,
    MAX_INSTRUCTIONS,
    MAX_PIM_WRITES,
    MAX_TICKETS,
    P_GROUP,
    P_MARK,
    P_OP,
    P_READY,
    P_ROUNDS,
    P_ROW,
    Records,
    bounded,
    make_board,
    make_channels,
)
from pimsim.hardware.dram.parameters import make_parameters, refreshes_overrun
from pimsim.hardware.dram.ranges import Ranges
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.hardware.dram.rules import Command, compile_rules
from pimsim.hardware.dram.samples import NEXT, make_samples, next_sample, sum_with_banks
from pimsim.hardware.dram.segments import StreamTable
from pimsim.hardware.dram.sources import next_offer
from pimsim.hardware.dram.transfers import (
    BLOCK_BYTES,
    Group,
    Network,
    OperandDependency,
    ResultWork,
    Rows,
    Scatter,
    Stream,
)
from pimsim.hardware.dram.turns import end_turn, hand_over
from pimsim.hardware.dram.waiting import posted_writes
from pimsim.hardware.vector_units import VectorUnits

__all__ = [
    "BLOCK_BYTES",
    "Group",
    "MemorySystem",
    "Network",
    "OperandDependency",
    "ResultWork",
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
    spread: bool, lookahead: int, overlap: bool, released: int, samples: Any, sampling: Any,
) -> tuple[int, int]:  # fmt: skip
    """Simulate until a group is complete or ``until``; ``(cycle, index of the group or -1)``.

    ``groups``: (groups, 2) ticket and eight times the least cycles of each completion.
    ``released``: a window's most cycles while requests wait for the data of others.
    """
    p, board = parameters[0], boards[0]
    while True:
        horizon = min(until, now + released, sampling[NEXT])
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
        if now >= sampling[NEXT]:
            row = next_sample(samples, sampling, now)
            sum_with_banks(channels, p.ranks, now, samples[row])


class MemorySystem:
    """All channels of a device at ``command`` fidelity."""

    def __init__(
        self,
        memory: MemoryConfig,
        pim: PimConfig | None = None,
        log_entries: int = 0,
        network: Network | None = None,
        order: RequestOrder | None = None,
        parameters: Records | None = None,
    ) -> None:
        """``order``: of streams that name their operands; None: there are none. ``parameters``:
        of an earlier system of the same configs."""
        self.memory = memory
        self.pim = pim
        self.order = order
        self.parameters = self._make_parameters() if parameters is None else parameters.copy()
        self.channels = self._make_channels()
        self.cycle_ps: Fraction | int = self._period_ps()
        """Picoseconds of the cycles that this system counts."""
        self.board = make_board(log_entries)
        self.samples = make_samples()
        """What all channels had done by cycles at equal distances, and how many there are."""
        self.now = 0
        """Cycle of tCK up to which everything is simulated."""
        self._active: list[Group] = []
        self.tickets = Ranges(MAX_TICKETS, "tickets of transfers at once")
        """Each is its group's, until that is complete."""
        # by a weak reference: a cycle would hold the board until the collector comes by
        own = proxy(self)
        self.streams = StreamTable(
            memory, self.parameters, self.channels, self.board, network or Network(),
            order, lambda count: int(own._tickets(count)), self.cycle_ps,
        )  # fmt: skip
        self._pim_state: dict[str, Any] = self._no_after()
        self.vector_units: VectorUnits | None = None
        """Those that vector work behind PIM's results shares with others; None: it has its own."""

    def _period_ps(self) -> Fraction | int:
        """Of the cycles that this system counts."""
        return self.memory.tCK

    def _make_parameters(self) -> Records:
        """Of the kernel."""
        rules = compile_rules(self.memory, self.pim)
        merge = 2 if self.order is not None else 0
        return make_parameters(self.memory, self.pim, rules, merge=merge)

    def _make_channels(self) -> Records:
        """Before the first cycle."""
        return make_channels(self.memory, self.parameters)

    @property
    def active(self) -> bool:
        """Whether any submitted group is not complete."""
        return bool(self._active)

    def _tickets(self, count: int) -> int:
        """A range of ``count`` tickets."""
        first = self.tickets.take(count)
        self.board["ticket"][0, first : first + count] = 0
        return first

    def _own(self, group: Group) -> None:
        """What was taken from the tables since the last group is this one's."""
        group.tickets, group.listed = self.tickets.collect(), self.streams.listed.collect()
        self._active.append(group)

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
        left, blocks = self.streams.add(streams, scatters, ticket, start, source)
        self.board["ticket"][0, ticket : ticket + count, 0] = left
        self.board["ticket"][0, ticket : ticket + count, 1] = start
        self._wake(start)
        kinds = {s.write for s in streams} | {s.write for s in scatters}
        lags = [s.follows.lag for s in streams if isinstance(s, Stream) and s.follows is not None]
        released = int(self.parameters[0]["read_delay"]) + min(lags) if lags else INFINITY
        each = self._least_eighths(False in kinds, True in kinds)
        self._own(group := Group(ticket, each, blocks, lookahead=released))
        return group

    def _least_eighths(self, reads: bool, writes: bool) -> int:
        """Least cycles between two completions on a channel, times eight: it takes ``feed``
        writes a cycle and reads every nBL; of both kinds, both at once."""
        nbl, feed = int(self.parameters[0]["nbl"]), int(self.parameters[0]["feed"])
        if not writes:
            return 8 * nbl
        return 8 * nbl // (1 + nbl * feed) if reads else 8 // feed

    def _wake(self, start: int) -> None:
        """Let every channel look again at ``start``."""
        np.minimum(self.channels["now"], max(start, self.now), out=self.channels["now"])

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: ResultWork | None = None
    ) -> Group:
        """Run a PIM program on each channel (see ``pim_program``; may be empty).

        ``P_MARK`` of an instruction is the (request, head) in 0..marks-1 that its result belongs
        to, or -1; ``P_READY`` counts from ``start``. One PIM operation runs at a time.
        """
        if any(group.is_pim for group in self._active):
            raise RuntimeError("a PIM operation is under way")
        count = len(self.channels)
        ticket = self._tickets(count)
        first_mark = self._tickets(max(marks, 1))
        sizes = np.array([len(program) for program in programs])
        instructions = np.array([int(program[:, P_ROUNDS].sum()) for program in programs])
        total = bounded(int(sizes.sum()), MAX_INSTRUCTIONS, "PIM instructions in one operation")
        program = self.board["program"][0, :total]
        program[:] = np.concatenate([p for p in programs if len(p)]) if total else 0
        ends = np.cumsum(sizes)
        channel = np.repeat(np.arange(count), sizes)
        program[:, P_GROUP] = ticket + channel
        program[:, P_READY] += start
        marked = program[:, P_MARK] >= 0
        counts = self.board["ticket"][0, first_mark : first_mark + max(marks, 1), 0]
        np.add.at(counts, program[marked, P_MARK], program[marked, P_ROUNDS])
        program[marked, P_MARK] += first_mark
        real = program[:, P_OP] != int(Command.HEADER)
        left = self.board["ticket"][0, ticket : ticket + count, 0]
        np.add.at(left, channel[real], program[real, P_ROUNDS])
        self.board["ticket"][0, ticket : ticket + count, 1] = start
        channels = self.channels
        channels["pim_head"] = channels["pim_avail"] = 0
        channels["pim_head_at"] = channels["pim_avail_at"] = ends - sizes
        channels["pim_head_round"] = channels["pim_avail_round"] = 0
        channels["pim_row"] = [program[0, P_ROW] if len(program) else 0 for program in programs]
        channels["pim_end"] = instructions
        channels["pim_last"] = start
        channels["pim_next"] = 0
        channels["pim_until"] = 0
        channels["pim_refreshed"] = 0
        channels["pim_estimate"] = -1
        channels["pim_scan"] = 0
        self._wake(start)
        group = Group(ticket, 8, marks=(first_mark, first_mark + marks), after=after, is_pim=True)
        self._own(group)
        self._pim_state = self._no_after() if after is None else self._start_after(start, after)
        group.vector_ends = self._pim_state["finish"]
        if after is not None and after.spread and self.order is not None:
            # PIM's outputs lie where the next operand would, over all channels
            first = self.order.burst
            self.channels["pw_burst"] = self.streams.stream_map.below(first)
            self._pim_state["after"][3] = first
            self.order.skip(after.output_bytes)
        return group

    def hand_over(self, start: int) -> int:
        """Close all rows of an idle memory for another controller; the first cycle of its turn,
        at or after ``start``."""
        if self._active:
            raise RuntimeError("the memory is not idle")
        while self.now < start:
            self.advance(start)
        return int(hand_over(self.channels, self.parameters, self.board, max(start, self.now)))

    def end_turn(self, begin: int, end: int, refreshed: Ints) -> None:
        """The turn that ``hand_over`` began at cycle ``begin`` ends at ``end``, all rows closed.

        ``refreshed``: refreshes of a rank that the other controller did in it, shape (channels,).
        """
        end_turn(self.channels, self.parameters, begin, end, refreshed)

    def _no_after(self) -> dict[str, Any]:
        return {
            "info": np.zeros((0, 3), np.int64), "finish": np.zeros(0, np.int64),
            "after": np.zeros(N_AFTER, np.int64), "unit_free": np.zeros(0, np.int64),
            "spread": False, "lookahead": INFINITY, "overlap": True,
        }  # fmt: skip

    def _start_after(self, start: int, after: ResultWork) -> dict[str, Any]:
        shortest = max(int(after.duration.min()), 0) if len(after.duration) else 0
        state = np.zeros(N_AFTER, np.int64)
        state[1] = start - 1
        state[2] = start
        return {
            "info": np.stack([after.duration, after.bursts, after.channel], axis=1),
            "finish": np.zeros(len(after.duration), np.int64),
            "after": state,
            "unit_free": self._units(after.units, start),
            "spread": after.spread,
            "overlap": after.overlap,
            "lookahead": int(self.parameters[0]["read_delay"]) + shortest,
        }

    def _units(self, count: int, start: int) -> Ints:
        """When each of ``count`` units is free."""
        if self.vector_units is None or not count:
            return np.full(count, start, np.int64)
        return self.vector_units.free

    def settle_results(self) -> None:
        """Vector work behind results that are known by now has its units: it gets them in time."""

    def posted_writes(self, moved: int, cycles: int) -> int:
        """Bursts of writes that are answered and not on the bus yet; ``moved``: bursts that were
        asked for and answered in the last ``cycles``, for those who do not know."""
        del moved, cycles
        return posted_writes(self)

    def sample(self, row: Ints) -> None:
        """Put into ``row`` what all channels have done by now."""
        sum_with_banks(self.channels, int(self.parameters[0]["ranks"]), self.now, row)

    def _refreshes_overrun(self) -> bool:
        """Whether more refreshes are due than may ever be postponed (JEDEC: 8)."""
        postponed = max(self.channels["ref_pending"].max(), self.channels["ref_alone"].max())
        return bool(postponed > 8 * self.parameters[0]["ref_units"])

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
                if self._refreshes_overrun():
                    raise refreshes_overrun(self.memory)
                raise RuntimeError(
                    f"simulator bug: nothing came in {self.now - begun} cycles, {left} to come"
                )
            return None
        group = self._active.pop(fired)
        group.done_cycle = self.now
        first, last = group.blocks
        group.block_cycles = self.board["ticket"][0, first:last, 1].copy()
        self.tickets.give_back(group.tickets)
        self.streams.listed.give_back(group.listed)
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
            *self.samples,
        )  # fmt: skip
