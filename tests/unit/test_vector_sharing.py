"""Softmax within tiles of attention shares the vector units with what follows PIM's results."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.loader import load_run
from pimsim.engine.machine import Machine
from pimsim.engine.schedules import Schedule
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.npu.plan import make_plan
from pimsim.hardware.vector_units import VectorUnits, lane_share, shared_end
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import GemmStep, NpuTask

RUN = load_run("neupims", ["npu.vector.units=4", "npu.systolic.arrays=2"]).config
PS = 1000  # of the NPU's cycle


@given(st.integers(1, 12), st.integers(1, 40))
def test_lanes_have_the_units_in_equal_parts(lanes: int, units: int) -> None:
    shares = [lane_share(lane, lanes, units) for lane in range(lanes)]
    assert all(sum(share.values()) == Fraction(units, lanes) for share in shares)
    for unit in range(units):
        assert sum(share.get(unit, Fraction(0)) for share in shares) == 1
    assert all(0 < part <= 1 for share in shares for part in share.values())


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.fractions(Fraction(1, 8), 1, max_denominator=8)),
        min_size=1, max_size=5,
    ),
    st.integers(0, 60),
)  # fmt: skip
def test_units_have_done_the_work_by_then_and_not_before(
    units: list[tuple[int, Fraction]], work: int
) -> None:
    starts, parts = zip(*units, strict=True)

    def done(cycle: int) -> Fraction:
        return sum((part * max(cycle - start, 0) for start, part in units), Fraction(0))

    end = shared_end(starts, parts, work)
    assert done(end) >= work
    assert not work or done(end - 1) < work


def test_tiles_stand_behind_what_others_asked_for_and_not_behind_each_other() -> None:
    units = VectorUnits(3)
    units.free[:] = 10, 20, 30  # PIM's
    assert units.behind_others().tolist() == [10, 20, 30]
    units.take_for_tile(np.array([0, 1]), 50)
    assert units.free.tolist() == [50, 50, 30]  # PIM waits for the tile
    assert units.behind_others().tolist() == [10, 20, 30]  # a lane that shares them does not
    units.free[0] = 55  # PIM comes behind the tile
    units.take_for_tile(np.array([1, 2]), 60)
    assert units.behind_others().tolist() == [55, 20, 30]
    assert units.free.tolist() == [55, 60, 60]


TILES = [(100, 300), (50, 100), (200, 240), (80, 300)]
"""Cycles of the arrays of one lane, and of vector units, added over units, of its tiles."""
LAST = 7
"""Cycles that the arrays take to empty."""


def attention(lanes: int = 2) -> Program:
    """The same tiles in every lane, each of which has two units."""
    arrays, softmax = (np.array(each, np.int64) for each in zip(*TILES, strict=True))
    waits = -(-softmax // 2)
    plan = make_plan(
        folds=1, interval_cycles=np.maximum(arrays, waits),
        weight_bytes_needed=np.zeros(len(arrays), np.int64), lead_cycles=0,
        drain_cycles=int(arrays[-1] + waits[-1]) + LAST, macs=1,
    )  # fmt: skip
    waiting = int((np.maximum(arrays, waits) - arrays).sum())
    steps = tuple(
        GemmStep(plan, (), (), 0, lane=lane, waiting_cycles=waiting, softmax_cycles=softmax)
        for lane in range(lanes)
    )
    total = int(softmax.sum()) * lanes
    return Program.of(
        NpuTask(
            "attention", "attention", "systolic", 0, 2, 0, 0, steps=steps, lanes=2,
            vector_unit_cycles=total,
        )
    )  # fmt: skip


def run(*events: tuple[int, list[int] | None], lanes: int = 2) -> tuple[int, Machine]:
    """NPU cycles of ``attention`` while, from given cycles on, PIM's results want the units: each
    event says up to which cycle they have each unit, or None: that the operation is done."""
    system = MemorySystem(RUN.memory, RUN.pim)
    with Machine(RUN.npu, RUN.memory, system) as machine:
        port = machine._port  # in place of a program of PIM, whose times could not be told

        def pim() -> Iterator[simpy.Event]:
            for cycle, free in events:
                if cycle:
                    yield machine.env.timeout(cycle * PS - machine.now_ps)
                port.vector_work = False
                if free is not None:
                    port.begin_vector_work()
                    assert system.vector_units is not None
                    until = machine.clock.memory.cycle(np.array(free) * PS)
                    np.maximum(system.vector_units.free, until, out=system.vector_units.free)

        machine.env.process(pim())  # type: ignore[arg-type]
        step = machine.run(attention(lanes), Schedule())
        assert step.time_ps % PS == 0
        return step.time_ps // PS, machine


ALONE = 150 + 50 + 200 + 80 + 150 + LAST


def causes(machine: Machine) -> dict[str, Any]:
    return {name: cycles for name, cycles in machine.recorder.npu_causes.items() if cycles}


@pytest.mark.parametrize("event", [(), ((0, [0] * 4),), ((130, [0] * 4),), ((500, [0] * 4),)])
def test_whoever_does_not_want_units_costs_nothing(event: tuple[Any, ...]) -> None:
    """However tiles are asked for, all at once or one by one."""
    cycles, machine = run(*event)
    assert cycles == ALONE
    assert causes(machine).get("pim") is None


@pytest.mark.parametrize(
    ("event", "late"),
    [
        # at the start: both units of both lanes are PIM's for 60 cycles
        ((0, [60] * 4), 60),
        # one of a lane's: 300 cycles of units from 0 on one and from 60 on the other take 180
        ((0, [60, 0, 0, 60]), 30),
        # only the other lane's: the task is done when the later lane is
        ((0, [0, 0, 60, 60]), 60),
        # in the first tile, which goes on; the second, from 150 on, waits for what is left
        ((100, [170] * 4), 20),
        # arrays set the third tile's pace: they hide the first 80 of 100 cycles
        ((190, [300] * 4), 20),
        ((190, [280] * 4), 0),
        # the last tile, whose softmax comes behind its scores: all of it counts
        ((399, [430] * 4), 30),
        # the last tile is under way
        ((401, [900] * 4), 0),
        ((550, [900] * 4), 0),
    ],
)  # fmt: skip
def test_tiles_wait_for_units_that_pim_has(event: tuple[int, list[int]], late: int) -> None:
    cycles, machine = run(event)
    assert cycles == ALONE + late
    assert causes(machine).get("pim", 0) <= late


def test_when_pim_is_done_the_rest_is_asked_for_at_once() -> None:
    cycles, _ = run((0, [60] * 4), (65, None))
    assert cycles == ALONE + 60
    # and when it begins again
    cycles, _ = run((0, [60] * 4), (65, None), (300, [440] * 4))
    assert cycles == ALONE + 60


def test_pim_waits_for_the_tile_under_way_and_for_no_more() -> None:
    """Units are the lanes' up to the end of the tile that was under way when PIM began, and then
    tile by tile."""
    _, machine = run((100, [0] * 4), lanes=1)
    units = machine.system.vector_units
    assert units is not None
    # the lane's own two units, up to the end of the last tile's softmax; the others nobody had
    end = machine.clock.memory.cycle((150 + 50 + 200 + 150) * PS)
    assert units.free.tolist()[2:] == [0, 0]
    assert all(end - 1 <= free <= end for free in units.free.tolist()[:2])
    # PIM is done in the first tile, in the second, in the third, whose softmax takes 120 cycles
    for done, until in ((140, 150), (160, 200), (210, 320)):
        seen = run((100, [0] * 4), (done, None), lanes=1)[1].system.vector_units
        assert seen is not None
        end = machine.clock.memory.cycle(until * PS)
        assert [end - 1 <= free <= end for free in seen.free.tolist()[:2]] == [True] * 2, done
