"""The NPU side of a device as a simpy process that runs tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import Process
from pimsim.engine.memory import MemoryPort
from pimsim.engine.records import OperatorRecord, Recorder
from pimsim.engine.work import Span
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.system import BLOCK_BYTES, Group, Rows, Stream
from pimsim.hardware.npu.dataflows import load_finish_cycles
from pimsim.hardware.vector_units import list_scheduled
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import GemmStep, NpuTask, TaskId

__all__ = ["ARRAY_CAUSES", "NpuSide", "fetched_early", "task_streams"]

ARRAY_CAUSES = ("computing", "array_part", "array_loading", "array_fill_drain")
"""Causes of a cycle stack in which the arrays are at work."""


class NpuSide:
    """Systolic arrays, vector units, DMA and links: one task after the other."""

    def __init__(
        self, env: simpy.Environment, port: MemoryPort, clock: Clock, npu: NpuConfig,
        memory: MemoryConfig, recorder: Recorder,
    ) -> None:  # fmt: skip
        self.env = env
        self.port = port
        self.clock = clock
        self.npu = npu
        self.recorder = recorder
        org = memory.organization
        self._burst_bytes = org.burst_bytes
        self._bytes_per_ps = data_buses(memory) * org.burst_bytes / burst_slot_ps(memory)
        # an array that holds the next weights beside the current ones takes the next tile's too
        self._fetch_cycles = npu.systolic.fetch_cycles
        self._overlaps = npu.systolic.preload == "hidden" and npu.scratchpad.double_buffered
        systolic = npu.systolic
        self._core_elements = systolic.arrays * systolic.rows * systolic.cols
        self._lane_elements = self._core_elements  # of the task under way
        self._prefetched: dict[int, tuple[simpy.Event | None, int, int]] = {}
        self._early_bursts = 0
        self.fetched: TaskId | None = None
        """The product whose first tiles are in the buffers, or will be: the arrays' next one."""
        self._tiles: list[Span] = []  # of the task under way: when the arrays have each, its work
        self._first_load_ps: int | None = None  # of the task under way, where it was prefetched

    @property
    def early_loads_ps(self) -> int:
        """Least time of loads of tiles that their product has not taken yet."""
        bursts = sum(bursts for _, _, bursts in self._prefetched.values())
        return self.bandwidth_bound_ps(bursts * self._burst_bytes)

    def bandwidth_bound_ps(self, size: int) -> int:
        """Least time that ``size`` bytes take on the data buses of all channels."""
        return int(size / self._bytes_per_ps)

    def run(self, task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        """Do a task; ``following``: what comes next as far as it is known."""
        assert isinstance(task, NpuTask)
        start = int(self.env.now)
        if self.npu.launch_cycles and task.unit != "link":
            yield self.env.timeout(self._later(start, self.npu.launch_cycles) - start)
            self.charge("launch", start)
        if task.id == self.fetched:
            self.fetched = None
        self._lane_elements = self._core_elements // task.lanes
        if task.steps:
            yield from self._gemm(task, following)
        else:
            yield from self._plain(task)
        self._record(task, start)

    def _later(self, time_ps: int, cycles: int) -> int:
        """``cycles`` of the NPU after ``time_ps``."""
        return self.clock.npu.later(time_ps, int(cycles))

    def charge(self, cause: str, start_ps: int) -> None:
        """Charge the time since ``start_ps`` to ``cause``."""
        cycles = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start_ps)
        self.recorder.npu_causes[cause] += cycles

    def _plain(self, task: NpuTask) -> Process:
        """Loads and stores on one side, computing on the other, the longer counts."""
        start = int(self.env.now)
        if task.link_ps:
            yield self.env.timeout(task.link_ps)
            self.charge("collective", start)
            return
        waited = self._take_vector_units(task, start)
        moved = self._moved(task) if _moves(task) else None
        if moved is not None:
            yield moved
            tail = self._later(int(self.env.now), task.tail_cycles) - int(self.env.now)
            if tail:
                yield self.env.timeout(tail)
        left = self._later(start, waited + task.compute_cycles) - int(self.env.now)
        busy = min(task.compute_cycles, self.clock.npu_cycle(int(self.env.now) - start))
        if left > 0:
            yield self.env.timeout(left)
            busy = task.compute_cycles
        total = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start)
        busy = min(busy, total)
        if task.unit == "systolic":
            self.recorder.npu_busy_cycles += busy
            self.recorder.npu_causes += self._busy_causes(
                busy, task.macs, task.streamed_cycles, task.loading_cycles
            )
        else:
            self.recorder.npu_causes["vector"] += busy
        # of the time without computing, what PIM's softmax had the vector units
        waited = min(waited, total - busy)
        self.recorder.npu_causes["pim"] += waited
        loads = "activations" if task.unit == "vector" else "weights"
        self.recorder.npu_causes[loads] += total - busy - waited

    def _take_vector_units(self, task: NpuTask, start_ps: int) -> int:
        """Deal the task's vectors to the units; NPU cycles that it takes longer as PIM's vector
        work has some of them."""
        units = self.port.system.vector_units
        if units is None or not task.vector_unit_cycles:
            return 0
        self.port.system.settle_results()
        npu, memory = self.clock.npu, self.clock.memory
        now, vectors = npu.cycle(start_ps), task.vector_unit_cycles // task.vector_each
        starts = np.maximum(npu.cycle(memory.edge_ps(units.free)), now)
        ends = list_scheduled(starts, task.vector_each, vectors)
        # up to the memory's cycle in which they end: its rounding holds nobody up
        free = memory.cycle(npu.edge_ps(ends) + 1) - 1
        units.take(np.where(ends > starts, free, 0))
        alone = -(-vectors // len(ends)) * task.vector_each
        return int(ends.max(where=ends > starts, initial=now)) - now - alone

    def _moved(self, task: NpuTask) -> simpy.Event:
        """Ask for all that a task without tiles moves."""
        if not task.stream_each_core:
            return self.port.transfer(task.streams, task.scatters)
        parts = [self.port.transfer([s], source=core) for core, s in enumerate(task.streams)]
        return simpy.AllOf(self.env, parts)

    def _load(self, step: GemmStep) -> simpy.Event | None:
        if not step.loads and not step.scatters:
            return None
        return self.port.transfer(step.loads, step.scatters, step.core)

    def _gemm(self, task: NpuTask, following: Sequence[AnyTask]) -> Process:
        """Each core works on its own tiles; the product is done when the last core is."""
        own = _by_lane(task)
        start = int(self.env.now)
        stacks = {lane: Counter[str]() for lane in own}
        early = fetched_early(following) if self.npu.prefetches else None
        if early is not None:
            self.fetched = early.id
        after = _by_lane(early) if early is not None else {}
        if len(own) == 1:
            (lane,) = own
            yield from self._core(own[lane], after.get(lane, []), stacks[lane])
        else:
            sides = [
                self.env.process(self._core(own[lane], after.get(lane, []), stacks[lane]))
                for lane in sorted(own)
            ]
            yield simpy.AllOf(self.env, sides)
        total = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start)
        self._merge(list(stacks.values()), total, self.npu.cores * task.lanes)

    def _merge(self, stacks: Sequence[Counter[str]], total: int, lanes: int) -> None:
        """The mean over all ``lanes`` of what each spent ``total`` cycles on."""
        merged: Counter[str] = Counter()
        for stack in stacks:
            merged += stack
        spent = Counter({cause: cycles // lanes for cause, cycles in merged.items()})
        if total > sum(spent.values()):
            spent["core_imbalance"] = total - sum(spent.values())
        self.recorder.npu_causes += spent
        self.recorder.npu_busy_cycles += sum(spent[cause] for cause in ARRAY_CAUSES)

    def _core(
        self, steps: Sequence[GemmStep], after: Sequence[GemmStep], stack: Counter[str]
    ) -> Process:
        """Tile by tile: the next tile loads while one computes, if there are two buffers; then
        those ``after`` them, of the next product."""
        if steps[0].blocks:
            yield from self._block_core(steps, stack)
            return
        ahead = 2 if self.npu.scratchpad.double_buffered else 1
        loads: list[simpy.Event | None] = []
        for number in range(min(ahead, len(steps))):
            loads.append(self._taken(steps[number]))
        free = end = int(self.env.now)
        stores: list[simpy.Event] = []
        for number, step in enumerate(steps):
            waiting = int(self.env.now)
            arrived = loads[number]
            group: Group | None = None
            if arrived is not None:
                group = (yield arrived) if not arrived.processed else arrived.value
            if step.needed is not None and group is not None:
                end, streams = self._finish_by_operand(step, step.needed, free, group)
                begun, follows = waiting, end
                if streams:
                    stores.append(self.port.transfer(streams))
            else:
                begun, end, follows = self._finish(step, free, end, group)
            if number == len(steps) - 1:
                self._prefetch(after[:1])  # in the other buffer
            now = int(self.env.now)
            if end > now:
                yield self.env.timeout(end - now)
            free = follows if self._overlaps else max(end, now)
            self._tiles.append((begun, min(follows, max(end, now)), step.plan.macs))
            self._account(step, waiting, begun, stack)
            if number + ahead < len(steps):
                loads.append(self._load(steps[number + ahead]))
            if step.stores and not step.stored_after:
                stores.append(self.port.transfer(step.stores, source=step.core))
        self._prefetch(after[1:2])  # this product's last buffer is free
        start = int(self.env.now)
        for store in stores:
            if not store.processed:
                yield store
        waited = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start)
        stack["activations"] += waited

    def _prefetch(self, steps: Sequence[GemmStep]) -> None:
        """Start to load tiles of the next product."""
        for step in steps:
            bursts = sum(part.total for part in step.loads)
            self._prefetched[id(step)] = self._load(step), int(self.env.now), bursts

    def _taken(self, step: GemmStep) -> simpy.Event | None:
        """The tile's load, which may have begun before its product."""
        if id(step) not in self._prefetched:
            return self._load(step)
        load, asked_ps, bursts = self._prefetched.pop(id(step))
        self._early_bursts += bursts
        if self._first_load_ps is None:
            self._first_load_ps = asked_ps
        return load

    def _block_core(self, steps: Sequence[GemmStep], stack: Counter[str]) -> Process:
        """Tile by tile, and in a tile block by block: each starts when the arrays are free and
        its operands have come, and is stored when its last result is there and the tile asks for
        nothing more: a core issues loads, folds and stores of a tile in this order."""
        ahead = 2 if self.npu.scratchpad.double_buffered else 1
        asked = [self.env.event() for _ in steps]
        for number in range(min(ahead, len(steps))):
            asked[number].succeed(self._block_loads(steps[number]))
        stores: list[simpy.Event] = []
        free = end = int(self.env.now)
        for number, step in enumerate(steps):
            waiting = int(self.env.now)
            if not asked[number].processed:
                yield asked[number]
            loads: Any = asked[number].value
            begun = -1
            results: list[tuple[int, tuple[Rows, ...]]] = []
            for block, arrivals in zip(step.blocks, loads, strict=True):
                for arrival in arrivals:
                    if not arrival.processed:
                        yield arrival
                start = max(int(self.env.now), free)
                if start >= end:  # nothing is left in the array
                    start = self._later(start, self._fetch_cycles)
                begun = start if begun < 0 else begun
                plan = block.plan
                free = self._later(start, plan.lead_cycles + int(plan.interval_cycles.sum()))
                end = self._later(start, plan.cycles)
                if not self._overlaps:
                    free = end
                self._tiles.append((start, free, plan.macs))
                if block.stores:
                    results.append((end, block.stores))
            for when, rows in results:
                stores.append(self.env.process(self._store(rows, when, step.core)))
            if number + ahead < len(steps):
                # its buffer is free when the last result has left
                self.env.process(self._ask(steps[number + ahead], asked[number + ahead], end))
            # the next tile enters the arrays while the last results leave them
            until = free if number + 1 < len(steps) else end
            if until > int(self.env.now):
                yield self.env.timeout(until - int(self.env.now))
            self._account(step, waiting, begun, stack)
        start = int(self.env.now)
        yield simpy.AllOf(self.env, stores)
        waited = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start)
        stack["activations"] += waited

    def _ask(self, step: GemmStep, asked: simpy.Event, when: int) -> Process:
        """Ask at ``when`` for what the tile needs; ``asked`` says that this was done."""
        yield self.env.timeout(max(when - int(self.env.now), 0))
        asked.succeed(self._block_loads(step))

    def _block_loads(self, step: GemmStep) -> list[list[simpy.Event]]:
        """Ask for everything that the tile needs, in the order of use."""
        return [
            [self.port.transfer([rows], source=step.core) for rows in block.loads]
            for block in step.blocks
        ]

    def _store(self, stores: Sequence[Rows], when: int, core: int) -> Process:
        yield self.env.timeout(max(when - int(self.env.now), 0))
        yield self.port.transfer(stores, source=core)

    def _finish(
        self, step: GemmStep, free: int, drained: int, group: Group | None
    ) -> tuple[int, int, int]:
        """When the arrays take the tile, when its last result is there, and when the arrays could
        take a tile that follows: each step starts when the arrays are free for it and the weights
        that it needs have arrived."""
        plan = step.plan
        # edges of the steps as if nothing waited; the last is where the arrays are free again
        edges = self.clock.npu.edge_ps(
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(plan.interval_cycles)])
        )
        before = edges[:-1]
        lead_ps = self.clock.npu.edge_ps(plan.lead_cycles)
        ready = np.full(plan.steps, self._later(free, plan.lead_cycles), dtype=np.int64)
        if group is not None and len(group.block_cycles):
            arrived = self.clock.memory.edge_ps(np.maximum.accumulate(group.block_cycles))
            needed = (plan.weight_bytes_needed * step.scale).astype(np.int64)
            block = np.minimum(-(-needed // BLOCK_BYTES) - 1, len(arrived) - 1)
            ready = np.maximum(ready, np.where(needed > 0, arrived[np.maximum(block, 0)], 0))
        elif group is not None:
            ready = np.maximum(ready, self.clock.memory.edge_ps(group.done_cycle))
        if ready[0] - lead_ps >= drained:
            ready[0] = self._later(int(ready[0]), self._fetch_cycles)
        last_start = int((before[-1] + np.maximum.accumulate(ready - before))[-1])
        end = self._later(last_start, plan.drain_cycles)
        if group is not None:
            end = max(end, self.clock.memory.edge_ps(group.done_cycle))
        return int(ready[0]) - lead_ps, end, last_start + int(edges[-1] - edges[-2])

    def _finish_by_operand(
        self, step: GemmStep, needed: NDArray[np.int64], free: int, group: Group
    ) -> tuple[int, list[Stream]]:
        """The same where each step waits for two operands of its own; and the results, each to be
        stored once it is there."""
        systolic = self.npu.systolic
        arrived = self.clock.npu.cycle(self.clock.memory.edge_ps(group.block_cycles))
        ready = np.maximum(arrived[needed].max(axis=-1), self.clock.npu_cycle(free))
        finish = load_finish_cycles(systolic.dataflow)(ready, systolic)
        now = self.clock.memory_cycle(int(self.env.now))
        ends = self.clock.memory.cycle(self.clock.npu.edge_ps(finish))
        stores = [
            replace(s, delay=max(int(ends[i]) - now, 0))
            for s, i in zip(step.stores, step.stored_after, strict=True)
            if isinstance(s, Stream)  # results have an operand each, never rows of a matrix
        ]
        end = max(
            self.clock.npu.edge_ps(int(finish[-1])), self.clock.memory.edge_ps(group.done_cycle)
        )
        return end, stores

    def _account(self, step: GemmStep, start_ps: int, begun_ps: int, stack: Counter[str]) -> None:
        """Split a tile's time since ``start_ps`` into what the arrays did and waiting.

        ``begun_ps``: when the arrays took the tile; what lies before ``start_ps`` is hidden behind
        the tile before, whose last results were still in the arrays.
        """
        total = self.clock.npu_cycle(int(self.env.now)) - self.clock.npu_cycle(start_ps)
        hidden = int(max(start_ps - begun_ps, 0) // self.clock.npu_ps)
        plans = [block.plan for block in step.blocks] or [step.plan]
        planned = plans[-1].cycles + sum(p.lead_cycles + p.taken_cycles for p in plans[:-1])
        busy = min(planned - hidden, total)
        waited = min(step.waiting_cycles, busy)
        stack["vector"] += waited
        stack.update(
            self._busy_causes(
                busy - waited, step.plan.macs, sum(p.streamed_cycles for p in plans),
                sum(p.loading_cycles for p in plans),
            )
        )  # fmt: skip
        stack["weights"] += total - busy

    def _busy_causes(self, busy: int, macs: int, streamed: int, loading: int) -> Counter[str]:
        """``busy`` cycles of a core's arrays by cause: multiplying with all that they have, with a
        part of it, the operand that stays on its way in, and the skew of rows and columns."""
        streamed = min(streamed, busy)
        loading = min(loading, busy - streamed)
        full = min(-(-macs // self._lane_elements), streamed)
        return Counter(
            {
                "computing": full,
                "array_part": streamed - full,
                "array_loading": loading,
                "array_fill_drain": busy - streamed - loading,
            }
        )

    def _record(self, task: NpuTask, start_ps: int) -> None:
        recorder = self.recorder
        burst = self._burst_bytes
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
        within = max(read - self._early_bursts, 0)  # writes are posted
        self._early_bursts = 0
        lead_ps = 0 if self._first_load_ps is None else start_ps - self._first_load_ps
        self._first_load_ps = None
        posted = shared
        if written:
            cycles = self.clock.memory_cycle(int(self.env.now)) - self.clock.memory_cycle(start_ps)
            posted += min(self.port.system.posted_writes(moved, cycles), written)
        taken = task.compute_cycles if task.unit == "systolic" else 0
        lanes = self.npu.cores * task.lanes
        taken += sum(s.plan.taken_cycles - s.waiting_cycles for s in task.steps) // lanes
        bound = max(
            self.bandwidth_bound_ps(within * burst),
            self.clock.npu.edge_ps(task.macs // (self.npu.cores * self._core_elements)),
            self.clock.npu.edge_ps(taken),
            # a product's vector work is a part of it and goes on beside it
            self.clock.npu.edge_ps(
                task.vector_unit_cycles // self.npu.vector.units if task.steps else 0
            ),
            task.link_ps,
        )
        recorder.operators.append(
            OperatorRecord(
                task.name, task.kind, task.unit, task.layer, recorder.stage, start_ps,
                int(self.env.now), task.flops, moved * burst, bound,
                self.bandwidth_bound_ps(read * burst), (), lead_ps, posted * burst,
                2 * task.executed_macs, task.id.part,
            )
        )  # fmt: skip
        recorder.work.spread(
            self._tiles or [(start_ps, int(self.env.now), 1)],
            (
                ("macs", task.macs), ("vector_lane_ops", task.vector_lane_ops),
                ("sram_bytes", task.sram_bytes), ("link_bytes", task.link_bytes),
            ),
        )  # fmt: skip
        self._tiles = []
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
            recorder.bytes_moved["weight"] += sum(
                min(s.weight_bytes, s.total * burst) for s in loads
            )
            recorder.bytes_moved["kv"] += read * burst if task.kv_bytes else 0


def task_streams(task: NpuTask) -> list[Any]:
    """Everything that the task loads and stores."""
    parts = [part for step in task.steps for part in (step.blocks or (step,))]
    return [s for part in parts for s in (*part.loads, *part.stores)] + list(task.streams)


def fetched_early(following: Sequence[AnyTask]) -> NpuTask | None:
    """The next product among the tasks that follow, if its weights may come before it starts.

    None where attention is before it, which needs the buffers for keys and values; where the
    result of a task between says which weights it needs; or where activations do not fit on chip,
    its own inputs, which come with its weights, or those of a task between, which weights would
    hold up.
    """
    for task in following:
        assert isinstance(task, NpuTask)
        if task.unit == "systolic":
            known = not task.kv_bytes and not task.weights_chosen
            return task if known and task.steps and not task.steps[0].inputs_first else None
        if task.streams:
            return None
    return None


def _by_lane(task: NpuTask) -> dict[tuple[int, int], list[GemmStep]]:
    """The product's tiles by the core and the lane that work on them."""
    own: dict[tuple[int, int], list[GemmStep]] = {}
    for step in task.steps:
        own.setdefault((step.core, step.lane), []).append(step)
    return own


def _moves(task: NpuTask) -> bool:
    return bool(task.streams or task.scatters)
