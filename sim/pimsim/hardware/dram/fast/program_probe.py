"""What one channel's PIM programs do at ``command`` fidelity, found out by running them.

A program is run piece by piece alone without refresh, beside a chain of reads with refresh, beside
writes, and for what refreshes cost it; what came out is kept by the program's content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.flow import ONE, TICKS
from pimsim.hardware.dram.fast.programs import ProgramRun, renamed_rows
from pimsim.hardware.dram.layout import C_STACK, INFINITY, MAX_LOG, P_MARK, P_OP, X_REFRESH
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Stream
from pimsim.hardware.remembered import Remembered

if TYPE_CHECKING:
    from pimsim.hardware.dram.fast.probe import Probe

__all__ = ["KEPT_BYTES", "ProgramProbe", "ProgramTimes", "Stall", "TimesBeside", "run_out"]

Ints = NDArray[np.int64]
KEPT_BYTES = 4 << 20
"""What a probe remembers, a few runs' worth: the memory of a long sweep stays flat."""
WARM_CYCLES = 512
"""For which streams run before anything is counted, or a program begins beside them."""
LEAST_BESIDE = 64
MOST_BESIDE = 4096
"""Bursts: shorter streams than these are not what keeps a memory busy beside PIM, and longer ones
are no other than these."""
WRITE_BURSTS = 1024
"""Of the writes that PIM is run beside."""


@dataclass(frozen=True)
class ProgramTimes:
    """A channel's PIM program alone, piece by piece."""

    ticks: Ints
    """Of each without refresh, (pieces,)."""
    counts: Ints
    """What the channel's counters count, (N_COUNTERS,)."""
    tail: int
    """Ticks for which its results are still written when all its commands are out: with one row
    buffer they come behind it."""

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return self.ticks.nbytes + self.counts.nbytes


@dataclass(frozen=True)
class TimesBeside:
    """A channel's PIM program beside a stream, refresh on, piece by piece."""

    ticks: Ints
    """Of each, (pieces,)."""
    reads: Ints
    """Bursts of the stream meanwhile."""
    clear: NDArray[np.bool_]
    """Whether no refresh came while it ran."""
    counts: Ints
    """What the channel's counters count, (N_COUNTERS,); the stream counts, too."""

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        arrays = (self.ticks, self.reads, self.clear, self.counts)
        return sum(array.nbytes for array in arrays)


@dataclass(frozen=True)
class Stall:
    """What refreshes cost a PIM program."""

    ticks: int
    """Of each, until the piece that follows can begin."""
    share: int
    """Of 4096: of all that they cost, what counts as refresh; the rest is opening rows again."""


class ProgramProbe:
    """Runs PIM programs on the channel of ``probe``."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        # by content; nothing that is known changes with what else is
        self._alone: Remembered[ProgramTimes] = Remembered(KEPT_BYTES // 2, lambda one: one.nbytes)
        self._beside: Remembered[TimesBeside] = Remembered(KEPT_BYTES // 2, lambda one: one.nbytes)
        self._stalls: Remembered[Stall] = Remembered(KEPT_BYTES // 8, lambda _: 0)
        self._beside_writes: Remembered[tuple[int, int]] = Remembered(KEPT_BYTES // 8, lambda _: 0)

    @property
    def nbytes(self) -> int:
        """What it keeps, about."""
        return sum(one.nbytes for one in (self._alone, self._beside, self._stalls))

    @property
    def quiet(self) -> ProgramProbe:
        """The same without refresh."""
        return self.probe.quiet.programs

    def alone(self, job: ProgramRun) -> ProgramTimes:
        """A channel's program alone; as of ``renamed``."""
        return self._alone.get(job.content, lambda: self._run_alone(job))

    def beside(self, job: ProgramRun, bursts: int) -> TimesBeside:
        """A channel's program beside a chain of reads of about so many bursts each. The closer a
        refresh, the fewer reads go between the tiles of a single row buffer; so it is on there.
        As of ``renamed``."""
        length = min(max(bursts, LEAST_BESIDE), MOST_BESIDE)
        content = job.content + length.to_bytes(8, "little")
        return self._beside.get(content, lambda: self._run_beside(job, length))

    def renamed(self, job: ProgramRun) -> ProgramRun:
        """The same in rows that do not tell requests and batches apart: above those that its own
        writes go to, below those of the streams beside it."""
        row = self.probe.map.position["ro"]
        if row + self.probe.map.width["ro"] < sum(self.probe.map.width.values()):
            return job  # writes and streams may be in any row
        written = int(job.bursts.sum())
        least = (written - 1 >> row) + 1
        program = renamed_rows(job.program, least, self.probe.memory.organization.rows // 2)
        return replace(job, program=program)

    def _run_alone(self, job: ProgramRun) -> ProgramTimes:
        ticks, counts, _, _, tail = self.quiet._run_job(job)
        return ProgramTimes(ticks, counts, tail)

    def _run_beside(self, job: ProgramRun, bursts: int) -> TimesBeside:
        ticks, counts, reads, clear, _ = self._run_job(job, bursts)
        return TimesBeside(ticks, reads, clear, counts)

    def stall(self, job: ProgramRun) -> Stall:
        """What refreshes cost a channel's program, as of ``renamed``; nothing where it meets
        none."""
        if self.quiet is self:
            return Stall(0, 0)
        return self._stalls.get(job.content, lambda: self._stall(job))

    @property
    def write_cycles(self) -> int:
        """Of the writes that ``beside_writes`` has beside a program."""
        return WRITE_BURSTS * self.probe.writes.ticks // TICKS

    def beside_writes(self, job: ProgramRun) -> tuple[int, int]:
        """What a stream of writes and a channel's program get of their rates beside each other, of
        4096: writes are drained before anything else, and may leave PIM nothing."""
        if self.quiet is not self:
            return self.quiet.beside_writes(job)
        return self._beside_writes.get(job.content, lambda: self._share_beside_writes(job))

    def _share_beside_writes(self, job: ProgramRun) -> tuple[int, int]:
        org = self.probe.memory.organization
        first = org.rows // 2 * org.ranks * org.banks * org.columns
        ends = []
        for bursts in (0, WRITE_BURSTS):
            system = self.probe.one_channel()
            writes = system.submit(0, [Stream(first, bursts, write=True)] if bursts else [])
            system.submit_pim(0, [job.program], len(job.bursts), job.after)
            run_out(system)
            ends.append(int(system.channels["pim_last"][0]))
        alone = WRITE_BURSTS * self.probe.writes.ticks
        took = max(writes.done_cycle * TICKS, alone)
        worked = max(took - (ends[1] - ends[0]) * TICKS, 0)
        return alone * ONE // took, min(max(worked * ONE // took, 1), ONE)

    def _stall(self, job: ProgramRun) -> Stall:
        durations = self.quiet._run_job(job)[0]
        took, counts, *_ = self._run_job(job)
        ends = np.cumsum(took)
        due = np.arange(self.probe.interval * TICKS, ends[-1], self.probe.interval * TICKS)
        after = np.searchsorted(ends, due, side="right")
        # a refresh that fell due in a piece waits for its end: the next one is held up
        late = np.append(took - durations, 0)
        began = ends[after] - durations[after] <= due
        after += began & (late[after + 1] > late[after]) & (after + 1 < len(ends))
        starts = np.append(0, ends)[after]
        # the piece must have been next when it fell due, or the one after that
        clear = starts <= due + took.max()
        stops = (ends[after] - durations[after] - due)[clear]
        if not len(stops):
            return Stall(0, 0)
        lost = max(int(ends[-1] - durations.sum()), 1)
        share = int(counts[C_STACK + X_REFRESH]) * TICKS * ONE // lost
        each = int(stops.mean())
        if self.probe.pim is not None and not self.probe.pim.refresh_avoidance:
            each = lost // len(due)  # what it costs the piece that it stops, too
        return Stall(max(each, 0), min(share, ONE))

    def _run_job(
        self, job: ProgramRun, bursts: int = 0
    ) -> tuple[Ints, Ints, Ints, NDArray[np.bool_], int]:  # fmt: skip
        """Ticks of each piece, what was counted in all, reads that went out meanwhile, whether no
        refresh came meanwhile, and ticks from its last result to its last write. ``bursts``: of
        each stream beside it, two at a time."""
        p = self.probe.parameters[0]
        system = self.probe.one_channel(MAX_LOG if bursts else 0)
        # from half of the memory on, which programs do not reach
        org = self.probe.memory.organization
        chain = count(org.rows // 2 * org.ranks * org.banks * org.columns, max(bursts, 1))
        if bursts:
            for _ in range(2):
                system.submit(0, [Stream(next(chain), bursts)])
            while system.now < WARM_CYCLES:
                if system.advance(WARM_CYCLES) is not None:
                    system.submit(system.now, [Stream(next(chain), bursts)])
        start = system.now
        group = system.submit_pim(start, [job.program], len(job.bursts), job.after)
        while group.done_cycle < 0:
            done = system.advance(INFINITY)
            if bursts and done is not group:
                system.submit(system.now, [Stream(next(chain), bursts)])
        board = system.board[0]
        ends = board["ticket"][group.marks[0] : group.marks[1], 1].copy()
        # a tile ends when its last result is asked for, a GWRITE when it is done
        ends = ends[job.ends]
        last = np.flatnonzero(job.program[:, P_MARK] >= 0)[job.ends]
        ends -= np.where(job.program[last, P_OP] == int(Command.GWRITE), 0, int(p["read_delay"]))
        ends = np.maximum.accumulate(np.maximum(ends, start))
        reads = np.zeros(len(ends), dtype=np.int64)
        if bursts:
            logged = board["log"][: board["logged"]]
            cycles = logged[logged[:, 2] == int(Command.RD), 0]
            reads = np.diff(np.searchsorted(cycles, np.append(start, ends)))
        bounds = np.append(start, ends)
        clear = np.diff(bounds // self.probe.interval) == 0
        counts: Ints = system.channels["counter"][0].copy()
        tail = max(group.done_cycle - int(ends[-1]) - int(p["read_delay"]), 0)
        return np.diff(bounds) * TICKS, counts, reads, clear, tail * TICKS


def run_out(system: MemorySystem) -> int:
    """Simulate until everything that was submitted is complete.

    Parameters
    ----------
    system
        Changed.

    Returns
    -------
    int
        Cycle at which the last of it is.
    """
    while system.active:
        system.advance(INFINITY)
    return system.now
