"""The JSON Schema of a service's YAML, for editors: as the models that check it give it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from pimsim.config.document_schema import DIALECT, EXTENDS, describe, sections_of
from pimsim.config.plugins import is_reproduction, load_module, module_names
from pimsim.config.service import SchedulerSettings, ServiceConfig
from pimsim.config.service_loader import CHOICES
from pimsim.config.traffic import FROM_FILE, ArrivalSettings

__all__ = ["service_schema", "service_schema_text"]

_BASES: dict[str, type[BaseModel]] = {"scheduler": SchedulerSettings, "arrivals": ArrivalSettings}


_SERVICE: type[ServiceConfig] = create_model(
    "ServiceConfig", __base__=ServiceConfig, __doc__=ServiceConfig.__doc__,
    machine=(str | dict[str, Any] | None, None),
)  # fmt: skip
"""A machine has the keys of a run, whose own documents have names and paths in many places."""


def service_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a service: with the keys of every scheduler and process of arrivals.

    What a file leaves out may come from the one that it extends, so that no key is required.
    """
    chosen = {kind: list(_settings(kind, settings)) for _, kind, settings in CHOICES}
    chosen["arrivals"].append((FROM_FILE, ArrivalSettings))
    models = {model for found in chosen.values() for _, model in found} | {_SERVICE}
    order = sorted(models, key=lambda model: model.__name__)
    refs, found = models_json_schema(
        [(model, "validation") for model in order], ref_template="#/$defs/{model}",
        schema_generator=GenerateJsonSchema,
    )  # fmt: skip
    kinds = found["$defs"]
    places = {model: refs[(model, "validation")]["$ref"].rpartition("/")[2] for model in order}
    known = {**{name: model for model, name in places.items()}, **sections_of(_SERVICE)}
    for name, kind in kinds.items():
        describe(kind, known.get(name))
    for path, kind, _ in CHOICES:
        holder = kinds["RequestsConfig" if kind == "arrivals" else places[_SERVICE]]
        holder["properties"][path[-2]] = {
            "anyOf": [_named(kinds[places[model]], path[-1], name) for name, model in chosen[kind]],
            "description": " ".join((_BASES[kind].__doc__ or "").split()),
        }
    whole = kinds.pop(places[_SERVICE])
    whole["properties"] = {"extends": EXTENDS, **whole["properties"]}
    taken = {place for model, place in places.items() if model is not _SERVICE}
    return {
        "$schema": DIALECT,
        "title": "Service of pimsim",
        **whole,
        "$defs": {name: kind for name, kind in kinds.items() if name not in taken},
    }


def service_schema_text() -> str:
    """The same as text."""
    return json.dumps(service_schema(), indent=1) + "\n"


def _settings(kind: str, settings: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """Modules of a kind, and the model of their keys."""
    for name in module_names(kind):
        if not is_reproduction(kind, name):
            yield name, settings(load_module(kind, name))


def _named(kind: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """``kind`` of the module of that name; with hyphens, too."""
    names = sorted({name, name.replace("_", "-")})
    properties = {**kind["properties"], key: {**kind["properties"][key], "enum": names}}
    return {**kind, "properties": properties}
