"""What the NPU's tasks did: records of operators, and cycles by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.memory import Memory
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.engine.work import Span
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.system import Stream
from pimsim.mapping.tasks import GemmStep, NpuTask

__all__ = ["ARRAY_CAUSES", "NpuRecords", "TaskProgress", "task_streams"]

ARRAY_CAUSES = ("computing", "array_part", "array_loading", "array_fill_drain")
"""Causes of a cycle stack in which the arrays are at work."""


@dataclass
class TaskProgress:
    """What is noted of a task while it is done."""

    start_ps: int
    tiles: list[Span] = field(default_factory=list)
    """When the arrays have each tile, and its work."""
    vector: list[Span] = field(default_factory=list)
    """When each vector unit works on it, and for how many cycles; none: evenly, as all else."""
    early_bursts: int = 0
    """Of its loads, those that were asked for before it began."""
    first_load_ps: int | None = None
    """When the first of these was asked for."""


class NpuRecords:
    """Writes down what one NPU did; times are picoseconds."""

    def __init__(
        self, recorder: Recorder, system: Memory, clock: Clock, npu: NpuConfig, memory: MemoryConfig
    ) -> None:
        self.recorder = recorder
        self._system = system
        self._clock = clock
        self._npu = npu
        self._burst_bytes = memory.organization.burst_bytes
        self._bytes_per_ps = data_buses(memory) * self._burst_bytes / burst_slot_ps(memory)
        systolic = npu.systolic
        self._core_elements = systolic.arrays * systolic.rows * systolic.cols

    def bandwidth_bound_ps(self, bursts: int) -> int:
        """Least time that ``bursts`` take on the data buses of all channels."""
        return int(bursts * self._burst_bytes / self._bytes_per_ps)

    # cycles by cause ----------------------------------------------------------------------------
    def cycles(self, start_ps: int, end_ps: int) -> int:
        """Cycles of the NPU between two times."""
        return self._clock.npu_cycle(end_ps) - self._clock.npu_cycle(start_ps)

    def charge(self, cause: str, cycles: int) -> None:
        """Charge ``cycles`` of the NPU to ``cause``."""
        self.recorder.npu_causes[cause] += cycles

    def plain(self, task: NpuTask, total: int, busy: int, waited: int) -> None:
        """Split the cycles of a task without tiles: ``busy``, and those in which PIM's vector work
        had the units that it ``waited`` for."""
        busy = min(busy, total)
        if task.unit == "systolic":
            self.recorder.npu_busy_cycles += busy
            self.recorder.npu_causes += self._busy_causes(
                busy, task.macs, task.streamed_cycles, task.loading_cycles, task.lanes
            )
        else:
            self.charge("vector", busy)
        waited = min(waited, total - busy)
        self.charge("pim", waited)
        self.charge("activations" if task.unit == "vector" else "weights", total - busy - waited)

    def tile(
        self, task: NpuTask, step: GemmStep, span: tuple[int, int], begun_ps: int, late: int,
        stack: Counter[str],
    ) -> None:  # fmt: skip
        """Split the time ``span`` in which a core had a tile into what the arrays did and waiting.

        ``begun_ps``: when the arrays took the tile; what lies before the span is hidden behind
        the tile before, whose last results were still in the arrays. ``late``: cycles in which
        PIM's vector work had the units.
        """
        total = self.cycles(*span)
        hidden = int(max(span[0] - begun_ps, 0) // self._clock.npu_ps)
        plans = [block.plan for block in step.blocks] or [step.plan]
        planned = plans[-1].cycles + sum(p.lead_cycles + p.taken_cycles for p in plans[:-1])
        busy = min(planned - hidden, total)
        waited = min(step.waiting_cycles, busy)
        stack["vector"] += waited
        stack.update(
            self._busy_causes(
                busy - waited, step.plan.macs, sum(p.streamed_cycles for p in plans),
                sum(p.loading_cycles for p in plans), task.lanes,
            )
        )  # fmt: skip
        late = min(late, total - busy)
        stack["pim"] += late
        stack["weights"] += total - busy - late

    def merge(self, stacks: Sequence[Counter[str]], total: int, lanes: int) -> None:
        """The mean over all ``lanes`` of what each spent ``total`` cycles on."""
        merged: Counter[str] = Counter()
        for stack in stacks:
            merged += stack
        spent = Counter({cause: cycles // lanes for cause, cycles in merged.items()})
        if total > sum(spent.values()):
            spent["core_imbalance"] = total - sum(spent.values())
        self.recorder.npu_causes += spent
        self.recorder.npu_busy_cycles += sum(spent[cause] for cause in ARRAY_CAUSES)

    def _busy_causes(
        self, busy: int, macs: int, streamed: int, loading: int, lanes: int
    ) -> Counter[str]:
        """``busy`` cycles of a core's arrays by cause: multiplying with all that they have, with a
        part of it, the operand that stays on its way in, and the skew of rows and columns."""
        streamed = min(streamed, busy)
        loading = min(loading, busy - streamed)
        full = min(-(-macs // (self._core_elements // lanes)), streamed)
        return Counter(
            {
                "computing": full,
                "array_part": streamed - full,
                "array_loading": loading,
                "array_fill_drain": busy - streamed - loading,
            }
        )

    # operators ----------------------------------------------------------------------------------
    def operator(self, task: NpuTask, progress: TaskProgress, end_ps: int) -> None:
        """The task is done."""
        recorder, npu, clock = self.recorder, self._npu, self._clock
        start_ps, burst = progress.start_ps, self._burst_bytes
        streams = task_streams(task)
        scatters = [*task.scatters, *(s for step in task.steps for s in step.scatters)]
        moved = sum(s.total for s in streams) + sum(s.count for s in scatters)
        read = sum(s.total for s in streams if not s.write)
        read += sum(s.count for s in scatters if not s.write)
        written = moved - read
        # one that an operand shares with the operand before it is not asked for again
        named = [s for s in streams if isinstance(s, Stream) and s.operands and not s.write]
        shared = min(len(named), read)
        read -= shared
        within = max(read - progress.early_bursts, 0)  # writes are posted
        lead_ps = 0 if progress.first_load_ps is None else start_ps - progress.first_load_ps
        posted = shared
        if written:
            cycles = clock.memory_cycle(end_ps) - clock.memory_cycle(start_ps)
            posted += min(self._system.posted_writes(moved, cycles), written)
        taken = task.compute_cycles if task.unit == "systolic" else 0
        taken += sum(s.plan.taken_cycles - s.waiting_cycles for s in task.steps) // (
            npu.cores * task.lanes
        )
        bound = max(
            self.bandwidth_bound_ps(within),
            clock.npu.edge_ps(task.macs // (npu.cores * self._core_elements)),
            clock.npu.edge_ps(taken),
            # a product's vector work is a part of it and goes on beside it
            clock.npu.edge_ps(task.vector_unit_cycles // npu.vector.units if task.steps else 0),
            task.link_ps,
        )
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start_ps, end_ps,
                task.flops, moved * burst, bound, self.bandwidth_bound_ps(read), (), lead_ps,
                posted * burst, 2 * task.executed_macs, task.id.part, task.entries,
            )
        )  # fmt: skip
        whole = progress.tiles or [(start_ps, end_ps, 1)]
        amounts = {
            "macs": task.macs, "sram_bytes": task.sram_bytes, "link_bytes": task.link_bytes
        }  # fmt: skip
        recorder.work.spread(whole, amounts.items())
        recorder.work.spread(progress.vector or whole, [("vector_lane_ops", task.vector_lane_ops)])
        recorder.macs["npu"] += task.macs
        recorder.array_cycles += taken
        recorder.vector_unit_cycles += task.vector_unit_cycles
        recorder.vector_lane_ops += task.vector_lane_ops
        recorder.sram_bytes += task.sram_bytes
        recorder.link_bytes += task.link_bytes
        if task.unit == "systolic":
            recorder.bytes_needed["weight"] += task.weight_bytes
            recorder.bytes_needed["kv"] += task.kv_bytes
            loads = [s for s in streams if not s.write]
            # no more bytes of weights than its bursts hold, whatever a stream says
            weights = sum(min(s.weight_bytes, s.total * burst) for s in loads)
            recorder.bytes_moved["weight"] += weights
            recorder.bytes_moved["kv"] += read * burst - weights if task.kv_bytes else 0


def task_streams(task: NpuTask) -> list[Any]:
    """Everything that the task loads and stores.

    Parameters
    ----------
    task
        Of the NPU.

    Returns
    -------
    list
        Streams and rows, loads of weights and inputs before outputs.
    """
    parts = [part for step in task.steps for part in (step.blocks or (step,))]
    return [s for part in parts for s in (*part.loads, *part.stores)] + list(task.streams)
