"""A machine in time: units, memory and clock that outlive a step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import simpy

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.memory import Memory, MemoryPort
from pimsim.engine.npu_side import NpuSide
from pimsim.engine.pim_side import PimSide
from pimsim.engine.records import Recorder, StageRecord, StepRecord
from pimsim.engine.schedules import Program, Schedule, Stage
from pimsim.engine.signals import Signals
from pimsim.engine.work import WorkOverTime
from pimsim.hardware.dram.samples import stop_sampling
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.mapping.tasks import BlockProgram, NpuTask

__all__ = ["Machine", "Progress", "StepProgram"]


@dataclass(frozen=True)
class Progress:
    """A stage that is about to be simulated."""

    stage: str
    blocks_begun: int
    """Blocks that a stage so far has a part of, this one included."""
    blocks: int
    """In all."""


class StepProgram(Program, Protocol):
    """What a machine runs: the blocks that a schedule orders, and what lies beside them."""

    def outside_tasks(self) -> Iterator[tuple[str, Sequence[NpuTask]]]:
        """Work that runs once behind the blocks: its name and its tasks, one stage each."""


class _Counted:
    """A program, as a schedule sees it, and how many of its blocks were asked for."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.parts, self.layers = program.parts, program.layers
        self.begun = 0

    def block(self, part: int, layer: int) -> BlockProgram:
        """As the program's."""
        self.begun = max(self.begun, layer + 1)
        return self._program.block(part, layer)


class Machine:
    """An NPU, and PIM in its memory, with a clock that goes on from step to step.

    What a step leaves behind the next one finds: open rows, writes that wait, the phase of the
    refreshes. It is a context manager: at its end the memory serves no more.

    Parameters
    ----------
    npu, memory
        The configs of the arrays and of the memory as its controller sees it.
    system
        The memory, which nothing has been asked of.
    over_time
        Whether what is done over time is kept, and not in sum alone.
    """

    def __init__(
        self, npu: NpuConfig, memory: MemoryConfig, system: Memory, over_time: bool = True
    ) -> None:
        self.env = simpy.Environment()
        self.system = system
        self.clock = Clock.of(npu.frequency, system.cycle_ps)
        self.recorder = Recorder(work=WorkOverTime(self.clock.memory))
        """Of all steps so far."""
        if not over_time:
            stop_sampling(system.samples)
            self.recorder.work.stop()
        self._launch_cycles = npu.launch_cycles
        launch_ps = self.clock.npu.edge_ps(npu.launch_cycles)
        signals = Signals(self.env)
        self._port = MemoryPort(self.env, system, self.clock)
        self.npu = NpuSide(self.env, self._port, self.clock, npu, memory, self.recorder, signals)
        self.pim = PimSide(self.env, self._port, self.clock, self.recorder, launch_ps, signals)

    @property
    def now_ps(self) -> int:
        """Time since the machine was switched on, ps."""
        return int(self.env.now)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._port.close()

    def run(
        self, program: StepProgram, schedule: Schedule,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> StepRecord:  # fmt: skip
        """Run a step from now on, to its last task.

        Parameters
        ----------
        program
            The step's tasks.
        schedule
            Their order.
        on_stage
            Hears of each stage before it starts.

        Returns
        -------
        StepRecord
            When it began and ended, and which of the recorder's operators and stages are its own.
        """
        begin = self.now_ps
        stages, operators = len(self.recorder.stages), len(self.recorder.operators)
        self.env.run(until=self.env.process(self._step(program, schedule, on_stage)))
        return StepRecord(
            begin, self.now_ps, (stages, len(self.recorder.stages)),
            (operators, len(self.recorder.operators)),
        )  # fmt: skip

    def _step(
        self, program: StepProgram, schedule: Schedule,
        on_stage: Callable[[Progress], None] | None,
    ) -> Generator[simpy.Event, Any, None]:  # fmt: skip
        counted = _Counted(program)
        for name, npu_tasks, pim_tasks in _stages(program, schedule, counted):
            self.recorder.stage = name
            if self._launch_cycles and self.recorder.stages:
                # that a stage has ended is seen as late as that an operator has
                yield self.env.timeout(self.clock.npu.edge_ps(self._launch_cycles))
                self.recorder.npu_causes["launch"] += self._launch_cycles
            if on_stage is not None:
                on_stage(Progress(name, counted.begun, counted.layers))
            yield from self._stage(name, npu_tasks, pim_tasks)

    def _stage(
        self, name: str, npu_tasks: Sequence[Any], pim_tasks: Sequence[Any]
    ) -> Generator[simpy.Event, Any, None]:
        env, clock, recorder = self.env, self.clock, self.recorder
        start, done = self.now_ps, len(recorder.operators)
        busy, pim_busy = recorder.npu_busy_cycles, self.pim.busy_ps
        sides = []
        if npu_tasks:
            sides.append(env.process(self.npu.run(npu_tasks)))
        if pim_tasks:
            sides.append(env.process(self.pim.run(pim_tasks)))
        npu_end = start
        if npu_tasks:
            yield sides[0]
            npu_end = self.now_ps
        if sides:
            yield simpy.AllOf(env, sides)
        end = self.now_ps
        recorder.npu_causes["pim"] += clock.npu_cycle(end) - clock.npu_cycle(npu_end)
        mine = recorder.operators[done:]
        bound = max(
            sum(o.bound_ps for o in mine if o.unit == "pim"),
            sum(o.bound_ps for o in mine if o.unit != "pim"),
            sum(o.loads_ps for o in mine),
        )
        recorder.stages.append(
            StageRecord(
                name, start, end, recorder.npu_busy_cycles - busy,
                int((self.pim.busy_ps - pim_busy) // clock.npu_ps), bound,
                (done, len(recorder.operators)),
            )
        )  # fmt: skip
        recorder.totals.append(recorder.total(charged_counters(self.system).sum(axis=0)))


def _stages(program: StepProgram, schedule: Schedule, counted: _Counted) -> Iterator[Stage]:
    """The schedule's stages, then what is outside the blocks, one stage each."""
    yield from schedule.stages(counted)
    for name, tasks in program.outside_tasks():
        yield name, tasks, ()
