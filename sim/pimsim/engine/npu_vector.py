"""The vector units as the NPU's tasks take them, beside PIM's results."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.memory import MemoryPort
from pimsim.engine.work import Span
from pimsim.hardware.vector_units import lane_share, list_scheduled, shared_end
from pimsim.mapping.tasks import GemmStep, NpuTask

__all__ = ["CYCLE_PARTS", "LaneUnits", "VectorSide"]

CYCLE_PARTS = 1 << 20
"""What a unit's cycle counts among the weights of spans; lanes may have a part of a unit."""


class VectorSide:
    """What the NPU asks of the vector units; times are picoseconds."""

    def __init__(self, port: MemoryPort, clock: Clock, npu: NpuConfig) -> None:
        self._port = port
        self._clock = clock
        self._cores = npu.cores
        self._units = npu.vector.units

    @property
    def shared(self) -> bool:
        """Whether anybody else may have units while the NPU works."""
        system = self._port.system
        return system.vector_units is not None and system.pim is not None

    def take(self, task: NpuTask, start_ps: int) -> tuple[int, list[Span]]:
        """Deal the task's vectors to the units.

        Returns
        -------
        tuple
            NPU cycles that it takes longer as PIM's vector work has some of them; and when each
            unit works on it, where others may have units in the meantime (else none).
        """
        units = self._port.system.vector_units
        if units is None or not task.vector_unit_cycles:
            return 0, []
        self._port.system.settle_results()
        npu, memory = self._clock.npu, self._clock.memory
        now, vectors = npu.cycle(start_ps), task.vector_unit_cycles // task.vector_each
        starts = np.maximum(npu.cycle(memory.edge_ps(units.free)), now)
        ends = list_scheduled(starts, task.vector_each, vectors)
        # up to the memory's cycle in which they end: its rounding holds nobody up
        free = memory.cycle(npu.edge_ps(ends) + 1) - 1
        units.take(np.where(ends > starts, free, 0))
        alone = -(-vectors // len(ends)) * task.vector_each
        spans = [
            (npu.edge_ps(first), npu.edge_ps(end), (end - first) * CYCLE_PARTS)
            for first, end in zip(starts.tolist(), ends.tolist(), strict=True)
            if end > first
        ]
        return int(ends.max(where=ends > starts, initial=now)) - now - alone, spans

    def of_lane(self, task: NpuTask, step: GemmStep) -> LaneUnits:
        """Those of the arrays that work on ``step``."""
        lanes = self._cores * task.lanes
        share = lane_share(step.core * task.lanes + step.lane, lanes, self._units)
        return LaneUnits(self._port, self._clock, share)


class LaneUnits:
    """The vector units beside one lane's arrays, or its share of them."""

    def __init__(self, port: MemoryPort, clock: Clock, share: dict[int, Fraction]) -> None:
        """``share``: of each unit, by number."""
        self._port = port
        self._clock = clock
        self._numbers = np.array(list(share), dtype=np.int64)
        self._parts = list(share.values())

    def tile(self, start_ps: int, softmax_cycles: int) -> tuple[int, int, list[Span]]:
        """Take the units for a tile's softmax from ``start_ps`` on, behind whatever PIM's results
        have asked for.

        Parameters
        ----------
        start_ps
            When the tile begins.
        softmax_cycles
            Of units, added over units.

        Returns
        -------
        tuple
            NPU cycles that the softmax takes; of these, those that others cost it; and when it has
            each unit, weighed by ``CYCLE_PARTS`` of a unit's cycle.
        """
        system, npu, memory = self._port.system, self._clock.npu, self._clock.memory
        units = system.vector_units
        assert units is not None
        system.settle_results()
        now = npu.cycle(start_ps)
        others = units.behind_others()[self._numbers]
        free = np.maximum(npu.cycle(memory.edge_ps(others)), now).tolist()
        end = shared_end(free, self._parts, softmax_cycles)
        taken = end - now
        self.hold(npu.later(start_ps, taken))
        spans = [
            (npu.edge_ps(first), npu.edge_ps(end), int((end - first) * part * CYCLE_PARTS))
            for first, part in zip(free, self._parts, strict=True)
            if first < end
        ]
        return taken, taken - shared_end([0] * len(free), self._parts, softmax_cycles), spans

    def hold(self, until_ps: int) -> None:
        """A tile has the units up to ``until_ps``."""
        units = self._port.system.vector_units
        assert units is not None
        units.take_for_tile(self._numbers, self._clock.memory.cycle(until_ps + 1) - 1)
