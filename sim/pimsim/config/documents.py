"""From a preset's name or a YAML path to a validated, frozen config that knows its origins."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from pimsim.config.asked_once import Latest
from pimsim.config.compose import Layout, apply_override, compose
from pimsim.config.emit import emit_yaml
from pimsim.config.errors import InputError, near_miss
from pimsim.config.paths import given_path
from pimsim.config.resources import find_source, preset_names, preset_path
from pimsim.config.run import ModelConfig, WorkloadConfig
from pimsim.config.schema import explain, quantity_at
from pimsim.config.settings_text import with_files
from pimsim.config.tree import Entry, lookup, parse_text, plain, read_tree
from pimsim.config.units import WRITTEN

__all__ = ["Resolved", "check_timings", "layout_of", "load_document", "read_document"]

_PLAIN = {kind: Layout(kind, {}) for kind in ("memory", "energy", "xpu", "area", "model", "nccl")}
_PLAIN["pim"] = Layout("pim", {"memory": _PLAIN["memory"]}, alone=("device", "memory"))
_OF_A_RUN = tuple(
    f"workload.{key}" for key in WorkloadConfig.model_fields if key not in ModelConfig.model_fields
)
"""What a run asks of a machine."""
_ON_ITS_MEMORY = Layout("pim", {"memory": _PLAIN["memory"]}, alone=("device",))
_LAYOUTS = {
    **_PLAIN,
    "hardware": Layout(
        "hardware",
        {
            **{kind: _PLAIN[kind] for kind in ("memory", "pim", "energy")},
            "pim_memory": _PLAIN["memory"],
        },
        (("workload", "model"), ("workload", "requests"), ("workload", "decoding")),
        alone=_OF_A_RUN,
    ),
    "system": Layout(
        "system",
        {"xpu": _PLAIN["xpu"], "pim": _ON_ITS_MEMORY, "nccl": _PLAIN["nccl"]},
        (("workload", "model"), ("workload", "requests"), ("workload", "decoding")),
        alone=_OF_A_RUN,
    ),
}


def layout_of(kind: str) -> Layout:
    """How files of a kind (``resources.KINDS``) are put together.

    Parameters
    ----------
    kind
        Of configs, as the folder below ``configs`` is called.
    """
    return _LAYOUTS[kind]


M = TypeVar("M", bound=BaseModel)


_NOTHING = Entry({}, "default")
_MOST_FILES = 16
"""That extend one another."""


@dataclass(frozen=True)
class Resolved(Generic[M]):
    """A validated config and where each of its values came from."""

    config: M
    tree: Entry = _NOTHING
    """What it was read from."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how it was put together, a line each."""
    references: tuple[tuple[str, ...], ...] = ()
    """Paths to values that name a preset or a file."""

    @cached_property
    def origins(self) -> Mapping[str, str]:
        """``file:line``, ``--set`` or ``default`` of each leaf, by its dotted key."""
        return dict(_origins(self.config.model_dump(mode="json"), self.tree, ()))

    @cached_property
    def sha256(self) -> str:
        """Hash of the config's canonical JSON: the same values, the same hash."""
        text = json.dumps(self.config.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self, *, with_origins: bool = False, folder: Path | None = None) -> str:
        """The whole config as YAML that loads to the same config.

        Parameters
        ----------
        with_origins
            As comments.
        folder
            Where the text will lie, from which relative names of files then count; None: the
            current one.
        """
        model = type(self.config)

        def with_unit(path: tuple[str, ...], value: object) -> object:
            quantity = quantity_at(model, path)
            return quantity.format(value) if quantity and isinstance(value, int) else value

        def origin(path: tuple[str, ...]) -> str:
            return self.origins[".".join(path)]

        values = self.config.model_dump(mode="json")
        if folder is not None:
            for path in self.references:
                _name_from(values, path, folder)
        return emit_yaml(values, origin if with_origins else None, with_unit)


def _name_from(values: dict[str, Any], path: tuple[str, ...], folder: Path) -> None:
    """Have the relative file that ``path`` names count from ``folder``."""
    *sections, key = path
    for each in sections:
        values = values.get(each) or {}
    name = values.get(key)
    if isinstance(name, str):
        values[key] = with_files(name, partial(_seen_from, folder))


def _seen_from(folder: Path, name: str) -> str:
    file = given_path(name)
    return name if file.is_absolute() else os.path.relpath(file.resolve(), folder.resolve())


def load_document(
    model: type[M], kind: str, name_or_path: str, overrides: Sequence[str] = ()
) -> Resolved[M]:
    """Load a preset or file of a kind.

    Parameters
    ----------
    model
        Of the document.
    kind
        Of ``resources.KINDS``.
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order on top of the file.

    Raises
    ------
    InputError
        With file, line, key, what was found and what is allowed.
    """
    layout = _LAYOUTS[kind]
    root = compose(name_or_path, layout)
    if overrides:
        return _checked(model, kind, name_or_path, overrides, root)
    known = _AS_THEY_ARE.get((id(root), model))
    if known is None:
        found = _checked(model, kind, name_or_path, overrides, root)
        known = root, found
        _AS_THEY_ARE.put((id(root), model), known)
    resolved: Resolved[M] = known[1]
    return resolved


_AS_THEY_ARE: Latest[tuple[Entry, Resolved[Any]]] = Latest(32)
"""Presets and files without overrides, each with what it was put together to."""


def _checked(
    model: type[M], kind: str, name_or_path: str, overrides: Sequence[str], root: Entry
) -> Resolved[M]:
    layout = _LAYOUTS[kind]
    notes: tuple[str, ...] = ()
    if kind == "hardware":
        root, notes = _with_memory_of_pim(root, name_or_path, overrides)
    for text in overrides:
        root = apply_override(root, text, model, layout)
    try:
        config = model.model_validate(plain(root), context=WRITTEN)
    except ValidationError as error:
        raise explain(error, root, model) from None
    check_timings(config, root, ())
    return Resolved(config, root, notes, layout.references)


def _with_memory_of_pim(
    root: Entry, name_or_path: str, overrides: Sequence[str]
) -> tuple[Entry, tuple[str, ...]]:
    """A run that gets another PIM design by ``--set pim=NAME`` gets that design's memory too,
    unless its own is set, or named by a file of its own that is no preset; and in a line that it
    is another one. Where PIM is in a memory of its own (``pim_memory``), it is that one."""
    chosen = dict(text.partition("=")[::2] for text in overrides)
    design = parse_text(chosen.get("pim", ""), "--set").value
    assert isinstance(root.value, dict)
    key = "memory" if _name_of(root.value.get("pim_memory")) is None else "pim_memory"
    if not isinstance(design, str) or not {"memory", "pim_memory"}.isdisjoint(chosen):
        return root, ()
    try:
        found = compose(design, _LAYOUTS["pim"]).value
    except InputError:
        return root, ()  # the override itself says what is wrong
    if not isinstance(found, dict) or "memory" not in found:
        return root, ()
    theirs, own = _name_of(found["memory"]), _name_of(root.value.get(key))
    if theirs == own:
        return root, ()
    where = _own_memory(find_source("hardware", name_or_path), key)
    if where is not None:
        note = (
            f"pim={design} is on {own}, which {where} names, and not on the memory that it would "
            f"bring along: {key}={theirs} takes that"
        )
        return root, (note,)
    note = (
        f"pim={design} brings its memory {theirs} along, in place of {own}: {key}={own} keeps that"
    )
    return replace(root, value={**root.value, key: found["memory"]}), (note,)


def _name_of(memory: Entry | None) -> object:
    """What a memory's document is called."""
    if memory is None or not isinstance(memory.value, dict) or "name" not in memory.value:
        return None
    return memory.value["name"].value


def _own_memory(path: Path, key: str) -> str | None:
    """File and line where a run's file that is no preset, or one that it extends, names its
    memory (``key``); None: only a preset does."""
    for _ in range(_MOST_FILES):
        if path in (preset_path("hardware", name) for name in preset_names("hardware")):
            return None
        entry = read_tree(path)
        assert isinstance(entry.value, dict)
        if key in entry.value:
            return entry.value[key].origin
        parent = entry.value.get("extends")
        if parent is None or not isinstance(parent.value, str):
            return None
        path = find_source("hardware", parent.value, path.parent)
    return None


def check_timings(config: BaseModel, root: Entry, path: tuple[str, ...]) -> None:
    """Refuse a timing that nothing reads, as ``--set`` does, in this section and those below.

    One that came with rules which a file further down replaced is left over, and stays.

    Parameters
    ----------
    config
        The section, checked.
    root
        The document, with where each value comes from.
    path
        Of the section in the document.

    Raises
    ------
    InputError
        With the timing, its file and line, and the near miss.
    """
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            check_timings(section, root, (*path, name))
    unread: set[str] = getattr(config, "unread_timings", set())
    here, _ = lookup(root, path)
    rules, _ = lookup(root, (*path, "rules"))
    for key in sorted(unread):
        entry, _ = lookup(root, (*path, "timings", key))
        replaced = _file(rules) in (_file(here), "--set") and _file(entry) != _file(rules)
        if not replaced:
            known = set(config.model_dump(include={"timings"})["timings"]) - unread
            raise InputError(
                f"{entry.origin}: {'.'.join((*path, 'timings', key))}: no rule, latency or "
                f"interval has it, so that it would change nothing{near_miss(key, known)}"
            )


def _file(entry: Entry) -> str:
    return entry.origin.rpartition(":")[0] or entry.origin


def read_document(model: type[M], path: Path) -> M:
    """A YAML file that is no preset.

    Parameters
    ----------
    model
        Of the document.
    path
        Of the file.

    Raises
    ------
    InputError
        With file, line, key.
    """
    root = read_tree(path)
    try:
        return model.model_validate(plain(root), context=WRITTEN)
    except ValidationError as error:
        raise explain(error, root, model) from None


def _origins(
    values: Mapping[str, Any], root: Entry, path: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            yield from _origins(value, root, here)
        else:
            entry, steps = lookup(root, here)
            yield ".".join(here), entry.origin if steps == len(here) else "default"
