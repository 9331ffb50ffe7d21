"""Every key of every file that is read: its default, and what it may be."""

from __future__ import annotations

import pkgutil
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

from cases import values

PACKAGES = (
    "config", "workload", "hardware", "mapping", "engine", "serving", "result", "explore",
    "reproductions", "validate",
)  # fmt: skip
BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")


def _models() -> Iterator[tuple[str, Any]]:
    from pydantic import BaseModel

    for package in PACKAGES:
        start = import_module(f"pimsim.{package}")
        names = [start.__name__]
        names += [m.name for m in pkgutil.walk_packages(start.__path__, start.__name__ + ".")]
        for name in sorted(names):
            for key, each in sorted(vars(import_module(name)).items()):
                own = isinstance(each, type) and each.__module__ == name
                if own and issubclass(each, BaseModel):
                    yield f"{name.removeprefix('pimsim.')}.{key}", each


def _bounds(metadata: Any) -> Iterator[str]:
    for mark in metadata:
        for name in BOUNDS:
            found = getattr(mark, name, None)
            if found is not None:
                yield f"{name} {found}"


def _allowed(annotation: Any) -> Iterator[str]:
    """Words and bounds of a type, of those that it is made of too."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        yield " | ".join(map(str, arguments))
    elif origin is typing.Annotated:
        yield from _allowed(arguments[0])
        yield from _bounds(getattr(annotation, "__metadata__", ()))
    elif origin in (typing.Union, types.UnionType) or arguments:
        for each in arguments:
            yield from _allowed(each)
    elif annotation is not ... and isinstance(annotation, type):
        yield annotation.__name__


@values("tables/keys")
def _keys() -> Iterator[str]:
    for name, model in _models():
        yield f"=== {name}"
        for key, field in model.model_fields.items():
            parts = [*_allowed(field.annotation), *_bounds(field.metadata)]
            if field.default_factory is not None:
                default = "made"
            else:
                default = "needed" if field.is_required() else repr(field.default)
            yield f"{key} = {default}: {', '.join(parts)}"
