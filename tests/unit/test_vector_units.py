"""Vector units are one resource: PIM's softmax and the NPU's own work wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.loader import load_run
from pimsim.engine.machine import Machine
from pimsim.engine.schedules import Schedule
from pimsim.hardware.dram.fast import FastMemorySystem, probe_of
from pimsim.hardware.dram.layout import INFINITY, N_INSTRUCTION
from pimsim.hardware.dram.system import MemorySystem, ResultWork
from pimsim.hardware.vector_units import VectorUnits, list_scheduled
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import NpuTask, PimTask
from pimsim.simulate import device_of, observe

RUN = load_run("neupims").config
UNITS = RUN.npu.vector.units


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 9), st.integers(0, 40))
def test_vectors_go_to_whichever_unit_is_free_first(
    starts: list[int], each: int, vectors: int
) -> None:
    heap = list(starts)
    heapify(heap)
    for _ in range(vectors):
        heapreplace(heap, heap[0] + each)
    found = list_scheduled(np.array(starts), each, vectors)
    assert sorted(found.tolist()) == sorted(heap)
    # each has whole vectors, behind its own start
    assert all((end - start) % each == 0 and end >= start
               for end, start in zip(found.tolist(), starts, strict=True))  # fmt: skip


def vector(rows: int, each: int) -> Program:
    return Program.of(
        NpuTask(
            "norm", "norm", "vector", 0, 0, 0, 0, compute_cycles=-(-rows // UNITS) * each,
            vector_unit_cycles=rows * each, vector_each=each,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("busy", "rows", "took"),
    [
        (0, UNITS, 100),  # one each
        (UNITS, UNITS, 1100),  # PIM has all of them for 1000
        (UNITS - 1, 3, 300),  # one is left, and does all three
        (UNITS - 1, 12, 1100),  # it does ten or eleven until the others are free
        (UNITS - 1, 11, 1100),
        (UNITS - 1, 10, 1000),
    ],
)
def test_the_npu_waits_for_units_that_pim_has(busy: int, rows: int, took: int) -> None:
    with Machine(RUN.npu, RUN.memory, MemorySystem(RUN.memory)) as machine:
        units = machine.system.vector_units
        assert units is not None and len(units.free) == UNITS
        first = machine.clock.memory.cycle(1_000_000)  # 1000 cycles of 1 GHz
        units.free[:busy] = first
        step = machine.run(vector(rows, 100), Schedule())
        causes = machine.recorder.npu_causes
    assert step.time_ps == took * 1000
    alone = -(-rows // UNITS) * 100
    assert causes["vector"] == alone and causes["pim"] == took - alone
    # a unit that the NPU has is free when it ends, in cycles of the memory
    assert units.free.max() >= machine.clock.memory.cycle(took * 1000) - 1


def test_pim_waits_for_units_that_the_npu_has() -> None:
    """An operation without commands whose one result is followed by 50 cycles of a unit."""
    ends = []
    for taken in (0, 700):
        system = MemorySystem(RUN.memory, RUN.pim)
        system.vector_units = VectorUnits(UNITS)
        system.vector_units.free[:] = taken
        nothing = [np.zeros((0, N_INSTRUCTION), np.int64)] * RUN.memory.organization.channels
        one = np.zeros(1, np.int64)
        work = ResultWork(duration=one + 50, bursts=one, channel=one, units=UNITS, spread=False)
        system.submit_pim(0, nothing, 1, work)
        while (group := system.advance(INFINITY)) is None:
            pass
        ends.append(group.done_cycle)
        assert sorted(system.vector_units.free.tolist())[-1] == group.done_cycle
    assert ends == [50, 750]


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("policy", ["interleaved", "greedy"])
def test_units_are_not_busy_longer_than_the_run(
    policy: str, fidelity: str, tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    """One slow unit, which both sides want all the time: with units of their own they would be
    busy for 1.11 times the run, which is a law of every run."""
    requests = write_trace([900, 700, 1200, 260, 1128, 933, 610, 800])
    sets = [
        f"workload.model={tiny_card}", f"workload.requests={requests}", "workload.layers=3",
        "memory.organization.channels=4", "npu.vector.units=1", "npu.vector.lanes=1",
        f"schedule.policy={policy}", "schedule.sub_batches=true", f"fidelity={fidelity}",
    ]  # fmt: skip
    outcome, result = observe(load_run("neupims", sets))
    busy = outcome.recorder.vector_unit_cycles
    assert busy <= result.cycles
    assert busy > 0.8 * result.cycles


def test_what_asks_while_pim_runs_comes_behind_the_results_so_far() -> None:
    """Units are taken by what PIM has read by now, not by what it will read, at both fidelities."""
    device, _ = device_of(load_run("neupims", ["workload.batch=8", "workload.layers=1"]))
    task = next(t for t in device.block(0, 0).attention if isinstance(t, PimTask))
    work, memory, pim = task.vector_work, device.memory, device.config.pim
    assert work is not None
    spent = int(work.duration.clip(0).sum())

    def run(system: MemorySystem | FastMemorySystem, at: int, taken: int) -> tuple[int, int, int]:
        """Cycles that units have been given at ``at``, from which on the NPU has all of them so
        long; end of the operation, and of the units."""
        one, long = 1_000_000, int(work.duration.max())  # type: ignore[union-attr]
        system.vector_units = units = VectorUnits(one)  # so many that none is taken twice
        system.submit_pim(0, task.programs, task.marks, work)
        assert system.advance(at) is None
        system.settle_results()
        given = np.count_nonzero(units.free)
        units.take(np.full(one, at + taken))
        while (group := system.advance(INFINITY)) is None:
            pass
        assert group.vector_busy_cycles == spent
        assert units.free.max() <= group.done_cycle + long
        return given, group.done_cycle, int(units.free.max())

    whole = run(MemorySystem(memory, pim), 1, 0)[1]
    probe = probe_of(memory, pim)
    marks = int((work.duration >= 0).sum())
    for at in (whole // 4, whole // 2):
        exact = run(MemorySystem(memory, pim), at, 10 * whole)
        fast = run(FastMemorySystem(memory, pim, probe), at, 10 * whole)
        assert 0 < exact[0] < marks
        assert fast[0] == pytest.approx(exact[0], abs=0.1 * marks)
        assert exact[1] > 10 * whole and fast[1] == pytest.approx(exact[1], rel=0.01)
