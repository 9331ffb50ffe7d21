"""The device's memory, phase by phase: by rates, or by commands where rates miss."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast.known import KnownOperations
from pimsim.hardware.dram.fast.phases import MemoryPhase, Submission, after_of, replay
from pimsim.hardware.dram.fast.pieces import SAMPLED_CHANNELS
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.hardware.dram.fast.system import FastMemorySystem
from pimsim.hardware.dram.layout import C_REFRESHES
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.samples import A_BUS_LEFT, A_COLUMNS_LEFT, N_SAMPLE
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Group, Network, ResultWork, Rows, Scatter, Stream
from pimsim.hardware.vector_units import VectorUnits

__all__ = ["PhasedMemory"]

Ints = NDArray[np.int64]


class PhasedMemory:
    """All channels of a device, with the service of ``MemorySystem``."""

    def __init__(
        self, memory: MemoryConfig, pim: PimConfig | None, probe: Probe,
        network: Network | None = None, by_command: Set[int] = frozenset(),
        sampled_channels: int = SAMPLED_CHANNELS,
    ) -> None:  # fmt: skip
        """``by_command``: numbers of the phases that are simulated at command fidelity;
        ``sampled_channels``: see ``FastMemorySystem``."""
        self.memory = memory
        self.pim = pim
        self.network = network
        self.fast = FastMemorySystem(memory, pim, probe, network, sampled_channels)
        self.probe = probe
        self.parameters = self.fast.parameters
        self.samples = self.fast.samples
        self.channels = self.fast.channels
        self.cycle_ps = self.fast.cycle_ps
        self.phases: list[MemoryPhase] = []
        self._by_command = by_command
        self._exact: MemorySystem | None = None
        self._numbers: dict[int, int] = {}  # of the phase's requests, by group
        self._last = (-1, 0)  # request of the phase that was completed last, and when
        self._asked = 0

    @property
    def vector_units(self) -> VectorUnits | None:
        """As of ``MemorySystem``."""
        return self.fast.vector_units

    @vector_units.setter
    def vector_units(self, units: VectorUnits | None) -> None:
        self.fast.vector_units = units

    def settle_results(self) -> None:
        """See ``FastMemorySystem.settle_results``."""
        self.fast.settle_results()

    @property
    def now(self) -> int:
        """Cycle up to which everything is simulated."""
        return self.fast.now

    @property
    def active(self) -> bool:
        """Whether any submitted group is not complete."""
        return self.fast.active or (self._exact is not None and self._exact.active)

    def submit(
        self, start: int, streams: Sequence[Stream | Rows], scatters: Sequence[Scatter] = (),
        source: int = 0,
    ) -> Group:  # fmt: skip
        """See ``MemorySystem.submit``."""
        system = self._ask(start, Submission(streams=streams, scatters=scatters))
        return self._number(system.submit(start, streams, scatters, source))

    def submit_pim(
        self, start: int, programs: Sequence[Ints], marks: int, after: ResultWork | None = None
    ) -> Group:
        """See ``MemorySystem.submit_pim``."""
        system = self._ask(start, Submission(programs=programs, marks=marks, after=after))
        return self._number(system.submit_pim(start, programs, marks, after))

    def hand_over(self, start: int) -> int:
        """See ``MemorySystem.hand_over``; rows are open that a PRE a cycle closes."""
        if self.active:
            raise RuntimeError("the memory is not idle")
        return max(start, self.now) + self.memory.timings["tRP"]

    def end_turn(self, begin: int, end: int, refreshed: Ints) -> None:
        """See ``MemorySystem.end_turn``."""
        del begin, refreshed  # at a rate refreshes are everywhere
        self.fast.skip(end)

    def advance(self, until: int) -> Group | None:
        """Go to the first completion of a group, or to ``until``; ``now`` tells which."""
        if self._exact is not None and self._exact.active:
            group = self._by_commands(self._exact, until)
        else:
            group = self.fast.advance(until)
        if group is not None:
            self._last = (self._numbers.pop(id(group)), self.now)
            if not self.active:
                self.phases[-1].end = self.now
        return group

    def _ask(self, start: int, asked: Submission) -> FastMemorySystem | MemorySystem:
        """Take note; who is to be asked in this phase, which is a new one where nothing ran."""
        if not self.phases or (not self.active and self.fast.quiet_at(start)):
            begin = max(start, self.now)
            phase = MemoryPhase(self._asked, begin, by_command=self._asked in self._by_command)
            self.phases.append(phase)
            self._numbers.clear()
            self._last = (-1, begin)
        behind, since = self._last
        phase = self.phases[-1]
        phase.asked.append(replace(asked, behind=behind, delay=max(start - since, 0)))
        self._asked += 1
        if not phase.by_command:
            return self.fast
        if self._exact is None:
            self._exact = make_memory_system(self.memory, self.pim, self.network)
            self._exact.vector_units = self.vector_units
        while self._exact.now < self.now:
            self._exact.advance(self.now)
        return self._exact

    def _number(self, group: Group) -> Group:
        self._numbers[id(group)] = len(self.phases[-1].asked) - 1
        return group

    def _by_commands(self, exact: MemorySystem, until: int) -> Group | None:
        before = exact.channels["counter"].copy()
        group = exact.advance(until)
        counted = exact.channels["counter"] - before
        counted[:, C_REFRESHES] = 0  # they are counted here all the time
        self.channels["counter"] += counted
        self.channels["pim_last"] = exact.channels["pim_last"]
        row = np.zeros(N_SAMPLE, np.int64)
        exact.sample(row)
        self.fast.unfinished = int(row[A_BUS_LEFT]), int(row[A_COLUMNS_LEFT])
        self.fast.skip(exact.now)
        self.fast.unfinished = (0, 0)
        return group

    def sample(self, row: Ints) -> None:
        """See ``MemorySystem.sample``."""
        self.fast.sample(row)

    def posted_writes(self, moved: int, cycles: int) -> int:
        """See ``MemorySystem.posted_writes``. By rates those that the buses had no time for, at
        most as many as the queues of channels and banks hold."""
        if self._exact is not None and self.phases and self.phases[-1].by_command:
            return self._exact.posted_writes(moved, cycles)
        slots = int(cycles * self.cycle_ps * data_buses(self.memory) / burst_slot_ps(self.memory))
        controller, org = self.memory.controller, self.memory.organization
        at_banks = org.ranks * org.banks * controller.bank_queue_depth
        held = (controller.write_queue_depth + at_banks) * org.channels
        return min(max(moved - slots, 0), held)

    def share_of(self, numbers: Set[int]) -> float:
        """Share of the time of all phases that those of these numbers took, 0 to 1."""
        whole = sum(phase.cycles for phase in self.phases)
        own = sum(phase.cycles for phase in self.phases if phase.number in numbers)
        return own / max(whole, 1)

    # the same once more -------------------------------------------------------------------------
    def cycles_again(self, phase: MemoryPhase, channel: int) -> tuple[int, int]:
        """Cycles that a phase takes on one channel by itself: by commands, and by rates."""
        asked, operations = self._part(phase, channel)
        period = self.probe.period
        start = phase.start
        if start >= period:  # at the same cycle of a refresh interval that is not the first
            start = start % period + period
        exact = self.probe.one_channel()
        fast = self.fast.one_channel(operations)
        while exact.now < start:
            exact.advance(start)
        fast.skip(start)
        return replay(exact, asked), replay(fast, asked)

    def _part(self, phase: MemoryPhase, channel: int) -> tuple[list[Submission], KnownOperations]:
        """What ``channel`` has of a phase, and its PIM operations."""
        asked: list[Submission] = []
        operations = KnownOperations()
        for one in phase.asked:
            if len(one.programs):
                whole = self.fast.operation(one.programs, one.marks, one.after)
                own, marks = whole.on_channel(channel)
                after = after_of(one.after, marks, len(self.channels))
                operations.add(own, len(marks), after)
                asked.append(replace(one, programs=own.programs, marks=len(marks), after=after))
            else:
                streams = [
                    s for each in one.streams for s in self.fast.streams.share(each, channel)
                ]
                scatters = [replace(s, channel=0) for s in one.scatters if s.channel == channel]
                asked.append(replace(one, streams=streams, scatters=scatters))
        return asked, operations
