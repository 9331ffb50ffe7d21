"""Phases of a run at ``fast`` fidelity, and the same phases at ``command`` fidelity.

A phase lasts from where the memory was idle to where it is idle again. One of its channels can be
run once more by itself, by commands and by rates: everything is asked for as long after the
completion that came before it as in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.layout import P_MARK
from pimsim.hardware.dram.pim_program import instructions
from pimsim.hardware.dram.transfers import Group, ResultWork, Rows, Scatter, Stream

__all__ = ["MemoryPhase", "Service", "Submission", "after_of", "bursts_each", "part_of", "replay"]

Ints = NDArray[np.int64]
Streams = Sequence[Stream | Rows]


class Service(Protocol):
    """What ``MemorySystem`` and ``FastMemorySystem`` have in common."""

    @property
    def active(self) -> bool: ...

    @property
    def now(self) -> int: ...

    def submit(
        self, start: int, streams: Streams, scatters: Sequence[Scatter] = (), source: int = 0
    ) -> Group: ...

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: ResultWork | None = None
    ) -> Group: ...

    def advance(self, until: int) -> Group | None: ...


@dataclass(frozen=True)
class Submission:
    """What was asked of the memory at once: a transfer, or a PIM operation."""

    streams: Streams = ()
    scatters: Sequence[Scatter] = ()
    programs: Sequence[Ints] = ()
    marks: int = 0
    after: ResultWork | None = None
    behind: int = -1
    """The request of this phase that had been completed last when this one came; -1: none."""
    delay: int = 0
    """Cycles since then, or since the phase began."""


@dataclass
class MemoryPhase:
    """Everything asked for between two moments at which the memory was idle."""

    number: int
    """Of requests since the start of the run."""
    start: int
    """Cycle."""
    asked: list[Submission] = field(default_factory=list)
    end: int = -1
    by_command: bool = False
    """Whether it was simulated at command fidelity."""

    @property
    def cycles(self) -> int:
        """How long it took."""
        return self.end - self.start

    @property
    def bursts(self) -> int:
        """Mean of its transfers, all channels together; 0: there are none."""
        sizes = [sum(stream.total for stream in one.streams) for one in self.asked if one.streams]
        return sum(sizes) // len(sizes) if sizes else 0

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for phases that ask for as much of everything in the same order."""
        return tuple(
            (
                sum(stream.total for stream in one.streams),
                sum(scatter.count for scatter in one.scatters),
                sum(instructions(program) for program in one.programs), one.behind,
            )
            for one in self.asked
        )  # fmt: skip


def part_of(programs: Sequence[Ints], channel: int, marks: Ints) -> list[Ints]:
    """``channel``'s program with its marks counted from 0.

    Parameters
    ----------
    programs
        Of each channel, (instructions, ``N_INSTRUCTION``) each.
    channel
        Whose program it is.
    marks
        That are its own, in ascending order.

    Returns
    -------
    list of Ints
        One program, a copy.
    """
    own = programs[channel].copy()
    known = own[:, P_MARK] >= 0
    own[known, P_MARK] = np.searchsorted(marks, own[known, P_MARK])
    return [own]


def after_of(after: ResultWork | None, marks: Ints, channels: int) -> ResultWork | None:
    """What follows some of the results, all on one channel.

    Parameters
    ----------
    after
        Of all channels; None: nothing follows.
    marks
        Entries of it, in order.
    channels
        Of the device, over which outputs may be spread.

    Returns
    -------
    ResultWork or None
        By entry of ``marks``.
    """
    if after is None:
        return None
    return replace(
        after, duration=after.duration[marks], channel=np.zeros(len(marks), np.int64),
        bursts=bursts_each(after, channels)[marks], spread=False,
    )  # fmt: skip


def bursts_each(after: ResultWork, channels: int) -> Ints:
    """Bursts of each output that one channel writes.

    Parameters
    ----------
    after
        By result.
    channels
        Of the device.

    Returns
    -------
    Ints
        (results,), rounded up where outputs are spread.
    """
    return -(-after.bursts // channels) if after.spread else after.bursts


def replay(system: Service, asked: Sequence[Submission]) -> int:
    """Run what a channel had of a phase on ``system``.

    Parameters
    ----------
    system
        Idle at the cycle of the refresh interval at which the phase began.
    asked
        What the channel had of each submission of the phase, in order.

    Returns
    -------
    int
        Cycles until all of it is complete.
    """
    begun = system.now
    ends: dict[int, int] = {-1: begun}
    groups: dict[int, int] = {}
    waiting = list(range(len(asked)))
    while waiting or system.active:
        ready = [at for at in waiting if asked[at].behind in ends]
        due = {at: ends[asked[at].behind] + asked[at].delay for at in ready}
        now = [at for at in ready if due[at] <= system.now]
        for at in now:
            one = asked[at]
            waiting.remove(at)
            if one.programs:
                group = system.submit_pim(system.now, one.programs, one.marks, one.after)
            elif one.streams or one.scatters:
                group = system.submit(system.now, one.streams, one.scatters)
            else:
                ends[at] = system.now
                continue
            groups[id(group)] = at
        if now:
            continue
        until = min((due[at] for at in ready), default=1 << 40)
        done = system.advance(until)
        if done is not None:
            ends[groups.pop(id(done))] = system.now
    return max(system.now, max(ends.values())) - begun
