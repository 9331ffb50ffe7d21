"""The JSON Schemas of a service's YAML and of its result."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import jsonschema
import pytest
import yaml

import pimsim
from pimsim.config.plugins import is_reproduction, module_names
from pimsim.config.service_schema import service_schema
from pimsim.result import service_types
from pimsim.result.service_schema import service_result_schema

RunCli = Callable[..., subprocess.CompletedProcess[str]]
CHAT = Path(__file__).parents[2] / "configs" / "service" / "chat.yaml"
INPUT, RESULT = service_schema(), service_result_schema()


@pytest.fixture
def chat() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(CHAT.read_text())
    return found


def test_the_shipped_service_is_as_the_schema_says(chat: dict[str, Any]) -> None:
    jsonschema.validate(chat, INPUT)
    jsonschema.validate({"extends": "chat", "cache": {"blocks": 5}}, INPUT)
    for path, value in {
        "seeed": 1, "cache.block": 3, "cache.blocks": 0, "scheduler.name": "vlm",
        "scheduler.chunk": 3, "requests.arrivals.rate": 4, "requests.arrivals.cv": 4,
        "slo.ttft": 500, "slo.tpot": "50 minutes", "step_time.linear.step_us": "8ms",
    }.items():  # fmt: skip
        damaged = json.loads(json.dumps(chat))
        *sections, key = path.split(".")
        place = damaged
        for section in sections:
            place = place[section]
        place[key] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, INPUT)


@pytest.mark.parametrize("kind", ["scheduler", "arrivals"])
def test_every_module_brings_its_keys(chat: dict[str, Any], kind: str) -> None:
    for name in module_names(kind):
        if is_reproduction(kind, name):
            continue
        section = {"scheduler": chat, "arrivals": chat["requests"]}[kind]
        section[kind] = {{"scheduler": "name", "arrivals": "process"}[kind]: name}
        jsonschema.validate(chat, INPUT)
    chat["scheduler"] = {"name": "vllm-v0", "max_tokens_in_batch": 9}
    jsonschema.validate(chat, INPUT)


def test_every_key_is_explained() -> None:
    found = [*INPUT["$defs"].items(), ("", INPUT)]
    found += [(one["properties"]["name"]["enum"][0], one) for one in
              INPUT["properties"]["scheduler"]["anyOf"]]  # fmt: skip
    assert len(found) > 12
    for name, kind in found:
        for key, each in kind["properties"].items():
            assert each.get("description") or "$ref" in str(each), f"{name}.{key}"


def test_what_a_service_writes_is_as_the_schema_says(tmp_path: Path) -> None:
    options = ["requests.count=20", "speculation={drafts: 2, accept: mix}"]
    pimsim.serve("chat", overrides=options, out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    jsonschema.validate(written, RESULT)
    early = pimsim.serve("chat", max_time="1ps").to_dict()
    jsonschema.validate(json.loads(json.dumps(early)), RESULT)
    for damaged in (
        {**written, "version": 2},
        {**written, "tokens_per_sec": 1.0},
        {**written, "kv": {**written["kv"], "block": 1}},
        {**written, "latency_s": {**written["latency_s"], "ttft": {"mean": "1"}}},
        {key: value for key, value in written.items() if key != "queue"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, RESULT)


def test_the_result_has_the_keys_of_its_types() -> None:
    kinds = {name: getattr(service_types, name) for name in RESULT["$defs"]}
    for name, kind in (*kinds.items(), ("", service_types.ServiceFigures)):
        schema = RESULT["$defs"][name] if name else RESULT
        assert set(schema["properties"]) == set(get_type_hints(kind))
        assert schema["additionalProperties"] is False
    assert RESULT["$defs"]["Latency"]["properties"]["tpot"]["description"].startswith("(finish")


@pytest.mark.parametrize("kind", ["service", "service-result"])
def test_the_command_prints_it(run_cli: RunCli, kind: str) -> None:
    done = run_cli("schema", kind)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"service": INPUT, "service-result": RESULT}[kind]
    wrong = run_cli("schema", "servce")
    assert wrong.returncode == 2
    assert "did you mean 'service'?" in wrong.stderr
