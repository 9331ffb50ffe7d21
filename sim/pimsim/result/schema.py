"""The JSON Schema of ``result.json``, as the types give it and as it is shipped."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from pimsim.config.meanings import meanings
from pimsim.result import rows, types
from pimsim.result.types import VERSION, Result

__all__ = ["SCHEMA_FILE", "result_schema", "schema_text"]

SCHEMA_FILE = "result.schema.json"
"""Beside this module. ``python -m pimsim.result.schema`` prints what it must hold."""


def schema_text() -> str:
    """The schema as it is shipped."""
    return files("pimsim.result").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")


def result_schema() -> dict[str, Any]:
    """The schema that the types give: JSON Schema 2020-12 of what this version writes, with what
    the types and their fields say of themselves."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Result).json_schema()
    kinds = found.pop("$defs")
    properties, required = found["properties"], found["required"]
    kinds["Result"] = {
        **found,
        "properties": {"version": {"const": VERSION}, **properties},
        "required": ["version", *required],
    }
    words = meanings(rows) | meanings(types)
    for name, kind in kinds.items():
        _describe(kind, words[name])
    kinds["Result"]["properties"]["version"]["description"] = "Of this format."
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Result of a pimsim run, version {VERSION}",
        **kinds.pop("Result"),
        "$defs": kinds,
    }


def _describe(kind: dict[str, Any], words: dict[str, str]) -> None:
    """Put words in the place of titles, which only say a key again. ``""``: of the type."""
    del kind["title"]
    kind.pop("description", None)  # in the same place whether pydantic had one or not
    kind["description"] = words[""]
    for name, each in kind["properties"].items():
        each.pop("title", None)
        if name in words:
            each["description"] = words[name]


if __name__ == "__main__":
    print(json.dumps(result_schema(), indent=1))
