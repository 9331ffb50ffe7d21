"""Questions about the config models: which keys are allowed where, and what an error means."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from pimsim.config.errors import InputError, near_miss
from pimsim.config.plugins import former_name
from pimsim.config.tree import Entry, lookup
from pimsim.config.units import Quantity

__all__ = ["annotation_at", "explain", "is_open_mapping", "keys_at", "marks_at", "quantity_at"]


def _without_none(annotation: Any) -> Any:
    """``X`` for ``X | None``; annotations without None as they are."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if len(others) == 1:
            return others[0]
    return annotation


def annotation_at(model: type[BaseModel], path: tuple[str | int, ...]) -> Any:
    """The type of the value at ``path``; None where the model has no such place.

    Parameters
    ----------
    model
        Of the document.
    path
        Keys and indices from its root.
    """
    return _found_at(model, path)[0]


def marks_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[Any]:
    """What limits the value at ``path`` and says its unit.

    Parameters
    ----------
    model
        Of the document.
    path
        Keys and indices from its root.
    """
    return list(_found_at(model, path)[1])


@lru_cache(maxsize=4096)
def _found_at(model: type[BaseModel], path: tuple[str | int, ...]) -> tuple[Any, tuple[Any, ...]]:
    annotation: Any = model
    marks: list[Any] = []
    for key in path:
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        marks = []
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(key))
            annotation = field.annotation if field else None
            marks = _flat(field.metadata) if field else []
        elif origin in (dict, Mapping) or (origin is list and isinstance(key, int)):
            annotation = arguments[-1]
        else:
            return None, ()
        annotation = _without_none(annotation)
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            marks += _flat(more)
            annotation = _without_none(annotation)
        for member in typing.get_args(annotation):  # of a number, or a word in its place
            if typing.get_origin(member) is typing.Annotated:
                marks += _flat(typing.get_args(member)[1:])
    return _without_none(annotation), tuple(marks)


def _flat(marks: Iterable[Any]) -> list[Any]:
    """Marks, those within a ``Field(...)`` too."""
    return [one for mark in marks for one in getattr(mark, "metadata", None) or (mark,)]


def keys_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Keys allowed in the mapping at ``path``; none where any key, or none, is allowed.

    Parameters
    ----------
    model
        Of the document.
    path
        Keys and indices from its root.
    """
    annotation = annotation_at(model, path)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.model_fields)
    return []


def is_open_mapping(model: type[BaseModel], path: tuple[str | int, ...]) -> bool:
    """Whether the mapping at ``path`` takes any key (timings, sources).

    Parameters
    ----------
    model
        Of the document.
    path
        Keys and indices from its root.
    """
    return typing.get_origin(annotation_at(model, path)) in (dict, Mapping)


def quantity_at(model: type[BaseModel], path: tuple[str | int, ...]) -> Quantity | None:
    """The units of the value at ``path``; None for values without units.

    Parameters
    ----------
    model
        Of the document.
    path
        Keys and indices from its root.
    """
    return next((mark for mark in marks_at(model, path) if isinstance(mark, Quantity)), None)


_EXPECTED = {
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a number is expected",
    "finite_number": "a finite number is expected",
    "bool_type": "true or false is expected",
    "string_type": "text is expected",
    "list_type": "a list is expected",
    "dict_type": "a mapping of keys to values is expected",
    "model_type": "a mapping of keys to values is expected",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _range(model: type[BaseModel], path: tuple[str | int, ...], detail: Any) -> str:
    """What is allowed at ``path``, both ends of it, with the unit."""
    marks = marks_at(model, path)
    quantity = next((mark for mark in marks if isinstance(mark, Quantity)), None)
    ends = []
    for limit, words in _BOUNDS.values():
        found = next((getattr(mark, limit) for mark in marks if hasattr(mark, limit)), None)
        if found is not None:
            ends.append(f"{words} {_in_unit(found, quantity)}")
    limit, words = _BOUNDS[detail["type"]]
    return ", ".join(ends) or f"{words} {detail['ctx'][limit]}"


def _in_unit(value: Any, quantity: Quantity | None) -> str:
    if quantity is not None:
        return quantity.format(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def explain(error: ValidationError, root: Entry, model: type[BaseModel]) -> InputError:
    """The first error (unknown keys before others) as one line: where, what, what is allowed.

    Parameters
    ----------
    error
        Of pydantic.
    root
        The document, with where each value comes from.
    model
        Of the document.

    Returns
    -------
    InputError
        To be raised.
    """
    details = sorted(
        error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden"
    )
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return InputError(_one_line(details[0], root, model) + more)


def _one_line(detail: Any, root: Entry, model: type[BaseModel]) -> str:
    path: tuple[str | int, ...] = detail["loc"]
    kind: str = detail["type"]
    entry, _ = lookup(root, path)
    key = ".".join(map(str, path))
    if kind == "extra_forbidden":
        allowed = keys_at(model, path[:-1])
        return f"{entry.origin}: unknown key {key!r}" + (
            former_name(path, detail["input"])
            or f"{near_miss(str(path[-1]), allowed)}; allowed: {', '.join(sorted(allowed))}"
        )
    if kind == "missing":
        return f"{entry.origin}: {key} is missing"
    if kind == "value_error":
        return _from_validator(detail, root)
    found = _short(detail["input"])
    if kind == "literal_error":
        choices = [str(arg) for arg in typing.get_args(annotation_at(model, path))]
        return (
            f"{entry.origin}: {key}: found {found}{near_miss(str(detail['input']), choices)}; "
            f"allowed: {', '.join(choices)}{former_name(path, detail['input'])}"
        )
    if kind in _BOUNDS:
        quantity = quantity_at(model, path)
        if quantity is not None and isinstance(detail["input"], int):
            found = _short(_in_unit(detail["input"], quantity))
        return f"{entry.origin}: {key}: found {found}; allowed: {_range(model, path, detail)}"
    expected = _EXPECTED.get(kind, detail["msg"])
    return f"{entry.origin}: {key}: found {found}; {expected}"


def _from_validator(detail: Any, root: Entry) -> str:
    """A validator's own message. One of a whole mapping begins with the key that it blames."""
    path: tuple[str | int, ...] = detail["loc"]
    message = str(detail["ctx"]["error"])
    blamed = message.split(maxsplit=1)[0].strip(":,;")
    parts = [int(part) if part.isdecimal() else part for part in blamed.split(".")]
    entry, steps = lookup(root, (*path, *parts))
    if steps > len(path):
        prefix = "".join(f"{part}." for part in path)
        return f"{entry.origin}: {prefix}{message}"
    key = "".join((".".join(map(str, path)), ": ")) if path else ""
    return f"{entry.origin}: {key}{message}"


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
