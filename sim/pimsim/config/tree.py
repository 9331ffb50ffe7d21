"""YAML read into a tree in which every value knows the file and line it came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import yaml

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import read_text
from pimsim.config.resources import display_path

__all__ = [
    "Entry", "Scalar", "lookup", "merge", "parse_text", "plain", "read_top", "read_tree",
]  # fmt: skip

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_FILE_BYTES = 2**20
MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_NODES = 200_000
"""Values of one file with its aliases expanded; a file of 1 MiB holds fewer without any."""

Scalar = str | int | float | bool | None

# YAML 1.2's core schema: "on", "no" and "12:30" stay text, "1e3" is a number.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a YAML file and its origin (``file:line``)."""

    value: Scalar | dict[str, Entry] | tuple[Entry, ...]
    """What is put together from entries never changes them."""
    origin: str
    replaces: bool = False
    """Merged over another mapping, it takes that one's place (it was itself built by extends)."""


def plain(entry: Entry) -> object:
    """The value without origins: dicts, lists and scalars.

    Parameters
    ----------
    entry
        With origins.
    """
    value = entry.value
    if isinstance(value, dict):
        return {
            key: plain(child) if type(child.value) in _NESTED else child.value
            for key, child in value.items()
        }
    if isinstance(value, tuple):
        return [plain(child) if type(child.value) in _NESTED else child.value for child in value]
    return value


_NESTED = (dict, tuple)


def lookup(entry: Entry, path: tuple[str | int, ...]) -> tuple[Entry, int]:
    """The entry at ``path``, or its nearest ancestor, and how many steps led there.

    Parameters
    ----------
    entry
        To begin at.
    path
        Keys and indices from there.
    """
    for step, key in enumerate(path):
        child = _child(entry.value, key)
        if child is None:
            return entry, step
        entry = child
    return entry, len(path)


def _child(value: object, key: str | int) -> Entry | None:
    if isinstance(value, dict):
        found: Entry | None = value.get(key)
        return found
    if isinstance(value, tuple) and str(key).isdecimal() and int(key) < len(value):
        return cast(Entry, value[int(key)])
    return None


def merge(base: Entry, over: Entry) -> Entry:
    """One document on top of another: mappings key by key, anything else replaced. Over a list, a
    mapping of ``add`` and ``drop`` is what differs from it.

    Parameters
    ----------
    base
        Below.
    over
        On top.

    Raises
    ------
    InputError
        Where it drops what is not there.
    """
    if isinstance(base.value, tuple) and isinstance(over.value, dict):
        return _edited(base, over)
    if over.replaces or not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Entry(merged, over.origin, base.replaces)


def _edited(base: Entry, over: Entry) -> Entry:
    """A list without what ``over`` drops, and with what it adds at the end."""
    assert isinstance(base.value, tuple) and isinstance(over.value, dict)
    unknown = [key for key in over.value if key not in ("add", "drop")]
    if unknown or not over.value:
        found = repr(unknown[0]) if unknown else "nothing"
        raise InputError(
            f"{over.origin}: found {found} over a list; allowed: add and drop, or a list in its "
            "place"
        )
    left = list(base.value)
    for entry in _listed(over, "drop"):
        left.remove(_dropped(entry, left))
    return Entry((*left, *_listed(over, "add")), over.origin)


def _listed(over: Entry, key: str) -> tuple[Entry, ...]:
    assert isinstance(over.value, dict)
    entry = over.value.get(key, Entry((), over.origin))
    if not isinstance(entry.value, tuple):
        raise InputError(f"{entry.origin}: {key}: a list is expected")
    return entry.value


def _dropped(entry: Entry, left: list[Entry]) -> Entry:
    """The one of ``left`` that ``entry`` means: of a mapping all keys that it gives are equal."""
    wanted = plain(entry)

    def is_meant(other: Entry) -> bool:
        value = plain(other)
        if isinstance(wanted, dict) and isinstance(value, dict):
            return all(key in value and value[key] == one for key, one in wanted.items())
        return wanted == value

    found = [other for other in left if is_meant(other)]
    if len(found) == 1:
        return found[0]
    if not found:
        others = [plain(other) for other in left]
        if isinstance(wanted, dict):  # near misses in the keys that it gives
            rows = [other for other in others if isinstance(other, dict)]
            others = [{k: v for k, v in row.items() if k in wanted} for row in rows]
        close = near_miss(_flow(wanted), map(_flow, others))
        raise InputError(f"{entry.origin}: drop: there is no {_flow(wanted)}{close}")
    lines = ", ".join(other.origin for other in found)
    raise InputError(
        f"{entry.origin}: drop: {_flow(wanted)} means {len(found)} of them ({lines}); say more keys"
    )


def _flow(value: object) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()


def read_tree(path: Path) -> Entry:
    """Read a YAML file whose top level is a mapping.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    InputError
        For a file that cannot be read, is no UTF-8, is empty or above 1 MiB, and for all that
        ``parse_text`` refuses.
    """
    shown = display_path(path)
    entry = parse_text(read_text(path, "a YAML file", MAX_FILE_BYTES), shown)
    if entry.value is None:
        raise InputError(f"{shown}: is empty; a mapping of keys to values is expected")
    if not isinstance(entry.value, dict):
        raise InputError(f"{entry.origin}: the top level must be a mapping of keys to values")
    return entry


def read_top(path: Path, keys: Iterable[str]) -> dict[str, object]:
    """Values of a few keys of a file's top level: what a list shows of a hundred presets.

    The file is parsed as far as the last of them. What is wrong behind that goes unseen here, and
    is said by whoever reads the file whole.

    Parameters
    ----------
    path
        Of a YAML file.
    keys
        Of its top level.

    Returns
    -------
    dict
        Plain values of those that it has.

    Raises
    ------
    InputError
        As ``read_tree`` does, for what is wrong up to there.
    """
    text = read_text(path, "a YAML file", MAX_FILE_BYTES)
    # what is nowhere in the text is no key of it; a plain key that is there is spelt out
    wanted = frozenset(key for key in keys if key in text)
    if not wanted:
        return {}
    entry = _parsed(text, display_path(path), wanted)
    found = entry.value if isinstance(entry.value, dict) else {}
    return {key: plain(found[key]) for key in found if key in wanted}


@lru_cache(maxsize=128)
def parse_text(text: str, label: str) -> Entry:
    """Parse one YAML document. What was parsed is remembered: the points of a sweep extend the same
    presets.

    Parameters
    ----------
    text
        Of the document.
    label
        Names it in origins and messages.

    Raises
    ------
    InputError
        With file and line, for syntax errors, duplicate keys, keys that are no plain text, tags,
        merge keys, not-finite numbers, more than one document, and documents too deep or, with
        aliases expanded, too large (bombs).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{label!a}: not UTF-8 text (character {error.start})") from None
    return _parsed(text, label)


def _parsed(text: str, label: str, wanted: frozenset[str] | None = None) -> Entry:
    """The document, or its first keys, until those ``wanted`` are there."""
    try:
        return _Builder(text, label, wanted).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{label}:{mark.line + 1}" if mark else label
        raise InputError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{label}: not valid YAML: {error}") from None


class _Builder:
    """Builds the tree from the parser's events, so that limits hold while it reads."""

    def __init__(self, text: str, label: str, wanted: frozenset[str] | None) -> None:
        self._wanted = wanted
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._label = label
        self._anchors: dict[str, tuple[Entry, int]] = {}
        self._aliases = 0
        self._nodes = 0

    def document(self) -> Entry:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return Entry(None, f"{self._label}:1")
        entry = self._node(next(self._events), 0)
        if self._wanted is not None:
            return entry
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refuse(event, "a second document starts; one is allowed")
        return entry

    def _refuse(self, event: yaml.Event, why: str) -> InputError:
        return InputError(f"{self._origin(event)}: {why}")

    def _origin(self, event: yaml.Event) -> str:
        mark = event.start_mark
        return f"{self._label}:{mark.line + 1}" if mark else self._label

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._refuse(event, f"more than {MAX_NODES} values with aliases expanded")

    def _node(self, event: yaml.Event, depth: int) -> Entry:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > MAX_DEPTH:
            raise self._refuse(event, f"nested more than {MAX_DEPTH} levels deep")
        before = self._nodes
        self._count(event, 1)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._refuse(event, f"tag {tag!r} found; tags are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            entry = Entry(self._scalar(event), self._origin(event))
        elif isinstance(event, yaml.SequenceStartEvent):
            entry = Entry(self._sequence(depth), self._origin(event))
        else:
            entry = Entry(self._mapping(depth), self._origin(event))
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = (entry, self._nodes - before)
        return entry

    def _alias(self, event: yaml.AliasEvent) -> Entry:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._refuse(event, f"more than {MAX_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"alias *{event.anchor} names no anchor before it")
        entry, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        return entry

    def _sequence(self, depth: int) -> tuple[Entry, ...]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return tuple(items)

    def _mapping(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.implicit == (False, False):
                raise self._refuse(event, "a key must be plain text")
            key = event.value
            if key == "<<":
                raise self._refuse(event, "merge key '<<' found; use 'extends' instead")
            if key in entries:
                first = entries[key].origin.rpartition(":")[2]
                raise self._refuse(event, f"duplicate key {key!r}, first in line {first}")
            child = self._node(next(self._events), depth + 1)
            # A value is found by its key's line, also where it is a block or an alias.
            entries[key] = replace(child, origin=self._origin(event))
            if depth == 0 and self._wanted is not None and self._wanted <= entries.keys():
                break
        return entries

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        text: str = event.value
        if not event.implicit[0]:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text[0] in "tT"
        if _NOT_FINITE.fullmatch(text):
            raise self._refuse(event, f"found {text}; a finite number is expected")
        if len(text) > 400 and (_FLOAT.fullmatch(text) or _HEX.fullmatch(text)):
            raise self._refuse(event, f"a number of {len(text)} characters is too long")
        if _INT.fullmatch(text):
            return int(text)
        if _HEX.fullmatch(text):
            return int(text, 16)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                raise self._refuse(event, f"found {text}; a finite number is expected")
            return number
        return text
