"""A run as columns: where each row belongs, and what a step asked of each request."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import pimsim
from pimsim.result import store
from pimsim.result.frames import ROW_TABLES, TABLES
from pimsim.result.types import OperatorResult, RequestResult, Result, StageResult, StepResult

HEAD = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens"


def ran(card: Path, preset: str, *overrides: str) -> Result:
    return pimsim.run(preset, overrides=[f"workload.model={card}", *overrides])


@pytest.fixture(scope="module")
def mixed(tiny_card: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Request 7 has a prompt of 5 tokens in pieces of 2, request 3 decodes behind 9."""
    file = tmp_path_factory.mktemp("mixed") / "requests.csv"
    file.write_text(f"{HEAD}\n7,0,5,4,0,5\n3,0,8,4,1,1\n")
    return ran(
        tiny_card, "npu-only", f"workload.requests={file}", "workload.chunk=2", "workload.steps=4",
        "workload.layers=2",
    )  # fmt: skip


def test_requests_say_what_the_steps_ask_of_them(mixed: Result) -> None:
    """Pieces of 2, 2 and 1 tokens and then a token of its own; beside them four tokens."""
    assert mixed.requests == (
        RequestResult(
            id=7, first_step=0, last_step=3, context=6, new_tokens=6, made=2, part=0, channel=None
        ),
        RequestResult(
            id=3, first_step=0, last_step=3, context=12, new_tokens=4, made=4, part=0, channel=None
        ),
    )
    steps = mixed.table("steps")
    assert steps["tokens"].tolist() == [3, 3, 2, 2]
    assert steps["step"].tolist() == [0, 1, 2, 3]
    requests = mixed.table("requests")
    for column in ("new_tokens", "made"):
        of_steps = {"new_tokens": "tokens"}.get(column, column)
        assert requests[column].sum() == steps[of_steps].sum()
    assert requests["channel"].isna().all()


def test_a_request_that_ends_early_has_a_step_range_of_its_own(
    tiny_card: Path, tmp_path: Path
) -> None:
    file = tmp_path / "requests.csv"
    file.write_text(f"{HEAD}\n0,0,3,4,0,3\n1,0,7,4,0,7\n")
    result = ran(
        tiny_card, "npu-only", f"workload.requests={file}", "workload.chunk=4", "workload.layers=1"
    )
    assert [(r.id, r.first_step, r.last_step, r.new_tokens, r.made) for r in result.requests] == [
        (0, 0, 0, 3, 1), (1, 0, 1, 7, 1),
    ]  # fmt: skip


def test_a_request_keeps_its_channel_where_others_have_ended(
    tiny_card: Path, tmp_path: Path
) -> None:
    """The second step has the last request alone, whose rows are where they were."""
    file = tmp_path / "requests.csv"
    file.write_text(f"{HEAD}\n5,0,3,4,0,3\n6,0,2,4,0,2\n7,0,7,4,0,7\n")
    result = ran(
        tiny_card, "npu-pim", f"workload.requests={file}", "workload.chunk=4",
        "workload.layers=1", "schedule.channel_assignment=round-robin",
    )  # fmt: skip
    assert [step.requests for step in result.steps] == [3, 1]
    assert [(r.id, r.channel, r.last_step) for r in result.requests] == [
        (5, 0, 0), (6, 1, 0), (7, 2, 1),
    ]  # fmt: skip


def test_rows_add_up_over_steps(mixed: Result) -> None:
    steps, stages, operators = (mixed.table(name) for name in ("steps", "stages", "operators"))
    assert stages.groupby("step")["cycles"].sum().tolist() == steps["cycles"].tolist()
    assert set(operators["step"]) == {0, 1, 2, 3}
    assert set(operators["block"]) == {0, 1}  # the first and a later one
    for step in range(4):
        mine = operators[operators["step"] == step]
        first = steps["cycles"][:step].sum()
        assert mine["start_cycles"].min() >= first
        assert (mine["start_cycles"] + mine["cycles"]).max() == first + steps["cycles"][step]


def test_sub_batches_and_channels_of_requests(tiny_card: Path) -> None:
    result = ran(tiny_card, "neupims", "workload.batch=6", "workload.layers=2")
    requests = result.table("requests")
    assert requests["id"].tolist() == list(range(6))
    assert set(requests["part"]) == {0, 1}
    assert requests["channel"].notna().all()
    assert requests["channel"].between(0, 31).all()
    operators = result.table("operators")
    assert set(operators["part"]) == {0, 1}
    kinds = operators.groupby(["part", "block"])["name"].agg(sorted)
    assert len(kinds) == 4 and len(set(map(tuple, kinds))) == 1  # each does the same
    wide = operators[operators["name"] == "qkv"].groupby("part")["flops"].first()
    sizes = requests["part"].value_counts()
    assert wide[0] * sizes[1] == wide[1] * sizes[0]  # in proportion to its requests
    dealt = ran(
        tiny_card, "neupims", "workload.batch=6", "workload.layers=1",
        "schedule.channel_assignment=round-robin", "schedule.sub_batches=false",
    ).table("requests")  # fmt: skip
    assert dealt["channel"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(dealt["part"]) == {0}


def test_the_cycle_stack_is_a_row_for_each_cause_of_each_unit(mixed: Result) -> None:
    table = mixed.table("cycle_stack")
    assert {
        unit: dict(zip(rows["cause"], rows["cycles"], strict=True))
        for unit, rows in table.groupby("unit")
    } == {unit: dict(stack) for unit, stack in mixed.cycle_stack.items()}


def test_every_table_says_first_where_a_row_belongs(mixed: Result) -> None:
    first = {
        "steps": ["device", "step"],
        "requests": ["device", "first_step", "last_step", "part"],
        "stages": ["device", "step"],
        "operators": ["device", "step", "part", "block", "unit"],
        "cycle_stack": ["unit"],
        "series": ["start_ps", "end_ps"],
    }
    assert first.keys() == set(TABLES)
    for name, columns in first.items():
        frame = mixed.table(name)
        assert list(frame.columns)[: len(columns)] == columns, name
        assert len(frame)
    assert {
        "steps": StepResult, "requests": RequestResult, "stages": StageResult,
        "operators": OperatorResult,
    } == ROW_TABLES  # fmt: skip


@pytest.mark.parametrize("name", ROW_TABLES)
def test_parquet_has_the_keys_and_values_of_the_json(
    mixed: Result, tmp_path: Path, name: str
) -> None:
    store.save(mixed, "", tmp_path / "run")
    frame = pandas.read_parquet(tmp_path / "run" / f"{name}.parquet")
    rows = mixed.to_dict([name])[name]
    assert rows and list(frame.columns) == list(rows[0])
    filled = frame.astype(object).where(frame.notna(), None)
    assert filled.to_dict("records") == rows
    assert len(mixed.table(name)) == len(frame)


@pytest.mark.parametrize("name", ROW_TABLES)
def test_a_table_without_rows_has_its_columns_and_types(mixed: Result, name: str) -> None:
    from dataclasses import replace

    empty = replace(mixed, **{name: ()}).table(name)
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == mixed.table(name).dtypes.to_dict()
