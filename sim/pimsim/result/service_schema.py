"""The JSON Schema of a service's result, as its types give it."""

from __future__ import annotations

import json
from typing import Any

from pimsim.config.meanings import meanings
from pimsim.result import service_types
from pimsim.result.service_types import VERSION, ServiceFigures

__all__ = ["service_result_schema", "service_result_schema_text"]


def service_result_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of what this version writes."""
    from pydantic import TypeAdapter

    found = TypeAdapter(ServiceFigures).json_schema()
    kinds: dict[str, Any] = found.pop("$defs")
    words = meanings(service_types)
    for name, kind in (*kinds.items(), ("ServiceFigures", found)):
        kind.pop("title", None)
        kind["description"] = words[name][""]
        kind["additionalProperties"] = False
        for key, each in kind["properties"].items():
            each.pop("title", None)
            for holder in (name, "ServiceOrigin", "ServiceEnergy"):
                if key in words[holder]:
                    each["description"] = words[holder][key]
                    break
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Result of a pimsim service, version {VERSION}",
        **found,
        "$defs": kinds,
    }


def service_result_schema_text() -> str:
    """The same as text."""
    return json.dumps(service_result_schema(), indent=1) + "\n"
