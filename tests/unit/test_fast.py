"""Fast fidelity: the clock without refresh, work that drains, pieces of programs, the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pimsim
from pimsim import simulate
from pimsim.config.loader import load_preset, load_run
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.fast import (
    FastMemorySystem,
    PhasedMemory,
    Probe,
    calibrate,
    calibration_file,
    flow,
    operations,
    pieces,
    probe_of,
)
from pimsim.hardware.dram.fast.clock import RefreshClock
from pimsim.hardware.dram.fast.pieces import _sample
from pimsim.hardware.dram.fast.program_probe import ProgramProbe
from pimsim.hardware.dram.fast.programs import Pieces, ProgramRun, reserved
from pimsim.hardware.dram.fast.rank_stops import RankStops
from pimsim.hardware.dram.layout import (
    C_COMMANDS,
    C_COMP_COLUMNS,
    C_RD,
    C_STACK,
    N_COUNTERS,
    N_INSTRUCTION,
    X_REFRESH,
)
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Scatter, Stream, scatter_table
from pimsim.hardware.npu.vector import schedule_in_order
from pimsim.hardware.pim.gemv import emit
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.attention import AttentionBatch, PimWork, score_work, value_work

SMALL = ["memory.organization.channels=4", "workload.layers=1", "workload.batch=12"]
clocks = st.integers(2, 500).flatmap(
    lambda interval: st.builds(RefreshClock, st.just(interval), st.integers(0, interval - 1))
)


@given(clocks, st.integers(0, 5000))
def test_the_clock_stands_still_while_a_refresh_is_under_way(
    clock: RefreshClock, tick: int
) -> None:
    stopped = sum(
        1 for t in range(tick) if t >= clock.interval and t % clock.interval < clock.stall
    )
    assert clock.active(tick) == tick - stopped
    assert clock.active(clock.wall(clock.active(tick))) == clock.active(tick)
    assert clock.wall(clock.active(tick)) <= tick
    ticks = np.array([tick, 0])
    assert clock.active_of(ticks).tolist() == [clock.active(tick), 0]
    assert clock.wall_of(clock.active_of(ticks)).tolist() == [clock.wall(clock.active(tick)), 0]


def channel(**values: int) -> np.ndarray:
    found = np.zeros(1, flow.FLOW)
    found["pim_end"] = -1
    for name, value in values.items():
        found[name] = value
    return found


def no_refresh() -> np.void:
    return np.zeros(1, flow.REFRESH)[0]


NOWHERE = np.zeros((1, 1, flow.STRETCH), np.int64)
ANYWHERE = (NOWHERE, np.zeros(1, flow.STOPS)[0])
"""Streams of which no refresh stops some and others not."""
NO_TRAIL = np.zeros((1, flow.TRAIL, 3), np.int64)
HALF = flow.ONE // 2
PARTS = np.array(
    [[0, 100, HALF, flow.ONE, 0, 1, 0, 0], [100, 200, flow.ONE // 4, HALF, 0, 1, 0, 0]]
)


def test_streams_and_pim_drain_at_the_shares_of_the_part_under_way() -> None:
    # 100 ticks at half rate, then 200 at a quarter, then alone
    ch = channel(queued=150, pim_total=200)
    flow.step(ch, PARTS, 0, 100, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert (ch["done"][0], ch["pim_done"][0], ch["part"][0]) == (50, 100, 1)
    assert ch["pim_beside"][0] == 100
    flow.step(ch, PARTS, 100, 300, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert (ch["done"][0], ch["pim_done"][0], ch["pim_end"][0]) == (100, 200, 300)
    assert ch["end_done"][0] == 100
    flow.step(ch, PARTS, 300, 400, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert ch["done"][0] == 150
    assert (ch["pim_beside"][0], ch["pim_waited"][0]) == (300, 0)
    # 20 at half rate, then PIM is alone
    ch = channel(queued=20, pim_total=200)
    flow.step(ch, PARTS, 0, 300, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert (ch["pim_beside"][0], ch["pim_end"][0]) == (40, 200)


def test_completions_are_foreseen_without_moving() -> None:
    ch = channel(queued=150, pim_total=200)
    targets = np.array([[150], [60]])
    # 60: 50 by tick 100, then a quarter a tick
    assert flow.next_completion(ch, PARTS, 0, 10_000, targets, no_refresh(), *ANYWHERE) == (140, 1)
    assert flow.next_completion(ch, PARTS, 0, 140, targets, no_refresh(), *ANYWHERE) == (140, -1)
    assert flow.pim_end(ch, PARTS, 0, 10_000, no_refresh(), *ANYWHERE) == 300
    assert ch["done"][0] == 0


def test_pim_keeps_clear_of_a_refresh_and_stands_still_after_it() -> None:
    refresh = np.zeros(1, flow.REFRESH)[0]
    refresh["first"], refresh["interval"], refresh["stall"] = 150, 400, 30
    refresh["share"] = HALF
    parts = PARTS.copy()
    parts[:, flow.PART_NEED] = 100
    ch = channel(queued=1000, pim_total=200)
    # the first part fits before tick 150, the second begins after the stall
    assert flow.pim_end(ch, parts, 0, 10_000, refresh, *ANYWHERE) == 180 + 200
    flow.step(ch, parts, 0, 180, refresh, *ANYWHERE, NO_TRAIL)
    assert (ch["pim_done"][0], ch["pim_waited"][0]) == (100, 80)
    assert ch["done"][0] == 50 + 40


@pytest.mark.parametrize("keep", [0, 60])
@pytest.mark.parametrize("until", [1, 90, 333, 1250])
def test_a_loop_of_parts_drains_as_if_each_round_were_one(until: int, keep: int) -> None:
    """A part, four rounds of two, and a part; beside a stream and refreshes."""
    one = [(100, HALF, flow.ONE), (70, flow.ONE // 4, HALF), (30, HALF, HALF)]
    order, at = [0, *[1, 2] * 4, 0], 0
    plain, loop = [], []
    for number, kind in enumerate(order):
        size, stream, pim = one[kind]
        plain.append([at, at + size, stream, pim, keep, 1, 0, 0])
        if number in (0, 1, 2, 9):
            looped = number in (1, 2)
            loop.append([*plain[-1][:5], 4 if looped else 1, 2 * (number == 2), 100 * looped])
        at += size
    refresh = np.zeros(1, flow.REFRESH)[0]
    refresh["first"], refresh["interval"], refresh["stall"] = 150, 400, 30
    refresh["share"] = HALF
    found = []
    for parts in (np.array(plain), np.array(loop)):
        ch = channel(queued=700, pim_total=600)
        flow.step(ch, parts, 0, until, refresh, *ANYWHERE, NO_TRAIL)
        end = flow.pim_end(ch, parts, until, flow.NEVER, refresh, *ANYWHERE)
        reached = flow.next_completion(
            ch, parts, until, flow.NEVER, np.array([[690]]), refresh, *ANYWHERE
        )
        names = [name for name in flow.FLOW.names if name != "part"]
        found.append((ch[names].tolist(), end, reached))
    assert found[0] == found[1]


@pytest.mark.parametrize("until", [1, 90, 333])
def test_kernels_are_what_they_are_in_plain_python(until: int) -> None:
    refresh = np.zeros(1, flow.REFRESH).view(np.recarray)
    refresh.first, refresh.interval, refresh.stall, refresh.share = 70, 110, 13, HALF
    parts = PARTS.copy()
    parts[:, flow.PART_NEED] = [60, 80]
    anywhere = NOWHERE, np.zeros(1, flow.STOPS).view(np.recarray)[0]
    for queued, begin in ((500, 0), (500, 40), (0, 0)):
        compiled = channel(queued=queued, begin=begin, pim_total=200, pim_begin=7)
        plain = compiled.copy().view(np.recarray)
        flow.step(compiled, parts, 0, until, np.asarray(refresh)[0], *ANYWHERE, NO_TRAIL)
        flow.step.py_func(plain, parts, 0, until, refresh[0], *anywhere, NO_TRAIL)
        assert np.asarray(plain).tolist() == compiled.tolist()
        end = flow.pim_end(compiled, parts, until, flow.NEVER, np.asarray(refresh)[0], *ANYWHERE)
        assert flow.pim_end.py_func(plain, parts, until, flow.NEVER, refresh[0], *anywhere) == end


def test_vector_work_goes_in_order_on_few_units() -> None:
    finish = np.zeros(4, np.int64)
    free = np.zeros(1, np.int64)
    ready, duration = np.array([5, 5, 9, 20]), np.array([10, 10, -1, 1])
    last, used = flow.settle(ready, duration, -1, free, 0, finish)
    assert free.tolist() == [26] and last == 25
    assert finish.tolist() == [15, 25, 9, 26]
    assert used == 21


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25)), min_size=1, max_size=30),
    st.integers(0, 5),
)
def test_vector_work_is_what_the_vector_units_do(work: list[tuple[int, int]], units: int) -> None:
    ready, duration = (np.array(each, np.int64) for each in zip(*work, strict=True))
    finish = np.zeros(len(ready), np.int64)
    free = np.zeros(units, np.int64)
    _, used = flow.settle(ready, duration, -1, free, 0, finish)
    assert finish.tolist() == schedule_in_order(ready, duration, units).tolist()
    assert used == duration.sum()
    # piece by piece it is the same
    free[:], last, again = 0, -1, np.zeros(len(ready), np.int64)
    for at in range(len(ready)):
        own = slice(at, at + 1)
        last, _ = flow.settle(ready[own], duration[own], last, free, 0, again[own])
    assert again.tolist() == finish.tolist()


def test_two_results_of_one_cycle_start_one_after_the_other() -> None:
    finish = np.zeros(3, np.int64)
    none = np.zeros(0, np.int64)
    flow.settle(np.array([5, 5, 5]), np.array([2, 2, 2]), -1, none, 0, finish)
    assert finish.tolist() == [7, 8, 9]
    flow.settle(np.array([5, 5, 5]), np.array([2, 2, 2]), -1, none, 9, finish)
    assert finish.tolist() == [11, 12, 13]


def test_a_stream_takes_as_long_as_its_commands() -> None:
    memory = load_run("npu-only", ["memory.organization.channels=4"]).config.memory
    probe = Probe(memory, None)
    exact, fast = MemorySystem(memory), FastMemorySystem(memory, None, probe)
    for write in (False, True):
        took = []
        for system in (exact, fast):
            start = system.now
            system.submit(start, [Stream(4096, 40_000, write=write)])
            while system.active:
                system.advance(1 << 40)
            took.append(system.now - start)
        # which of two ranks a refresh stops depends on where the stream is
        assert took[1] == pytest.approx(took[0], rel=0.04)
    assert fast.channels["counter"][:, C_RD].tolist() == exact.channels["counter"][:, C_RD].tolist()


def test_a_channels_share_of_a_stream_is_counted_burst_by_burst() -> None:
    memory = load_run("npu-only", ["memory.organization.channels=4"]).config.memory
    fast = FastMemorySystem(memory, None, Probe(memory, None))
    bit = AddressMap.parse(memory.stream_map, memory.organization).position["ch"]
    for first, bursts in ((0, 37), (5, 1), (1000, 333)):
        owners = [(burst >> bit) & 3 for burst in range(first, first + bursts)]
        shares = [fast.streams.share(Stream(first, bursts), c) for c in range(4)]
        own = [sum(part.total for part in share) for share in shares]
        assert own == [owners.count(c) for c in range(4)]


def test_a_runs_scatters_are_not_those_of_the_run_before() -> None:
    memory = load_run("npu-only", ["memory.organization.channels=1"]).config.memory
    probe = Probe(memory, None)

    def cycles(first: int, probe: Probe) -> int:
        system = FastMemorySystem(memory, None, probe)
        system.submit(0, [], [Scatter(0, first, 24, 7, write=False)])
        while system.active:
            system.advance(1 << 40)
        return system.now

    alone = cycles(5000, Probe(memory, None))
    assert cycles(0, probe) != alone
    assert cycles(5000, probe) == alone


def test_which_rows_scatters_lie_in_plays_no_role_only_which_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = load_run("npu-only", ["memory.organization.channels=1"]).config.memory
    probe, row = Probe(memory, None), 1 << AddressMap.parse(
        memory.stream_map, memory.organization
    ).position["ro"]  # fmt: skip
    asked: list[Any] = []
    run = Probe._scatter_ticks
    monkeypatch.setattr(
        Probe, "_scatter_ticks", lambda self, table: asked.append(table) or run(self, table)
    )

    def ticks(rows: tuple[int, ...], write: bool = False, stride: int = 3) -> tuple[int, int]:
        scatters = [
            Scatter(0, at * row + 5 * place, 9, stride, write) for place, at in enumerate(rows)
        ]
        found = probe.scatter_ticks(scatter_table(scatters))
        # as if its rows were not renamed
        assert run(probe, scatter_table(scatters)[:, 1:]) == found
        return found

    for write in (False, True):
        same, before = ticks((0, 1, 0, 2), write), len(asked)
        assert ticks((700, 30, 700, 4), write) == same
        assert ticks((2, 1, 2, 0), write) == same
        assert len(asked) == before
        ticks((0, 1, 2, 0), write)
        ticks((0, 0, 0, 1), write)
        assert len(asked) == before + 2
    across = row // 8  # some in the next row, whichever that is
    ticks((0, 1, 0, 2), stride=across)
    before = len(asked)
    ticks((5, 1, 5, 2), stride=across)
    assert len(asked) == before + 1


def done_after(system: MemorySystem | FastMemorySystem, *asked: Stream | Scatter) -> list[int]:
    """Cycle at which each is complete, one asked for when the one before it is."""
    ends = []
    for one in asked:
        streams, scatters = ([one], []) if isinstance(one, Stream) else ([], [one])
        system.submit(system.now, streams, scatters)
        while system.active:
            system.advance(1 << 40)
        ends.append(system.now)
    return ends


@pytest.mark.parametrize("count", [4, 24, 100, 300])
@pytest.mark.parametrize("stride", [1, 128, 512])
def test_writes_that_were_answered_hold_up_what_comes_behind_them(count: int, stride: int) -> None:
    memory = load_run(
        "npu-only", ["memory.organization.channels=1", "memory.controller.refresh=none"]
    ).config.memory
    behind = memory.organization.rows // 2 * 32 * 16
    asked = (Scatter(0, 5000, count, stride), Stream(behind, 1024))
    exact = done_after(MemorySystem(memory), *asked)
    fast = done_after(FastMemorySystem(memory, None, Probe(memory, None)), *asked)
    assert fast[0] == pytest.approx(exact[0], abs=2)
    assert fast[1] == pytest.approx(exact[1], abs=60)
    if count > 100 and stride > 1:
        alone = done_after(MemorySystem(memory), *asked[1:])
        assert exact[1] - exact[0] > alone[0] + 100


def test_pim_stands_still_for_refresh_at_fast_fidelity_as_by_commands() -> None:
    given = [
        "workload.batch=48", "workload.layers=1", "memory.organization.channels=4",
        "memory.organization.rows=131072", "schedule.sub_batches=false",
    ]  # fmt: skip
    for design in ("neupims", "newton"):
        own = [*given, f"pim={design}"]
        exact = simulate.simulate(simulate.resolve("neupims", own))
        fast = simulate.simulate(simulate.resolve("neupims", [*own, "fidelity=fast"]))
        stacks = [one.cycle_stack["pim"] for one in (exact, fast)]
        assert set(stacks[0]) == set(stacks[1])
        for cause, cycles in stacks[0].items():
            assert abs(stacks[1][cause] - cycles) < 0.02 * exact.cycles, (design, cause)
        assert stacks[0]["refresh"] > 0.01 * exact.cycles
        assert stacks[1]["refresh"] == pytest.approx(stacks[0]["refresh"], rel=0.3)
        quiet = [*own, "fidelity=fast", "memory.controller.refresh=none"]
        assert (
            not simulate.simulate(simulate.resolve("neupims", quiet))
            .cycle_stack["pim"]
            .get("refresh")
        )


def test_streams_wait_for_the_one_row_buffer_that_pim_uses() -> None:
    # vector work behind channels that were done early once came so late that weights got through
    many = [
        "memory.organization.channels=128", "memory.organization.rows=8192", "pim=newton",
        "workload.requests=sharegpt-512", "workload.batch=256", "workload.layers=2",
    ]  # fmt: skip
    exact = simulate.simulate(simulate.resolve("neupims", many))
    fast = simulate.simulate(simulate.resolve("neupims", [*many, "fidelity=fast"]))
    assert fast.cycles == pytest.approx(exact.cycles, rel=0.04)


@pytest.mark.parametrize("first", [0, 128, 256, 384, 4096 + 200, 4096 + 300])
@pytest.mark.parametrize("preset", ["hbm2-neupims", "lpddr4-2400", "ddr4-3200"])
def test_short_streams_meet_the_refresh_of_their_rank_or_none(preset: str, first: int) -> None:
    """Of four refreshes in turn, some stop 400 bursts and others do not, as by commands."""
    memory = load_preset("memory", preset, ["organization.channels=1"]).config
    probe = Probe(memory, None)
    stops = probe.rank_stops
    assert stops.run == memory.organization.banks * memory.organization.columns
    lost: list[list[int]] = []
    for number in range(2, 6):
        ends = []
        for system in (MemorySystem(memory), FastMemorySystem(memory, None, probe)):
            start = number * probe.interval - 100
            while system.now < start:
                system.advance(start)
            system.submit(start, [Stream(first, 400)])
            while system.active:
                system.advance(1 << 40)
            ends.append(system.now - start)
        lost.append(ends)
    for exact, fast in lost:
        # short of a stop that one sees and the other does not
        assert abs(exact - fast) < stops.stall / flow.TICKS / 3, lost
    spread = [max(each) - min(each) for each in zip(*lost, strict=True)]
    assert spread[1] == pytest.approx(spread[0], abs=stops.stall / flow.TICKS / 3)


def test_pim_is_run_beside_streams_only_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_run("neupims", ["memory.organization.channels=1"]).config
    memory, pim = device_memory(config.memory), config.pim
    assert pim is not None
    shape = AttentionShape.of(4, 4, 128, memory, pim, 2)
    rows = (KvRows.from_row(100, shape.kv_sections, 500),)
    work = score_work(
        AttentionBatch(shape, rows, (500,), (0,)), 0, memory, pim, config.npu.vector, 2
    )
    asked: list[str] = []
    for name in ("beside", "beside_writes"):
        found = getattr(ProgramProbe, name)

        def note(probe: ProgramProbe, *given: Any, name: str = name, found: Any = found) -> Any:
            asked.append(name)
            return found(probe, *given)

        monkeypatch.setattr(ProgramProbe, name, note)
    reads = Stream(1 << 20, 300)
    writes = replace(reads, write=True)
    fast = FastMemorySystem(memory, pim, Probe(memory, pim))
    alone = pim_cycles(fast, work)
    assert not asked
    # before it, while it is under way, and writes
    fast = FastMemorySystem(memory, pim, Probe(memory, pim))
    assert pim_cycles(fast, work, reads) >= alone
    assert asked == ["beside"]
    asked.clear()
    fast = FastMemorySystem(memory, pim, Probe(memory, pim))
    group = fast.submit_pim(0, *work)
    fast.advance(alone // 2)
    fast.submit(fast.now, [reads])
    while group.done_cycle < 0:
        fast.advance(1 << 40)
    assert group.done_cycle >= alone and asked == ["beside"]
    asked.clear()
    fast = FastMemorySystem(memory, pim, Probe(memory, pim))
    assert pim_cycles(fast, work, writes) > alone
    assert set(asked) == {"beside_writes"}


def test_memories_of_one_rank_have_no_stops_of_their_own() -> None:
    for preset, more in (("hbm2", []), ("hbm2-neupims", ["controller.refresh=none"])):
        memory = load_preset("memory", preset, ["organization.channels=1", *more]).config
        assert Probe(memory, None).rank_stops == RankStops()


def test_short_streams_and_those_in_the_same_banks_take_longer() -> None:
    memory = load_run("neupims", ["memory=hbm3e-9600"]).config.memory
    probe = Probe(device_memory(memory), None)
    short, long = probe.chain_ticks(np.array([256, 4096])).tolist()
    assert short > long >= probe.reads.ticks
    row_set = memory.organization.columns * memory.organization.banks * memory.organization.ranks
    beside, other_row = Stream(0, 128), Stream(row_set, 128)
    assert probe.lost_ticks(beside, other_row) > probe.lost_ticks(beside, Stream(128, 128))


def test_the_same_run_is_the_same_and_says_how_exact_it_is() -> None:
    resolved = simulate.resolve("neupims", [*SMALL, "fidelity=fast"])
    one, other = simulate.simulate(resolved), simulate.simulate(resolved)
    assert one.cycles == other.cycles
    assert one.fidelity == other.fidelity
    assert one.fidelity.mode == "fast"
    assert one.fidelity.sampled_phases > 0
    assert one.fidelity.error_ci95 > 0


def test_a_limit_that_nothing_keeps_is_command_fidelity() -> None:
    exact = simulate.simulate(simulate.resolve("neupims", SMALL))
    limited = simulate.simulate(
        simulate.resolve("neupims", [*SMALL, "fidelity=fast", "max_error=1e-9"])
    )
    assert limited.cycles == exact.cycles
    assert limited.fidelity.mode == "command"


def test_python_takes_what_the_command_line_takes() -> None:
    few = {"batch": 4, "layers": 1, "trace": "mixtral-8x7b", "routing": "zipf:1"}
    small = ["memory.organization.rows=65536", "fidelity=fast"]
    table = pimsim.compare(["npu-only", "neupims"], **few, overrides=small)
    one = pimsim.run("npu-only", **few, fidelity="fast", overrides=small[:1])
    assert table["cycles"].iloc[0] == one.cycles
    assert one.fidelity.mode == "fast"


def test_runs_that_follow_the_artifact_have_no_rates() -> None:
    overrides = ["workload.batch=4", "workload.layers=1", "fidelity=fast"]
    result = simulate.simulate(simulate.resolve("neupims-artifact-npu-pim", overrides))
    assert result.fidelity.mode == "command"


def test_a_calibration_is_read_back_and_a_damaged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path))
    memory = load_run("npu-only", ["memory.organization.channels=2"]).config.memory
    first = Probe(memory, None)
    assert not calibrate(first)
    path = calibration_file(first)
    assert path is not None
    second = Probe(memory, None)
    assert calibrate(second)
    assert second.clock == first.clock
    assert (second.reads.ticks, second.writes.latency) == (first.reads.ticks, first.writes.latency)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "content": content["content"].replace("1", "2")}))
    assert not calibrate(Probe(memory, None))
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "none")
    assert calibration_file(first) is None


def pim_cycles(system: MemorySystem | FastMemorySystem, work: PimWork, *streams: Stream) -> int:
    """Cycle at which a PIM operation beside ``streams`` is complete."""
    for stream in streams:
        system.submit(system.now, [stream])
    group = system.submit_pim(system.now, *work)
    while group.done_cycle < 0:
        system.advance(1 << 40)
    return group.done_cycle


def test_results_that_one_row_buffer_holds_back_are_written_behind_it() -> None:
    given = ["memory=ddr4-3200", "memory.organization.channels=1", "memory.controller.refresh=none"]
    config = load_run("neupims", [*given, "pim=newton"]).config
    memory, pim = config.memory, config.pim
    assert pim is not None
    shape = AttentionShape.of(8, 8, 64, memory, pim, 2)
    rows = tuple(KvRows.from_row(100 + at, shape.kv_sections, 900) for at in (0, 600))
    batch = AttentionBatch(shape, rows, (900, 300), (0, 0))
    programs, marks, after = score_work(batch, 0, memory, pim, config.npu.vector, 2)
    probe = Probe(memory, pim)
    took = {}
    for factor in (0, 20):
        work = (programs, marks, replace(after, bursts=after.bursts * factor))
        exact = pim_cycles(MemorySystem(memory, pim), work)
        assert pim_cycles(FastMemorySystem(memory, pim, probe), work) == pytest.approx(
            exact, rel=0.01
        )
        took[factor] = exact
    written = 20 * int(after.bursts.sum())
    # most of them: a burst takes four clocks
    assert took[20] - took[0] > 3 * written


@pytest.mark.parametrize(("pim", "avoids"), [("neupims", 1), ("newton", 1), ("neupims", 0)])
@pytest.mark.parametrize("work", [score_work, value_work])
def test_long_loops_are_as_if_written_out_in_few_parts(
    pim: str, avoids: int, work: Callable[..., PimWork], monkeypatch: pytest.MonkeyPatch
) -> None:
    """40,000 tokens and 700: of the loops of the first a part is run, as long as writes last."""
    given = ["memory.organization.channels=2", "memory.organization.rows=131072", f"pim={pim}"]
    given.append(f"pim.refresh_avoidance={'true' if avoids else 'false'}")
    config = load_run("neupims", given).config
    memory, design = config.memory, config.pim
    assert design is not None
    shape = AttentionShape.of(4, 2, 128, memory, design, 2)
    contexts = (40_000, 700)
    rows = tuple(
        KvRows.from_row(first, shape.kv_sections, context)
        for first, context in zip((100, 100), contexts, strict=True)
    )
    batch = AttentionBatch(shape, rows, contexts, (0, 1))
    programs, marks, after = work(batch, 0, memory, design, config.npu.vector, 2)
    # of a loop that is run in part results are written as soon as their tile is done
    at_once = replace(after, duration=np.zeros_like(after.duration))
    if work is score_work:
        exact = pim_cycles(MemorySystem(memory, design), (programs, marks, after))
        fast = FastMemorySystem(memory, design, Probe(memory, design))
        assert pim_cycles(fast, (programs, marks, after)) == pytest.approx(exact, rel=0.02)
    asked = programs, marks, at_once
    found = []
    for rounds in (pieces.MOST_ROUNDS, 1 << 40):
        monkeypatch.setattr(pieces, "MOST_ROUNDS", rounds)
        monkeypatch.setattr(operations, "MOST_ROUNDS", rounds)
        fast = FastMemorySystem(memory, design, Probe(memory, design))
        found.append((pim_cycles(fast, asked), fast.known_operations[0]))
    (cycles, few), (expected, many) = found
    # one row buffer holds results back: what is left of them at the end is measured on fewer rounds
    assert cycles == pytest.approx(expected, rel=5e-4 if pim == "neupims" else 0.01)
    assert len(few.parts) < 900
    assert len(many.parts) > 900 or not avoids  # pieces that differ in nothing are one part there
    assert few.work == pytest.approx(many.work, rel=2e-3)
    assert few.mark_work == pytest.approx(many.mark_work, rel=2e-3)
    of_commands = slice(C_COMMANDS, C_COMMANDS + len(Command))
    exact = [int(command) for command in Command if command.name in ("GWRITE", "GEMV", "COMP")]
    for one, other in zip(few.counts, many.counts, strict=True):
        assert one[of_commands][exact].tolist() == other[of_commands][exact].tolist()
        assert one[C_COMP_COLUMNS] == other[C_COMP_COLUMNS] > 0


def test_a_stream_waits_while_what_pim_has_left_is_written() -> None:
    memory = load_run(
        "npu-only", ["memory.organization.channels=1", "memory.controller.refresh=none"]
    ).config.memory
    probe = Probe(memory, None)
    ends = []
    for late in (0, 700):
        fast = FastMemorySystem(memory, None, probe)
        fast.submit(0, [Stream(0, 1024)])
        fast.advance(500)
        fast._backlog.hold_up(np.array([late * flow.TICKS]))
        while fast.active:
            fast.advance(1 << 40)
        ends.append(fast.now)
    assert ends[1] == ends[0] + 700
    idle = FastMemorySystem(memory, None, probe)
    idle._backlog.hold_up(np.array([700 * flow.TICKS]))
    assert done_after(idle, Stream(0, 1024)) == ends[:1]


def test_each_channel_that_may_be_the_last_is_seen() -> None:
    # 20 channels do the same, one works on pieces of a kind of its own
    channel, kind = np.repeat(np.arange(21), 10), np.tile(np.arange(2), 105)
    kind[200:] = 2
    one = np.ones(210, np.int64)
    pieces = Pieces(np.arange(210), one, channel, kind, np.array([0, 1, 200]), one, 0 * one)
    assert 20 in _sample(pieces, np.full(210, 100))
    assert len(_sample(pieces, np.full(210, 100))) == 3
    assert _sample(pieces, np.full(210, 100), 1) == _sample(pieces, np.full(210, 100))[:1]


def test_the_last_block_arrives_when_its_transfer_is_complete() -> None:
    memory = load_run("npu-only", ["memory.organization.channels=4"]).config.memory
    for system in (MemorySystem(memory), FastMemorySystem(memory, None, Probe(memory, None))):
        group = system.submit(0, [Stream(0, 10_000, track_blocks=True)])
        while system.active:
            system.advance(1 << 40)
        assert group.block_cycles[-1] == group.done_cycle == system.now
        assert (np.diff(group.block_cycles) >= 0).all()


@pytest.mark.parametrize("design", ["neupims", "newton"])
def test_a_tile_keeps_clear_of_refresh_by_the_rows_that_it_opens(design: str) -> None:
    """NeuPIMs section 5.3 by hand: banks to close, pairs of groups, dot products, reads."""
    config = load_run("neupims", [f"pim={design}", "memory.organization.channels=1"]).config
    memory, pim = config.memory, config.pim
    assert pim is not None
    p = Probe(memory, pim).parameters[0]
    banks = memory.organization.banks * memory.organization.ranks
    groups = banks >> int(p["group_shift"])
    dots = int(p["tccd_s"]) * max(8, int(p["comp_pipeline"])) + int(p["tccd_l"]) * 2

    def tile(closed: int, opened: int) -> int:
        pairs = int(p["tfaw"]) * (opened // 2 - 1)
        return closed * int(p["trtp"]) + pairs + int(p["trcd"]) + dots + 1

    gwrite = int(p["gwrite"]) + int(p["trp"]) + int(p["trcd"]) + int(p["trtp"]) + 1
    program = np.array(
        [emit(Command.GWRITE, 5), emit(Command.HEADER, 9, 8, 3), emit(Command.HEADER, 9, 8, 3),
         emit(Command.GWRITE, 5), emit(Command.HEADER, 9, 8, 3), emit(Command.HEADER, 10, 8, 3),
         emit(Command.HEADER, 10, 8, 3)]
    )  # fmt: skip
    channel = np.array([0, 0, 0, 0, 0, 0, 1])
    own = 1 if design == "newton" else 0  # GWRITE's row takes the place of the tile's in its bank
    assert reserved(program, channel, p).tolist() == [
        gwrite, tile(banks, groups), tile(0, 0), gwrite, tile(own, own), tile(banks, groups),
        tile(banks, groups),
    ]  # fmt: skip


def test_what_never_keeps_clear_of_refresh_reserves_nothing() -> None:
    config = load_run("neupims", ["memory.organization.channels=1"]).config
    assert config.pim is not None
    pim = config.pim.model_copy(update={"refresh_avoidance": False})
    p = Probe(config.memory, pim).parameters[0]
    program = np.array([emit(Command.GWRITE, 5), emit(Command.HEADER, 9, 8, 3)])
    assert reserved(program, np.zeros(2, np.int64), p).tolist() == [0, 0]


def test_a_refresh_that_falls_due_in_a_piece_is_seen_at_the_next() -> None:
    """Ten pieces of 30 cycles, a refresh due every 100 that stops the next piece by 20, of which
    12 count as refresh."""
    memory = load_run("neupims", ["memory.organization.channels=1"]).config.memory
    probe = Probe(memory, load_run("neupims").config.pim)
    probe.interval = 100
    counts = np.zeros(N_COUNTERS, np.int64)
    counts[C_STACK + X_REFRESH] = 24
    quiet = np.full(8, 30) * flow.TICKS
    # the fourth begins at 90 and ends at 120, the fifth waits until 140; the seventh spans 200
    with_refresh = np.array([30, 30, 30, 30, 50, 30, 30, 50]) * flow.TICKS
    nothing = np.zeros(0)

    class Ran:
        def __init__(self, took: np.ndarray) -> None:
            self.took = took

        def _run_job(self, job: object) -> tuple[object, ...]:
            return self.took, counts, nothing, nothing, 0

    probe._quiet = SimpleNamespace(programs=Ran(quiet))  # type: ignore[assignment]
    probe.programs._run_job = Ran(with_refresh)._run_job  # type: ignore[method-assign, assignment]
    none = np.zeros(0, np.int64)
    found = probe.programs._stall(
        ProgramRun(np.zeros((0, N_INSTRUCTION), np.int64), none, none, none)
    )
    # until 140 after the refresh at 100, until 250 after the one at 200
    assert found.ticks == (40 + 50) // 2 * flow.TICKS
    assert found.share == 24 * flow.ONE // 40
    # pieces of which one fits between two refreshes: each is held up until 20 behind one, and none
    # falls due while one runs, however much longer the next one is held up
    again = Ran(np.full(4, 60) * flow.TICKS)
    probe._quiet = SimpleNamespace(programs=again)  # type: ignore[assignment]
    alone = np.array([60, 120, 100, 101]) * flow.TICKS
    probe.programs._run_job = Ran(alone)._run_job  # type: ignore[method-assign, assignment]
    found = probe.programs._stall(
        ProgramRun(np.zeros((0, N_INSTRUCTION), np.int64), none, none, none)
    )
    assert found.ticks == (20 + 20 + 21) * flow.TICKS // 3


def test_writes_that_are_answered_early_fit_the_queues() -> None:
    """By rates no more of them than the queues of the channels and of their banks hold."""
    memory = load_run("npu-only", ["memory=hbm2-neupims-artifact"]).config.memory
    org, controller = memory.organization, memory.controller
    places = controller.write_queue_depth + org.ranks * org.banks * controller.bank_queue_depth
    system = PhasedMemory(memory, None, probe_of(memory, None), None, frozenset())
    assert system.posted_writes(10**9, 0) == org.channels * places
    assert system.posted_writes(100, 0) == 100
    assert system.posted_writes(100, 10**6) == 0


def test_writes_drain_at_their_own_share_and_hold_pim_up() -> None:
    """100 of reads, 60 of writes at 3/4 while PIM gets a quarter, 40 of reads; PIM has 300 of work
    at full rate, reads have half beside it."""
    parts = np.array([[0, 300, HALF, flow.ONE, 0]])
    ch = channel(
        queued=200, pim_total=300, writes_from=100, writes_to=160, write_stream=3 * flow.ONE // 4,
        write_pim=flow.ONE // 4,
    )  # fmt: skip
    targets = np.array([[100], [160], [200]])
    # 200 for the first reads, 80 for the writes; PIM has done 200 + 20, 80 are left: 40 of reads
    ends = [
        flow.next_completion(ch, parts, 0, 10_000, targets[at : at + 1], no_refresh(), *ANYWHERE)[0]
        for at in range(3)
    ]
    assert ends == [200, 280, 360]
    assert flow.pim_end(ch, parts, 0, 10_000, no_refresh(), *ANYWHERE) == 360
    flow.step(ch, parts, 0, 240, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert (ch["done"][0], ch["pim_done"][0]) == (130, 210)
    flow.step(ch, parts, 240, 360, no_refresh(), *ANYWHERE, NO_TRAIL)
    assert (ch["done"][0], ch["pim_done"][0], ch["pim_end"][0]) == (200, 300, 360)


@pytest.mark.parametrize(
    ("design", "reads", "least", "most"),
    # the writes take 6,000 cycles, longer on one row buffer, which also lets reads ahead of them
    # wait until PIM is done
    [
        ("neupims", 0, 4000, 7000), ("neupims", 1500, 4000, 7000), ("newton", 0, 4000, 11_000),
        ("newton", 1500, 0, 500),
    ],
)  # fmt: skip
def test_pim_stands_still_beside_writes_as_by_commands(
    design: str, reads: int, least: int, most: int
) -> None:
    # writes were taken for reads, beside which PIM loses little: -5 % with thousands of requests
    given = ["memory.organization.channels=1", "memory.controller.refresh=none", f"pim={design}"]
    config = load_run("neupims", given).config
    memory, pim = device_memory(config.memory), config.pim
    assert pim is not None
    shape = AttentionShape.of(8, 8, 128, memory, pim, 2)
    rows = tuple(KvRows.from_row(100 + at, shape.kv_sections, 4000) for at in (0, 2000))
    batch = AttentionBatch(shape, rows, (4000, 3000), (0, 0))
    work = score_work(batch, 0, memory, pim, config.npu.vector, 2)
    org = memory.organization
    first = org.rows // 2 * org.ranks * org.banks * org.columns
    streams = [Stream(first, reads)] if reads else []
    streams.append(Stream(first + reads, 3000, write=True))
    probe = Probe(memory, pim)
    alone = pim_cycles(MemorySystem(memory, pim), work)
    exact = pim_cycles(MemorySystem(memory, pim), work, *streams)
    fast = pim_cycles(FastMemorySystem(memory, pim, probe), work, *streams)
    assert least <= exact - alone <= most
    assert fast == pytest.approx(exact, rel=0.04)
