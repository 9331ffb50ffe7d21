"""Tables of one's own in ``--reference DIR`` take the place of the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.validate.judge import judge, status_of, verdict_of
from pimsim.validate.neupims_artifact import (
    attention_rows,
    iteration_device,
    iterations,
    order_rows,
)
from pimsim.validate.tables import summary_table
from pimsim.validate.types import OWN_TABLES, References, Row

TABLES = Path(__file__).parents[1] / "data"
HEAD = "branch,sub_batch,model,layers,tp,batch,trace,op,metric,value,wall_s,rss_mb\n"


def own(
    folder: Path, *lines: str, name: str = "neupims/cycles.csv", head: str = HEAD
) -> References:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "".join(f"{line}\n" for line in lines))
    return References(TABLES, folder)


def attention(trace: str, cycles: int = 5, model: str = "mb:h8d128", branch: str = "main") -> str:
    op = "mb/attn.NeuPIMSLogitSoftmax"
    return f"{branch},off,{model},1,4,1,{trace},{op},cycles,{cycles},1,1"


def iteration(model: str, tp: int, cycles: int = 7, trace: str = "u64-4") -> str:
    return f"main,off,{model},1,{tp},4,{trace},total,cycles,{cycles},1,1"


def test_each_shipped_table_has_a_place() -> None:
    assert set(OWN_TABLES) == {path.name for path in TABLES.glob("*.csv")}
    assert len(set(OWN_TABLES.values())) == len(OWN_TABLES)
    for name in OWN_TABLES:
        assert list(References(TABLES, None).table(name))


def test_a_table_of_ones_own_is_read_instead(tmp_path: Path) -> None:
    references = own(tmp_path, "x,1,2,3,9", name="npu/onnxim.csv", head="config,M,N,K,cycles\n")
    assert [dict(line) for line in references.table("onnxim.csv")] == [
        {"config": "x", "M": "1", "N": "2", "K": "3", "cycles": "9"}
    ]
    assert len(list(references.table("scalesim.csv"))) == 62  # the others are ours


def test_any_number_of_requests_of_a_channel(tmp_path: Path) -> None:
    references = own(tmp_path, attention("one-64"), attention("two-64"), attention("2-64", 6))
    one, two, again = attention_rows(references)
    assert [row.reference for row in (one, two, again)] == [5, 5, 6]
    assert one.ours < two.ours == again.ours < 2 * one.ours + 1000


def test_iterations_are_of_their_model_and_degree(tmp_path: Path) -> None:
    references = own(
        tmp_path, iteration("gpt3-7B", 4), iteration("gpt3-13B", 8), iteration("gpt3-13B", 4)
    )
    found = iterations(references)
    assert [each.name for each in found] == [
        "main/off/u64-4", "main/off/u64-4/gpt3-13b-tp8", "main/off/u64-4/gpt3-13b-tp4",
    ]  # fmt: skip
    device = iteration_device(found[1], references)
    assert device is not None
    assert device.config.workload.model == "gpt3-13b"
    assert device.work.degrees.tp == 8
    assert load_run("neupims-artifact-main").config.workload.model == "gpt3-7b"
    assert list(order_rows(references)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (attention("one-64", branch="mian"), "2: branch: unknown 'mian'; did you mean 'main'"),
        (attention("few-64"), "2: trace: 'few-64'"),
        (attention("one-x"), "2: trace: 'one-x'"),
        (attention("one-64", model="mb:8x128"), "2: model: 'mb:8x128'"),
        (attention("one-64").replace(",5,1,1", ",5x,1,1"), "2: value: a whole number is expected"),
        (iteration("gpt3-7B", 4).replace(",1,4,4,", ",1,x,4,"), "2: tp: a whole number"),
        (iteration("gpt3-7B", 4).replace(",off,", ",maybe,"), "2: sub_batch: unknown 'maybe'"),
        ("main,off", "2: 12 fields are expected"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    references = own(tmp_path, line)
    with pytest.raises(InputError) as refusal:
        [*attention_rows(references), *iterations(references)]
    assert f"cycles.csv:{said}" in str(refusal.value)


def test_a_missing_column_and_an_empty_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"onnxim\.csv:2: no column 'M'; there are config"):
        next(own(tmp_path, "x", name="npu/onnxim.csv", head="config\n").table("onnxim.csv"))["M"]
    with pytest.raises(InputError, match="it is empty"):
        next(own(tmp_path, name="npu/scalesim.csv", head="").table("scalesim.csv"))


def test_what_is_not_judged_is_reported() -> None:
    row = Row("papers.reported", "a", "x", 100, 200)
    (group,) = judge([row])
    assert (status_of(row), verdict_of(group)) == ("reported", "reported")
    (judged,) = judge([Row("aim.cycles", "a", "cycles", 100, 101)])
    assert verdict_of(judged) == "FAILED"
    assert list(summary_table([group]).columns[-1].cells) == ["reported"]
