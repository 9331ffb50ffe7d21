"""One decode iteration on one device, in time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import simpy

from pimsim.engine.clock import Clock
from pimsim.engine.device import Device
from pimsim.engine.fidelity import PhaseErrors, missed_phases, rates_hold, sampled_errors
from pimsim.engine.memory import Memory, MemoryPort
from pimsim.engine.npu_side import NpuSide
from pimsim.engine.pim_side import PimSide
from pimsim.engine.policies import Machine, Stage, load_schedule
from pimsim.engine.records import Recorder, StageRecord
from pimsim.engine.signals import Signals
from pimsim.engine.work import WorkOverTime
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast import PhasedMemory, probe_of, unfit
from pimsim.hardware.dram.layout import Records
from pimsim.hardware.dram.samples import stop_sampling
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.mapping.gemm import core_network
from pimsim.mapping.tasks import BlockProgram

__all__ = ["Outcome", "Progress", "run_iteration"]


@dataclass(frozen=True)
class Progress:
    """A stage that is about to be simulated."""

    stage: str
    blocks_begun: int
    """Blocks that a stage so far has a part of, this one included."""
    blocks: int
    """In all."""


class _Counted:
    """The device, as a schedule sees it, and how many of its blocks were asked for."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.parts, self.layers = device.parts, device.layers
        self.begun = 0

    def block(self, part: int, layer: int) -> BlockProgram:
        """As the device's."""
        self.begun = max(self.begun, layer + 1)
        return self._device.block(part, layer)


def _stages(device: Device, machine: Machine) -> Iterator[Stage]:
    """The schedule's stages, then what is outside the blocks, one stage each."""
    yield from load_schedule(device.config.schedule.policy)(machine)
    for name, tasks in device.outside_tasks():
        yield name, tasks, ()


@dataclass(frozen=True)
class Outcome:
    """What an iteration left behind, for ``result`` to read."""

    device: Device
    recorder: Recorder
    system: Memory
    clock: Clock
    pim: PimSide
    time_ps: int
    errors: PhaseErrors | None = None
    """Of a run at fast fidelity."""
    over_time: bool = True
    """Whether what was done over time is known, and not in sum alone."""

    @property
    def board(self) -> Records:
        """Where a run that logs commands has put them."""
        if not isinstance(self.system, MemorySystem):
            raise TypeError("a run at fast fidelity has no commands")
        return self.system.board


MOST_BY_COMMAND = 0.5
"""Share of a run's time; above it starting again costs more than commands for the rest."""


def memory_of(
    device: Device, log_entries: int = 0, by_command: Set[int] | None = frozenset()
) -> Memory:
    """The device's memory at its config's fidelity; by commands, too, where rates do not fit it.

    ``by_command``: phases of a run at fast fidelity that are simulated by commands; None: all.
    """
    config = device.config
    # two row buffers or one, the controller needs the design only if attention goes there
    pim = config.pim if device.uses_pim else None
    network = core_network(config.npu)
    wrap = device.counter_wrap_bytes
    fast = config.fidelity == "fast" and not unfit(pim, network, wrap, log_entries)
    if fast and by_command is not None and rates_hold(device):
        probe = probe_of(config.memory, pim)
        return PhasedMemory(config.memory, pim, probe, network, by_command)
    return make_memory_system(config.memory, pim, network, wrap, log_entries)


def run_iteration(
    device: Device, on_stage: Callable[[Progress], None] | None = None, log_entries: int = 0,
    over_time: bool = True,
) -> Outcome:  # fmt: skip
    """Run every stage of the device's schedule; ``on_stage`` hears of each before it starts.

    The memory system logs its first ``log_entries`` commands, and takes samples over time where
    ``over_time``. At fast fidelity with a
    ``max_error``, phases that miss it are simulated by commands, from the start again until none
    is left; where they are most of the run, all of it is.
    """
    limit, seed = device.config.max_error, device.config.seed
    by_command: frozenset[int] = frozenset()
    while True:
        outcome = _run(device, on_stage, memory_of(device, log_entries, by_command), over_time)
        memory = outcome.system
        if not isinstance(memory, PhasedMemory):
            return outcome
        missed = missed_phases(memory, limit, seed) if limit is not None else by_command
        if missed <= by_command:
            cycles = int(outcome.time_ps // outcome.clock.memory_ps)
            return replace(outcome, errors=sampled_errors(memory, cycles, seed))
        by_command |= missed
        if memory.share_of(by_command) > MOST_BY_COMMAND:
            return _run(device, on_stage, memory_of(device, log_entries, None), over_time)


def _run(
    device: Device, on_stage: Callable[[Progress], None] | None, system: Memory, over_time: bool
) -> Outcome:
    """All stages on ``system``."""
    config = device.config
    env = simpy.Environment()
    clock = Clock.of(config.npu.frequency, system.cycle_ps)
    work = WorkOverTime(clock.memory)
    if not over_time:
        stop_sampling(system.samples)
        work.stop()
    port = MemoryPort(env, system, clock)
    recorder, signals = Recorder(work=work), Signals(env)
    npu = NpuSide(env, port, clock, config.npu, config.memory, recorder, signals)
    launch_ps = clock.npu.edge_ps(config.npu.launch_cycles)
    pim_side = PimSide(env, port, clock, recorder, launch_ps, signals)

    machine = _Counted(device)

    def iteration() -> Generator[simpy.Event, Any, None]:
        for name, npu_tasks, pim_tasks in _stages(device, machine):
            recorder.stage = name
            if launch_ps and recorder.stages:
                # that a stage has ended is seen as late as that an operator has
                yield env.timeout(launch_ps)
                recorder.npu_causes["launch"] += config.npu.launch_cycles
            if on_stage is not None:
                on_stage(Progress(name, machine.begun, machine.layers))
            start, done = int(env.now), len(recorder.operators)
            busy, pim_busy = recorder.npu_busy_cycles, pim_side.busy_ps
            sides = []
            if npu_tasks:
                sides.append(env.process(npu.run(npu_tasks)))
            if pim_tasks:
                sides.append(env.process(pim_side.run(pim_tasks)))
            npu_end = start
            if npu_tasks:
                yield sides[0]
                npu_end = int(env.now)
            if sides:
                yield simpy.AllOf(env, sides)
            end = int(env.now)
            waited = clock.npu_cycle(end) - clock.npu_cycle(npu_end)
            recorder.npu_causes["pim"] += waited
            mine = recorder.operators[done:]
            bound = max(
                sum(o.bound_ps for o in mine if o.unit == "pim"),
                sum(o.bound_ps for o in mine if o.unit != "pim"),
                sum(o.loads_ps for o in mine),
            )
            recorder.stages.append(
                StageRecord(
                    name, start, end, recorder.npu_busy_cycles - busy,
                    int((pim_side.busy_ps - pim_busy) // clock.npu_ps), bound,
                    (done, len(recorder.operators)),
                )
            )  # fmt: skip
            recorder.totals.append(recorder.total(charged_counters(system).sum(axis=0)))

    with closing(port):
        env.run(until=env.process(iteration()))
    return Outcome(device, recorder, system, clock, pim_side, int(env.now), over_time=over_time)
