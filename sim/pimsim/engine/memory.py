"""The memory system as a simpy process: bursts and programs in, events out.

This is the one place where simpy and the command kernel meet. The process lets the kernel run to
the next completion, or to the time of the next event of the simulation, whichever is first: until
then nobody can submit anything.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import simpy
from numpy.typing import NDArray

from pimsim.engine.clock import Clock
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.system import Group, MemorySystem, ResultWork, Rows, Scatter, Stream

if TYPE_CHECKING:
    from pimsim.hardware.dram.fast import PhasedMemory

__all__ = ["Memory", "MemoryPort"]

Memory: TypeAlias = "MemorySystem | PhasedMemory"


class MemoryPort:
    """Submissions of the units to one device's memory."""

    def __init__(self, env: simpy.Environment, system: Memory, clock: Clock) -> None:
        self.env = env
        self.system = system
        self.clock = clock
        self._latency = system.memory.controller.fabric_latency
        self._waiting: dict[int, simpy.Event] = {}
        self._submitted = env.event()
        self._lent = False
        """Whether the memory is another controller's, or is to be as soon as it is idle."""
        self._held: list[tuple[simpy.Event, Sequence[Stream | Rows], Sequence[Scatter], int]] = []
        """What was asked for meanwhile, in order."""
        self._idle = env.event()
        """Happens when the last group under way is complete."""
        self.vector_work = False
        """Whether vector work behind the results of a PIM operation is under way."""
        self.vector_work_begins = env.event()
        """Happens when it next gets under way."""
        self._running = self._run()
        env.process(self._running)

    def close(self) -> None:
        """Serve no more. The process that waits for submissions would hold the memory system, and
        all of its pages, until Python's collector comes by."""
        self._running.close()

    def _now(self) -> int:
        """When what is submitted now reaches the memory."""
        return max(self.clock.memory_cycle(int(self.env.now)) + self._latency, self.system.now)

    def _watch(self, group: Group, event: simpy.Event | None = None) -> simpy.Event:
        event = self.env.event() if event is None else event
        self._waiting[id(group)] = event
        if not self._submitted.triggered:
            self._submitted.succeed()
        return event

    def transfer(
        self,
        streams: Sequence[Stream | Rows],
        scatters: Sequence[Scatter] = (),
        source: int = 0,
    ) -> simpy.Event:
        """Move bursts for core ``source``; the event's value is the completed ``Group``. While the
        memory is lent they wait."""
        if self._lent:
            event = self.env.event()
            self._held.append((event, streams, scatters, source))
            return event
        return self._watch(self.system.submit(self._now(), streams, scatters, source))

    @property
    def channels(self) -> int:
        """Of the memory, as its controller counts them."""
        return len(self.system.channels)

    @property
    def precharge_cycles(self) -> int:
        """That closing rows takes behind a turn."""
        return int(self.system.memory.timings["tRP"])

    def take_turn(self) -> Generator[simpy.Event, Any, tuple[int, int]]:
        """Have the memory alone: wait for what is under way, hold what comes, close all rows.

        Returns
        -------
        tuple[int, int]
            The memory cycle from which on it closes rows, and the first of the turn.
        """
        self._lent = True
        while self.system.active:
            yield self._idle
        idle = max(self.clock.memory_cycle(int(self.env.now)), self.system.now)
        begin = self.system.hand_over(idle)
        yield from self._until(begin)
        return idle, begin

    def end_turn(
        self, begin: int, end: int, refreshed: NDArray[np.int64]
    ) -> Generator[simpy.Event, Any, None]:
        """Give the memory back at cycle ``end``; what has been asked for meanwhile goes on.

        ``begin``, ``refreshed``: see ``MemorySystem.end_turn``.
        """
        yield from self._until(end)
        self.system.end_turn(begin, end, refreshed)
        self._lent = False
        held, self._held = self._held, []
        for event, streams, scatters, source in held:
            self._watch(self.system.submit(self._now(), streams, scatters, source), event)

    def _until(self, cycle: int) -> Generator[simpy.Event, Any, None]:
        delay = self.clock.memory.edge_ps(cycle) - int(self.env.now)
        if delay > 0:
            yield self.env.timeout(delay)

    def compute(
        self, programs: Sequence[NDArray[np.int64]], marks: int, after: ResultWork | None
    ) -> simpy.Event:
        """Run a PIM operation; the event's value is the completed ``Group``."""
        done = self._watch(self.system.submit_pim(self._now(), programs, marks, after))
        if after is not None and len(after.duration):
            self.begin_vector_work()
            assert done.callbacks is not None
            done.callbacks.append(self._ended)
        return done

    def begin_vector_work(self) -> None:
        """Results of PIM begin to want vector units."""
        self.vector_work = True
        begins, self.vector_work_begins = self.vector_work_begins, self.env.event()
        begins.succeed()

    def _ended(self, operation: simpy.Event) -> None:
        """The vector work behind PIM's results is done."""
        del operation
        self.vector_work = False

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while True:
            if not self.system.active:
                self._submitted = self.env.event()
                yield self._submitted
            # let everybody who acts at this instant act first
            yield self.env.timeout(0)
            following = self.env.peek()
            until = INFINITY
            if following != float("inf"):
                until = self.clock.memory_cycle(int(following))
            if until <= self.system.now and following > self.env.now:
                until = self.system.now + 1
            group = self.system.advance(until)
            delay = self.clock.memory.edge_ps(self.system.now) - int(self.env.now)
            if delay > 0:
                yield self.env.timeout(delay)
            if group is None:
                continue
            event = self._waiting.pop(id(group))
            if not self.system.active:
                idle, self._idle = self._idle, self.env.event()
                idle.succeed()
            if self._latency:
                group.done_cycle += self._latency
                group.block_cycles += self._latency
                self.env.process(self._deliver(event, group))
            else:
                event.succeed(group)

    def _deliver(self, event: simpy.Event, group: Group) -> Generator[simpy.Event, Any, None]:
        """Answer a group that is on its way through the fabric."""
        now = int(self.env.now)
        yield self.env.timeout(self.clock.memory.later(now, self._latency) - now)
        event.succeed(group)
