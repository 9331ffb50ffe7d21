"""Files put together: presets by name, ``extends``, sections of their own kind, ``--set``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from pimsim.config.asked_once import Latest, files_as_read, unchanged
from pimsim.config.errors import InputError, near_miss
from pimsim.config.paths import given_path
from pimsim.config.plugins import former_name
from pimsim.config.resources import (
    display_path,
    find_source,
    looks_like_path,
    preset_names,
)
from pimsim.config.schema import is_open_mapping, keys_at
from pimsim.config.settings_text import with_files
from pimsim.config.tree import Entry, lookup, merge, parse_text, read_tree

__all__ = ["Layout", "apply_override", "compose"]

_MAX_CHAIN = 16
_SET_ORIGIN = "--set"


@dataclass(frozen=True, slots=True)
class Layout:
    """How files of one kind are put together."""

    kind: str
    sections: Mapping[str, Layout]
    """Keys whose value is a document of another kind: a name, a path, or a mapping."""
    references: tuple[tuple[str, ...], ...] = ()
    """Paths to values that name a preset or a file; relative files count from the YAML's."""
    alone: tuple[str, ...] = ()
    """Keys of a document by itself (``workload.requests`` of a section's), which do not come along
    where it is a section of another."""
    chosen: Callable[[Entry, Path | None], Layout] | None = None
    """Of a section that may be of several kinds: which one it is, by what stands in it and the
    folder that relative paths count from."""

    def of(self, entry: Entry, folder: Path | None) -> Layout:
        """How ``entry``, a section, is put together.

        Parameters
        ----------
        entry
            A name, a path or a mapping.
        folder
            That a relative path counts from.
        """
        return self if self.chosen is None else self.chosen(entry, folder)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Files that extend each other, down to the one that is read, and all that were read."""

    files: tuple[Path, ...] = ()
    read: list[Path] = field(default_factory=list)

    def and_then(self, path: Path) -> _Chain:
        self.read.append(path)
        return _Chain((*self.files, path), self.read)


_Files = tuple[tuple[Path, tuple[int, ...]], ...]
_DOCUMENTS: Latest[tuple[_Files, Layout, Entry]] = Latest(64)
"""Whole documents, of files that nobody has written to since."""


def compose(name_or_path: str, layout: Layout) -> Entry:
    """The whole document behind a preset's name or a path, every ``extends`` carried out.

    Parameters
    ----------
    name_or_path
        A preset's name, or the path of a YAML file.
    layout
        How files of its kind are put together.

    Returns
    -------
    Entry
        With the origin, file and line, of each value.

    Raises
    ------
    InputError
        For what is not found, extends itself, or is no such document.
    """
    return _begun(find_source(layout.kind, name_or_path), layout)


def _begun(path: Path, layout: Layout) -> Entry:
    """The document of a file that no other one extends."""
    key = (path, None if path.is_absolute() else os.getcwd(), id(layout))
    known = _DOCUMENTS.get(key)
    if known is not None and unchanged(known[0]):
        return known[2]
    chain = _Chain()
    found = _load(path, layout, chain)
    files = files_as_read(chain.read)
    if files is not None:
        _DOCUMENTS.put(key, (files, layout, found))
    return found


def _load(path: Path, layout: Layout, chain: _Chain) -> Entry:
    again = next((at for at, file in enumerate(chain.files) if _is_same(file, path)), None)
    if again is not None:
        circle = " -> ".join(map(display_path, (*chain.files[again:], path)))
        raise InputError(f"{display_path(path)}: extends goes in a circle: {circle}")
    if len(chain.files) >= _MAX_CHAIN:
        raise InputError(f"{display_path(path)}: more than {_MAX_CHAIN} files extend each other")
    entry = read_tree(path)
    assert isinstance(entry.value, dict)
    value = dict(entry.value)
    value.setdefault("name", Entry(path.stem, f"{display_path(path)}:1"))
    named = replace(entry, value=value)
    return _resolve(named, layout, path.parent, chain.and_then(path))


def _is_same(one: Path, other: Path) -> bool:
    # of another name it may be a link to the same, which ``_MAX_CHAIN`` ends
    return one.name == other.name and one.resolve() == other.resolve()


def _resolve(entry: Entry, layout: Layout, folder: Path | None, chain: _Chain | None) -> Entry:
    """Carry out ``extends`` here and in the sections of ``entry``, a mapping."""
    assert isinstance(entry.value, dict)
    value = dict(entry.value)
    parent = value.pop("extends", None)
    for key, section in layout.sections.items():
        if key in value:
            value[key] = _section(value[key], section, folder, chain)
    own = Entry(value, entry.origin)
    for path in layout.references:
        own = _anchor_file(own, path, folder)
    if parent is None:
        return own
    base = _extended(parent, layout, folder, chain)
    return merge(base, own)


def _section(entry: Entry, layout: Layout, folder: Path | None, chain: _Chain | None) -> Entry:
    layout = layout.of(entry, folder)
    if isinstance(entry.value, str):
        found = _extended(entry, layout, folder, chain)
        return replace(_without(found, layout.alone), replaces=True)
    if not isinstance(entry.value, dict):
        return entry
    own = {key for key in layout.alone if _has(entry, key)}
    resolved = _resolve(entry, layout, folder, chain)
    # what stands in the section itself stays, to be refused
    dropped = [key for key in layout.alone if key not in own]
    return replace(_without(resolved, dropped), replaces="extends" in entry.value)


def _has(entry: Entry, dotted: str) -> bool:
    path = tuple(dotted.split("."))
    return lookup(entry, path)[1] == len(path)


def _without(entry: Entry, keys: Sequence[str]) -> Entry:
    assert isinstance(entry.value, dict)
    kept = {k: v for k, v in entry.value.items() if k not in keys}
    for dotted in keys:
        key, dot, rest = dotted.partition(".")
        if dot and key in kept and isinstance(kept[key].value, dict):
            kept[key] = _without(kept[key], [rest])
    return replace(entry, value=kept)


def _extended(entry: Entry, layout: Layout, folder: Path | None, chain: _Chain | None) -> Entry:
    if not isinstance(entry.value, str):
        raise InputError(
            f"{entry.origin}: extends takes the name of a {layout.kind} preset or a path, "
            f"found {entry.value!r}"
        )
    try:
        path = find_source(layout.kind, entry.value, folder)
    except InputError as error:
        raise InputError(f"{entry.origin}: {error}") from None
    if looks_like_path(entry.value) and not path.exists():
        raise InputError(f"{entry.origin}: {entry.value}: no such file")
    return _begun(path, layout) if chain is None else _load(path, layout, chain)


def _anchor_file(entry: Entry, path: tuple[str, ...], folder: Path | None) -> Entry:
    """Make a relative file name at ``path`` count from ``folder``; presets' names stay."""
    key, *rest = path
    if not isinstance(entry.value, dict) or key not in entry.value:
        return entry
    child = entry.value[key]
    if rest:
        changed = _anchor_file(child, tuple(rest), folder)
    elif isinstance(child.value, str) and folder is not None:
        changed = replace(child, value=with_files(child.value, partial(_counted_from, folder)))
    else:
        return entry
    return replace(entry, value={**entry.value, key: changed})


def _counted_from(folder: Path, name: str) -> str:
    file = given_path(name)
    return name if file.is_absolute() else str(folder / file)


def apply_override(entry: Entry, text: str, model: type[BaseModel], layout: Layout) -> Entry:
    """One ``--set key.of.it=value``, the value in YAML. Unknown keys get their near miss.

    Parameters
    ----------
    entry
        The document so far.
    text
        As it stands behind ``--set``.
    model
        Of the document, for the keys that there are.
    layout
        How files of its kind are put together.

    Returns
    -------
    Entry
        A new one; ``entry`` stays as it is.

    Raises
    ------
    InputError
        For a key that there is not, and for what is no YAML.
    """
    dotted, equals, raw = text.partition("=")
    path = tuple(part.strip() for part in dotted.split("."))
    if not equals or not all(path):
        raise InputError(f"--set {text}: key.of.it=value expected, such as memory.tCK=1ns")
    parsed = parse_text(raw, f"--set {text}")
    return _set(entry, path, (), _relabel(parsed), model, layout, text)


def _relabel(entry: Entry) -> Entry:
    value = entry.value
    if isinstance(value, dict):
        return Entry({key: _relabel(child) for key, child in value.items()}, _SET_ORIGIN)
    if isinstance(value, tuple):
        return Entry(tuple(_relabel(child) for child in value), _SET_ORIGIN)
    return Entry(value, _SET_ORIGIN)


def _set(
    entry: Entry,
    path: tuple[str, ...],
    done: tuple[str, ...],
    value: Entry,
    model: type[BaseModel],
    layout: Layout,
    text: str,
) -> Entry:
    key, rest = path[0], path[1:]
    here = (*done, key)
    children = entry.value
    if children is None:
        raise InputError(
            f"--set {text}: {'.'.join(done)} is null here; give it a value first, "
            f"such as --set {'.'.join(done)}={_example(done, layout)}"
        )
    if not isinstance(children, dict):
        raise InputError(f"--set {text}: {'.'.join(done)} has no keys; set it whole")
    # In an open mapping (timings), a new name would be read by nothing: set without effect.
    known = list(children) if is_open_mapping(model, done) else keys_at(model, done)
    if key not in known:
        raise InputError(
            f"--set {text}: unknown key {'.'.join(here)!r}"
            + (
                former_name(here, text.partition("=")[2])
                or f"{near_miss(key, known)}; allowed: {', '.join(sorted(known)) or 'none'}"
            )
        )
    section = layout.sections.get(key, Layout("", {}))
    if not rest:
        new = _section(value, section, None, None) if section.kind else value
        old = children.get(key)
        merged = new if old is None else merge(old, new)
    else:
        child = children.get(key, Entry({}, _SET_ORIGIN))
        merged = _set(child, rest, here, value, model, section.of(child, None), text)
    return replace(entry, value={**children, key: merged})


def _example(path: tuple[str, ...], layout: Layout) -> str:
    section = layout.sections.get(path[-1])
    names = preset_names(section.kind) if section else []
    return names[0] if names else "..."
