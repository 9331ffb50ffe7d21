"""The JSON Schema of a YAML document, for editors: as the models that check it give it.

A document may extend another, so that no key is required; a section that is a document of its own
(``memory``, ``pim``, ...) may be a preset's name or a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from pimsim.config.compose import Layout
from pimsim.config.meanings import field_meaning

__all__ = ["DIALECT", "EXTENDS", "describe", "document_schema", "sections_of"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
EXTENDS = {
    "type": "string",
    "description": "A preset's name or a YAML path whose keys these take the place of.",
}


def document_schema(
    title: str, model: type[BaseModel], layout: Layout | None = None
) -> dict[str, Any]:
    """JSON Schema 2020-12 of a document.

    Parameters
    ----------
    title
        Of the schema.
    model
        That checks the document.
    layout
        How files of the kind are put together; None: it extends none, and has no such sections.
    """
    _, found = models_json_schema(
        [(model, "validation")], ref_template="#/$defs/{model}", schema_generator=GenerateJsonSchema
    )
    kinds = found["$defs"]
    known = sections_of(model)
    for name, kind in kinds.items():
        describe(kind, known.get(name))
    if layout is not None:
        for kind in kinds.values():
            for key, each in kind.get("properties", {}).items():
                kind["properties"][key] = _or_its_changes(each)
    whole = kinds.pop(model.__name__)
    if layout is not None:
        whole["properties"] = {"extends": EXTENDS, **whole["properties"]}
        for key, section in layout.sections.items():
            whole["properties"][key] = _section(whole["properties"][key], section, kinds)
    return {"$schema": DIALECT, "title": title, **whole, "$defs": kinds}


def _or_its_changes(given: dict[str, Any]) -> dict[str, Any]:
    """A list of mappings, or what it adds to and drops of the one that is extended."""
    if given.get("type") != "array" or "$ref" not in given.get("items", {}):
        return given
    changes = {
        "type": "object", "additionalProperties": False,
        "properties": {
            "add": {"type": "array", "items": given["items"]},
            "drop": {
                "type": "array", "items": {"type": "object"},
                "description": "Each names one of the parent's by some of its keys.",
            },
        },
    }  # fmt: skip
    kept = {key: value for key, value in given.items() if key == "description"}
    return {**kept, "anyOf": [{key: given[key] for key in given if key not in kept}, changes]}


def _section(given: dict[str, Any], layout: Layout, kinds: dict[str, Any]) -> dict[str, Any]:
    """``given``, or the name or path of such a document; its keys with ``extends`` and sections."""
    for one in given.get("anyOf", [given]):
        name = str(one.get("$ref", "")).rpartition("/")[2]
        if name in kinds and "extends" not in kinds[name]["properties"]:
            properties = kinds[name]["properties"]
            for key, inner in layout.sections.items():
                if key in properties:
                    properties[key] = _section(properties[key], inner, kinds)
            kinds[name]["properties"] = {"extends": EXTENDS, **properties}
    words = {"type": "string", "description": f"A {layout.kind} preset's name, or a YAML path."}
    ways = given.get("anyOf", [{key: given[key] for key in given if key != "description"}])
    kept = {key: value for key, value in given.items() if key == "description"}
    return {**kept, "anyOf": [words, *ways]}


def sections_of(model: Any) -> Mapping[str, type[BaseModel]]:
    """Config models at and below ``model``, by name.

    Parameters
    ----------
    model
        A model, or an annotation that may hold some.
    """
    found: dict[str, type[BaseModel]] = {}
    waiting = [model]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "__args__", ())
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__name__ not in found:
            found[one.__name__] = one
            waiting += [field.annotation for field in one.model_fields.values()]
    return found


def describe(kind: dict[str, Any], model: type[BaseModel] | None) -> None:
    """Words in the place of titles, which only say a key again; nothing is required.

    Parameters
    ----------
    kind
        Definition of an object, changed in place.
    model
        That it was made of, where it is known.
    """
    kind.pop("title", None)
    kind.pop("required", None)
    kind["description"] = " ".join(kind.get("description", "").split())
    for name, each in kind.get("properties", {}).items():
        each.pop("title", None)
        if model is not None and (said := field_meaning(model, name)):
            each["description"] = said
