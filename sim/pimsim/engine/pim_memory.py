"""PIM in a memory of its own, behind a link: who asks for that memory, and what goes over the link.

Nobody but PIM and the link asks for it, one after the other, so that what is asked for can be
simulated to its end at once: nothing else comes meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import Process
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.system import MemorySystem, Rows, Stream
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import NpuTask

__all__ = ["OwnMemoryPort", "PimLink", "TurnPort"]

Turn = Generator[simpy.Event, Any, tuple[int, int]]


class TurnPort(Protocol):
    """A memory whose channels can be had for a while."""

    @property
    def channels(self) -> int:
        """Of the memory, as its controller counts them."""

    @property
    def precharge_cycles(self) -> int:
        """That closing rows takes behind a turn."""

    def take_turn(self) -> Turn:
        """Have the memory alone, with all rows closed: the cycle from which on they are closed, and
        the turn's first."""

    def end_turn(self, begin: int, end: int, refreshed: NDArray[np.int64]) -> Process:
        """Give it back at cycle ``end``."""


class OwnMemoryPort:
    """A memory that PIM and its link have for themselves, in turn."""

    def __init__(self, env: simpy.Environment, system: MemorySystem, clock: Clock) -> None:
        self.env = env
        self.system = system
        self.clock = clock
        self._free = simpy.Resource(env)
        self._turn: Any = None

    @property
    def channels(self) -> int:
        """Of the memory, as its controller counts them."""
        return len(self.system.channels)

    @property
    def precharge_cycles(self) -> int:
        """That closing rows takes behind a turn."""
        return int(self.system.memory.timings["tRP"])

    def _now(self) -> int:
        return max(self.clock.memory_cycle(int(self.env.now)), self.system.now)

    def _until(self, cycle: int) -> Process:
        delay = self.clock.memory.edge_ps(cycle) - int(self.env.now)
        if delay > 0:
            yield self.env.timeout(delay)

    def transfer(self, streams: Sequence[Stream | Rows]) -> Process:
        """Move bursts, from when PIM is done on."""
        with self._free.request() as turn:
            yield turn
            self.system.submit(self._now(), streams)
            while self.system.active:
                self.system.advance(INFINITY)
            yield from self._until(self.system.now)

    def take_turn(self) -> Turn:
        """Have the memory alone, with all rows closed: the cycle from which on they are closed, and
        the turn's first."""
        self._turn = self._free.request()
        yield self._turn
        idle = self._now()
        begin = self.system.hand_over(idle)
        yield from self._until(begin)
        return idle, begin

    def end_turn(self, begin: int, end: int, refreshed: NDArray[np.int64]) -> Process:
        """Give it back at cycle ``end``; ``begin``, ``refreshed``: see
        ``MemorySystem.end_turn``."""
        yield from self._until(end)
        self.system.end_turn(begin, end, refreshed)
        self._free.release(self._turn)


class PimLink:
    """The link: one transfer after the other."""

    def __init__(
        self, env: simpy.Environment, port: OwnMemoryPort, recorder: Recorder
    ) -> None:  # fmt: skip
        self.env = env
        self.port = port
        self.recorder = recorder

    def run(self, task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        """Do a task: what is moved in PIM's memory moves meanwhile."""
        del following
        assert isinstance(task, NpuTask)
        start, recorder = int(self.env.now), self.recorder
        moved = self.env.process(self.port.transfer(task.streams)) if task.streams else None
        yield self.env.timeout(task.link_ps)
        if moved is not None and not moved.processed:
            yield moved
        end = int(self.env.now)
        bursts = sum(each.total for each in task.streams)
        burst_bytes = self.port.system.memory.organization.burst_bytes
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start, end, 0,
                bursts * burst_bytes, task.link_ps, part=task.id.part, entries=task.entries,
            )
        )  # fmt: skip
        recorder.work.spread(
            [(start, end, 1)],
            (("sram_bytes", task.sram_bytes), ("pim_link_bytes", task.link_bytes)),
        )
        recorder.sram_bytes += task.sram_bytes
        recorder.pim_link_bytes += task.link_bytes
