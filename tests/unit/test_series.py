"""A run over time: intervals by hand, and the sums of a real one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimsim.config.loader import load_energy, load_preset
from pimsim.engine.iteration import Outcome
from pimsim.hardware.dram import system as memory_systems
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.layout import C_COMMANDS
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.samples import A_ACTIVE, A_BUS_LEFT, A_CYCLE, COUNT, N_SAMPLE
from pimsim.hardware.dram.samples import make_samples as make
from pimsim.hardware.dram.transfers import Stream
from pimsim.hardware.energy.static import dram_peak_w, standby_w
from pimsim.report.run_charts import power_chart, utilisation_chart
from pimsim.result import series as module
from pimsim.result.series import run_series, series_totals
from pimsim.result.types import Energy, Result, Series
from pimsim.simulate import observe, overrides_of, resolve

RD = C_COMMANDS + int(Command.RD)


@pytest.fixture(scope="module", params=["command", "fast"])
def observed(request: Any, tiny_card: Path) -> tuple[Outcome, Result]:
    options = overrides_of(model=tiny_card, batch=8, layers=2, fidelity=request.param)
    return observe(resolve("neupims", options))


# by hand


def test_samples_are_met_exactly_and_between_them_time_is_even() -> None:
    rows = np.zeros((3, N_SAMPLE), np.int64)
    rows[:, A_CYCLE] = [0, 100, 150]
    rows[:, RD] = [0, 40, 41]
    found = module._between(rows, np.array([0, 50, 100, 125, 150]))
    assert found[:, RD].tolist() == [0, 20, 40, 40, 41]
    assert found[:, A_CYCLE].tolist() == [0, 50, 100, 125, 150]


def test_what_waits_at_the_end_moves_when_the_bus_was_free_last() -> None:
    assert module._in_free_time(7, np.array([9, 0, 4, 1])).tolist() == [2, 0, 4, 1]
    assert module._in_free_time(0, np.array([9, 4])).tolist() == [0, 0]
    # no room at all: the last interval has it, and the laws see it
    assert module._in_free_time(5, np.array([1, -2])).tolist() == [1, 4]


def test_bytes_of_dot_products_are_those_of_their_operation() -> None:
    """10 steps of 8 bytes, then 5 of 2."""
    marks = np.array([[0, 0], [10, 80], [15, 90]])
    found = module._bytes_of_steps(marks, np.array([0, 4, 10, 12, 15]))
    assert found.tolist() == [0, 32, 80, 84, 90]
    assert module._bytes_of_steps(marks[:1], np.array([0, 0])).tolist() == [0, 0]


SERIES = Series(
    end_ps=(1_000_000, 2_000_000, 2_500_000),
    dram_bytes=(1000, 0, 250), pim_bytes=(0, 4000, 0), npu_macs=(500, 0, 500),
    pim_macs=(0, 2000, 0), link_bytes=(0, 0, 0),
    energy_j={"dram": (2e-6, 1e-6, 1e-6), "static": (4e-6, 4e-6, 2e-6)},
)  # fmt: skip
PEAKS = {"npu_flop_per_s": 4e9, "dram_bytes_per_s": 1e9, "pim_flop_per_s": 5e9}


def test_charts_over_time_by_hand(observed: tuple[Outcome, Result]) -> None:
    """500 multiplications in 1 us are 1e9 FLOP/s of 4e9; in half of it, twice the share."""
    result = replace(observed[1], series=SERIES, peaks=PEAKS, tdp_w=8.0)
    lines = {line.name: line for line in utilisation_chart(result).lines}
    assert {name: pytest.approx(line.y) for name, line in lines.items()} == {
        "NPU arrays": (25, 0, 50, 50), "DRAM data buses": (100, 0, 50, 50), "PIM": (0, 80, 0, 0),
    }  # fmt: skip
    assert all(line.x == (0, 1, 2, 2.5) and line.step for line in lines.values())
    power = power_chart(result)
    assert {line.name: pytest.approx(line.y) for line in power.lines} == {
        "dram": (2, 1, 2, 2), "static": (4, 4, 4, 4), "all parts": (6, 5, 6, 6),
        "TDP": (8, 8, 8, 8),
    }  # fmt: skip
    assert power.y_range is not None and power.y_range[1] > 8  # nothing is cut off
    table = result.table("series")
    assert table["start_ps"].tolist() == [0, 1_000_000, 2_000_000]
    assert table["dram_j"].tolist() == [2e-6, 1e-6, 1e-6]


# a burst at an edge


def test_a_burst_counts_over_the_time_in_which_it_holds_the_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reads of an open row go out every 2 cycles; at an odd edge the last one is half done."""
    memory = load_preset("memory", "hbm2-neupims").config
    one = memory.organization.model_copy(update={"channels": 1, "channels_per_stack": 1})
    memory = memory.model_copy(update={"organization": one})
    monkeypatch.setattr(memory_systems, "make_samples", lambda: make(interval=1))
    system = make_memory_system(memory, None, None, 0, 1000)
    system.submit(0, [Stream(0, 16)])
    while system.active:
        system.advance(1 << 30)
    log = system.board["log"][0, : int(system.board["logged"][0])]
    reads = log[log[:, 2] == int(Command.RD), 0]
    opened = log[log[:, 2] == int(Command.ACT), 0]
    table, state = system.samples
    slot = int(system.parameters[0]["tccd_s"])
    assert (slot, len(reads)) == (2, 16)
    for row in table[: int(state[COUNT])]:
        now = int(row[A_CYCLE])
        assert row[RD] == (reads < now).sum()
        done = sum(min(max(now - at, 0), slot) for at in reads.tolist())
        assert row[RD] * slot - row[A_BUS_LEFT] == done
        assert row[A_ACTIVE] == max(now - int(opened.min()), 0)


# sums


def test_intervals_add_up_to_the_run(observed: tuple[Outcome, Result]) -> None:
    outcome, result = observed
    series = result.series
    assert series is not None and len(series.end_ps) > 10
    assert series == run_series(outcome)
    totals = series_totals(outcome)
    assert {name: sum(getattr(series, name)) for name in totals} == totals
    assert min(totals["dram_bytes"], totals["pim_bytes"], totals["npu_macs"]) > 0
    for part, joule in asdict(result.energy_j).items():
        if part != "total":
            assert sum(series.energy_j[part]) == pytest.approx(joule, rel=1e-12)
    assert set(series.energy_j) | {"total"} == set(asdict(Energy.of(
        dram=0, pim=0, npu=0, sram=0, link=0, static=0)))  # fmt: skip
    assert series.end_ps[-1] == outcome.time_ps


@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_nothing_moves_where_nobody_asked(fidelity: str, tiny_card: Path) -> None:
    """Between an operator's end and the next one's first load, here through long collectives, only
    posted writes go out; nor after the last one at the end of the run."""
    options = overrides_of(model=tiny_card, batch=8, layers=2, fidelity=fidelity)
    slow = ["parallel.tp=2", "link.latency_ns=5000"]
    outcome, result = observe(resolve("neupims", [*options, *slow]))
    series, memory = result.series, outcome.system.memory
    assert series is not None
    asked = [
        (o.start_ps - o.lead_ps, o.end_ps) for o in outcome.recorder.operators
        if o.bytes or o.unit == "pim"
    ]  # fmt: skip
    starts = (0, *series.end_ps[:-1])
    idle = [
        at for at, (start, end) in enumerate(zip(starts, series.end_ps, strict=True))
        if not any(begin < end and start < done for begin, done in asked)
    ]  # fmt: skip
    assert len(idle) > 5 and idle[-1] == len(series.end_ps) - 1
    posted = memory.controller.write_queue_depth * memory.organization.channels
    for at in idle:
        assert series.dram_bytes[at] <= 2 * posted * memory.organization.burst_bytes
        assert series.pim_bytes[at] == 0
    assert sum(series.dram_bytes[at] > 0 for at in idle) < len(idle) / 2


def test_bytes_are_where_their_commands_are(tiny_card: Path) -> None:
    """The log of commands, counted by interval, says the same but for what lies across edges."""
    options = overrides_of(model=tiny_card, batch=8, layers=1)
    outcome, result = observe(resolve("neupims", options), log_entries=1 << 20)
    series, board = result.series, outcome.board
    assert series is not None
    log = board["log"][0, : int(board["logged"][0])]
    org = outcome.system.memory.organization
    of_bus = np.isin(log[:, 2], [int(c) for c in (Command.RD, Command.WR, Command.READRES,
                                                  Command.GEMV)])  # fmt: skip
    edges = outcome.clock.memory.cycle(np.array((0, *series.end_ps)))
    found = np.histogram(log[of_bus, 0], edges)[0] * org.burst_bytes
    across = org.channels * org.burst_bytes
    assert np.abs(found - series.dram_bytes)[:-1].max() <= across
    comps = np.isin(log[:, 2], [int(Command.COMP)])
    if comps.any():
        per = org.ranks * org.banks * outcome.system.pim.elements_per_comp  # type: ignore[union-attr]
        macs = np.histogram(log[comps, 0], edges)[0] * per
        assert np.abs(macs - series.pim_macs)[:-1].max() <= org.channels * per


@pytest.mark.parametrize("name", ["hbm2-neupims", "ddr5-4800"])
def test_dram_draws_at_most_all_at_once(name: str) -> None:
    """More row buffers open more rows; standby is a part of it."""
    memory, energy = load_preset("memory", name).config, load_energy("default").config
    one, two = (dram_peak_w(memory, energy, buffers) for buffers in (1, 2))
    assert standby_w(memory, energy)[1] < one < two
