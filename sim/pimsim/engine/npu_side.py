"""The NPU side of a device as a simpy process that runs tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import simpy

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.clock import Clock
from pimsim.engine.dispatch import Process
from pimsim.engine.memory import MemoryPort
from pimsim.engine.npu_records import NpuRecords, TaskProgress
from pimsim.engine.npu_tiles import TileTimes
from pimsim.engine.npu_vector import CYCLE_PARTS, LaneUnits, VectorSide
from pimsim.engine.records import Recorder
from pimsim.hardware.dram.system import Group, Rows
from pimsim.mapping.program import AnyTask
from pimsim.mapping.tasks import GemmStep, NpuTask, TaskId

__all__ = ["NpuSide", "fetched_early"]


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
        self._records = NpuRecords(recorder, port.system, clock, npu, memory)
        self._times = TileTimes(clock, npu)
        self._vector = VectorSide(port, clock, npu)
        self._overlaps = npu.systolic.preload == "hidden" and npu.scratchpad.double_buffered
        self._prefetched: dict[int, tuple[simpy.Event | None, int, int]] = {}
        self.fetched: TaskId | None = None
        """The product whose first tiles are in the buffers, or will be: the arrays' next one."""
        self._progress = TaskProgress(0)  # of the task under way

    @property
    def early_loads_ps(self) -> int:
        """Least time of loads of tiles that their product has not taken yet."""
        return self._records.bandwidth_bound_ps(
            sum(bursts for _, _, bursts in self._prefetched.values())
        )

    @property
    def _now(self) -> int:
        return int(self.env.now)

    def run(self, task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        """Do a task; ``following``: what comes next as far as it is known."""
        assert isinstance(task, NpuTask)
        self._progress = TaskProgress(self._now)
        if self.npu.launch_cycles and task.unit != "link":
            start = self._now
            yield self.env.timeout(self._times.later(start, self.npu.launch_cycles) - start)
            self.charge("launch", start)
        if task.id == self.fetched:
            self.fetched = None
        if task.steps:
            yield from self._gemm(task, following)
        else:
            yield from self._plain(task)
        self._records.operator(task, self._progress, self._now)

    def charge(self, cause: str, start_ps: int, end_ps: int | None = None) -> None:
        """Charge the time from ``start_ps`` to ``end_ps`` to ``cause``; None: to now."""
        end = self._now if end_ps is None else end_ps
        self._records.charge(cause, self._records.cycles(start_ps, end))

    def _plain(self, task: NpuTask) -> Process:
        """Loads and stores on one side, computing on the other, the longer counts."""
        start = self._now
        if task.link_ps:
            yield self.env.timeout(task.link_ps)
            self.charge("collective", start)
            return
        waited, self._progress.vector = self._vector.take(task, start)
        moved = self._moved(task) if task.streams or task.scatters else None
        if moved is not None:
            yield moved
            tail = self._times.later(self._now, task.tail_cycles) - self._now
            if tail:
                yield self.env.timeout(tail)
        left = self._times.later(start, waited + task.compute_cycles) - self._now
        busy = min(task.compute_cycles, self.clock.npu_cycle(self._now - start))
        if left > 0:
            yield self.env.timeout(left)
            busy = task.compute_cycles
        self._records.plain(task, self._records.cycles(start, self._now), busy, waited)

    def _moved(self, task: NpuTask) -> simpy.Event:
        """Ask for all that a task without tiles moves."""
        if not task.stream_cores:
            return self.port.transfer(task.streams, task.scatters)
        parts = [
            self.port.transfer([stream], source=core)
            for core, stream in zip(task.stream_cores, task.streams, strict=True)
        ]
        return parts[0] if len(parts) == 1 else simpy.AllOf(self.env, parts)

    def _load(self, step: GemmStep) -> simpy.Event | None:
        if not step.loads and not step.scatters:
            return None
        return self.port.transfer(step.loads, step.scatters, step.core)

    def _gemm(self, task: NpuTask, following: Sequence[AnyTask]) -> Process:
        """Each core works on its own tiles; the product is done when the last core is."""
        own = _by_lane(task)
        start = self._now
        stacks = {lane: Counter[str]() for lane in own}
        early = fetched_early(following) if self.npu.prefetches else None
        if early is not None:
            self.fetched = early.id
        after = _by_lane(early) if early is not None else {}
        if len(own) == 1:
            (lane,) = own
            yield from self._core(task, own[lane], after.get(lane, []), stacks[lane])
        else:
            sides = [
                self.env.process(self._core(task, own[lane], after.get(lane, []), stacks[lane]))
                for lane in sorted(own)
            ]
            yield simpy.AllOf(self.env, sides)
        total = self._records.cycles(start, self._now)
        self._records.merge(list(stacks.values()), total, self.npu.cores * task.lanes)

    def _core(
        self, task: NpuTask, steps: Sequence[GemmStep], after: Sequence[GemmStep],
        stack: Counter[str],
    ) -> Process:  # fmt: skip
        """Tile by tile: the next tile loads while one computes, if there are two buffers; then
        those ``after`` them, of the next product."""
        if steps[0].blocks:
            yield from self._block_core(task, steps, stack)
            return
        ahead = 2 if self.npu.scratchpad.double_buffered else 1
        loads: list[simpy.Event | None] = []
        for number in range(min(ahead, len(steps))):
            loads.append(self._taken(steps[number]))
        free = end = self._now
        stores: list[simpy.Event] = []
        for number, step in enumerate(steps):
            waiting, late = self._now, 0
            arrived = loads[number]
            group: Group | None = None
            if arrived is not None:
                group = (yield arrived) if not arrived.processed else arrived.value
            shares = step.softmax_cycles is not None and self._vector.shared
            if step.needed is not None and group is not None:
                end, streams = self._times.finish_by_operand(
                    step, step.needed, free, group, self._now
                )
                begun, follows = waiting, end
                if streams:
                    stores.append(self.port.transfer(streams))
            elif not shares:
                begun, end, follows = self._times.finish(step, free, end, group)
            if number == len(steps) - 1:
                self._prefetch(after[:1])  # in the other buffer
            if shares:
                units = self._vector.of_lane(task, step)
                begun, end, follows, late = yield from self._attend(step, units, free, end, group)
            now = self._now
            if end > now:
                yield self.env.timeout(end - now)
            free = follows if self._overlaps else max(end, now)
            until = min(follows, max(end, now))
            self._progress.tiles.append((begun, until, step.plan.macs))
            if not shares:
                self._softmax(step, begun, until)
            self._records.tile(task, step, (waiting, self._now), begun, late, stack)
            if number + ahead < len(steps):
                loads.append(self._load(steps[number + ahead]))
            if step.stores and not step.stored_after:
                stores.append(self.port.transfer(step.stores, source=step.core))
        self._prefetch(after[1:2])  # this product's last buffer is free
        start = self._now
        for store in stores:
            if not store.processed:
                yield store
        stack["activations"] += self._records.cycles(start, self._now)

    def _softmax(
        self, step: GemmStep, begun: int, end: int, first: int = 0, last: int | None = None
    ) -> None:
        """The softmax of tiles ``first`` to before ``last`` has its units evenly over this time."""
        if step.softmax_cycles is not None:
            cycles = int(step.softmax_cycles[first:last].sum())
            self._progress.vector.append((begun, end, cycles * CYCLE_PARTS))

    def _attend(
        self, step: GemmStep, units: LaneUnits, free: int, drained: int, group: Group | None
    ) -> Process:
        """Tiles of attention whose softmax wants units that PIM's results may want, too: tile by
        tile while these do, else all that are left at once.

        Returns
        -------
        tuple of int
            When the arrays take the first tile, when the last results are there, when a tile that
            follows could begin, ps; and NPU cycles in which PIM's vector work had the units.
        """
        times, plan, softmax = self._times, step.plan, step.softmax_cycles
        assert softmax is not None
        ready, edges = times.ready(step, free, drained, group), times.edges(plan)
        begun, last = int(ready[0]), plan.steps - 1
        free, at, late = begun, 0, 0
        while True:
            if self.port.vector_work:
                start = max(int(ready[at]), free)
                if start > self._now:
                    yield self.env.timeout(start - self._now)
                    continue
                taken, longer, spans = units.tile(start, int(softmax[at]))
                self._progress.vector += spans
                interval = int(plan.interval_cycles[at])
                free = times.later(start, max(interval, taken))
                late += max(taken - interval, 0)
                if at == last:
                    end = times.later(start, plan.drain_cycles + longer)
                    return begun, end, free, late
            else:
                starts = times.starts(np.maximum(ready[at:], free), edges[at:])
                end = times.later(int(starts[-1]), plan.drain_cycles)
                done = self.env.timeout(max(end - self._now, 0))
                yield done | self.port.vector_work_begins
                begun_since = max(int(np.searchsorted(starts, self._now, side="right")) - 1, 0)
                before, at, start = at, at + begun_since, int(starts[begun_since])
                if start > self._now and not done.processed:
                    continue
                free = start + int(edges[at + 1] - edges[at])
                self._softmax(step, int(starts[0]), free, before, at + 1)
                if at == last:
                    return begun, end, free, late
                # PIM has begun: the tile that is under way goes on, the others ask
                units.hold(free)
            at += 1

    def _prefetch(self, steps: Sequence[GemmStep]) -> None:
        """Start to load tiles of the next product."""
        for step in steps:
            bursts = sum(part.total for part in step.loads)
            self._prefetched[id(step)] = self._load(step), self._now, bursts

    def _taken(self, step: GemmStep) -> simpy.Event | None:
        """The tile's load, which may have begun before its product."""
        if id(step) not in self._prefetched:
            return self._load(step)
        load, asked_ps, bursts = self._prefetched.pop(id(step))
        self._progress.early_bursts += bursts
        if self._progress.first_load_ps is None:
            self._progress.first_load_ps = asked_ps
        return load

    def _block_core(self, task: NpuTask, steps: Sequence[GemmStep], stack: Counter[str]) -> Process:
        """Tile by tile, and in a tile block by block: each starts when the arrays are free and
        its operands have come, and is stored when its last result is there and the tile asks for
        nothing more: a core issues loads, folds and stores of a tile in this order."""
        ahead = 2 if self.npu.scratchpad.double_buffered else 1
        asked = [self.env.event() for _ in steps]
        for number in range(min(ahead, len(steps))):
            asked[number].succeed(self._block_loads(steps[number]))
        stores: list[simpy.Event] = []
        free = end = self._now
        for number, step in enumerate(steps):
            waiting = self._now
            if not asked[number].processed:
                yield asked[number]
            loads: Any = asked[number].value
            begun = -1
            results: list[tuple[int, tuple[Rows, ...]]] = []
            for block, arrivals in zip(step.blocks, loads, strict=True):
                for arrival in arrivals:
                    if not arrival.processed:
                        yield arrival
                start = max(self._now, free)
                if start >= end:  # nothing is left in the array
                    start = self._times.later(start, self.npu.systolic.fetch_cycles)
                begun = start if begun < 0 else begun
                plan = block.plan
                free = self._times.later(start, plan.lead_cycles + int(plan.interval_cycles.sum()))
                end = self._times.later(start, plan.cycles)
                if not self._overlaps:
                    free = end
                self._progress.tiles.append((start, free, plan.macs))
                if block.stores:
                    results.append((end, block.stores))
            for when, rows in results:
                stores.append(self.env.process(self._store(rows, when, step.core)))
            if number + ahead < len(steps):
                # its buffer is free when the last result has left
                self.env.process(self._ask(steps[number + ahead], asked[number + ahead], end))
            # the next tile enters the arrays while the last results leave them
            until = free if number + 1 < len(steps) else end
            if until > self._now:
                yield self.env.timeout(until - self._now)
            self._records.tile(task, step, (waiting, self._now), begun, 0, stack)
        start = self._now
        yield simpy.AllOf(self.env, stores)
        stack["activations"] += self._records.cycles(start, self._now)

    def _ask(self, step: GemmStep, asked: simpy.Event, when: int) -> Process:
        """Ask at ``when`` for what the tile needs; ``asked`` says that this was done."""
        yield self.env.timeout(max(when - self._now, 0))
        asked.succeed(self._block_loads(step))

    def _block_loads(self, step: GemmStep) -> list[list[simpy.Event]]:
        """Ask for everything that the tile needs, in the order of use."""
        return [
            [self.port.transfer([rows], source=step.core) for rows in block.loads]
            for block in step.blocks
        ]

    def _store(self, stores: Sequence[Rows], when: int, core: int) -> Process:
        yield self.env.timeout(max(when - self._now, 0))
        yield self.port.transfer(stores, source=core)


def fetched_early(following: Sequence[AnyTask]) -> NpuTask | None:
    """The next product among the tasks that follow, if its weights may come before it starts.

    Parameters
    ----------
    following
        Tasks behind the one under way, in their order.

    Returns
    -------
    NpuTask | None
        None where attention is before it, which needs the buffers for keys and values; where the
        result of a task between says which weights it needs; or where activations do not fit on
        chip, its own inputs, which come with its weights, or those of a task between, which weights
        would hold up.
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
