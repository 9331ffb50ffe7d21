"""The format of ``result.json``: its version, its JSON Schema, and results of before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.result import rows, store, types
from pimsim.result.schema import SCHEMA_FILE, result_schema, schema_text
from pimsim.result.types import VERSION, Result

RunCli = Callable[..., subprocess.CompletedProcess[str]]
EARLIER = Path(__file__).parents[1] / "data" / "result_version_1"
SCHEMA = json.loads(schema_text())


def test_the_shipped_schema_is_what_the_types_give() -> None:
    module = [sys.executable, "-m", "pimsim.result.schema"]
    printed = subprocess.run(module, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == result_schema()
    assert json.loads(printed) == SCHEMA, "put what the module prints into result.schema.json"


def test_every_key_is_known_to_the_schema_and_none_beside_it() -> None:
    found = {
        each.__name__: each
        for module in (types, rows)
        for each in vars(module).values()
        if isinstance(each, type) and is_dataclass(each)
    }
    assert found.keys() == {"Result", *SCHEMA["$defs"]}
    for name, each in found.items():
        schema = SCHEMA if name == "Result" else SCHEMA["$defs"][name]
        own = {"version"} if name == "Result" else set()
        assert set(schema["properties"]) == own | {field.name for field in fields(each)}
        assert schema["additionalProperties"] is False
    assert SCHEMA["properties"]["iteration_s"]["description"].startswith("All steps")


@pytest.fixture(scope="module", params=["decode", "steps", "pipeline"])
def written(
    request: pytest.FixtureRequest, tiny_card: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What a run writes."""
    options = {
        "decode": [], "steps": ["workload.steps=2"], "pipeline": ["parallel.pp=2"],
    }[request.param]  # fmt: skip
    out = tmp_path_factory.mktemp("written") / "out"
    pimsim.run(
        "neupims", out=out,
        overrides=[f"workload.model={tiny_card}", "workload.batch=2", *options],
    )  # fmt: skip
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def test_what_a_run_writes_is_as_the_schema_says(written: dict[str, Any]) -> None:
    jsonschema.validate(written, SCHEMA)
    assert next(iter(written)) == "version" and written["version"] == VERSION
    for damaged in (
        {**written, "version": VERSION + 1},
        {**written, "cylces": 1},
        {**written, "cycles": 1.5},
        {**written, "stages": [{**written["stages"][0], "name": 1}]},
        {**written, "operators": [{**written["operators"][0], "layers": 1}]},
        {key: value for key, value in written.items() if key != "version"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, SCHEMA)


def test_a_folder_of_before_is_read(tmp_path: Path) -> None:
    """One that the last pimsim without versions wrote."""
    result = store.load(EARLIER)
    data = json.loads((EARLIER / store.RESULT_FILE).read_text())
    assert "version" not in data and "steps" not in data
    assert result.steps == () and result.cycles == data["cycles"] == result.table("stages")[
        "cycles"
    ].sum()  # fmt: skip
    store.save(result, "name: neupims\n", tmp_path / "again")
    again = json.loads((tmp_path / "again" / store.RESULT_FILE).read_text())
    jsonschema.validate(again, SCHEMA)
    assert store.load(tmp_path / "again") == result
    assert again["energy_j"].pop("host") == 0  # no run had one
    assert {key: again[key] for key in data if key not in ("stages", "operators")} == {
        key: data[key] for key in data if key not in ("stages", "operators")
    }


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (VERSION + 1, f"version: {VERSION + 1} of a result; this pimsim reads 1 to {VERSION}"),
        (0, f"version: 0 of a result; this pimsim reads 1 to {VERSION}"),
        ("2", f"version: '2' of a result; this pimsim reads 1 to {VERSION}"),
        (True, f"version: True of a result; this pimsim reads 1 to {VERSION}"),
        (None, f"version: None of a result; this pimsim reads 1 to {VERSION}"),
    ],
)
def test_a_later_version_is_refused_in_one_line(tmp_path: Path, version: object, said: str) -> None:
    data = json.loads((EARLIER / store.RESULT_FILE).read_text())
    path = tmp_path / store.RESULT_FILE
    path.write_text(json.dumps({**data, "version": version, "something_new": 1}))
    with pytest.raises(InputError) as error:
        store.load(tmp_path)
    assert str(error.value) == f"{path}: {said}"


def test_some_fields_alone_have_no_version() -> None:
    """Of those that a sweep keeps."""
    result = store.load(EARLIER)
    assert list(result.to_dict(["cycles"])) == ["cycles"]
    assert Result.from_dict(result.to_dict()) == result


def test_the_command_prints_what_is_shipped(run_cli: RunCli) -> None:
    done = run_cli("schema", "result")
    assert done.returncode == 0 and done.stdout == schema_text()
    wrong = run_cli("schema", "results")
    assert wrong.returncode == 2
    said = "no schema 'results'; did you mean 'result'?; there are: run, system, "
    assert said in wrong.stderr and wrong.stderr.strip().endswith(
        ", service, result, service-result"
    )
    assert (Path(types.__file__).parent / SCHEMA_FILE).read_text() == schema_text()
