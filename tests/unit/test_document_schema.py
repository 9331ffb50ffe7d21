"""JSON Schemas of every kind of YAML, held to all files that ship."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pimsim.cli.schema import _DOCUMENTS, _KINDS, _STUDIES, _text
from pimsim.config.resources import data_dir, preset_names, preset_path

SCHEMAS = {kind: json.loads(_text(kind)) for kind in (*_DOCUMENTS, *_STUDIES)}
STARTS = data_dir("configs") / "start"
FILES: list[tuple[str, Path]] = [
    *((kind, preset_path(preset, name)) for kind, preset in _DOCUMENTS.items()
      for name in preset_names(preset)),
    *((kind, STARTS / f"{kind}.yaml") for kind in ("run", "pim", *_STUDIES)),
]  # fmt: skip


def of_file(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all mappings in ``value``."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*path, number))


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda each: getattr(each, "stem", each))
def test_shipped_files_are_as_their_schema_says(kind: str, path: Path) -> None:
    jsonschema.validate(of_file(path), SCHEMAS[kind])


OPEN = {
    "timings", "commands", "delays", "power", "set", "grid", "zip", "ranges", "points", "energy_pj",
    "currents_ma", "capacities", "space",
}  # fmt: skip
"""Sections whose keys the file itself names."""


@pytest.mark.parametrize("kind", [*_DOCUMENTS, *_STUDIES])
def test_an_unknown_key_is_seen_in_every_section(kind: str) -> None:
    path = [path for of, path in FILES if of == kind][-1]
    whole = of_file(path)
    tried = 0
    for place in places(whole):
        if OPEN & set(place):
            continue
        damaged = json.loads(json.dumps(whole))
        section = damaged
        for step in place:
            section = section[step]
        section["not_a_key"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, SCHEMAS[kind])
        tried += 1
    assert tried


@pytest.mark.parametrize(
    ("kind", "value", "right"),
    [
        ("run", {"extends": "neupims", "pim": "newton"}, True),
        ("run", {"pim": {"extends": "newton", "elements_per_comp": 32}}, True),
        ("run", {"pim": None, "memory": "mine.yaml"}, True),
        ("run", {"npu": {"frequency": "1.2GHz"}}, True),
        ("run", {"npu": {"frequency": 12}}, False),
        ("run", {"npu": {"frequency": "12ns"}}, False),
        ("run", {"schedule": {"policy": "interleaved"}}, True),
        ("run", {"schedule": {"policy": "interleave"}}, False),
        ("run", {"max_error": "2%"}, True),
        ("run", {"max_error": "2 parts"}, False),
        ("memory", {"organization": {"channels": 0}}, False),
        ("model", {"layers": "many"}, False),
        ("sweep", {"base": "neupims", "grid": {"workload.batch": [1, 2]}}, True),
        ("sweep", {"grid": {"workload.batch": 3}}, False),
    ],
)  # fmt: skip
def test_values_are_checked(kind: str, value: dict[str, Any], right: bool) -> None:
    found = jsonschema.Draft202012Validator(SCHEMAS[kind]).is_valid(value)
    assert found == right


def test_every_kind_is_printed_and_others_refused(
    run_cli: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    for kind in _KINDS:
        done = run_cli("schema", kind, cwd=tmp_path)
        jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))
    assert "memory" in refused("schema", "memry")
