"""A run over time: intervals by hand, and the sums of a real one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pimsim.engine.machine
from pimsim.config.loader import load_energy, load_preset
from pimsim.engine.iteration import Outcome
from pimsim.engine.work import Span, WorkOverTime
from pimsim.hardware.dram import system as memory_systems
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast import FastMemorySystem, probe_of
from pimsim.hardware.dram.fast import system as fast_systems
from pimsim.hardware.dram.fast.books import Transfer
from pimsim.hardware.dram.layout import C_COMMANDS
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.samples import A_ACTIVE, A_BUS_LEFT, A_CYCLE, COUNT, N_SAMPLE
from pimsim.hardware.dram.samples import make_samples as make
from pimsim.hardware.dram.transfers import Group, Scatter, Stream
from pimsim.hardware.energy.dram import command_energy
from pimsim.hardware.energy.static import dram_peak_w, standby_w
from pimsim.report.run_charts import power_chart, utilisation_chart
from pimsim.result import series as module
from pimsim.result.series import run_series, series_totals
from pimsim.result.types import Result, Series
from pimsim.simulate import observe, overrides_of, resolve, simulate

RD = C_COMMANDS + int(Command.RD)
REF = C_COMMANDS + int(Command.REF)


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


def test_after_the_last_sample_nothing_comes() -> None:
    """The memory was busy until cycle 130 of 200, with 4 ticks of a burst to come."""
    taken, now = np.zeros((3, N_SAMPLE), np.int64), np.zeros(N_SAMPLE, np.int64)
    taken[:, A_CYCLE], taken[:, RD] = [50, 100, 150], [10, 31, 32]
    now[[A_CYCLE, RD, A_ACTIVE, A_BUS_LEFT]] = 130, 30, 120, 4
    rows = module._with_end(taken, now, 200, 190)
    assert rows[:, A_CYCLE].tolist() == [0, 50, 100, 130, 200]
    assert rows[:, RD].tolist() == [0, 10, 30, 30, 30]  # 31 was rounded up
    assert rows[:, A_ACTIVE].tolist() == [0, 0, 0, 120, 190]
    assert rows[:, A_BUS_LEFT].tolist() == [0, 0, 0, 4, 0]
    assert module._with_end(taken, now, 130, 120)[-1, A_BUS_LEFT] == 4


def test_what_waits_at_the_end_costs_its_energy_there(
    observed: tuple[Outcome, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, result = observed
    series, wr = result.series, C_COMMANDS + int(Command.WR)
    assert series is not None
    counted = module.charged_counters(outcome.system)
    counted[0, wr] += 1000
    monkeypatch.setattr(module, "charged_counters", lambda _: counted)
    more = run_series(outcome)
    assert more.energy_j["dram"][:-1] == pytest.approx(series.energy_j["dram"][:-1])
    one = command_energy(outcome.device.memory, outcome.device.config.energy)
    joule = more.energy_j["dram"][-1] - series.energy_j["dram"][-1]
    assert joule == pytest.approx(1000 * (one.write_pj + one.burst_io_pj) * 1e-12)
    size = outcome.system.memory.organization.burst_bytes
    assert sum(more.dram_bytes) - sum(series.dram_bytes) == 1000 * size


def test_posted_writes_of_a_transfer_are_counted_as_they_drain() -> None:
    """8 writes a channel, work from tick 100 to 180; with all counted, what is not done is less."""
    memory = load_preset("memory", "hbm2-neupims").config
    probe = probe_of(memory, None)
    writes = np.array([8, 8])
    none = np.zeros(2, np.int64)
    work = np.array([100, 100]), np.array([180, 180])
    transfer = Transfer(Group(-1, 0), none, none, none, none, writes, 0, 0, work)
    wr = C_COMMANDS + int(Command.WR)
    for done, counted, bursts in (
        ((100, 100), False, 0), ((140, 100), False, 4), ((200, 190), False, 16),
        ((140, 100), True, -12), ((200, 190), True, 0),
    ):  # fmt: skip
        assert transfer.drained(probe, np.array(done), counted)[wr] == bursts
    # a burst takes 2 cycles of 10 ticks: at 47 one of the fifth's two is over
    for done, cycles in (((140, 100), 0), ((147, 100), 1), ((149, 166), 2), ((180, 180), 0)):
        assert transfer.begun_burst_cycles(probe, np.array(done)) == cycles
    assert transfer.counts(probe)[:, wr].tolist() == [8, 8]
    assert not transfer.is_drained(np.array([180, 179]))
    assert transfer.is_drained(np.array([180, 180]))


def test_a_sample_at_fast_leaves_out_posted_writes() -> None:
    """Answered at once, they drain later: 4 writes a channel."""
    memory = load_preset("memory", "hbm2-neupims").config
    system = FastMemorySystem(memory, None, probe_of(memory, None))
    row, wr = np.zeros(N_SAMPLE, np.int64), C_COMMANDS + int(Command.WR)
    channels = range(memory.organization.channels)
    system.submit(0, [], [Scatter(c, 0, 4) for c in channels])
    while system.active:
        system.advance(1 << 20)
    system.sample(row)
    whole = 4 * memory.organization.channels
    assert system.channels["counter"][:, wr].sum() == whole
    assert row[wr] < whole
    system.skip(system.now + 1000)
    system.sample(row)
    assert row[wr] == whole


def test_at_fast_an_idle_stretch_has_a_sample_at_its_begin() -> None:
    """What was read before cycle 1,024 is not spread over the time up to cycle 10,000."""
    memory = load_preset("memory", "hbm2-neupims").config
    system = FastMemorySystem(memory, None, probe_of(memory, None))
    bursts = 8 * memory.organization.channels
    for start in (0, 10_000):
        system.submit(start, [Stream(0, bursts)])
        while system.active:
            system.advance(1 << 20)
    table, state = system.samples
    rows = table[: int(state[COUNT])]
    assert (int(rows[0, A_CYCLE]), int(rows[0, RD])) == (1024, bursts)
    # nor are its refreshes, one in 1,950 cycles, nor the time in which it has rows open
    assert rows[:2, REF].tolist() == [0, 10_000 // 1950 * memory.organization.channels]
    assert rows[0, A_ACTIVE] * 9 < rows[1, A_ACTIVE]
    assert rows[-1, A_CYCLE] >= 10_000 and rows[-1, RD] >= bursts


def test_what_rates_put_where_there_is_no_time_comes_later() -> None:
    def found(*ticks: int) -> list[int]:
        return module._when_there_is_time(np.array(ticks), np.full(len(ticks), 10)).tolist()

    assert found(3, 10, 9) == [3, 10, 9]
    assert found(12, 11, 4, 2) == [10, 10, 7, 2]
    # what has no time at all is the last one's, and the laws see it
    assert found(12, 10, 9) == [10, 10, 11]


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
    pim_macs=(0, 2000, 0), link_bytes=(0, 0, 0), vector_lane_ops=(0, 300, 100),
    energy_j={"dram": (2e-6, 1e-6, 1e-6), "static": (4e-6, 4e-6, 2e-6)},
)  # fmt: skip
PEAKS = {
    "npu_flop_per_s": 4e9, "dram_bytes_per_s": 1e9, "pim_flop_per_s": 5e9, "vector_ops_per_s": 1e9,
}  # fmt: skip


def test_charts_over_time_by_hand(observed: tuple[Outcome, Result]) -> None:
    """500 multiplications in 1 us are 1e9 FLOP/s of 4e9; in half of it, twice the share."""
    result = replace(observed[1], series=SERIES, peaks=PEAKS, tdp_w=8.0)
    lines = {line.name: line for line in utilisation_chart(result).lines}
    assert {name: pytest.approx(line.y) for name, line in lines.items()} == {
        "NPU arrays": (25, 0, 50, 50), "DRAM data buses": (100, 0, 50, 50), "PIM": (0, 80, 0, 0),
        "vector units": (0, 30, 20, 20),
    }  # fmt: skip
    assert all(line.x == (0, 1, 2, 2.5) and line.step for line in lines.values())
    power = power_chart(result)
    assert {line.name: pytest.approx(line.y) for line in power.lines} == {
        "dram": (2, 1, 2, 2), "static": (4, 4, 4, 4), "all parts": (6, 5, 6, 6),
        "TDP": (8, 8, 8, 8),
    }  # fmt: skip
    assert power.y_range is not None and power.y_range[1] > 8  # nothing is cut off
    earlier = replace(result, series=replace(SERIES, vector_lane_ops=()))
    assert "vector units" not in {line.name for line in utilisation_chart(earlier).lines}
    assert "vector_lane_ops" not in earlier.table("series")
    table = result.table("series")
    assert table["vector_lane_ops"].tolist() == [0, 300, 100]
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
    assert (
        min(totals[name] for name in ("dram_bytes", "pim_bytes", "npu_macs", "vector_lane_ops")) > 0
    )
    parts = asdict(result.energy_j)
    assert set(parts) - set(series.energy_j) == {"total", "host"}  # of an NPU nothing is a host's
    assert parts["host"] == 0
    for part, joules in series.energy_j.items():
        assert sum(joules) == pytest.approx(parts[part], rel=1e-12)
    assert series.end_ps[-1] == outcome.time_ps
    first, *_, last = series.lengths_s
    assert 0.5 - 1e-6 <= last / first <= 1.5


@pytest.mark.parametrize("interval", [1024, 8192])
@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_nothing_moves_where_nobody_asked(
    fidelity: str, interval: int, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between an operator's end and the next one's first load, here through long collectives, only
    posted writes go out; nor after the last one at the end of the run."""
    for system in (memory_systems, fast_systems):
        monkeypatch.setattr(system, "make_samples", lambda **_: make(interval))
    options = overrides_of(model=tiny_card, batch=8, layers=2, fidelity=fidelity)
    slow = ["parallel.tp=2", f"link.latency_ns={5 * interval}"]
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
    # posted writes are done by then; those of the end are in the last one
    later = [at for at in idle[:-1] if at - 1 in idle]
    assert len(later) > 5
    assert {series.dram_bytes[at] for at in later} == {0}


@pytest.mark.parametrize("preset", ["neupims", "npu-only", "onnxim-tpuv4"])
def test_the_arrays_have_one_tile_after_the_other(
    preset: str, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two at once on a core, none longer than its operator, none faster than all multipliers."""
    seen: list[tuple[list[Span], dict[str, int]]] = []

    class Watched(WorkOverTime):
        def spread(self, spans: Sequence[Span], amounts: Iterable[tuple[str, int]]) -> None:
            given = dict(amounts)
            seen.append((list(spans), given))
            super().spread(spans, given.items())

    monkeypatch.setattr(pimsim.engine.machine, "WorkOverTime", Watched)
    options = overrides_of(model=tiny_card, batch=8, layers=2)
    # several tiles a product
    small = [] if preset == "onnxim-tpuv4" else ["npu.scratchpad.capacity=512KiB"]
    outcome, _ = observe(resolve(preset, [*options, *small]))
    npu, clock = outcome.device.config.npu, outcome.clock
    elements = npu.systolic.arrays * npu.systolic.rows * npu.systolic.cols
    tiled = [(spans, given["macs"]) for spans, given in seen if given.get("macs")]
    assert any(len(spans) > 1 for spans, _ in tiled)
    for spans, macs in tiled:
        if len(spans) == 1:
            continue
        assert sum(weight for *_, weight in spans) == macs
        if npu.cores == 1:
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
        for start, end, weight in spans:
            assert weight <= elements * (clock.npu_cycle(end) - clock.npu_cycle(start) + 1)


@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_vector_units_are_no_more_than_there_are(
    fidelity: str, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work behind PIM's results lies where it has a unit: within its operator, never on more units
    than the device has, and not evenly over the time in which PIM multiplies."""
    seen: list[tuple[WorkOverTime, NDArray[np.int64], NDArray[np.int64]]] = []

    class Watched(WorkOverTime):
        def spread_beside(
            self, starts_ps: NDArray[np.int64], ends_ps: NDArray[np.int64],
            amounts: Iterable[tuple[str, int]],
        ) -> None:  # fmt: skip
            seen.append((self, starts_ps, ends_ps))
            super().spread_beside(starts_ps, ends_ps, amounts)

    monkeypatch.setattr(pimsim.engine.machine, "WorkOverTime", Watched)
    options = overrides_of(model=tiny_card, batch=8, layers=2, fidelity=fidelity)
    outcome, _ = observe(resolve("neupims", [*options, "npu.vector.units=2"]))
    scores = [o for o in outcome.recorder.operators if o.unit == "pim" and o.kind.endswith("score")]
    own = [spans for work, *spans in seen if work is outcome.recorder.work]
    assert len(own) == len(scores) > 1
    for (starts, ends), o in zip(own, scores, strict=True):
        assert o.start_ps <= starts.min() and ends.max() <= o.end_ps
        assert max(int(((starts <= at) & (at < ends)).sum()) for at in starts) <= 2
        assert (ends - starts).sum() < 0.9 * 2 * (o.end_ps - o.start_ps)


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


def test_banks_that_are_refreshed_one_by_one_draw_at_most_all_at_once() -> None:
    """Where REFpb of every bank draws more than REF, the peak rises by all banks of all ranks."""
    energy = load_energy("default").config
    low, high = (
        load_preset("memory", "hbm2", [f"currents.IDD5PB={milliampere}"]).config
        for milliampere in (2000.0, 3000.0)
    )
    org = low.organization
    banks = org.channels * org.pseudo_channels * org.ranks * org.banks
    each = [command_energy(memory, energy).bank_refresh_pj for memory in (low, high)]
    assert each[1] > each[0] > 0
    expected = banks * (each[1] - each[0]) / (low.timings["tRFCpb"] * low.tCK)
    assert dram_peak_w(high, energy) - dram_peak_w(low, energy) == pytest.approx(expected)


def test_a_run_that_is_not_watched_over_time_is_the_same(
    observed: tuple[Outcome, Result], tiny_card: Path
) -> None:
    watched = observed[1]
    options = overrides_of(model=tiny_card, batch=8, layers=2, fidelity=watched.fidelity.mode)
    alone = simulate(resolve("neupims", options), over_time=False)
    assert watched.series is not None
    assert alone.series is None
    assert replace(alone, series=watched.series, provenance=watched.provenance) == watched
