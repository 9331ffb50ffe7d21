"""The steps of a run on one device, in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pimsim.config.pim import PimDesignConfig
from pimsim.engine.clock import Clock
from pimsim.engine.device import Device
from pimsim.engine.machine import Machine, Progress
from pimsim.engine.memory import Memory
from pimsim.engine.pim_side import PimSide
from pimsim.engine.records import OperatorRecord, Recorder, StageRecord, StepRecord, WorkTotals
from pimsim.engine.schedules import load_schedule
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.layout import Records
from pimsim.hardware.dram.system import MemorySystem
from pimsim.mapping.gemm import core_network
from pimsim.mapping.operands import operands

if TYPE_CHECKING:
    from pimsim.engine.fidelity import PhaseErrors

__all__ = ["Outcome", "Progress", "StepOutcome", "memory_of", "run_devices", "run_iteration"]


@dataclass(frozen=True)
class StepOutcome:
    """What one step of a run did."""

    number: int
    device: Device
    record: StepRecord
    operators: Sequence[OperatorRecord]
    stages: Sequence[StageRecord]
    totals: Sequence[WorkTotals]
    """Before the step, and at the end of each of its stages."""

    @property
    def time_ps(self) -> int:
        """What it took."""
        return self.record.time_ps


@dataclass(frozen=True)
class Outcome:
    """What a run left behind, for ``result`` to read."""

    devices: tuple[Device, ...]
    """At each step."""
    records: tuple[StepRecord, ...]
    recorder: Recorder
    system: Memory
    clock: Clock
    pim: PimSide | StreamSide
    time_ps: int
    pim_system: MemorySystem | None = None
    """PIM's own memory, behind its link; None: PIM is in the device's."""
    errors: PhaseErrors | None = None
    """Of a run at fast fidelity."""
    over_time: bool = True
    """Whether what was done over time is known, and not in sum alone."""

    @property
    def device(self) -> Device:
        """At the first step: what does not change is the same at all of them."""
        return self.devices[0]

    @property
    def design(self) -> PimDesignConfig | None:
        """The PIM design with a controller of its own that did some of the work; None: none did."""
        return self.pim.runs.design if isinstance(self.pim, StreamSide) else None

    @property
    def steps(self) -> tuple[StepOutcome, ...]:
        """The run, step by step."""
        recorder = self.recorder
        nothing = WorkTotals(np.zeros_like(recorder.totals[0].counter))
        found = []
        for number, (device, record) in enumerate(zip(self.devices, self.records, strict=True)):
            first, end = record.stages
            before = recorder.totals[first - 1] if first else nothing
            found.append(
                StepOutcome(
                    number, device, record, recorder.operators[slice(*record.operators)],
                    recorder.stages[first:end], (before, *recorder.totals[first:end]),
                )
            )  # fmt: skip
        return tuple(found)

    @property
    def board(self) -> Records:
        """Where a run that logs commands has put them."""
        if not isinstance(self.system, MemorySystem):
            raise TypeError("a run at fast fidelity has no commands")
        return self.system.board


MOST_BY_COMMAND = 0.5
"""Share of a run's time; above it starting again costs more than commands for the rest."""


def memory_of(
    devices: Sequence[Device], log_entries: int = 0, by_command: Set[int] | None = frozenset()
) -> Memory:
    """The device's memory at its config's fidelity; by commands, too, where rates do not fit it.

    Parameters
    ----------
    devices
        At each step; the memory is that of all of them.
    log_entries
        Commands that are logged, the first ones; 0: none.
    by_command
        Phases of a run at fast fidelity that are simulated by commands; None: all.
    """
    device, config = devices[0], devices[0].config
    # two row buffers or one, the controller needs the design only if attention goes there
    pim = config.pim if any(each.uses_pim for each in devices) else None
    if pim is not None and pim.controller is not None:
        pim = None  # it takes turns with this one
    network = core_network(config.npu)
    order = operands(config.npu.operand_layout).request_order(
        config.memory, device.work.trace.facts.hidden, device.whole.tp
    )
    if config.fidelity == "fast" and by_command is not None:
        from pimsim.hardware.dram.fast import SAMPLED_CHANNELS, PhasedMemory, probe_of, unfit

        if not unfit(pim, network, order, log_entries):
            probe = probe_of(config.memory, pim)
            return PhasedMemory(
                config.memory, pim, probe, network, by_command,
                1 if device.brief else SAMPLED_CHANNELS,
            )  # fmt: skip
    return make_memory_system(config.memory, pim, network, order, log_entries)


def run_iteration(
    device: Device, on_stage: Callable[[Progress], None] | None = None, log_entries: int = 0,
    over_time: bool = True,
) -> Outcome:  # fmt: skip
    """``run_devices`` of a single step.

    Parameters
    ----------
    device
        At that step.
    on_stage
        Hears of each stage before it starts; None: nobody does.
    log_entries
        Commands that are logged, the first ones; 0: none.
    over_time
        Whether samples over time are taken.

    Returns
    -------
    Outcome
        What the engine left behind.
    """
    return run_devices((device,), on_stage, log_entries, over_time)


def run_devices(
    devices: Sequence[Device], on_stage: Callable[[Progress], None] | None = None,
    log_entries: int = 0, over_time: bool = True, sampled: bool = True,
) -> Outcome:  # fmt: skip
    """Run a device's steps one after the other, all stages of its schedule.

    At fast fidelity with a ``max_error``, phases that miss it are simulated by commands, from the
    start again until none is left; where they are most of the run, all of it is, and so is a short
    one whose sample misses what rates should keep.

    Parameters
    ----------
    devices
        At each step.
    on_stage
        Hears of each stage before it starts; None: nobody does.
    log_entries
        Commands that the memory logs, the first ones; 0: none.
    over_time
        Whether samples over time are taken.
    sampled
        Whether phases are run again to know the error of rates; without it rates stand, whatever
        it is.

    Returns
    -------
    Outcome
        What the engine left behind, of all steps.
    """
    limit, seed = devices[0].config.max_error, devices[0].config.seed
    by_command: frozenset[int] = frozenset()
    while True:
        outcome = _run(devices, on_stage, memory_of(devices, log_entries, by_command), over_time)
        memory = outcome.system
        if isinstance(memory, MemorySystem) or not sampled:
            return outcome
        from pimsim.engine.fidelity import better_by_commands, missed_phases, sampled_errors

        missed = missed_phases(memory, limit, seed) if limit is not None else by_command
        if missed <= by_command:
            cycles = int(outcome.time_ps // outcome.clock.memory_ps)
            errors = sampled_errors(memory, cycles, seed)
            if limit is None and better_by_commands(devices, memory.fast.share_beside, errors):
                return _run(devices, on_stage, memory_of(devices, log_entries, None), over_time)
            return replace(outcome, errors=errors)
        by_command |= missed
        if memory.share_of(by_command) > MOST_BY_COMMAND:
            return _run(devices, on_stage, memory_of(devices, log_entries, None), over_time)


def _run(
    devices: Sequence[Device], on_stage: Callable[[Progress], None] | None, system: Memory,
    over_time: bool,
) -> Outcome:  # fmt: skip
    """The device's steps on ``system``, which has done nothing yet."""
    config = devices[0].config
    schedule = load_schedule(config.schedule.policy)()
    runs = next((each.mapper.design_runs for each in devices if each.uses_pim), None)
    pim_system = None
    if runs is not None and config.pim_memory is not None:
        pim_system = make_memory_system(device_memory(config.pim_memory))
    with Machine(config.npu, config.memory, system, over_time, runs, pim_system) as machine:
        records = []
        program = devices[0].program()
        for after in (*devices[1:], None):
            following = None if after is None else after.program()
            records.append(machine.run(program, schedule, on_stage, following))
            if following is not None:
                program = following
    return Outcome(
        tuple(devices), tuple(records), machine.recorder, system, machine.clock, machine.pim,
        machine.now_ps, pim_system, over_time=over_time,
    )  # fmt: skip
