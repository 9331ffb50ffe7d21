"""A PIM design with a controller of its own: turns between it and whoever else has its memory.

A task waits until nothing is under way in the memory and all rows are closed; then the channels are
the design's, which runs the task's commands (``hardware.pim.operations``) and closes its rows.
What the NPU asks for meanwhile, of its own memory where PIM is in that, waits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simpy

from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import Process
from pimsim.engine.pim_memory import TurnPort
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.operations import OperationRun, OperationRuns, least_cycles
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import StreamTask

__all__ = ["StreamSide"]

_FJ_PER_PJ = 1000


class StreamSide:
    """All channels of a design: one operation after the other."""

    def __init__(
        self, env: simpy.Environment, port: TurnPort, clock: Clock, recorder: Recorder,
        runs: OperationRuns, launch_ps: int = 0,
    ) -> None:  # fmt: skip
        self.env = env
        self.port = port
        self.clock = clock
        self.recorder = recorder
        self.runs = runs
        self.launch_ps = launch_ps
        self.busy_ps = 0
        """Time of operations so far; all channels are theirs meanwhile."""
        self.computing_cycles = 0
        """Memory cycles of them in which units beside the banks multiply."""
        self.command_cycles = 0
        """The same in which commands of an operation go out otherwise."""
        self.turn_cycles = 0
        """Memory cycles in which rows are closed before and behind operations."""
        self.most_stack_w = 0.0
        """Watt of one operation's commands in the fullest stack."""

    def run(self, task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        """Do a task, whatever follows it."""
        del following
        assert isinstance(task, StreamTask)
        start = int(self.env.now)
        if self.launch_ps:
            yield self.env.timeout(self.launch_ps)
        found = self.runs.of(task.operation)
        idle, begin = yield from self.port.take_turn()
        closing = self.port.precharge_cycles
        end = begin + found.cycles + closing
        yield from self.port.end_turn(begin, end, found.refreshed.reshape(-1))
        self.turn_cycles += begin - idle + closing
        self.computing_cycles += found.computing_cycles
        self.command_cycles += found.cycles - found.computing_cycles
        self.busy_ps += self.clock.memory.edge_ps(end) - self.clock.memory.edge_ps(idle)
        self.most_stack_w = max(self.most_stack_w, found.stack_w)
        self._record(task, found, start)

    def causes(self) -> dict[str, int]:
        """Memory cycles of operations by what went on in them; the rest is the NPU's."""
        return {
            "computing": self.computing_cycles, "commands": self.command_cycles,
            "turn": self.turn_cycles,
        }  # fmt: skip

    def _record(self, task: StreamTask, found: OperationRun, start_ps: int) -> None:
        recorder, design = self.recorder, self.runs.design
        assert design.peak is not None
        now, org = int(self.env.now), design.organization
        bound = least_cycles(design, task.macs, task.operation.element_bytes)
        channels = np.full(self.port.channels, now, np.int64)
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start_ps, now,
                task.flops, task.kv_bytes + task.weight_bytes, self.clock.memory.edge_ps(bound), 0,
                tuple(channels.tolist()), part=task.id.part, entries=task.entries,
            )
        )  # fmt: skip
        reads = found.commands.get(design.peak.command, 0)
        read_bytes = reads * design.banks_reached(design.peak.command) * org.burst_bytes
        energy_fj = round(sum(stream_energy_pj(design, found.commands).values()) * _FJ_PER_PJ)
        recorder.pim_commands.update(found.commands)
        recorder.macs["pim"] += task.macs
        recorder.sram_bytes += task.sram_bytes
        recorder.stream_bytes += read_bytes
        recorder.stream_macs += task.macs
        recorder.stream_fj += energy_fj
        recorder.bytes_moved["pim_weight" if task.weight_bytes else "pim_kv"] += read_bytes
        recorder.bytes_needed["pim_kv"] += task.kv_bytes
        recorder.bytes_needed["pim_weight"] += task.weight_bytes
        recorder.work.spread(
            [(start_ps, now, 1)],
            (
                ("sram_bytes", task.sram_bytes), ("stream_bytes", read_bytes),
                ("stream_macs", task.macs), ("stream_fj", energy_fj),
            ),
        )  # fmt: skip
