"""Links between devices as a unit of its own: collectives beside the NPU's other work."""

from __future__ import annotations

from collections.abc import Sequence

import simpy

from pimsim.engine.dispatch import Process
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import NpuTask

__all__ = ["Links"]


class Links:
    """One transfer after the other."""

    def __init__(self, env: simpy.Environment, recorder: Recorder) -> None:
        self.env = env
        self.recorder = recorder

    def run(self, task: AnyTask, following: Sequence[AnyTask]) -> Process:
        """Do a task of the links."""
        del following
        assert isinstance(task, NpuTask)
        start, recorder = int(self.env.now), self.recorder
        yield self.env.timeout(task.link_ps)
        end = int(self.env.now)
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start, end,
                task.flops, 0, task.link_ps, part=task.id.part, entries=task.entries,
            )
        )  # fmt: skip
        recorder.work.spread(
            [(start, end, 1)], (("sram_bytes", task.sram_bytes), ("link_bytes", task.link_bytes))
        )
        recorder.sram_bytes += task.sram_bytes
        recorder.link_bytes += task.link_bytes
