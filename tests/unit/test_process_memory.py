"""A process that simulates for hours holds as much as after its first runs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pimsim.config.loader import load_memory, load_pim
from pimsim.config.resources import preset_names
from pimsim.hardware.dram import spare
from pimsim.hardware.dram.channel_queues import layout as channel_queues
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.fast import calibration
from pimsim.hardware.dram.layout import (
    CHANNEL,
    FILTER,
    MAX_PIM_WRITES,
    STRIDE,
    make_board,
    make_channels,
    places,
)
from pimsim.hardware.dram.parameters import make_parameters
from pimsim.hardware.dram.rules import compile_rules
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Stream
from pimsim.hardware.remembered import Remembered, remembered
from pimsim.simulate import observe, resolve, simulate

TINY = ["workload.model=smollm2-135m", "parallel.tp=1", "workload.layers=1", "workload.batch=4"]


NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def _python(repo_dir: Path, *arguments: str) -> str:
    """What a process prints that starts in the checkout, where ``benchmarks`` lies."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=repo_dir, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PIMSIM_CACHE_DIR": "none"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_array_is_lent_again_once_nobody_holds_it_or_a_view() -> None:
    kind = np.dtype([("a", np.int64), ("b", np.int64, (4,))])
    first, before = spare.lend(kind, 3)
    assert not before
    assert first.tobytes() == bytes(3 * kind.itemsize)
    first["a"] = 7
    place = first.__array_interface__["data"]
    second, before = spare.lend(kind, 3)
    assert not before and second.__array_interface__["data"] != place
    view = first["b"][1:]
    del first
    third, before = spare.lend(kind, 2)
    assert not before, "somebody still reads it"
    del view, third
    again, before = spare.lend(kind, 2)
    assert before and len(again) == 2
    assert again["a"].tolist() == [7, 7]
    again["b"] = 5
    spare.clear(again, {"b": 3})
    assert again["a"].tolist() == [0, 0]
    assert again["b"].tolist() == [[0, 0, 0, 5]] * 2


def test_a_larger_array_takes_the_place_of_an_idle_smaller_one() -> None:
    kind = np.dtype([("c", np.int64)])
    small = spare.lend(kind, 1)[0]
    del small
    assert len(spare.lend(kind, 5)[0]) == 5
    assert [len(array) for array in spare._kept[kind]] == [5]
    held = [spare.lend(kind, 1)[0] for _ in range(spare.MOST + 2)]
    assert len(spare._kept[kind]) == spare.MOST
    assert len({each.__array_interface__["data"] for each in held}) == len(held)


def _places(system: MemorySystem) -> dict[str, int]:
    is_own = system.channels.dtype == CHANNEL
    return (places if is_own else channel_queues.places)(system.parameters)


@pytest.mark.parametrize("name", ["hbm2", "hbm3-6400"])
def test_lent_channels_are_as_new_ones(name: str) -> None:
    memory = load_memory(name, ["organization.channels=2"]).config

    def fresh() -> MemorySystem:
        from pimsim.hardware.dram.device import make_memory_system

        return make_memory_system(memory)

    spare._kept.clear()
    system = fresh()
    new = system.channels.copy()
    dtype = new.dtype
    system.channels.view(np.uint8)[:] = 0xA5
    del system
    system = fresh()
    assert spare._kept[dtype] and len(spare._kept[dtype]) == 1
    used = _places(system)
    for field in dtype.names or ():
        found, expected = system.channels[field], new[field]
        if field in used:
            assert not (found[:, used[field] :].view(np.uint8) != 0xA5).any(), f"{field}: touched"
            found, expected = found[:, : used[field]], expected[:, : used[field]]
        assert np.array_equal(found, expected), field


def test_a_channel_has_places_for_what_can_be_under_way() -> None:
    """hbm2-neupims: 32 banks in 8 groups and one rank, queues of 8 a bank, 32 reads, 32 writes."""
    config = load_memory("hbm2-neupims").config
    org, controller = config.organization, config.controller
    banks = org.ranks * org.banks
    nodes = 1 + org.ranks + org.ranks * org.bank_groups + banks
    system = MemorySystem(config, load_pim("neupims").config)
    found = places(system.parameters)
    assert found["request"] == (
        banks * controller.bank_queue_depth + controller.read_queue_depth
        + controller.write_queue_depth
    )  # fmt: skip
    assert found["bank"] == found["wake"] == found["rows_queued"] == banks
    assert found["ready"] == nodes * STRIDE
    assert found["detail"] == found["seen"] == 0, "only a replay merges requests"
    assert found["pw"] == MAX_PIM_WRITES
    assert places(MemorySystem(config).parameters)["pw"] == 0
    merging = make_parameters(config, None, compile_rules(config, None), merge=1)
    assert places(merging)["detail"] == found["request"] and places(merging)["seen"] == 2 * FILTER


@pytest.mark.parametrize("name", preset_names("memory"))
def test_channels_of_every_memory_are_small(name: str) -> None:
    """What a channel touches of its record, at most: 512 of them take less than 100 MB."""
    memory = load_memory(name, ["organization.channels=1"]).config
    system = make_memory_system(memory)
    used = _places(system)
    size = 0
    for field, (kind, *_) in (system.channels.dtype.fields or {}).items():
        entries = kind.shape[0] if kind.shape else 1
        size += kind.itemsize // entries * used.get(field, entries)
    assert size < 190_000
    system.submit(0, [Stream(0, 3000), Stream(5000, 3000, write=True)])
    while system.active:
        system.advance(1 << 40)
    assert 0 < int(system.channels["pool_used"].max()) <= used["request"]


@NEEDS_PROC
@pytest.mark.parametrize("name", ["hbm2-neupims", "hbm3-6400"])
def test_hundreds_of_channels_take_little(name: str, repo_dir: Path) -> None:
    """A process that reads from 512 channels and one that reads from 8 of the same memory."""
    code = """
import sys
from benchmarks.memory import _held_mb
from pimsim.config.loader import load_memory
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.transfers import Stream
for channels in (8, 512):
    memory = load_memory(sys.argv[1], [f"organization.channels={channels}"]).config
    system = make_memory_system(memory)
    for begin in range(300):
        system.submit(system.now, [Stream(begin << 15, 64 * channels)])
        while system.active:
            system.advance(1 << 40)
    print(_held_mb())
"""
    few, many = map(float, _python(repo_dir, "-c", code, name).split())
    assert many - few < 504 * 0.2, (few, many)


def test_a_run_on_lent_records_is_the_run_on_new_ones() -> None:
    resolved = resolve("neupims", TINY)
    simulate(resolve("neupims", ["memory=hbm2", *TINY]))
    spare._kept.clear()
    new = simulate(resolved)
    again = simulate(resolved)
    assert again.cycles == new.cycles
    assert again.energy_j == new.energy_j
    assert again.cycle_stack == new.cycle_stack


@pytest.mark.parametrize("name", ["neupims", "npu-only"])
@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_a_run_leaves_no_memory_system_to_the_collector(name: str, fidelity: str) -> None:
    simulate(resolve(name, [f"fidelity={fidelity}", *TINY]))
    gc.collect()
    gc.disable()
    try:
        simulate(resolve(name, [f"fidelity={fidelity}", "memory.timings.tRP=17", *TINY]))
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, (MemorySystem, np.ndarray))]
        assert not left
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_who_keeps_what_a_run_left_behind_keeps_its_log() -> None:
    outcome, _ = observe(resolve("neupims", TINY), log_entries=1000)
    log = outcome.board["log"][0, :1000]
    before = log.copy()
    del outcome
    observe(resolve("neupims", ["memory.timings.tRP=20", *TINY]), log_entries=1000)
    assert np.array_equal(log, before)


def test_two_systems_at_once_have_records_of_their_own() -> None:
    memory = load_memory("hbm2", ["organization.channels=1"]).config
    one, two = MemorySystem(memory), MemorySystem(memory)
    one.submit(0, [Stream(0, 64)])
    assert one.active and not two.active
    assert not np.shares_memory(one.board, two.board)
    assert not np.shares_memory(one.channels, two.channels)
    assert make_board().dtype == one.board.dtype
    assert len(make_channels(memory, one.parameters)) == 1
    assert one.channels.dtype == CHANNEL


def test_what_is_remembered_is_bounded_in_bytes() -> None:
    kept: Remembered[np.ndarray] = Remembered(10_000, lambda array: array.nbytes)
    asked = []

    def find(key: int, size: int) -> np.ndarray:
        asked.append(key)
        return np.zeros(size, np.uint8)

    for key in (1, 2, 3, 1):
        kept.get(key, lambda key=key: find(key, 2500))
    assert asked == [1, 2, 3] and len(kept) == 3 and kept.nbytes == 9000
    kept.get(4, lambda: find(4, 2500))  # 2 was used longest ago
    kept.get(1, lambda: find(1, 2500))
    kept.get(2, lambda: find(2, 2500))
    assert asked == [1, 2, 3, 4, 2]
    kept.get(5, lambda: find(5, 50_000))
    assert len(kept) == 1 and kept.nbytes == 50_500
    kept.get(6, lambda: find(6, 100))
    assert len(kept) == 1 and kept.nbytes == 600


def test_remembered_functions_tell_all_arguments_apart() -> None:
    calls = []

    @remembered(1 << 20, lambda _: 0)
    def add(a: int, b: int = 1, *, c: int = 0) -> int:
        calls.append((a, b, c))
        return a + b + c

    assert [add(1), add(1), add(1, 2), add(1, c=2), add(1, b=2), add(1, c=2)] == [2, 2, 3, 4, 3, 4]
    assert calls == [(1, 1, 0), (1, 2, 0), (1, 1, 2), (1, 2, 0)]


def test_probes_are_dropped_beyond_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "none")
    monkeypatch.setattr(calibration, "calibrate", lambda probe: False)
    calibration._probes.clear()
    memory, pim = load_memory("hbm2").config, load_pim("neupims").config
    first = calibration.probe_of(memory, None)
    assert calibration.probe_of(memory, None) is first
    assert calibration.probe_of(memory, pim) is not first, "a design has probes of its own"
    monkeypatch.setattr(calibration, "MOST_BYTES", 3 * first.nbytes)
    for trp in range(15, 25):
        timings = {**memory.timings, "tRP": trp}
        calibration.probe_of(memory.model_copy(update={"timings": timings}), None)
        assert sum(one.nbytes for one in calibration._probes.values()) <= 3 * first.nbytes
    assert len(calibration._probes) == 3
    assert calibration.probe_of(memory, None) is not first
    calibration._probes.clear()


@NEEDS_PROC
@pytest.mark.parametrize(
    ("kind", "count", "fidelity"), [("runs", 16, "command"), ("runs", 16, "fast"),
                                    ("points", 40, "fast")],
)  # fmt: skip
def test_the_last_of_many_different_runs_holds_little_more_than_the_second(
    kind: str, count: int, fidelity: str, repo_dir: Path
) -> None:
    """The small form of ``python -m benchmarks memory``, which has 100 runs and 800 points."""
    held = json.loads(_python(repo_dir, "-m", "benchmarks.memory", kind, str(count), fidelity))
    assert len(held) == count
    assert held[-1] < 1.1 * held[1], held


@NEEDS_PROC
@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_long_contexts_hold_what_short_ones_do(fidelity: str, repo_dir: Path) -> None:
    """Eight requests of 4,096 tokens, then of 131,072: their programs are as long."""
    code = """
import sys, tempfile
from pathlib import Path
from benchmarks.memory import LONG_MEMORY, _held_mb, write_long
from pimsim.simulate import resolve, simulate
with tempfile.TemporaryDirectory() as folder:
    requests, card = Path(folder) / "requests.csv", Path(folder) / "card.yaml"
    for context in (4096, 131072):
        write_long(requests, card, 8, context)
        simulate(resolve("neupims", [
            f"workload.model={card}", f"workload.requests={requests}", "workload.layers=1",
            "parallel.tp=8", f"fidelity={sys.argv[1]}", LONG_MEMORY,
        ]))
        print(_held_mb())
"""
    short, long = map(float, _python(repo_dir, "-c", code, fidelity).split())
    assert long - short < 40, (short, long)


LARGE = "large = b'x' * (400 << 20); "
"""More than what it starts will hold."""


@NEEDS_PROC
def test_a_process_says_its_own_peak_and_not_that_of_who_started_it(repo_dir: Path) -> None:
    child = "from pimsim.result.build import peak_rss_mb; print(peak_rss_mb())"
    code = f"{LARGE}import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert 20 < float(_python(repo_dir, "-c", code)) < 350
    assert float(_python(repo_dir, "-c", LARGE + child)) > 400


@NEEDS_PROC
def test_a_benchmark_measures_the_process_that_it_starts(repo_dir: Path) -> None:
    run = "from benchmarks.measurement import run_process; "
    code = f"{LARGE}{run}print(run_process(['-c', 'print(5)']).peak_mb)"
    assert 4 < float(_python(repo_dir, "-c", code)) < 100
    code = f"{run}found = run_process(['-c', {LARGE + 'print(5)'!r}]); "
    peak, said = _python(repo_dir, "-c", f"{code}print(found.peak_mb, found.stdout)").split()
    assert 400 < float(peak) < 500 and said == "5"
    failed = f"{run}run_process(['-c', 'raise SystemExit(3)'])"
    with pytest.raises(AssertionError, match="ended with 3"):
        _python(repo_dir, "-c", failed)
