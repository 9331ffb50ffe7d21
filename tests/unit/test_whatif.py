"""A tenth more of each resource: by stacks and bounds, and as a run has it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.loader import load_any_run
from pimsim.explore.whatif import RESOURCES, Resource, estimate, more_of, what_if
from pimsim.result.rows import CYCLE_CAUSES
from pimsim.result.types import Result

RunCli = Callable[..., subprocess.CompletedProcess[str]]
MEMORY = Resource("m", "memory.tCK", ("weights",), ("computing",), ("dram",), less=True)


@pytest.fixture(scope="module")
def result(tiny_card: Path) -> Result:
    return pimsim.run("npu-pim", model=tiny_card, batch=2, layers=1)


def made(result: Result, bounds: dict[str, int]) -> Result:
    stacks = {
        "npu": {"computing": 300, "weights": 400, "pim": 300},
        "pim": {"computing": 90, "refresh": 30, "npu": 880},
    }
    return replace(result, cycles=1000, cycle_stack=stacks, bound_cycles=bounds)


def test_the_estimate_is_what_stacks_and_bounds_leave(result: Result) -> None:
    # weights, and three quarters of what is waited for PIM
    saved = (400 + 300 * 90 / 120) * (1 - 1 / 1.25)
    free = made(result, {})
    assert estimate(free, MEMORY, 0.25) == pytest.approx(1000 / (1000 - saved) - 1)
    assert estimate(made(result, {"array": 950}), MEMORY, 0.25) == pytest.approx(1000 / 950 - 1)
    own = made(result, {"dram": 1150})
    assert estimate(own, MEMORY, 0.25) == pytest.approx(1000 / 920 - 1)
    assert estimate(made(result, {"array": 1000}), MEMORY, 0.25) == 0
    assert estimate(free, Resource("n", "x", ("vector",)), 0.25) == 0
    less_pim = replace(MEMORY, pim_causes=())
    assert estimate(free, less_pim, 0.25) == pytest.approx(1000 / 920 - 1)


def test_more_of_a_time_is_less_and_whole_numbers_stay_whole() -> None:
    machine = load_any_run("npu-pim")
    by_key = {each.key: more_of(machine, each, 0.1) for each in RESOURCES}
    assert by_key["npu.frequency"] == ("1GHz", "1100MHz")
    assert by_key["memory.tCK"] == ("1ns", "909ps")
    lanes = machine.config.npu.vector.lanes  # type: ignore[union-attr]
    assert by_key["npu.vector.lanes"] == (str(lanes), str(-(-lanes * 11 // 10)))
    assert by_key["xpu.peak_tflops"] is None and by_key["host.memory_bandwidth_gb_per_s"] is None
    odd = load_any_run("npu-pim", ["npu.vector.lanes=12", "memory.timings.tFAW=26"])
    rounded = {each.key: more_of(odd, each, 0.1) for each in RESOURCES}
    assert rounded["npu.vector.lanes"] == ("12", "14"), "no less than a tenth more"
    assert rounded["memory.timings.tFAW"] == ("26", "23")
    gpus = load_any_run("dgx-h100")
    assert more_of(gpus, RESOURCES[0], 0.1) is None
    assert any(more_of(gpus, each, 0.1) for each in RESOURCES if each.key.startswith("xpu."))


def test_a_run_checks_each_and_what_cannot_be_says_why(result: Result) -> None:
    asked: list[Sequence[str]] = []

    def again(settings: Sequence[str]) -> Result:
        asked.append(settings)
        if settings and settings[0].startswith("npu.vector"):
            raise InputError("no such lanes")
        return replace(result, tokens_per_s=2.0 if not settings else 2.5)

    found = {each.resource.key: each for each in what_if(load_any_run("npu-pim"), result, again)}
    assert asked[0] == [] and ["npu.frequency=1100MHz"] in asked
    assert found["npu.frequency"].simulated == pytest.approx(0.25)
    lanes = found["npu.vector.lanes"]
    assert (lanes.simulated, lanes.error) == (None, "no such lanes")
    alone = list(what_if(load_any_run("npu-pim"), result))
    assert {each.resource.key for each in alone} == set(found)
    assert all(each.simulated is None for each in alone)


def test_every_cause_is_one_that_stacks_have() -> None:
    for each in RESOURCES:
        assert set(each.causes) | set(each.pim_causes) <= set(CYCLE_CAUSES)


def test_the_command_ranks_them(run_cli: RunCli, tiny_card: Path) -> None:
    given = ("run", "npu-only", "--model", tiny_card, "--batch", "2", "--layers", "1", "--whatif")
    done = run_cli(*given)
    assert done.returncode == 0, done.stderr
    assert "what if there were 10% more" in done.stdout and "Next: " in done.stdout
    rows = json.loads(run_cli(*given, "--json").stdout)["whatif"]
    keys = [row["key"] for row in rows]
    assert "npu.frequency" in keys and "memory.tCK" in keys
    assert all(row["error"] or isinstance(row["simulated"], float) for row in rows)
