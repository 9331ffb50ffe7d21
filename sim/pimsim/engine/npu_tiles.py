"""When the arrays take the tiles of a product, and when their results are there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.hardware.dram.system import BLOCK_BYTES, Group, Stream
from pimsim.hardware.npu.dataflows import load_finish_cycles
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.mapping.tasks import GemmStep

__all__ = ["TileTimes"]

Times = NDArray[np.int64]


class TileTimes:
    """Of one NPU; times are picoseconds."""

    def __init__(self, clock: Clock, npu: NpuConfig) -> None:
        self._clock = clock
        self._systolic = npu.systolic
        # an array that holds the next weights beside the current ones takes the next tile's too
        self._fetch_cycles = npu.systolic.fetch_cycles

    def later(self, time_ps: int, cycles: int) -> int:
        """``cycles`` of the NPU after ``time_ps``."""
        return self._clock.npu.later(time_ps, int(cycles))

    def edges(self, plan: GemmPlan) -> Times:
        """When each step of a plan begins as if nothing waited, from the first on; the last is
        where the arrays are free again, shape (steps + 1,)."""
        return self._clock.npu.edge_ps(
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(plan.interval_cycles)])
        )

    def ready(self, step: GemmStep, free: int, drained: int, group: Group | None) -> Times:
        """From when on each step of the tile's plan may begin: the arrays are ``free`` for the
        tile, those of its weights that it needs have come with ``group``, and where the last
        results have left the arrays (``drained``) they are filled again. Shape (steps,)."""
        plan = step.plan
        lead_ps = self._clock.npu.edge_ps(plan.lead_cycles)
        ready = np.full(plan.steps, self.later(free, plan.lead_cycles), dtype=np.int64)
        if group is not None and len(group.block_cycles):
            arrived = self._clock.memory.edge_ps(np.maximum.accumulate(group.block_cycles))
            needed = (plan.weight_bytes_needed * step.scale).astype(np.int64)
            block = np.minimum(-(-needed // BLOCK_BYTES) - 1, len(arrived) - 1)
            ready = np.maximum(ready, np.where(needed > 0, arrived[np.maximum(block, 0)], 0))
        elif group is not None:
            ready = np.maximum(ready, self._clock.memory.edge_ps(group.done_cycle))
        if ready[0] - lead_ps >= drained:
            ready[0] = self.later(int(ready[0]), self._fetch_cycles)
        return ready

    @staticmethod
    def starts(ready: Times, edges: Times) -> Times:
        """When each step begins: it is ready, and those before it have taken their time."""
        before = edges[:-1] - edges[0]
        begun: Times = before + np.maximum.accumulate(ready - before)
        return begun

    def finish(
        self, step: GemmStep, free: int, drained: int, group: Group | None
    ) -> tuple[int, int, int]:
        """When the arrays take the tile, when its last result is there, and when the arrays could
        take a tile that follows."""
        plan = step.plan
        ready, edges = self.ready(step, free, drained, group), self.edges(plan)
        last_start = int(self.starts(ready, edges)[-1])
        end = self.later(last_start, plan.drain_cycles)
        if group is not None:
            end = max(end, self._clock.memory.edge_ps(group.done_cycle))
        begun = int(ready[0]) - self._clock.npu.edge_ps(plan.lead_cycles)
        return begun, end, last_start + int(edges[-1] - edges[-2])

    def finish_by_operand(
        self, step: GemmStep, needed: NDArray[np.int64], free: int, group: Group, now_ps: int
    ) -> tuple[int, list[Stream]]:
        """When the last result is there, where each step waits for two operands of its own; and the
        results, each to be stored once it is there."""
        clock = self._clock
        arrived = clock.npu.cycle(clock.memory.edge_ps(group.block_cycles))
        ready = np.maximum(arrived[needed].max(axis=-1), clock.npu_cycle(free))
        finish = load_finish_cycles(self._systolic.dataflow)(ready, self._systolic)
        now = clock.memory_cycle(now_ps)
        ends = clock.memory.cycle(clock.npu.edge_ps(finish))
        stores = [
            replace(s, delay=max(int(ends[i]) - now, 0))
            for s, i in zip(step.stores, step.stored_after, strict=True)
            if isinstance(s, Stream)  # results have an operand each, never rows of a matrix
        ]
        end = max(clock.npu.edge_ps(int(finish[-1])), clock.memory.edge_ps(group.done_cycle))
        return end, stores
