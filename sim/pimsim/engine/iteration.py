"""One decode iteration on one device, in time."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

from pimsim.engine.clock import Clock
from pimsim.engine.device import Device
from pimsim.engine.fidelity import PhaseErrors, missed_phases, rates_hold, sampled_errors
from pimsim.engine.machine import Machine, Progress
from pimsim.engine.memory import Memory
from pimsim.engine.pim_side import PimSide
from pimsim.engine.records import Recorder
from pimsim.engine.schedules import load_schedule
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast import PhasedMemory, probe_of, unfit
from pimsim.hardware.dram.layout import Records
from pimsim.hardware.dram.system import MemorySystem
from pimsim.mapping.gemm import core_network
from pimsim.mapping.operands import operands

__all__ = ["Outcome", "Progress", "memory_of", "run_iteration"]


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
    order = operands(config.npu.operand_layout).request_order(
        config.memory, device.work.trace.facts.hidden, device.whole.tp
    )
    fast = config.fidelity == "fast" and not unfit(pim, network, order, log_entries)
    if fast and by_command is not None and rates_hold(device):
        probe = probe_of(config.memory, pim)
        return PhasedMemory(config.memory, pim, probe, network, by_command)
    return make_memory_system(config.memory, pim, network, order, log_entries)


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
    """The device's step on ``system``, which has done nothing yet."""
    config = device.config
    with Machine(config.npu, config.memory, system, over_time) as machine:
        machine.run(device, load_schedule(config.schedule.policy)(), on_stage)
    return Outcome(
        device, machine.recorder, system, machine.clock, machine.pim, machine.now_ps,
        over_time=over_time,
    )  # fmt: skip
