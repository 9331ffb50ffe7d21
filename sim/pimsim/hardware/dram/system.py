"""The memory of one device: streams and PIM programs in, completion times out.

What is asked for is put into the kernel's tables here; channels are simulated in ``windows``.
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
from pimsim.hardware.dram.layout import (
    INFINITY,
    MAX_INSTRUCTIONS,
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
from pimsim.hardware.dram.samples import make_samples, sum_with_banks
from pimsim.hardware.dram.segments import StreamTable
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
from pimsim.hardware.dram.windows import N_AFTER, advance_channels
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
]

Ints = NDArray[np.int64]
NO_PROGRESS_CYCLES = 20_000_000
"""A memory that answers nothing for so long is stuck."""


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
        return advance_channels(
            self.channels, self.parameters, self.board, self.now, limit, groups, pim, first_mark,
            s["info"], s["finish"], s["after"], s["unit_free"], s["spread"], s["lookahead"],
            s["overlap"], min((g.lookahead for g in self._active), default=INFINITY),
            *self.samples,
        )  # fmt: skip
