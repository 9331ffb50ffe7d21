"""In what configs differ, key by key, as words that tell them apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pimsim.config.documents import Resolved
from pimsim.config.paths import given_path
from pimsim.config.schema import quantity_at
from pimsim.config.settings_text import with_files

__all__ = ["Difference", "differences", "labels_of", "named", "short_names", "shown"]

_TOLD = ("description", "source", "sources")
"""Keys of prose, which no figure depends on."""
_MOST_IN_LABEL = 3
"""Keys that tell configs of one name apart in a label; those of several names need one, at most."""
_LONGEST = 48
_ABSENT = object()


@dataclass(frozen=True)
class Difference:
    """A key at which configs differ."""

    key: str
    values: tuple[str, ...]
    """As they are written, one of each config; empty where it has no such key."""


def differences(configs: Sequence[Resolved[Any]]) -> list[Difference]:
    """In what resolved configs differ, in the order of their keys; their names and what is prose
    aside. A section that some do not have is one difference.

    Parameters
    ----------
    configs
        Two or more.
    """
    documents = [each.config.model_dump(mode="json") for each in configs]
    for document, each in zip(documents, configs, strict=True):
        document.pop("name", None)
        for path in each.references:
            _name_once(document, path)
    return list(_walk(documents, [type(each.config) for each in configs], ()))


def _name_once(values: dict[str, Any], path: tuple[str, ...]) -> None:
    """Have one name for a file, however it was asked for."""
    *sections, key = path
    for section in sections:
        values = values.get(section) or {}
    name = values.get(key)
    if isinstance(name, str):
        values[key] = with_files(name, lambda file: os.path.relpath(given_path(file).resolve()))


def _walk(
    found: Sequence[Any], models: Sequence[type[Any]], path: tuple[str, ...]
) -> Iterator[Difference]:
    if all(each == found[0] for each in found):
        return
    if all(isinstance(each, Mapping) for each in found):
        for key in dict.fromkeys(key for each in found for key in each):
            if key not in _TOLD:
                values = [each.get(key, _ABSENT) for each in found]
                yield from _walk(values, models, (*path, key))
        return
    yield Difference(
        ".".join(path),
        tuple(
            _written(value, model, path, found) for value, model in zip(found, models, strict=True)
        ),
    )


def _written(value: Any, model: type[Any], path: tuple[str, ...], all_of: Sequence[Any]) -> str:
    if value is _ABSENT:
        return ""
    if isinstance(value, Mapping):
        return str(value.get("name") or f"{len(value)} keys")
    if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        lists = [each for each in all_of if isinstance(each, list)]
        own = [each for each in value if any(each not in other for other in lists)]
        return f"{len(value)} entries, of which {len(own)} are not in all"
    quantity = quantity_at(model, path)
    if quantity is not None and isinstance(value, int) and not isinstance(value, bool):
        return quantity.format(value)
    return shown(value)


def shown(value: Any) -> str:
    """A value of a config in a few words, as YAML has it.

    Parameters
    ----------
    value
        Plain, or of a column of a table.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (list, Mapping)) else str(value)


def short_names(keys: Sequence[str]) -> list[str]:
    """Last parts of keys, where no two are the same.

    Parameters
    ----------
    keys
        Of the config.
    """
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for short, key in zip(last, keys, strict=True)]


def named(keys: Sequence[str], values: Sequence[Any]) -> str:
    """Keys and values in a few words.

    Parameters
    ----------
    keys
        Of the config.
    values
        One each.
    """
    return ", ".join(
        f"{key} {shown(value)}" for key, value in zip(short_names(keys), values, strict=True)
    )


def labels_of(names: Sequence[str], found: Sequence[Difference]) -> list[str]:
    """Labels that tell configs apart: by the values in which they differ where those are few, with
    the name where that is of several; else by their names, numbered where two are the same.

    Parameters
    ----------
    names
        Of the configs.
    found
        In what they differ.
    """
    labels = list(names)
    same = len(set(names)) == 1
    if 0 < len(found) <= (_MOST_IN_LABEL if same else 1):
        keys = [each.key for each in found]
        values = zip(*(each.values for each in found), strict=True)
        apart = [named(keys, [_clipped(value) or "absent" for value in mine]) for mine in values]
        labels = apart if same else [f"{n}: {a}" for n, a in zip(names, apart, strict=True)]
    numbered: list[str] = []
    for label in labels:
        told, number = label, 2
        while told in numbered:
            told, number = f"{label} ({number})", number + 1
        numbered.append(told)
    return numbered


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
