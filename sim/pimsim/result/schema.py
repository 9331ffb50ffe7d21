"""The JSON Schema of ``result.json``, as the types give it and as it is shipped."""

from __future__ import annotations

import ast
import json
from importlib.resources import files
from inspect import getsource
from itertools import pairwise
from typing import Any

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
    words = _words()
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


def _words() -> dict[str, dict[str, str]]:
    """What is written below each class, and below each of its fields, by class and field."""
    found: dict[str, dict[str, str]] = {}
    for module in (rows, types):
        for item in ast.parse(getsource(module)).body:
            if isinstance(item, ast.ClassDef):
                own = found[item.name] = {"": _one_line(ast.get_docstring(item) or "")}
                for field, text in pairwise(item.body):
                    if (
                        isinstance(field, ast.AnnAssign)
                        and isinstance(field.target, ast.Name)
                        and isinstance(text, ast.Expr)
                        and isinstance(text.value, ast.Constant)
                    ):
                        own[field.target.id] = _one_line(str(text.value.value))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    print(json.dumps(result_schema(), indent=1))
