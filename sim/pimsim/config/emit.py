"""A config written as YAML that our reader reads back to the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["emit_yaml"]

Annotate = Callable[[tuple[str, ...]], str]
Format = Callable[[tuple[str, ...], object], object]

_BARE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./()*+ -]*")
_TYPED = re.compile(r"(?i:true|false|null)|[-+.]?[0-9.]+(e[-+]?[0-9]+)?|0x[0-9a-f]+", re.IGNORECASE)


def emit_yaml(
    values: Mapping[str, Any],
    comment: Annotate | None = None,
    format_value: Format | None = None,
) -> str:
    """YAML in block style, one leaf a line.

    Parameters
    ----------
    values
        Of the document.
    comment
        Gives a leaf's trailing comment by its path; None: there are none.
    format_value
        May replace a leaf's value (a number by one with its unit); None: all stay.
    """
    lines = list(_mapping(values, (), comment, format_value or (lambda _path, value: value)))
    if comment is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(max((len(text) for text, note in lines if note), default=0), 60)
    return "".join(f"{text:<{width}}  # {note}\n" if note else f"{text}\n" for text, note in lines)


def _mapping(
    values: Mapping[str, Any],
    path: tuple[str, ...],
    comment: Annotate | None,
    format_value: Format,
) -> Iterator[tuple[str, str]]:
    indent = "  " * len(path)
    for key, value in values.items():
        here = (*path, key)
        head = f"{indent}{_flow(key)}:"
        if isinstance(value, Mapping) and value:
            yield head, ""
            yield from _mapping(value, here, comment, format_value)
            continue
        note = comment(here) if comment else ""
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield head, note
            for item in value:
                yield f"{indent}  - {_flow(item)}", ""
        else:
            yield f"{head} {_flow(format_value(here, value))}", note


def _flow(value: object) -> str:
    """One value in flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and not value.endswith(" ") and not _TYPED.fullmatch(value)
        return value if bare else json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else json.dumps(value)
