"""How long a block takes once a run has settled: times by hand, and that names decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from pimsim.config import plugins
from pimsim.config.loader import load_run
from pimsim.config.plugins import load_module
from pimsim.config.plugins import module_names as names
from pimsim.engine import iteration
from pimsim.engine.records import OperatorRecord
from pimsim.engine.schedules import load_schedule
from pimsim.mapping.barrier import Barrier
from pimsim.mapping.program import AnyTask, Program
from pimsim.result.steady import block_times
from pimsim.result.types import Result
from pimsim.simulate import simulate

Timed = tuple[str, int, int]


def run_of(*stages: Sequence[Timed]) -> tuple[list[OperatorRecord], list[int]]:
    """Records of stages, each of (kind, block, duration) one after the other, but for ``pim``,
    which is beside them; and the stages' ends."""
    records, ends, now = [], [], 0
    for stage in stages:
        npu = last = now
        for kind, block, took in stage:
            start = now if kind == "pim" else npu
            unit = "pim" if kind == "pim" else "systolic"
            records.append(
                OperatorRecord("any", kind, unit, block, "any", start, start + took, 0, 0, 0)
            )
            if kind != "pim":
                npu = start + took
            last = max(last, start + took)
        now = last
        ends.append(now)
    return records, ends


def serial(*blocks: tuple[int, int, int]) -> list[list[Timed]]:
    return [
        [(kind, block, took)]
        for block, times in enumerate(blocks)
        for kind, took in zip(("qkv", "pim", "rest"), times, strict=True)
    ]


def interleaved(blocks: int, qkv: int, pim: int, rest: int) -> list[list[Timed]]:
    """Two halves: the stages of NeuPIMs figure 10."""
    first: list[list[Timed]] = [[("qkv", 0, qkv)], [("qkv", 0, qkv), ("pim", 0, pim)]]
    for at in range(blocks - 1):
        each: list[Timed] = [("rest", at, rest), ("qkv", at + 1, qkv)]
        first += [[*each, ("pim", at, pim)], [*each, ("pim", at + 1, pim)]]
    last = blocks - 1
    return [*first, [("rest", last, rest), ("pim", last, pim)], [("rest", last, rest)]]


def test_blocks_one_after_the_other_take_their_own_time() -> None:
    stages = serial((100, 200, 300), (10, 20, 30), (12, 20, 34))
    assert block_times(*run_of(*stages), ["decoder"] * 3) == {1: 60, 2: 66}
    # the first one starts on an idle memory, and counts where it is the only one of its kind
    assert block_times(*run_of(*stages), ["dense", "moe", "moe"]) == {0: 600, 1: 60, 2: 66}
    assert block_times(*run_of(*stages[:3]), ["decoder"]) == {0: 600}


@pytest.mark.parametrize(("qkv", "pim", "rest"), [(10, 50, 30), (10, 35, 30), (10, 7, 30)])
def test_halves_take_what_lies_between_equal_states(qkv: int, pim: int, rest: int) -> None:
    period = 2 * max(rest + qkv, pim)
    assert block_times(*run_of(*interleaved(2, qkv, pim, rest)), ["d"] * 2) == {0: period}
    found = block_times(*run_of(*interleaved(5, qkv, pim, rest)), ["d"] * 5)
    assert found == {1: period, 2: period, 3: period}


def test_stages_may_be_cut_elsewhere() -> None:
    whole = block_times(*run_of(*serial(*[(10, 20, 30)] * 4)), ["d"] * 4)
    # all in one stage; PIM's part of a block becomes the NPU's, so that they stay in order
    on_npu = [("qkv", at, 10) for at in range(4)], [("mid", at, 20) for at in range(4)]
    ends = [("rest", at, 30) for at in range(4)]
    one = [each for block in zip(*on_npu, ends, strict=True) for each in block]
    assert block_times(*run_of(one), ["d"] * 4) == whole == {1: 60, 2: 60, 3: 60}
    # two stages of two blocks, and a stage for each operator
    assert block_times(*run_of(one[:6], one[6:]), ["d"] * 4) == whole
    assert block_times(*run_of(*[[each] for each in one]), ["d"] * 4) == whole


def test_when_a_step_begins_changes_no_block() -> None:
    """A later step's times count from its own begin, which no clock of the run has."""
    at_once = (
        [OperatorRecord("any", "pim", "pim", at, "any", 0, 100, 0, 0, 0) for at in range(2)],
        [100],
    )
    cases = [
        (at_once, 2, {0: 50, 1: 50}),
        (run_of(*serial((100, 200, 300))), 1, {0: 600}),
        (run_of(*serial((100, 200, 300), (10, 20, 30), (12, 20, 34))), 3, {1: 60, 2: 66}),
        (run_of(*interleaved(5, 10, 35, 30)), 5, dict.fromkeys((1, 2, 3), 80)),
    ]  # fmt: skip
    for (records, ends), blocks, expected in cases:
        for begin in (0, 7000):
            moved = [
                replace(o, start_ps=o.start_ps + begin, end_ps=o.end_ps + begin) for o in records
            ]
            found = block_times(moved, [end + begin for end in ends], ["d"] * blocks)
            assert found == expected, (begin, blocks)


def test_both_sides_on_their_own_are_as_fast_as_the_slower() -> None:
    # no moment at which nothing is under way: the ends of the blocks count
    npu = [("rest", at, 37) for at in range(4)]
    records, _ = run_of(npu)
    beside = [
        OperatorRecord("any", "pim", "pim", at, "any", at * 50, at * 50 + 50, 0, 0, 0)
        for at in range(4)
    ]
    found = block_times([*records, *beside], [200], ["d"] * 4)
    assert set(found.values()) == {50}


def test_a_kind_that_only_drains_takes_as_its_own_operators() -> None:
    stages = interleaved(2, 10, 20, 30)
    # the last block's end takes twice as long: 2 x (10 + 60) of the NPU for 2 x (10 + 30)
    stages[-2] = [("rest", 1, 60), ("pim", 1, 20)]
    stages[-1] = [("rest", 1, 60)]
    assert block_times(*run_of(*stages), ["dense", "moe"]) == {0: 80, 1: 140}


def test_one_block_in_halves_takes_the_whole_run() -> None:
    assert block_times(*run_of(*interleaved(1, 10, 20, 30)), ["d"]) == {0: 10 + 20 + 30 + 30}


def test_what_lies_outside_the_blocks_is_no_block() -> None:
    stages = [*serial((9, 9, 9), (10, 20, 30)), [("head", 2, 1000)]]
    assert block_times(*run_of(*stages), ["d"] * 2) == {1: 60}


# whole runs, their stages cut and named anew

Given = Barrier | AnyTask
Cut = Callable[[Iterator[Given]], Iterator[Given]]


@pytest.fixture
def run(
    tiny_card: Path, write_trace: Callable[[Sequence[int]], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    requests = write_trace([40, 700, 3, 260, 128, 33, 610])

    def run(preset: str, cut: Cut | None, *sets: str) -> Result:
        def load(name: str) -> Any:
            class Cut(load_schedule(name)):  # type: ignore[misc]
                def order(self, program: Program) -> Iterator[Given]:
                    found = super().order(program)
                    return found if cut is None else cut(found)

            return Cut

        monkeypatch.setattr(iteration, "load_schedule", load)
        small = ("memory.organization.channels=4", f"workload.model={tiny_card}")
        return simulate(load_run(preset, [*small, f"workload.requests={requests}", *sets]))

    return run


def unnamed(result: Result) -> dict[str, Any]:
    plain = asdict(result)
    for each in (*plain["stages"], *plain["operators"]):
        each.pop("stage", None)
        if "npu_busy_cycles" in each:
            each.pop("name")
    plain.pop("provenance")
    return plain


NAMES = ("outside", "A", "F", "C", "E", "", "outside")


@pytest.mark.parametrize("policy", names("policy"))
@pytest.mark.parametrize("outside", ["true", "false"])
def test_no_number_depends_on_a_stages_name(
    run: Callable[..., Result], policy: str, outside: str
) -> None:
    declared = load_schedule(policy)
    preset = "npu-pim" if declared.uses_pim else "npu-only"
    sets = [f"schedule.policy={policy}", f"workload.outside={outside}", "workload.layers=3"]
    if declared.max_parts != 1:
        preset, sets = "neupims", [*sets, "schedule.sub_batches=true"]

    def renamed(order: Iterator[Given]) -> Iterator[Given]:
        names = cycle(NAMES)
        for task in order:
            yield Barrier(next(names)) if isinstance(task, Barrier) else task

    assert unnamed(run(preset, renamed, *sets)) == unnamed(run(preset, None, *sets))


@pytest.mark.parametrize("policy", names("policy"))
def test_no_number_depends_on_a_schedules_name(
    run: Callable[..., Result], policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = load_schedule(policy)
    preset = "neupims" if declared.max_parts != 1 else "npu-pim"
    preset = preset if declared.uses_pim else "npu-only"
    sets = ["workload.layers=2", f"schedule.policy={policy}"]
    found = unnamed(run(preset, None, *sets))
    modules = {name: load_module("policy", name).__name__ for name in names("policy")}
    # each has the name of another one, which says the opposite of what it does
    others = dict(zip(modules, [*list(modules)[1:], *list(modules)[:1]], strict=True))
    renamed = {others[name]: module for name, module in modules.items()}
    own = plugins._modules
    monkeypatch.setattr(
        plugins, "_modules", lambda kind: renamed if kind == "policy" else own(kind)
    )
    assert load_schedule(others[policy]) is declared
    sets[-1] = f"schedule.policy={others[policy]}"
    assert unnamed(run(preset, None, *sets)) == found


def test_blocks_in_one_stage_are_as_fast_as_in_several(run: Callable[..., Result]) -> None:
    sets = ["workload.layers=4", "npu.prefetch_weights=false"]

    def in_one(order: Iterator[Given]) -> Iterator[Given]:
        return (task for task in order if not isinstance(task, Barrier))

    def one_each(order: Iterator[Given]) -> Iterator[Given]:
        for task in order:
            if not isinstance(task, Barrier):
                yield Barrier("x")
                yield task

    several = run("npu-only", None, *sets)
    for cut in (in_one, one_each):
        found = run("npu-only", cut, *sets)
        assert found.cycles == pytest.approx(several.cycles, rel=0.01)
        assert found.tokens_per_s == pytest.approx(several.tokens_per_s, rel=0.01)
        assert found.tokens_per_j == pytest.approx(several.tokens_per_j, rel=0.01)


def test_blocks_that_run_into_one_another_need_one_behind_them() -> None:
    given = ["workload.model=smollm2-135m", "workload.batch=16", "parallel.tp=1",
             "schedule.policy=greedy", "memory.controller.refresh=none"]  # fmt: skip
    two, few, every = (
        simulate(load_run("neupims", [*given, f"workload.layers={layers}"]))
        for layers in (2, "auto", "null")
    )
    assert (few.layers_simulated, every.layers_simulated) == (3, 30)
    assert few.tokens_per_s == pytest.approx(every.tokens_per_s, rel=0.005)
    assert two.tokens_per_s > 1.05 * every.tokens_per_s


@pytest.mark.parametrize("device", ["neupims", "npu-pim", "npu-only"])
def test_equal_blocks_differ_by_the_refreshes_that_they_meet(device: str) -> None:
    """Two blocks stand for all 30 within half a percent where there is no refresh; with refresh,
    blocks as short as these may meet one more or less than the next."""
    given = ["workload.model=smollm2-135m", "workload.batch=16", "parallel.tp=1"]
    errors = {}
    for refresh in ("none", "all-bank"):
        memory = f"memory.controller.refresh={refresh}"
        few, every = (
            simulate(load_run(device, [*given, memory, f"workload.layers={layers}"]))
            for layers in ("auto", "null")
        )
        assert (few.layers_simulated, every.layers_simulated) == (2, 30)
        errors[refresh] = abs(few.tokens_per_s / every.tokens_per_s - 1)
    assert errors["none"] < 0.005
    assert errors["none"] < errors["all-bank"] < 0.03
