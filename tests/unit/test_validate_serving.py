"""Reference files of serving that are damaged: one line each, no traceback."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.errors import InputError
from pimsim.validate import serving
from pimsim.validate.serving import rows
from pimsim.validate.tolerances import Tolerance
from pimsim.validate.types import References

SCENARIO: dict[str, Any] = {
    "engine": "vllm-v1", "what": "", "block_size": 16, "step_us": 8000, "token_us": 20,
    "max_num_seqs": 8, "max_num_batched_tokens": 64, "num_blocks": 21,
}  # fmt: skip
REQUESTS = (
    "engine,scenario,id,arrival_us,prompt,output,priority,finish_us\n"
    "vllm-0.33.0,v01,0,0,20,2,0,16420\nvllm-0.33.0,v01,1,900000,20,1,0,908400\n"
)
STEPS = (
    "scenario,step,start_us,end_us,tokens,scheduled_requests,running,waiting,"
    "free_blocks_before_results,preempted_ids\nv01,1,0,8400,20,1,1,0,18,\n"
    "v01,2,8400,16420,1,1,0,0,18,\nv01,3,900000,908400,20,1,0,0,18,\n"
)


def _packed(data: bytes) -> bytes:
    """Without the time of day, which tests are named by."""
    return gzip.compress(data, mtime=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(serving, "measured_rows", lambda references: iter(()))
    place = tmp_path / "serving"
    place.mkdir()
    (place / "serving.csv").write_text(REQUESTS)
    (place / "speculation.csv").write_text(REQUESTS.splitlines()[0] + "\n")
    (place / "serving_scenarios.json").write_text(json.dumps({"v01": SCENARIO}))
    (place / "speculation_scenarios.json").write_text("{}")
    (place / "serving_prefix_blocks.jsonl").write_text('{"scenario":"v01","id":0,"blocks":[0]}\n')
    (place / "serving_steps.csv.gz").write_bytes(_packed(STEPS.encode()))
    return tmp_path


def _errors(folder: Path) -> list[float]:
    found = list(rows(References(Path(), folder)))
    return [row.ours - row.reference for row in found if row.metric != "steps"]


def test_what_is_whole_is_met(folder: Path) -> None:
    assert set(_errors(folder)) == {0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": None}, "scenario v01: engine: Input should be a valid string"),
        ({"engine": "orca"}, "scheduler '' of engine 'orca'"),
        ({"block_size": "16"}, "scenario v01: block_tokens|block_size"),
        ({"block_size": 0}, "block_tokens: Input should be greater than or equal to 1"),
        ({"num_blocks": 1.5}, "num_blocks: Input should be a valid integer"),
        ({"num_blocks": 10**12}, "blocks: Input should be less"),
        ({"step_us": -3}, "step_us: Input should be greater"),
        ({"token_us": [1]}, "token_us: Input should be a valid integer"),
        ({"router": "lorr"}, "router: found 'lorr'; did you mean 'lor'"),
        ({"replicas": 0}, "count: Input should be greater"),
        ({"k": "many"}, "k: Input should be a valid integer"),
        ({"k": 2, "accept": {}}, "accept: found '{}'; allowed"),
        ({"max_num_seqs": "8"}, "max_num_seqs: Input should be a valid integer"),
        ({"max_num_sqs": 8}, "unknown parameter 'max_num_sqs'; did you mean 'max_num_seqs'"),
    ],
)
def test_a_wrong_scenario_is_one_line(folder: Path, changes: dict[str, Any], said: str) -> None:
    path = folder / "serving" / "serving_scenarios.json"
    path.write_text(json.dumps({"v01": {**SCENARIO, **changes}}))
    with pytest.raises(InputError, match=said):
        _errors(folder)


@pytest.mark.parametrize("key", ["engine", "block_size", "step_us", "token_us", "num_blocks"])
def test_a_scenario_that_lacks_a_key_is_told_which(folder: Path, key: str) -> None:
    given = {name: value for name, value in SCENARIO.items() if name != key}
    (folder / "serving" / "serving_scenarios.json").write_text(json.dumps({"v01": given}))
    with pytest.raises(InputError, match=f"scenario v01: {key}: Field required"):
        _errors(folder)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("serving_scenarios.json", b"[]", "an object of scenarios by name"),
        ("serving_scenarios.json", b'{"v01": 3}', "an object of scenarios by name"),
        ("serving_prefix_blocks.jsonl", b"[1]\n", r"jsonl:1: Input should be"),
        ("serving_prefix_blocks.jsonl", b'{"scenario":"v01","id":0}\n', "jsonl:1: blocks: Field"),
        (
            "serving_prefix_blocks.jsonl",
            b'{"scenario":"v01","id":0,"blocks":[-1]}\n',
            r"jsonl:1: blocks\.0: Input should be greater",
        ),
        (
            "serving_prefix_blocks.jsonl",
            b'{"scenario":"v01","id":0,"blocks":[99999999999]}\n',
            r"jsonl:1: blocks\.0: Input should be less",
        ),
        ("serving_prefix_blocks.jsonl", b"{\n", "no JSON"),
        ("serving_steps.csv.gz", b"scenario", "no compressed table"),
        ("serving_steps.csv.gz", _packed(STEPS.encode())[:-9], "no compressed table"),
        (
            "serving_steps.csv.gz",
            _packed(STEPS.encode())[:10] + bytes(range(90, 130)),
            "no compressed table",
        ),
        ("serving_steps.csv.gz", _packed(b"a,b\n1\n"), "2 fields are expected"),
        ("serving_steps.csv.gz", _packed(b"a,b\n1,2\n"), "no column 'scenario'"),
        ("serving_steps.csv.gz", _packed(b""), "no table: it is empty"),
        ("serving.csv", REQUESTS.replace("20,2", "x,2").encode(), "csv:2: prompt: a whole number"),
        ("serving.csv", REQUESTS.replace("20,2", "0,2").encode(), "csv:2: request 0: prompt is 0"),
        ("serving.csv", REQUESTS.replace("900000", "").encode(), "csv:3: arrival_us: a whole"),
        ("serving.csv", REQUESTS.replace("0,0,20", "0,9000000,20").encode(), "must be in order"),
        ("serving.csv", REQUESTS.replace("900000", "9" * 18).encode(), "arrives after"),
        ("serving.csv", REQUESTS.replace("v01,1", "v01,0").encode(), "the number of an earlier"),
        ("serving.csv", REQUESTS.replace("20,2", "9" * 18 + ",2").encode(), "blocks of 16"),
        ("serving.csv", REQUESTS.replace("v01,1", "v1,1").encode(), "did you mean 'v01'"),
        ("serving.csv", REQUESTS.replace("engine,", "").encode(), "fields are expected"),
        ("serving.csv", b"a\n" + b'"' + b"x" * 200_000 + b'"\n', "no line of a table"),
    ],
)
def test_a_damaged_file_is_one_line(folder: Path, name: str, text: bytes, said: str) -> None:
    (folder / "serving" / name).write_bytes(text)
    with pytest.raises(InputError, match=said):
        _errors(folder)


def test_a_share_is_of_a_limit() -> None:
    with pytest.raises(ValueError, match="share is of the rows within each, which is not given"):
        Tolerance(share=0.9, median=0.1, reason="a model")
    assert Tolerance(share=0.9, each=0.1, reason="a model").share == 0.9


def test_a_measured_run_needs_a_request_of_several_tokens(tmp_path: Path) -> None:
    """The time of a token is of those behind the first."""
    path = tmp_path / serving._MEASURED
    path.parent.mkdir()
    path.write_text(
        "id,arrival_us,first_token_us,finish_us,prompt,output\n0,0,10,10,20,1\n1,5,30,30,20,1\n"
    )
    steps: Any = None
    with pytest.raises(InputError, match="no request of more than one token"):
        list(serving.measured_means(References(Path(), tmp_path), steps))
