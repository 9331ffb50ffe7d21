"""Writes that wait when a run ends are charged, alike at both fidelities."""

from __future__ import annotations

import pytest

from pimsim.config.loader import load_memory
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.layout import C_BUS_BUSY, C_COMMANDS, C_WR, INFINITY
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem, Stream
from pimsim.hardware.dram.waiting import charged_counters, posted_writes
from pimsim.simulate import resolve, simulate

ACT, PRE = C_COMMANDS + int(Command.ACT), C_COMMANDS + int(Command.PRE)


def finished(*streams: Stream, page: str = "open") -> MemorySystem:
    """One channel whose neighbouring bursts share a row, after ``streams`` were answered."""
    system = MemorySystem(
        load_memory(
            "hbm2",
            ["organization.channels=1", "controller.refresh=none", "stream_map=rorabgbachco",
             f"controller.page_policy={page}"],
        ).config
    )  # fmt: skip
    for stream in streams:
        group = system.submit(system.now, [stream])
        while system.advance(INFINITY) is not group:
            pass
    return system


def test_a_few_writes_have_no_command_yet_and_are_charged() -> None:
    """Five writes in one row: five WRs and an ACT, though none was issued."""
    system = finished(Stream(0, 5, write=True))
    issued, charged = system.channels["counter"][0], charged_counters(system)[0]
    assert (issued[C_WR], issued[ACT]) == (0, 0)
    assert (charged[C_WR], charged[ACT], charged[PRE]) == (5, 1, 0)
    assert charged[C_BUS_BUSY] == 5 * 2  # nBL, as tCCD_S is less


def test_rows_that_are_open_are_not_opened_and_others_are_closed_first() -> None:
    """A read left row 0 open: writes to it need no ACT, those of the bank's next row a PRE too."""
    columns = 32
    row = columns * 16  # of the same bank: 4 groups of 4 banks between
    same = finished(Stream(0, 4), Stream(8, 3, write=True))
    before, after = same.channels["counter"][0], charged_counters(same)[0]
    assert [after[at] - before[at] for at in (C_WR, ACT, PRE)] == [3, 0, 0]
    other = finished(Stream(0, 4), Stream(row, 3, write=True))
    before, after = other.channels["counter"][0], charged_counters(other)[0]
    assert [after[at] - before[at] for at in (C_WR, ACT, PRE)] == [3, 1, 1]


def test_with_auto_precharge_each_opens_its_row() -> None:
    charged = charged_counters(finished(Stream(0, 5, write=True), page="auto-precharge"))[0]
    assert (charged[C_WR], charged[ACT], charged[PRE]) == (5, 5, 0)


def test_what_was_issued_is_charged_once() -> None:
    system = finished(Stream(0, 300, write=True))
    assert 0 < system.channels["counter"][0][C_WR] < 300
    assert charged_counters(system)[0][C_WR] == 300


@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_writes_cost_energy_in_every_run(fidelity: str) -> None:
    """A run that writes little: at a hundred times the current its energy grows by the writes'."""
    small = [
        "workload.model=smollm2-135m", "workload.batch=2", "workload.layers=1", "parallel.tp=1",
        f"fidelity={fidelity}",
    ]  # fmt: skip
    energy = [
        simulate(resolve("npu-only", [*small, f"memory.currents.IDD4W={current}"])).energy_j.dram
        for current in (500, 5000)
    ]
    assert energy[1] > energy[0]


def test_writes_are_posted_until_their_data_is_over_the_bus() -> None:
    """Five wait for their commands; of 300 the one whose command was the last is still to come."""
    assert posted_writes(finished(Stream(0, 5, write=True))) == 5
    system = finished(Stream(0, 300, write=True))
    waiting = 300 - int(system.channels["counter"][0, C_WR])
    assert system.channels["bus_until"][0] == system.now + 1  # of the 2 clocks of a burst
    assert posted_writes(system) == waiting + 1
    system.channels["bus_until"][0] = system.now + 3
    assert posted_writes(system) == waiting + 2
    system.channels["bus_until"][0] = system.now
    assert posted_writes(system) == waiting


def test_each_bus_of_a_channel_may_hold_a_burst() -> None:
    """One write on one of two pseudo channels, whose time the kernel adds up: its command goes in
    the clock before the answer, its data takes the bus for nBL."""
    system = make_memory_system(
        load_memory(
            "hbm2-2000", ["organization.channels=1", "controller.refresh=none", "timings.nBL=32"]
        ).config
    )
    group = system.submit(0, [Stream(0, 1, write=True)])
    while system.advance(INFINITY) is not group:
        pass
    answered = system.now
    for since, posted in ((0, 2), (30, 1), (31, 0)):
        system.advance(answered + since)
        assert posted_writes(system) == posted, since
