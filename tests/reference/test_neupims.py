"""The NeuPIMs artifact with its quirks on, attention alone and one decode iteration.

The table (tests/data/neupims_cycles.csv) holds cycles that were measured with the artifact; limits
are those that issue 2 sets for branch main, here for the other two as well. A stage counts as bound
by PIM where the artifact's own PIM operators fill it; the other stages are bound by streaming
weights, and the artifact's order of requests moves those by 10 % (MECHANISMS 0.2).
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from pimsim.config.loader import load_memory, load_npu_of, load_pim, load_run
from pimsim.engine.attention import run_attention
from pimsim.engine.device import build_device
from pimsim.engine.iteration import run_iteration
from pimsim.workload.cards import load_card
from pimsim.workload.requests import load_requests

TABLE = Path(__file__).parents[1] / "data" / "neupims_cycles.csv"
ATTENTION_LIMIT = {"main": 0.03, "npu+pim": 0.05}
PIM_LIMIT, STREAM_LIMIT, TOTAL_LIMIT = 0.05, 0.12, 0.08
PIM_BOUND_SHARE = 0.95
"""Share of a stage that its PIM operators must fill for PIM to be what bounds it."""

STREAM_ORDER = (
    "32 rows, weights stream at the bus's rate; the artifact takes 31116 cycles for the same QKV "
    "with the memory to itself and 26930 beside PIM traffic in stage C: its order of requests is "
    "that of a hash set (MECHANISMS 0.2)"
)
Case = tuple[str, str, str]
"""Branch of the artifact, sub-batches, request trace."""
TRACES = ("sg-rr-64", "u512-32", "u512-64")
CASES: list[Case] = [
    *(("main", "off", trace) for trace in TRACES),
    ("main", "on", "sg-rr-64"),
    ("main", "on", "u512-64"),
    *((branch, "off", trace) for branch in ("npu+pim", "npu-only") for trace in TRACES),
]
PRESETS = {
    "main": "neupims-artifact-main",
    "npu+pim": "neupims-artifact-npu-pim",
    "npu-only": "neupims-artifact-npu-only",
}
KNOWN_MISSES: dict[tuple[Case, str], str] = {
    (("main", "off", "u512-32"), "A"): f"-12.5 %: {STREAM_ORDER}",
    (("main", "on", "sg-rr-64"), "A"): f"-13.4 %: {STREAM_ORDER}",
    (("main", "on", "u512-64"), "A"): f"-13.4 %: {STREAM_ORDER}",
    (("npu+pim", "off", "u512-32"), "A"): f"-12.5 %: {STREAM_ORDER}",
}
"""Stages outside their limit, with the error measured. Strict: a miss that has been mended must
leave this list."""
CHANNELS = 32


def _rows() -> list[dict[str, str]]:
    with TABLE.open(newline="") as table:
        return [row for row in csv.DictReader(table) if row["metric"] == "cycles"]


ROWS = _rows()


# attention alone ----------------------------------------------------------------------------


def _attention_rows() -> dict[tuple[str, str, str], dict[str, int]]:
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for row in ROWS:
        if row["model"].startswith("mb:") and "/attn." in row["op"]:
            key = (row["branch"], row["model"], row["trace"])
            found.setdefault(key, {})[row["op"].split(".")[-1]] = int(row["value"])
    return found


ATTENTION = _attention_rows()


def test_both_branches_are_measured_on_the_same_operations() -> None:
    branches = {
        branch: {key[1:] for key in ATTENTION if key[0] == branch} for branch in ATTENTION_LIMIT
    }
    assert branches["main"] == branches["npu+pim"]
    assert len(branches["main"]) >= 15


@pytest.mark.parametrize("key", ATTENTION, ids=lambda key: "-".join(key))
def test_attention_alone(key: tuple[str, str, str]) -> None:
    branch, model, trace = key
    heads, head_dim = (int(text) for text in model.removeprefix("mb:h").split("d"))
    count, context = trace.split("-")
    memory = load_memory("hbm2-neupims-artifact").config
    pim = load_pim({"main": "neupims-artifact", "npu+pim": "newton-artifact"}[branch]).config
    vector = load_npu_of("neupims-artifact-main").vector
    contexts = [int(context)] * {"one": 1, "four": 4}[count]
    result = run_attention(memory, pim, heads, head_dim, contexts, vector)
    limit = ATTENTION_LIMIT[branch]
    measured = ATTENTION[key]
    assert result.score_cycles == pytest.approx(measured["NeuPIMSLogitSoftmax"], rel=limit)
    assert result.value_cycles == pytest.approx(measured["NeuPIMSAttend"], rel=limit)


# one decode iteration -----------------------------------------------------------------------


def _measured(case: Case) -> dict[str, int]:
    return {
        row["op"]: int(row["value"])
        for row in ROWS
        if (row["branch"], row["sub_batch"], row["trace"]) == case
        and not row["model"].startswith("mb:")
    }


def _stages(case: Case) -> list[str]:
    return sorted(op.removeprefix("stage_") for op in _measured(case) if op.startswith("stage_"))


def _bound_by_pim(case: Case, stage: str) -> bool:
    measured = _measured(case)
    pim = sum(cycles for op, cycles in measured.items() if op.startswith(f"{stage}/PIM/"))
    return pim >= PIM_BOUND_SHARE * measured[f"stage_{stage}"]


@cache
def _simulated(case: Case, requests: str) -> dict[str, int]:
    """Cycles by stage, and ``total``."""
    overrides = [f"workload.requests={requests}"]
    branch, sub_batch, _ = case
    if sub_batch == "on":
        # A to F once are two blocks of each sub-batch
        overrides += ["schedule.sub_batches=true", "workload.layers=2"]
    config = load_run(PRESETS[branch], overrides).config
    trace = load_requests(config.workload.requests, config.workload.batch)
    outcome = run_iteration(build_device(config, load_card(config.workload.model), trace.requests))
    clock = outcome.clock
    cycles = {
        stage.name: clock.npu_cycle(stage.end_ps) - clock.npu_cycle(stage.start_ps)
        for stage in outcome.recorder.stages
    }
    return cycles | {"total": clock.npu_cycle(outcome.time_ps)}


@pytest.fixture(scope="module")
def simulated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, int]:
    """One case run once, on the artifact's request file or on one like it."""
    case: Case = request.param
    trace = case[2]
    if trace.startswith("u"):
        context, count = (int(text) for text in trace[1:].split("-"))
        path = tmp_path_factory.mktemp("requests") / f"{trace}.csv"
        lines = [f"{context},{i % CHANNELS}" for i in range(count)]
        path.write_text("\n".join(["seq_len,ch_idx", *lines, ""]))
    else:
        reference: Path = request.getfixturevalue("reference_dir")
        path = reference / "neupims" / "requests" / f"{trace}.csv"
    return _simulated(case, str(path))


def test_the_artifacts_own_order_moves_an_operator_by_more_than_the_limit() -> None:
    measured = _measured(("main", "on", "sg-rr-64"))
    alone, beside_pim = measured["A/SA/attn.QKVgen"], measured["C/SA/attn.QKVgen"]
    assert alone > (1 + STREAM_LIMIT) * beside_pim


def test_the_table_has_pim_bound_stages_on_and_off() -> None:
    bound = {
        (*case, stage) for case in CASES for stage in _stages(case) if _bound_by_pim(case, stage)
    }
    off = {(branch, "off", trace, "B") for branch in ("main", "npu+pim") for trace in TRACES}
    assert bound == off | {("main", "on", "sg-rr-64", "B")}


def _case_parameters() -> list[object]:
    return [pytest.param(case, case, id="-".join(case)) for case in CASES]


def _stage_parameters() -> list[object]:
    found: list[object] = []
    for case in CASES:
        for stage in _stages(case):
            reason = KNOWN_MISSES.get((case, stage))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            found.append(pytest.param(case, case, stage, marks=marks, id="-".join((*case, stage))))
    return found


@pytest.mark.parametrize(("simulated", "case"), _case_parameters(), indirect=["simulated"])
def test_total(simulated: dict[str, int], case: Case) -> None:
    assert simulated["total"] == pytest.approx(_measured(case)["total"], rel=TOTAL_LIMIT)
    # the table has no stages of branch npu-only
    assert set(_stages(case)) <= set(simulated)


@pytest.mark.parametrize(
    ("simulated", "case", "stage"), _stage_parameters(), indirect=["simulated"]
)
def test_stage(simulated: dict[str, int], case: Case, stage: str) -> None:
    limit = PIM_LIMIT if _bound_by_pim(case, stage) else STREAM_LIMIT
    assert simulated[stage] == pytest.approx(_measured(case)[f"stage_{stage}"], rel=limit)
