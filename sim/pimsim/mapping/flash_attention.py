"""Attention of several new tokens a request on the NPU: passes of queries, dealt to the arrays.

Each head of keys of each request is work of its own for the query heads that share it. Its queries
stay on chip; where they do not fit, or would leave arrays idle, they are cut into passes, each of
which has the keys that it sees streamed past it. Arrays work alone or several together on one
pass, whichever ends first by the estimate of ``_makespan``; only the choice depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.hardware.dram.system import Rows, Stream
from pimsim.hardware.npu.flash import (
    FlashPass,
    FlashPlan,
    FlashUnits,
    flash_plan,
    key_tile,
    resident_bytes,
)
from pimsim.mapping.gemm import bytes_per_kcycle
from pimsim.mapping.kv_reads import KvReads
from pimsim.mapping.placement import deal_longest_first
from pimsim.mapping.tasks import GemmStep, NpuTask
from pimsim.workload.operators import Operator
from pimsim.workload.step import Mask, StepEntry

__all__ = ["TiledAttention", "flash_task"]

_MOST_PASSES = 64
"""Into how many passes a request's tokens are cut at most for the sake of idle arrays."""


@dataclass(frozen=True)
class TiledAttention:
    """One attention of a block: what its scores and values are, and on what it runs."""

    score: Operator
    value: Operator
    layer: int
    npu: NpuConfig
    memory: MemoryConfig
    element_bytes: int
    activations: tuple[int, int] | None
    """Where queries are and results go in memory, first bursts; None: both stay on chip."""

    @property
    def group(self) -> int:
        """Query heads that share a head of keys."""
        return self.score.heads // self.score.kv_heads

    def bursts(self, size: int) -> int:
        """That ``size`` bytes take."""
        return -(-size // self.memory.organization.burst_bytes)

    def units(self, arrays: int) -> FlashUnits:
        """What ``arrays`` of a core that work together have; vector units are shared evenly."""
        npu = self.npu
        share = Fraction(npu.vector.units * arrays, npu.cores * npu.systolic.arrays)
        return FlashUnits(npu.systolic, arrays, npu.vector, share, self.element_bytes)

    def work(self, entry: StepEntry, first: int, tokens: int) -> FlashPass:
        """Queries of one head of keys, of ``tokens`` new ones from the ``first`` of them on."""
        return FlashPass(
            entry.cached + first, tokens, entry.context, self.group, self.score.head_dim,
            self.value.head_dim, self.score.window or None, entry.mask is Mask.CAUSAL,
        )  # fmt: skip

    def room(self, arrays: int) -> int:
        """Bytes of the scratchpad for a pass of ``arrays`` together."""
        return self.npu.scratchpad.capacity * arrays // self.npu.systolic.arrays

    def most_tokens(self, arrays: int) -> int:
        """Tokens of a pass whose queries and sums take half of the room; 0: not even one."""
        tile = key_tile(self.npu.systolic)

        def taken(tokens: int) -> int:
            return resident_bytes(
                tokens, self.group, self.score.head_dim, self.value.head_dim, tile,
                self.element_bytes,
            )  # fmt: skip

        empty, room = taken(0), self.room(arrays)
        return max(min((room - empty), room // 2) // (taken(1) - empty), 0)

    def run_keys(self, arrays: int) -> int:
        """Keys that come with one load: two loads take half of the room."""
        tile = key_tile(self.npu.systolic)
        each = tile * (self.score.head_dim + self.value.head_dim) * self.element_bytes
        return tile * max(self.room(arrays) // 4 // each, 1)


@dataclass(frozen=True)
class _Job:
    """A pass of one head of keys, and where its keys lie."""

    entry: int
    head: int
    work: FlashPass


@dataclass(frozen=True)
class _Cut:
    """How many arrays work together, and into how many passes each request's tokens are cut."""

    arrays: int
    passes: tuple[int, ...]
    cycles: int
    bytes: int


def flash_task(
    attention: TiledAttention, entries: Sequence[StepEntry], reads: Sequence[KvReads]
) -> NpuTask:
    """Scores, softmax and values of ``entries`` as one task.

    Parameters
    ----------
    attention
        Scores and values of a block, and the device.
    entries
        Of the step, those that attend so.
    reads
        By entry, where its keys and values come from.

    Raises
    ------
    InputError
        Where not even one token's queries fit the scratchpad.
    """
    score, value = attention.score, attention.value
    npu = attention.npu
    if not attention.most_tokens(npu.systolic.arrays):
        raise InputError(
            f"npu.scratchpad.capacity {npu.scratchpad.capacity} B: no room for the queries of one "
            f"token ({attention.group} heads of {score.head_dim}) and two tiles of "
            f"{key_tile(npu.systolic)} keys"
        )
    cut = _cut(attention, entries, reads)
    units = attention.units(cut.arrays)
    steps: list[GemmStep] = []
    plans: list[FlashPlan] = []
    lanes = npu.systolic.arrays // cut.arrays
    jobs = list(_jobs(attention, entries, cut.passes, score.kv_heads))
    costs = [_cost(attention, job.work, reads[job.entry], cut.arrays)[0] for job in jobs]
    owner = deal_longest_first(costs, npu.cores * lanes)
    for job, lane in zip(jobs, owner, strict=True):
        for step, plan in _steps(attention, job, reads[job.entry], cut.arrays, units):
            steps.append(replace(step, core=lane % npu.cores, lane=lane // npu.cores))
            plans.append(plan)
    size = sum(
        score.kv_heads * reads[at].stored_bytes(attention.work(entry, 0, entry.new_tokens).keys)
        for at, entry in enumerate(entries)
    )
    moved = sum(s.total for step in steps for s in (*step.loads, *step.stores))
    moved += sum(s.count for step in steps for s in step.scatters)
    burst_bytes = attention.memory.organization.burst_bytes
    pairs = sum(entry.pairs(score.window or None) for entry in entries)
    needed = 2 * pairs * score.heads * (score.head_dim + value.head_dim)
    return NpuTask(
        "attention", "attention", "systolic", attention.layer, needed, 0, size,
        steps=tuple(steps), lanes=lanes, executed_macs=sum(p.plan.macs for p in plans),
        vector_unit_cycles=sum(p.vector_cycles for p in plans),
        vector_lane_ops=sum(p.vector_lane_ops for p in plans),
        sram_bytes=sum(p.sram_bytes for p in plans) + moved * burst_bytes,
    )  # fmt: skip


def _cut(attention: TiledAttention, entries: Sequence[StepEntry], reads: Sequence[KvReads]) -> _Cut:
    """The cut that ends first, of those the one that moves the fewest bytes, of those the one
    with the most arrays by themselves."""
    npu = attention.npu
    found: list[_Cut] = []
    rate = bytes_per_kcycle(npu, attention.memory)
    for arrays in (n for n in range(1, npu.systolic.arrays + 1) if npu.systolic.arrays % n == 0):
        most = attention.most_tokens(arrays)
        if not most:
            continue
        lanes = npu.cores * npu.systolic.arrays // arrays
        least = tuple(-(-entry.new_tokens // most) for entry in entries)
        factor = 1
        while True:
            passes = tuple(
                min(n * factor, entry.new_tokens)
                for n, entry in zip(least, entries, strict=True)
            )  # fmt: skip
            costs: list[int] = []
            size = 0
            for job in _jobs(attention, entries, passes, 1):
                cycles, own = _cost(attention, job.work, reads[job.entry], arrays)
                costs += [cycles] * attention.score.kv_heads
                size += own * attention.score.kv_heads
            cycles = max(_makespan(costs, lanes), size * 1000 // rate)
            found.append(_Cut(arrays, passes, cycles, size))
            factor *= 2
            if len(costs) >= 4 * lanes or factor > _MOST_PASSES:
                break
    return min(found, key=lambda cut: (cut.cycles, cut.bytes, cut.arrays))


def _jobs(
    attention: TiledAttention, entries: Sequence[StepEntry], passes: Sequence[int], heads: int
) -> Iterator[_Job]:
    """The passes of ``heads`` heads of keys, request after request."""
    for at, (entry, count) in enumerate(zip(entries, passes, strict=True)):
        edges = [entry.new_tokens * n // count for n in range(count + 1)]
        for head in range(heads):
            for first, end in pairwise(edges):
                yield _Job(at, head, attention.work(entry, first, end - first))


def _cost(
    attention: TiledAttention, work: FlashPass, reads: KvReads, arrays: int
) -> tuple[int, int]:
    """Cycles that a pass takes when others follow it, and bytes of keys and values from memory."""
    plan = flash_plan(work, work.keys, attention.units(arrays))
    return plan.plan.taken_cycles, reads.stored_bytes(work.keys)


def _makespan(costs: Sequence[int], lanes: int) -> int:
    """What the fullest lane has."""
    loads = [0] * lanes
    for cost, lane in zip(costs, deal_longest_first(costs, lanes), strict=True):
        loads[lane] += cost
    return max(loads)


def _steps(
    attention: TiledAttention, job: _Job, reads: KvReads, arrays: int, units: FlashUnits
) -> Iterator[tuple[GemmStep, FlashPlan]]:
    """Runs of keys, each a load; queries come with the first, results leave with the last."""
    keys, length = job.work.keys, attention.run_keys(arrays)
    begin = keys.start - keys.start % key_tile(attention.npu.systolic)
    runs = [
        range(max(first, keys.start), min(first + length, keys.stop))
        for first in range(begin, keys.stop, length)
    ]
    size = attention.element_bytes * job.work.tokens * job.work.group
    for number, run in enumerate(runs):
        plan = flash_plan(job.work, run, units, reads.stored(run))
        loads: list[Stream | Rows] = []
        stores: tuple[Stream, ...] = ()
        if attention.activations is not None:
            queries, results = attention.activations
            if number == 0:
                loads.append(Stream(queries, attention.bursts(size * job.work.key_dim)))
            if number == len(runs) - 1:
                bursts = attention.bursts(size * job.work.value_dim)
                stores = (Stream(results, bursts, write=True),)
        loads += reads.loads(job.head, run)
        yield (
            GemmStep(
                plan.plan, tuple(loads), stores, 0, waiting_cycles=plan.waiting_cycles,
                softmax_cycles=plan.softmax_cycles,
                scatters=tuple(reads.scatters(job.head, run)),
            ),
            plan,
        )  # fmt: skip
