"""A machine in time: units, memory and clock that outlive a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import simpy

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import LINK, NPU, PIM, PIM_LINK, UNITS, Dispatch, Process
from pimsim.engine.links import Links
from pimsim.engine.memory import Memory, MemoryPort
from pimsim.engine.npu_side import NpuSide
from pimsim.engine.pim_memory import OwnMemoryPort, PimLink
from pimsim.engine.pim_side import PimSide
from pimsim.engine.records import Recorder, StageRecord, StepRecord
from pimsim.engine.schedules import Schedule
from pimsim.engine.stream_side import StreamSide
from pimsim.engine.work import WorkOverTime
from pimsim.hardware.dram.samples import stop_sampling
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.hardware.pim.operations import OperationRuns
from pimsim.hardware.vector_units import VectorUnits
from pimsim.mapping.program import AnyTask, Program

__all__ = ["Machine", "Progress"]


_WAITS_FOR = {LINK: "collective", PIM_LINK: "pim_link"}
"""What the NPU's time is charged to in which it waits for a unit."""


@dataclass(frozen=True)
class Progress:
    """A stage that is about to be simulated."""

    stage: str
    blocks_begun: int
    """Blocks that a stage so far has a part of, this one included."""
    blocks: int
    """In all."""


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
    design_runs
        Operations of a PIM design with a controller of its own, which takes turns with the
        memory's; None: PIM's commands go through that one.
    pim_system
        The memory that such a design has for itself, behind a link, which nothing has been asked
        of; None: it is in the device's.
    """

    def __init__(
        self, npu: NpuConfig, memory: MemoryConfig, system: Memory, over_time: bool = True,
        design_runs: OperationRuns | None = None, pim_system: MemorySystem | None = None,
    ) -> None:  # fmt: skip
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
        self._port = MemoryPort(self.env, system, self.clock)
        if vector_timing(npu.vector).queues:
            system.vector_units = VectorUnits(npu.vector.units)
        self.npu = NpuSide(self.env, self._port, self.clock, npu, memory, self.recorder)
        self.pim_system = pim_system
        self.pim: PimSide | StreamSide
        self.pim_link: PimLink | None = None
        if design_runs is None:
            self.pim = PimSide(self.env, self._port, self.clock, self.recorder, launch_ps)
        elif pim_system is None:
            self.pim = StreamSide(
                self.env, self._port, self.clock, self.recorder, design_runs, launch_ps
            )
        else:
            stop_sampling(pim_system.samples)
            of_pim = Clock.of(npu.frequency, pim_system.cycle_ps)
            own = OwnMemoryPort(self.env, pim_system, of_pim)
            self.pim = StreamSide(self.env, own, of_pim, self.recorder, design_runs, launch_ps)
            self.pim_link = PimLink(self.env, own, self.recorder)
        self.links = Links(self.env, self.recorder)
        self._following: tuple[Program, Dispatch] | None = None
        self.units = {unit: simpy.Resource(self.env) for unit in UNITS}
        """What a task takes while it is done; one task at a time."""

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
        self, program: Program, schedule: Schedule,
        on_stage: Callable[[Progress], None] | None = None, following: Program | None = None,
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
        following
            The step that is run next, by the same schedule, where that is known by now: weights of
            its first product may come while this step's last one is computed. None: whoever
            decides on steps does so when this one has ended.

        Returns
        -------
        StepRecord
            When it began and ended, and which of the recorder's operators and stages are its own.

        Raises
        ------
        InputError
            Where the schedule forgets a task, gives one twice, or has tasks wait for one another.
        ValueError
            Where another program was said to follow the step before.
        """
        begin, recorder = self.now_ps, self.recorder
        stages, operators = len(recorder.stages), len(recorder.operators)
        dispatch = self._dispatch(program, schedule, following)
        self.env.run(until=self.env.process(self._step(program, dispatch, on_stage)))
        return StepRecord(
            begin, self.now_ps, (stages, len(recorder.stages)),
            (operators, len(recorder.operators)),
        )  # fmt: skip

    def _dispatch(
        self, program: Program, schedule: Schedule, following: Program | None
    ) -> Dispatch:
        """Of ``program``, whose first tasks may be known since the step before."""
        if self._following is None:
            own = Dispatch(self.env, program, schedule, self._is_held)
        else:
            expected, own = self._following
            if expected is not program:
                raise ValueError("this is not the program that was said to follow")
        self._following = None
        if following is not None:
            own.following = Dispatch(self.env, following, schedule, self._is_held)
            self._following = following, own.following
        return own

    def _step(
        self, program: Program, dispatch: Dispatch, on_stage: Callable[[Progress], None] | None
    ) -> Process:
        while (label := dispatch.begin()) is not None:
            self.recorder.stage = label
            if self._launch_cycles and self.recorder.stages:
                # that a stage has ended is seen as late as that an operator has
                yield self.env.timeout(self.clock.npu.edge_ps(self._launch_cycles))
                self.recorder.npu_causes["launch"] += self._launch_cycles
            if on_stage is not None:
                on_stage(Progress(label, dispatch.blocks_begun, program.layers))
            yield from self._stage(label, dispatch)

    def _is_held(self, task: AnyTask) -> bool:
        """Whether the arrays cannot take the task, as their buffers are another product's."""
        return task.unit == "systolic" and self.npu.fetched not in (None, task.id)

    def _stage(self, label: str, dispatch: Dispatch) -> Process:
        env, clock, recorder = self.env, self.clock, self.recorder
        start, done = self.now_ps, len(recorder.operators)
        early_ps = self.npu.early_loads_ps
        busy, pim_busy = recorder.npu_busy_cycles, self.pim.busy_ps
        dispatch.wait_from(start)

        def waited(since_ps: int) -> None:
            if self.pim_link is not None:
                self._charge_waits(dispatch.ended, since_ps)
                return
            self.npu.charge("collective" if dispatch.last_unit == LINK else "pim", since_ps)

        serve = {
            NPU: dispatch.serve(NPU, self._taking(NPU, self.npu.run), waited),
            PIM: dispatch.serve(PIM, self._taking(PIM, self.pim.run)),
            LINK: dispatch.serve(LINK, self._taking(LINK, self.links.run)),
        }
        if self.pim_link is not None:
            serve[PIM_LINK] = dispatch.serve(PIM_LINK, self._taking(PIM_LINK, self.pim_link.run))
        working = [env.process(serve[unit]) for unit in serve if dispatch.has_work(unit)]
        if working:
            yield simpy.AllOf(env, working)
        if self.now_ps > dispatch.idle_ps[NPU]:
            waited(dispatch.idle_ps[NPU])
        mine = recorder.operators[done:]
        bound = {unit: 0 for unit in UNITS}
        for each in mine:
            bound[dispatch.unit_of(each.unit)] += each.bound_ps
        recorder.stages.append(
            StageRecord(
                label, start, self.now_ps, recorder.npu_busy_cycles - busy,
                int((self.pim.busy_ps - pim_busy) // clock.npu_ps),
                max(*bound.values(), sum(o.loads_ps for o in mine) - early_ps),
                (done, len(recorder.operators)),
            )
        )  # fmt: skip
        of_pim = 0 if self.pim_system is None else charged_counters(self.pim_system).sum(axis=0)
        recorder.totals.append(recorder.total(charged_counters(self.system).sum(axis=0), of_pim))

    def _charge_waits(self, ended: Sequence[tuple[int, str]], since_ps: int) -> None:
        """Charge the NPU's time from ``since_ps`` on to the units whose tasks were done in it, each
        up to its task's end."""
        for end_ps, unit in (*ended, (self.now_ps, "")):
            if end_ps > since_ps:
                self.npu.charge(_WAITS_FOR.get(unit, PIM), since_ps, end_ps)
                since_ps = end_ps

    def _taking(
        self, unit: str, run: Callable[[AnyTask, Sequence[AnyTask]], Process]
    ) -> Callable[[AnyTask, Sequence[AnyTask]], Process]:
        """``run`` while ``unit`` is taken, and the links where they do the task."""

        def taking(task: AnyTask, following: Sequence[AnyTask]) -> Process:
            needed = [unit, LINK] if task.unit == "link" and unit != LINK else [unit]
            taken = [(self.units[each], self.units[each].request()) for each in needed]
            for _, request in taken:
                if not request.triggered:
                    yield request
            yield from run(task, following)
            for resource, request in taken:
                resource.release(request)

        return taking
