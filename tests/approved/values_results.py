"""What results make of what happened: steady blocks, those that were not simulated, the stages of a
pipeline, words, peaks, and the steady state of a service. The inputs are made up."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import numpy as np
from cases import values
from facts import facts, number_text


def _operator(layer: int, start: int, end: int, **more: Any) -> Any:
    from pimsim.engine.records import OperatorRecord

    given = {
        "name": "o", "kind": "gemm", "unit": "systolic", "layer": layer, "stage": "s",
        "start_ps": start, "end_ps": end, "flops": end - start, "bytes": 3 * (end - start),
        "bound_ps": end - start,
    } | more  # fmt: skip
    return OperatorRecord(**given)


def _runs() -> dict[str, tuple[list[Any], list[int], list[str]]]:
    """Operators, barriers and kinds of blocks."""
    plain = [_operator(at, 100 * at + 50 * half, 100 * at + 50 * half + 40, kind=f"k{half}")
             for at in range(4) for half in range(2)]  # fmt: skip
    apart = [_operator(0, 0, 90), _operator(1, 100, 200), _operator(2, 210, 330)]
    # two halves of a batch, each a stage behind the other
    woven = [
        _operator(at, start, start + length, part=part, kind=kind, unit=unit)
        for at in range(3)
        for part, kind, unit, start, length in (
            (0, "a", "systolic", 200 * at, 90), (0, "b", "pim", 200 * at + 100, 80),
            (1, "a", "systolic", 200 * at + 100, 95), (1, "b", "pim", 200 * at + 200, 85),
        )
    ]  # fmt: skip
    one = [_operator(0, 30, 90), _operator(0, 90, 150, unit="pim"), _operator(5, 200, 300)]
    over = [_operator(0, 0, 100), _operator(1, 50, 170), _operator(2, 120, 270, unit="pim")]
    same = [_operator(0, 0, 60), _operator(1, 0, 60)]
    return {
        "blocks one by one": (plain, [100, 200, 300, 400], ["x"] * 4),
        "two kinds": (plain, [100, 200, 300, 400], ["x", "y", "x", "y"]),
        "a last kind": (plain, [100, 200, 300, 400], ["x", "x", "x", "z"]),
        "without barriers": (apart, [], ["x", "x", "y"]),
        "a barrier at the end": (apart, [330], ["x", "x", "x"]),
        "halves": (woven, [100, 200, 300, 400, 500, 600, 700], ["x"] * 3),
        "halves, few barriers": (woven, [700], ["x", "x", "y"]),
        "one block": (one, [150, 300], ["x"]),
        "overlapping": (over, [], ["x", "x", "y"]),
        "overlapping, of three kinds": (over, [270], ["x", "y", "z"]),
        "at once": (same, [60], ["x", "y"]),
        "none": ([], [10], ["x"]),
    }


@values("results/blocks")
def _blocks() -> Iterator[str]:
    from pimsim.hardware.dram.phase_costs import PhaseCosts
    from pimsim.intervals import student_t
    from pimsim.result.phase_variance import phase_variances
    from pimsim.result.scale import block_factors, extrapolate, model_blocks
    from pimsim.result.steady import block_times

    costs = [PhaseCosts(refresh=20.0, row=4.0, refresh_interval=each) for each in (None, 30.0, 500)]
    for name, (operators, ends, kinds) in _runs().items():
        times = block_times(operators, ends, kinds)
        yield f"=== {name}: {sorted(times.items())}"
        for each in costs:
            found = phase_variances(times, operators, each)
            yield f"  variance {[number_text(found[at]) for at in sorted(found)]}"
    yield f"student {[student_t(n) for n in (1, 2, 3, 10, 29, 30, 31, 1000)]}"
    samples = (["x"], ["x", "x"], ["x", "y"], ["x", "y", "x", "y", "x"], ["y", "y", "y"])
    models = ([("x", 9)], [("x", 1), ("y", 4)], [("y", 2)], [("x", 30), ("y", 2), ("z", 3)])
    for simulated, model in product(samples, models):
        at = f"{simulated} {model}"
        yield f"{at}: {model_blocks(simulated, model)} {dict(block_factors(simulated, model))}"
        times = {n: 100 + 7 * n * n for n in range(len(simulated))}
        several = {n: took for n, took in times.items() if n != 1 or len(times) < 3}
        numbers = [2 * n for n in range(len(simulated))]
        estimates = {"x": {n: 90 + 3 * n for n in range(12)}}
        variances = {n: 4.0 + n for n in range(len(simulated))}
        for known, own, spread in product(
            (None, estimates), (None, (0, 1, 4, 7)), (None, variances)
        ):
            found = extrapolate(several, simulated, model, numbers, known, own, spread)
            yield " ".join(facts(found, f"  {known is not None} {own} {spread is not None}"))


@values("results/stages")
def _stages() -> Iterator[str]:
    from pimsim.result.pipeline import Pipeline, RunPipeline, StageTime
    from pimsim.result.scale import Extrapolation

    exact = StageTime({"x": 3}, (0,), 1000, Extrapolation(500, 0.0, None, 0.0))
    short = StageTime({"x": 1}, (), 1000, Extrapolation(-200, 30.0, 0.2, -300.0))
    wide = StageTime({"x": 2}, (1,), 900, Extrapolation(700, 800.0, 0.1, 0.0))
    unknown = StageTime({"x": 2}, (), 900, Extrapolation(700, None, None, 0.0))
    for stages in ((exact,), (exact, short), (exact, short, wide), (exact, unknown)):
        for batches in (1, 2, 3):
            one = Pipeline(stages, batches)
            yield f"=== {len(stages)} stages, {batches} batches: {one.interval_ps} ps"
            yield f"times {[each.time_ps for each in stages]}, slowest {one.slowest.time_ps}"
            yield f"intervals {[each.interval_ps() for each in stages]}, {one.bounds_ps()}"
            yield f"spread {one.spread}"
            run = RunPipeline((one, Pipeline((exact,) * len(stages), batches)))
            yield f"two steps: {run.interval_ps} ps, {len(run.stages)} stages, spread {run.spread}"
            yield f"  {number_text(run.tokens_per_s(7))}, slowest {run.slowest.time_ps}"
            for error in (0.0, 0.03, 2.0):
                for each in (run, RunPipeline((one,))):
                    yield f"  {error}: {each.tokens_per_s_interval(7, error)}"


@values("results/shares")
def _shares() -> Iterator[str]:
    """What each kind of block did of a stage."""
    from pimsim.engine.records import WorkTotals
    from pimsim.hardware.dram.layout import N_COUNTERS
    from pimsim.result.works import work_by_kind

    def total(times: int) -> Any:
        counter = np.arange(1, N_COUNTERS + 1, dtype=np.int64) * times * 1000
        return WorkTotals(counter, *(times * each for each in range(1001, 9001, 1000)))

    blocks = tuple(SimpleNamespace(kind=each) for each in ("x", "y", "x"))
    operators = [
        _operator(0, 0, 10), _operator(1, 10, 40, unit="pim"), _operator(2, 40, 45, unit="vector"),
        _operator(3, 45, 60, unit="link"), _operator(0, 60, 70, unit="dma", flops=0),
        _operator(1, 70, 90), _operator(2, 90, 91, unit="pim"), _operator(4, 91, 100, unit="link"),
    ]  # fmt: skip
    for cuts in ((0, 8), (0, 3, 8), (0, 1, 2, 5, 8)):
        stages = [SimpleNamespace(operators=(5 + first, 5 + end)) for first, end in pairwise(cuts)]
        step: Any = SimpleNamespace(
            device=SimpleNamespace(whole=SimpleNamespace(blocks=blocks)),
            record=SimpleNamespace(operators=(5, 13)),
            operators=operators,
            stages=stages,
            totals=[total(number * number + 1) for number in range(len(cuts))],
        )
        for key, work in work_by_kind(step).items():
            yield from facts(work, f"{cuts} {key}")


@values("results/words")
def _words() -> Iterator[str]:
    from pimsim.config.loader import load_run
    from pimsim.result.bottleneck import bottleneck, compute_name, compute_unit, main_cause
    from pimsim.result.bottleneck import nearest_bound as nearest
    from pimsim.result.cells import duration, percent
    from pimsim.result.peaks import device_peaks
    from pimsim.result.rows import CYCLE_CAUSES
    from pimsim.result.words import OPERATOR_UNITS, cause_words, ordered_causes, unit_words

    stacks: dict[str, tuple[dict[str, dict[str, int]], dict[str, int]]] = {
        "nothing": ({}, {}),
        "bounds alone": ({}, {"array": 30, "dram_bus": 90}),
        "npu": (
            {"npu": {"compute": 50, "dram": 30, "pim": 1, "idle": 19, "link": 0}}, {"array": 1},
        ),
        "npu waits for pim": (
            {
                "npu": {"pim": 61, "compute": 20, "vector": 19},
                "pim": {"npu": 3, "comp": 50, "activate": 45, "idle": 2},
            },
            {"pim": 77, "xpu_memory": 76},
        ),
        "little of pim": ({"npu": {"pim": 2, "compute": 98}, "pim": {"npu": 98, "comp": 2}}, {}),
        "pim idles": ({"npu": {"pim": 100}, "pim": {"xpu": 60, "idle": 40}}, {"xpu_compute": 100}),
        "xpu": ({"xpu": {"memory": 70, "launch": 30}, "npu": {"compute": 100}}, {"xpu_memory": 70}),
    }  # fmt: skip
    for name, (stack, bounds) in stacks.items():
        given: Any = SimpleNamespace(cycles=100, cycle_stack=stack, bound_cycles=bounds)
        yield f"{name}: {bottleneck(given)} | {main_cause(given)} | {nearest(given)}"
        yield f"  {compute_unit(given)} {compute_name(given)}"
    for cause in (*CYCLE_CAUSES, "some_thing"):
        yield f"cause {cause}: {cause_words(cause)}"
    for unit in (*OPERATOR_UNITS, "npu", "dram_bus", "other"):
        yield f"unit {unit}: {unit_words(unit)}"
    mixed = ["idle", "z", *reversed(CYCLE_CAUSES), "a", "idle"]
    yield f"order {ordered_causes(mixed)}, {ordered_causes(['b', 'a'])}, {ordered_causes([])}"
    for each in (0.0, 1e-9, 9.999e-4, 1e-3, 0.5, 0.9999, 1.0, 12345.678):
        yield f"{each}: {percent(each)} {duration(each)}"
    for name in ("neupims", "neupims-artifact-main", "onnxim-tpuv4", "onnxim-transformer", "ianus"):
        config = load_run(name).config
        for pim in ({}, {"kv": 2}, {"kv": 1, "weight": 2}):
            found = device_peaks(config, config.memory, pim)
            yield " ".join(facts(found, f"peaks of {name} {pim}"))


@values("results/service")
def _service() -> Iterator[str]:
    """The steady state of requests that are made up, limits that they keep, percentiles, trends."""
    from pimsim.config.service import SloConfig
    from pimsim.result.service import limits_kept, spread, trend
    from pimsim.result.service_steady import steady_state, warm_up
    from pimsim.serving.records import REQUEST

    limits = [
        {}, {"ttft": "40us"}, {"tpot": "11us", "itl": "12us", "e2e": "150us"}, {"ttft": "1ps"},
    ]  # fmt: skip
    for count, load in product((2, 9, 10, 60), (0.5, 1.5)):
        at = np.arange(count, dtype=np.int64)
        asked = np.zeros(count, REQUEST)
        asked["arrival_ps"] = at * 10_000_000
        asked["output"] = 1 + at * 7 % 11
        begin = asked["arrival_ps"] + (load * at * 3_000_000).astype(np.int64)
        asked["first_token_ps"] = begin + 5_000_000 + at * at * 1000
        asked["finish_ps"] = asked["first_token_ps"] + (asked["output"] - 1) * (
            9_000_000 + 100_000 * at
        )
        asked["longest_gap_ps"] = 10_000_000 + 50_000 * at
        asked = asked[at * 37 % count] if count in (9, 10) else asked
        for given in limits:
            slo = SloConfig.model_validate(given)
            yield from facts(steady_state(asked, slo), f"{count} at {load}, {given}")
            kept = {key: each.astype(int) for key, each in limits_kept(asked, slo).items()}
            yield from facts(kept, "  kept")
    rising = np.arange(40)
    for name, each in {
        "rising": rising, "falling": -rising, "equal": rising * 0, "ramp": np.minimum(rising, 13),
        "late": np.maximum(rising - 30, 0), "waves": rising * 7 % 5, "few": rising[:9],
        "two batches": rising[:10], "first high": np.where(rising < 6, 100, rising % 2),
    }.items():  # fmt: skip
        yield f"{name}: trend {number_text(trend(each))}, warm up {warm_up(each)}"
        yield from facts(spread(each * 1_000_000), f"  {name}")
    yield from facts(spread(np.array([], np.int64)), "of nothing")
