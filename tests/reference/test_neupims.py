"""The NeuPIMs artifact with its quirks on: attention, products, one decode iteration.

Limits are those of issue 3. All rows come from ``pimsim.validate.neupims_artifact``, as for
``pimsim validate``.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from pimsim.validate.neupims_artifact import (
    MeasuredIteration,
    attention_rows,
    gemm_rows,
    iteration_device,
    iteration_rows,
    iterations,
    order_rows,
)
from pimsim.validate.types import References, Row

REPO = Path(__file__).parents[2]
TABLES = References(REPO / "tests" / "data", None)
ATTENTION_LIMIT, GEMM_LIMIT = 0.03, 0.005
LIMITS = {"neupims.pim_stage": 0.03, "neupims.stream_stage": 0.10, "neupims.total": 0.05}
BIAS_LIMIT = 0.02
TRACES = ("sg-rr-64", "u512-32", "u512-64")
LONG = "main/off/u1024-64"
"""Contexts of two rows: each head's partial sums are added and stored."""
CASES = [
    *(f"main/off/{trace}" for trace in TRACES),
    LONG,
    "main/on/sg-rr-64",
    "main/on/u512-64",
    *(f"{branch}/off/{trace}" for branch in ("npu+pim", "npu-only") for trace in TRACES),
]
ITERATIONS = {i.name: i for i in iterations(TABLES)}


def _references() -> References:
    folder = Path(os.environ.get("PIMSIM_REFERENCE", REPO.parent / "shared" / "reference"))
    return References(TABLES.tables, folder if folder.is_dir() else None)


@cache
def _rows(case: str) -> tuple[Row, ...]:
    """Rows of one iteration, run once; none where its request file is not at hand."""
    return tuple(iteration_rows(ITERATIONS[case], _references()))


def _found(case: str) -> tuple[Row, ...]:
    rows = _rows(case)
    if not rows:
        pytest.skip("no request files of the artifact; set PIMSIM_REFERENCE")
    return rows


def test_both_branches_are_measured_on_the_same_operations() -> None:
    cases = [row.case for row in attention_rows(TABLES, only="h4d128")]
    assert [c.removeprefix("main/") for c in cases if c.startswith("main/")] == [
        c.removeprefix("npu+pim/") for c in cases if c.startswith("npu+pim/")
    ]


@pytest.mark.parametrize("branch", ["main", "npu+pim"])
def test_attention_alone(branch: str) -> None:
    rows = list(attention_rows(TABLES, only=f"{branch}/"))
    assert len(rows) >= 30
    assert [row for row in rows if abs(row.error) > ATTENTION_LIMIT] == []


def test_a_product_alone_takes_the_artifacts_cycles() -> None:
    rows = list(gemm_rows(TABLES))
    assert len(rows) == 13
    assert [row for row in rows if abs(row.error) > GEMM_LIMIT] == []
    # branch main to the cycle, but for the store of many blocks at once
    assert [row for row in rows if row.case.startswith("main") and row.error > 1e-4] == []


@pytest.mark.parametrize("case", sorted(ITERATIONS))
def test_every_iteration_has_room(case: str) -> None:
    """Those that are too long to be run here, too: the artifact counts no rows."""
    if iteration_device(ITERATIONS[case], _references()) is None:
        pytest.skip("no request files of the artifact; set PIMSIM_REFERENCE")


@pytest.mark.parametrize("case", CASES)
def test_iteration(case: str) -> None:
    rows = _found(case)
    assert rows[0].group == "neupims.total"
    assert [row for row in rows if abs(row.error) > LIMITS[row.group]] == []


def test_totals_have_no_bias() -> None:
    totals = [row for case in CASES for row in _rows(case) if row.group == "neupims.total"]
    assert len(totals) >= 6
    ours, measured = sum(row.ours for row in totals), sum(row.reference for row in totals)
    assert ours == pytest.approx(measured, rel=BIAS_LIMIT)
    errors = [row.error for row in totals]
    assert abs(sum(errors) / len(errors)) < BIAS_LIMIT


def test_the_first_stage_of_32_rows_agrees_to_the_cycle() -> None:
    """Nothing came before: norm and QKV from an idle device, in the artifact's order."""
    stages = {row.case: row for row in _rows("main/off/u512-32")}
    first = stages["main/off/u512-32/A"]
    assert abs(first.ours - first.reference) <= 2  # the scheduler's two cycles between stages


def test_the_artifacts_own_order_moves_a_product_by_more_than_the_limit() -> None:
    (row,) = order_rows(TABLES)
    assert row.error < -LIMITS["neupims.stream_stage"]


def test_the_table_has_pim_bound_stages_on_and_off() -> None:
    cases = [ITERATIONS[case] for case in CASES]
    bound = {(i.name, stage) for i in cases for stage in _pim_bound(i)}
    off = {(f"{branch}/off/{trace}", "B") for branch in ("main", "npu+pim") for trace in TRACES}
    assert bound == off | {(LONG, "B"), ("main/on/sg-rr-64", "B")}


def test_heads_that_are_added_and_stored_leave_an_instruction_a_cycle() -> None:
    """Attend of 62 requests waits for the last head of the first channel; without the turn that
    each tile takes stage B is 2.5 % shorter than the artifact's."""
    stages = {row.case: row for row in _rows(LONG)}
    assert abs(stages[f"{LONG}/B"].error) < 0.005


def _pim_bound(iteration: MeasuredIteration) -> list[str]:
    return [stage for stage in iteration.stages() if iteration.bound_by_pim(stage)]
