"""Plans of one matrix product, as formulas over the array's sides."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pimsim.config.errors import InputError
from pimsim.config.npu import SystolicConfig
from pimsim.config.plugins import module_names
from pimsim.hardware.npu import plan as plan_module
from pimsim.hardware.npu.dataflows import load_dataflow
from pimsim.hardware.npu.gemm import plan_gemm, utilisation
from pimsim.hardware.npu.plan import ceil_div, make_plan

R, C, ARRAYS = 16, 8, 4
PLANS = {name: load_dataflow(name) for name in module_names("dataflow")}


def systolic(dataflow: str, preload: str, arrays: int = ARRAYS, **more: Any) -> SystolicConfig:
    return SystolicConfig.model_validate(
        {"arrays": arrays, "rows": R, "cols": C, "dataflow": dataflow, "preload": preload} | more
    )


def fold_grid(dataflow: str, m: int, n: int, k: int) -> tuple[int, int]:
    """Folds, and vectors streamed in each."""
    return {
        "ws": (ceil_div(k, R) * ceil_div(n, C), m),
        "is": (ceil_div(k, R) * ceil_div(m, C), n),
        "os": (ceil_div(m, R) * ceil_div(n, C), k),
    }[dataflow]


SHAPES = [(1, 1, 1), (7, 100, 130), (R, C, R), (3, 8 * C, 8 * R), (200, 50, 70), (65, 1, 999)]


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_exposed_arrays_share_the_folds_in_waves(dataflow: str, m: int, n: int, k: int) -> None:
    folds, streamed = fold_grid(dataflow, m, n, k)
    preload = 0 if dataflow == "os" else R
    plan = plan_gemm(m, n, k, systolic(dataflow, "exposed"))
    assert plan.folds == folds
    assert plan.cycles == ceil_div(folds, ARRAYS) * (preload + streamed + R + C - 2)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_hidden_preload_pays_first_fill_and_last_drain(
    dataflow: str, m: int, n: int, k: int
) -> None:
    folds, streamed = fold_grid(dataflow, m, n, k)
    preload = 0 if dataflow == "os" else R
    waves = ceil_div(folds, ARRAYS)
    plan = plan_gemm(m, n, k, systolic(dataflow, "hidden"))
    steady = (waves - 1) * max(streamed, R)
    assert plan.cycles == steady + preload + streamed + R + C - 2
    assert plan.cycles <= plan_gemm(m, n, k, systolic(dataflow, "exposed")).cycles


def test_hidden_steady_state_is_onnxims() -> None:
    """512^3 on one 128 x 128 array: 16 weight tiles of 512 rows, each max(m, R)."""
    side, m = 128, 512
    config = systolic("ws", "hidden", arrays=1, rows=side, cols=side)
    tiles = (m // side) ** 2
    assert plan_gemm(m, m, m, config).cycles == tiles * max(m, side) + side + (side + side - 2)


@pytest.mark.parametrize(
    ("dataflow", "between"), [("neupims_overlapped", 0), ("neupims_serial", 1)]
)
@pytest.mark.parametrize("batch", [1, 128, 129, 512])
def test_artifact_steady_state(dataflow: str, between: int, batch: int) -> None:
    """MECHANISMS 4.10: 128 or 271 cycles where a preload comes, 16 elsewhere."""
    side, n, k = 128, 1000, 1024
    config = systolic(dataflow, "exposed", arrays=8, rows=side, cols=side)
    stream = side // 8
    latency = side + side - 2 + stream
    distance = latency + 1 if between else side
    pairs = ceil_div(batch, side) * ceil_div(k, side)
    plan = plan_gemm(batch, n, k, config)
    assert (stream, latency, 2 * side - 1) == (16, 270, plan.lead_cycles)
    steady = pairs * (distance + stream * (ceil_div(n, side) - 1))
    assert int(plan.interval_cycles.sum()) == steady
    assert plan.cycles == plan.lead_cycles + steady - distance + latency


def test_artifact_streams_no_faster_than_its_issue_limit() -> None:
    config = systolic("neupims_overlapped", "exposed", arrays=4096, cols=R)
    assert plan_gemm(1, 5 * R, 1, config).interval_cycles[0] == 4


def test_the_artifacts_arrays_fetch_while_they_load_and_say_when() -> None:
    with pytest.raises(ValidationError, match="preload is 'hidden'"):
        systolic("neupims_overlapped", "hidden", cols=R)
    with pytest.raises(ValidationError, match="fetch_cycles is 3"):
        systolic("neupims_serial", "exposed", cols=R, fetch_cycles=3)


@pytest.mark.parametrize("name", list(PLANS))
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_every_dataflow_consumes_each_weight_once(name: str, m: int, n: int, k: int) -> None:
    config = SystolicConfig.model_validate({"arrays": ARRAYS, "rows": R, "cols": C})
    for dtype_bytes in (1, 2, 4):
        plan = PLANS[name](m, n, k, config, dtype_bytes)
        needed = plan.weight_bytes_needed
        assert len(needed) == plan.steps == len(plan.interval_cycles)
        assert needed[-1] == n * k * dtype_bytes
        assert needed[0] >= dtype_bytes
        assert (np.diff(needed) >= 0).all()
        assert (plan.interval_cycles > 0).all()
        assert needed.dtype == plan.interval_cycles.dtype == np.int64
        assert plan.macs == m * n * k


def test_weight_stationary_needs_its_own_fold_first() -> None:
    """n blocks outside, k blocks inside, edges with their real size."""
    n, k = 2 * C + 3, 2 * R + 5
    plan = plan_gemm(9, n, k, systolic("ws", "hidden", arrays=1))
    heights, widths = [R, R, 5], [C, C, 3]
    blocks = [height * width for width in widths for height in heights]
    assert plan.weight_bytes_needed.tolist() == (2 * np.cumsum(blocks)).tolist()


def test_input_stationary_reads_a_weight_row_block_once_for_all_of_the_batch() -> None:
    m, n, k = 3 * C, R, 2 * R
    plan = plan_gemm(m, n, k, systolic("is", "hidden", arrays=1), dtype_bytes=1)
    assert plan.weight_bytes_needed.tolist() == [R * n] * 3 + [2 * R * n] * 3


def test_streamed_weights_are_needed_chunk_by_chunk() -> None:
    n = 3 * R + 2
    plan = plan_gemm(1, n, R, systolic("is", "hidden", arrays=1), dtype_bytes=1)
    assert plan.weight_bytes_needed.tolist() == [R * c for c in (R, 2 * R, 3 * R, n)]
    assert plan.interval_cycles.tolist() == [R, R, R, 2]


@pytest.mark.parametrize("name", list(PLANS))
def test_merging_steps_keeps_the_cycles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SystolicConfig.model_validate({"arrays": 1, "rows": 2, "cols": 2, "dataflow": "is"})
    m, n, k = 13, 41, 37
    full = PLANS[name](m, n, k, config, 2)
    intervals = full.interval_cycles.copy()
    merged = make_plan(
        full.folds,
        intervals,
        full.weight_bytes_needed.copy(),
        full.lead_cycles,
        full.drain_cycles,
        full.macs,
        max_steps=10,
    )
    assert full.steps > 10 >= merged.steps
    assert merged.cycles == full.cycles
    assert merged.weight_bytes_needed[-1] == full.weight_bytes_needed[-1]


def test_long_plans_stay_short() -> None:
    config = systolic("ws", "hidden", arrays=1)
    plan = plan_gemm(4, 12288, 4 * 12288, config)
    assert plan.folds > plan_module.MAX_STEPS >= plan.steps
    assert plan.cycles == (plan.folds - 1) * R + R + 4 + R + C - 2


def test_utilisation_is_one_only_without_overheads() -> None:
    config = systolic("ws", "hidden", arrays=1)
    m = 100_000
    plan = plan_gemm(m, C, R, config)
    assert utilisation(plan, config) == m * C * R / (R * C * plan.cycles)
    assert 0.99 < utilisation(plan, config) < 1
    assert utilisation(plan, systolic("ws", "hidden", arrays=2)) == utilisation(plan, config) / 2


@pytest.mark.parametrize(
    ("m", "n", "k"), [(0, 1, 1), (1, -1, 1), (1, 1, 2**40), (2**31 - 1, 2**31 - 1, 2**31 - 1)]
)
def test_impossible_sizes_are_refused_in_one_line(m: int, n: int, k: int) -> None:
    with pytest.raises(InputError, match=rf"^gemm {m} x {n} x {k}: [^\n]*$"):
        plan_gemm(m, n, k, systolic("ws", "hidden"))


def test_too_many_folds_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(InputError, match="folds on these arrays"):
        plan_gemm(2**30, 2**30, 1, systolic("os", "hidden"))


def test_plans_cannot_be_changed() -> None:
    plan = plan_gemm(4, 40, 40, systolic("os", "hidden"))
    with pytest.raises(ValueError, match="read-only"):
        plan.interval_cycles[0] = 1
    assert all(a <= b for a, b in pairwise(plan.weight_bytes_needed.tolist()))
