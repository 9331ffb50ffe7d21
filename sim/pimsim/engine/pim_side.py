"""The PIM side of a device as a simpy process that runs tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import simpy

from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import Process
from pimsim.engine.memory import MemoryPort
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.hardware.dram.layout import C_COMP_COLUMNS
from pimsim.hardware.dram.system import Group, ResultWork
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import PimTask

__all__ = ["PimSide"]


class PimSide:
    """The banks of all channels: one PIM operation after the other."""

    def __init__(
        self, env: simpy.Environment, port: MemoryPort, clock: Clock, recorder: Recorder,
        launch_ps: int = 0,
    ) -> None:  # fmt: skip
        self.env = env
        self.port = port
        self.clock = clock
        self.recorder = recorder
        self.launch_ps = launch_ps
        self.busy_ps = 0
        """Time of PIM operations, averaged over channels, so far."""
        self.idle_at_end = np.zeros(len(port.system.channels), dtype=np.int64)
        """Memory cycles by channel between its last command and the last one of any channel."""
        self.vector_tail_cycles = 0
        """Memory cycles from the last command of an operation to the end of the softmax."""
        self.result_tail_cycles = 0
        """The same of operations that no vector work follows: results are on their way."""

    def run(self, task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        """Do a task, whatever follows it."""
        del following
        assert isinstance(task, PimTask)
        system = self.port.system
        start = int(self.env.now)
        if self.launch_ps:
            yield self.env.timeout(self.launch_ps)
        begin = max(self.clock.memory_cycle(int(self.env.now)), system.now)
        vector_work = task.vector_work
        after = None if vector_work is None else self._in_memory_cycles(vector_work)
        columns = self._columns()
        group: Group = yield self.port.compute(task.programs, task.marks, after)
        self._record_columns(task, self._columns() - columns)
        last = system.channels["pim_last"]
        self.idle_at_end += last.max() - last
        tail = group.done_cycle - int(last.max())
        if group.vector_busy_cycles:
            self.vector_tail_cycles += tail
        else:
            self.result_tail_cycles += tail
        self.busy_ps += int((last - begin).mean() * float(self.clock.memory_ps))
        self._record(task, group, start)
        self._spread(task, group, after, start)

    def _columns(self) -> int:
        """Dot products of all banks so far."""
        counted = int(self.port.system.channels["counter"][:, C_COMP_COLUMNS].sum())
        return counted * self._banks

    @property
    def _banks(self) -> int:
        """Of a channel."""
        org = self.port.system.memory.organization
        return org.ranks * org.banks

    def _record_columns(self, task: PimTask, columns: int) -> None:
        assert self.port.system.pim is not None
        size = columns * self.port.system.pim.elements_per_comp * task.element_bytes
        self.recorder.bytes_moved["pim_weight" if task.weight_bytes else "pim_kv"] += size
        steps, read = self.recorder.pim_read[-1]
        self.recorder.pim_read.append((steps + columns // self._banks, read + size))

    def _in_memory_cycles(self, after: ResultWork) -> ResultWork:
        """Vector work counts NPU cycles; the memory system counts its own."""
        if self.clock.npu_ps == self.clock.memory_ps:
            return after
        ratio = Fraction(self.clock.npu_ps) / self.clock.memory_ps
        scaled = -(-after.duration * ratio.numerator // ratio.denominator)
        duration = np.where(after.duration < 0, after.duration, scaled)
        return replace(after, duration=duration)

    def _record(self, task: PimTask, group: Group, start_ps: int) -> None:
        recorder, system = self.recorder, self.port.system
        assert system.pim is not None
        org = system.memory.organization
        banks = org.channels * org.ranks * org.banks
        step = int(system.parameters[0]["tccd_s"])
        macs_per_cycle = banks * system.pim.elements_per_comp
        bound = self.clock.memory.edge_ps(task.macs * step // macs_per_cycle)
        ends = np.maximum(self.clock.memory.edge_ps(system.channels["pim_last"]), start_ps)
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start_ps,
                int(self.env.now), task.flops, task.kv_bytes + task.weight_bytes, bound, 0,
                tuple(ends.tolist()), part=task.id.part, entries=task.entries,
            )
        )  # fmt: skip
        recorder.macs["pim"] += task.macs
        recorder.vector_lane_ops += task.vector_lane_ops
        recorder.sram_bytes += task.sram_bytes
        busy_ps = self.clock.memory.edge_ps(group.vector_busy_cycles)
        recorder.vector_unit_cycles += int(busy_ps // self.clock.npu_ps)
        recorder.bytes_needed["pim_kv"] += task.kv_bytes
        recorder.bytes_needed["pim_weight"] += task.weight_bytes

    def _spread(
        self, task: PimTask, group: Group, after: ResultWork | None, start_ps: int
    ) -> None:  # fmt: skip
        """Vector work over the times in which it has its units, bytes evenly over the task."""
        work, whole = self.recorder.work, [(start_ps, int(self.env.now), 1)]
        work.spread(whole, [("sram_bytes", task.sram_bytes)])
        operations = [("vector_lane_ops", task.vector_lane_ops)]
        follows = np.zeros(0, bool) if after is None else after.duration > 0
        if not follows.any():
            work.spread(whole, operations)
            return
        assert after is not None
        edge, ends = self.clock.memory.edge_ps, group.vector_ends[follows]
        work.spread_beside(edge(ends - after.duration[follows]), edge(ends), operations)
