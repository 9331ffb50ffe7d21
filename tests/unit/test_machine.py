"""A machine outlives its steps: what one leaves behind the next one finds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pimsim.config.loader import load_run
from pimsim.engine.machine import Machine, Progress
from pimsim.engine.schedules import load_schedule
from pimsim.hardware.dram.layout import C_COMMANDS, C_REFRESHES
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem, Stream
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import BlockProgram, NpuTask, TaskId

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
