"""A machine outlives its steps: what one leaves behind the next one finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pimsim.config.loader import load_run
from pimsim.engine.dispatch import Process
from pimsim.engine.machine import Machine, Progress
from pimsim.engine.schedules import Schedule, load_schedule
from pimsim.engine.schedules.greedy import Greedy
from pimsim.hardware.dram.layout import C_COMMANDS, C_REFRESHES
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem, Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.mapping.program import AnyTask, Program
from pimsim.mapping.tasks import BlockProgram, GemmStep, NpuTask, TaskId

RUN = load_run("npu-only").config


def loads(bursts: int = 0, cycles: int = 0, layers: int = 1) -> Program:
    """Blocks that load ``bursts`` from the first address on, or take ``cycles`` of the NPU."""
    streams = (Stream(0, bursts),) if bursts else ()

    def block(part: int, layer: int) -> BlockProgram:
        task = NpuTask(
            "load", "any", "dma", layer, 0, 0, 0, streams=streams, compute_cycles=cycles,
            id=TaskId(part, layer, 0),
        )  # fmt: skip
        return BlockProgram((task,), (), ())

    return Program(1, layers, block)


@pytest.fixture
def machine() -> Iterator[Machine]:
    memory = RUN.memory
    with Machine(RUN.npu, memory, MemorySystem(memory)) as made:
        yield made


SERIAL = load_schedule("serial")()
CHANNELS = RUN.memory.organization.channels


def test_the_next_step_finds_rows_open(machine: Machine) -> None:
    load = loads(bursts=CHANNELS)  # a burst of each channel
    counted = machine.system.channels["counter"]
    opened = C_COMMANDS + int(Command.ACT)
    first = machine.run(load, SERIAL)
    assert counted[:, opened].sum() == CHANNELS
    second = machine.run(load, SERIAL)
    assert counted[:, opened].sum() == CHANNELS
    timings = RUN.memory.timings
    saved = first.time_ps - second.time_ps
    # a read need not wait for its row; the first one also began in the controller's first cycle
    assert abs(saved - timings["tRCDRD"] * RUN.memory.tCK) <= 2 * RUN.memory.tCK


def test_time_and_refresh_go_on(machine: Machine) -> None:
    interval = RUN.memory.timings["tREFI"] * RUN.memory.tCK
    cycles = int(interval * 2.5 // machine.clock.npu_ps)
    ends = []
    for _ in range(3):
        step = machine.run(loads(cycles=cycles), SERIAL)
        ends.append((step.start_ps, step.end_ps))
        assert step.time_ps == machine.clock.npu.edge_ps(cycles)
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert machine.now_ps == ends[-1][1]
    refreshed = machine.system.channels["counter"][:, list(C_REFRESHES)].sum()
    machine.run(loads(bursts=CHANNELS), SERIAL)
    # the ranks take turns: what was due in 7.5 intervals, the idle time before too, each once
    now = machine.system.channels["counter"][:, list(C_REFRESHES)].sum() - refreshed
    assert now == int(7.5 * RUN.memory.organization.ranks) * CHANNELS


def test_a_step_says_which_records_are_its_own(machine: Machine) -> None:
    heard: list[Progress] = []
    steps = [machine.run(loads(cycles=10, layers=n), SERIAL, heard.append) for n in (1, 2)]
    assert [step.operators for step in steps] == [(0, 1), (1, 3)]
    assert [step.stages for step in steps] == [(0, 3), (3, 9)]
    assert len(machine.recorder.totals) == 9
    assert [now.blocks_begun for now in heard] == [1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert sum(machine.recorder.npu_causes.values()) == 30


# the step's edge ----------------------------------------------------------------------------------
ROW = 64 * CHANNELS
"""Bytes of a burst of every channel."""


def product() -> Program:
    """One tile, all of whose 512 bursts a channel are weights, which set its pace."""
    org, size = RUN.memory.organization, 512 * ROW
    plan = plan_gemm(4, size // 2 // 128, 128, RUN.npu.systolic, 2)
    tile = GemmStep(plan, (Stream(0, size // org.burst_bytes, weight_bytes=size),), (), 0)
    return Program.of(
        NpuTask("norm", "norm", "vector", 0, 0, 0, 0, compute_cycles=3000),
        NpuTask("fc", "gemm", "systolic", 0, 2 * plan.macs, size, 0, steps=(tile,)),
    )


@pytest.mark.parametrize(
    ("schedule", "known", "early"),
    [(Schedule(), True, True), (Greedy(), True, True), (Schedule(), False, False),
     (SERIAL, True, False)],
)  # fmt: skip
def test_weights_come_before_a_step_that_is_known_and_begins_with_no_barrier(
    schedule: Schedule, known: bool, early: bool
) -> None:
    npu = RUN.npu.model_copy(update={"prefetch_weights": True})
    with Machine(npu, RUN.memory, MemorySystem(RUN.memory)) as machine:
        first, second = product(), product()
        machine.run(first, schedule, following=second if known else None)
        step = machine.run(second, schedule)
        recorder = machine.recorder
    norm, fc = recorder.operators[slice(*step.operators)]
    assert norm.lead_ps == 0
    stages = recorder.stages[slice(*step.stages)]
    if early:
        # asked for while the first step's last tile was computed, and there before the norm ended
        assert fc.start_ps - fc.lead_ps < step.start_ps
        plan = second.block(0, 0).tasks[1].steps[0].plan  # type: ignore[union-attr]
        taken = machine.clock.npu_cycle(fc.end_ps) - machine.clock.npu_cycle(fc.start_ps)
        assert taken == plan.cycles + npu.systolic.fetch_cycles
        # what came before the stage is no bound of it
        (stage,) = stages
        assert stage.bound_ps == machine.clock.npu.edge_ps(plan.taken_cycles)
    else:
        assert fc.lead_ps == 0
        assert max(stage.bound_ps for stage in stages) == fc.loads_ps
    # nothing is loaded twice
    assert recorder.bytes_moved["weight"] == 2 * 512 * ROW
    counted = machine.system.channels["counter"]
    assert counted[:, C_COMMANDS + int(Command.RD)].sum() == 1024 * CHANNELS


def test_what_is_said_to_follow_follows(machine: Machine) -> None:
    machine.run(loads(cycles=10), Schedule(), following=loads(cycles=10))
    with pytest.raises(ValueError, match="said to follow"):
        machine.run(loads(cycles=10), Schedule())


def test_buffers_are_the_fetched_product_s_until_it_runs(machine: Machine) -> None:
    work = product()
    fetched = work.block(0, 0).tasks[1].id
    machine.npu.fetched = fetched
    seen = []
    run = machine.npu.run

    def watched(task: AnyTask, following: Sequence[AnyTask] = ()) -> Process:
        yield from run(task, following)
        seen.append(machine.npu.fetched)

    machine.npu.run = watched  # type: ignore[method-assign]
    machine.run(work, Schedule())
    assert seen == [fetched, None]  # behind the norm, behind the product
