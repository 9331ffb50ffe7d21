"""A service's YAML, whose scheduler and arrivals bring the keys of their sections along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from pimsim.config.compose import Layout, apply_override, compose
from pimsim.config.documents import Resolved, check_timings, layout_of
from pimsim.config.errors import InputError
from pimsim.config.loader import run_kind
from pimsim.config.plugins import ModuleName, load_module
from pimsim.config.run import MachineConfig
from pimsim.config.schema import explain
from pimsim.config.service import ServiceConfig
from pimsim.config.system import GpuMachineConfig
from pimsim.config.traffic import FROM_FILE, RequestsConfig
from pimsim.config.tree import Entry, lookup, plain
from pimsim.config.units import WRITTEN

__all__ = ["CHOICES", "ResolvedService", "load_service", "service_model"]

ResolvedService = Resolved[ServiceConfig]


def _is_gpus(entry: Entry) -> bool:
    """Whether a machine's keys, or what it extends, are of GPUs. They are resolved before."""
    return isinstance(entry.value, dict) and "xpu" in entry.value


def _machine_layout(entry: Entry, folder: Path | None) -> Layout:
    """Of an NPU or of GPUs, by what the machine names, extends or has."""
    parent = entry
    if isinstance(entry.value, dict):
        if "xpu" in entry.value or "npu" in entry.value:
            return layout_of("system" if _is_gpus(entry) else "hardware")
        parent = entry.value.get("extends", entry)
    if not isinstance(parent.value, str):
        return layout_of("hardware")
    try:
        return layout_of(run_kind(parent.value, folder))
    except InputError as error:
        raise InputError(f"{parent.origin}: {error}") from None


_LAYOUT = Layout(
    "service", {"machine": replace(layout_of("hardware"), chosen=_machine_layout)},
    (
        ("requests", "file"), ("model",), ("step_time", "profile", "folder"),
        ("decode", "step_time", "profile", "folder"), ("speculation", "strategy"),
    ),
)  # fmt: skip
_OF_THE_MACHINE = (("machine", "workload", "model"),)
CHOICES = (
    (("scheduler", "name"), "scheduler", lambda module: module.SCHEDULER.Settings),
    (("requests", "arrivals", "process"), "arrivals", lambda module: module.SETTINGS),
)
"""Keys that name a module, its kind, and where it has its settings."""


def load_service(name_or_path: str, overrides: Sequence[str] = ()) -> ResolvedService:
    """Load a service. Another scheduler, or process of arrivals, drops the keys of the former one
    that it does not have.

    Parameters
    ----------
    name_or_path
        A preset's name (``configs/service``) or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key, what was found and what is allowed.
    """
    root = compose(name_or_path, _LAYOUT)
    for text in overrides:
        root = _pruned(apply_override(root, text, service_model(root), _LAYOUT), root, text)
    model = service_model(root)
    try:
        config = model.model_validate(plain(root), context=WRITTEN)
    except ValidationError as error:
        raise explain(error, root, model) from None
    check_timings(config, root, ())
    return Resolved(config, root, references=_LAYOUT.references + _OF_THE_MACHINE)


def service_model(root: Entry) -> type[ServiceConfig]:
    """The config model of a document: with the keys of the scheduler, of the arrivals and of the
    kind of machine that it names.

    Parameters
    ----------
    root
        The document.

    Raises
    ------
    InputError
        For a name that is none.
    """
    scheduler, arrivals = (
        _settings(root, path, kind, settings) for path, kind, settings in CHOICES
    )
    fields: dict[str, Any] = {}
    machine, found = lookup(root, ("machine",))
    kind = GpuMachineConfig if found and _is_gpus(machine) else MachineConfig
    fields["machine"] = (kind | None, None)
    if scheduler is not None:
        fields["scheduler"] = (scheduler, ...)
    if arrivals is not None:
        own = create_model(
            "RequestsConfig", __base__=RequestsConfig, __doc__=RequestsConfig.__doc__,
            arrivals=(arrivals, ...),
        )  # fmt: skip
        fields["requests"] = (own, ...)
    return create_model(
        "ServiceConfig", __base__=ServiceConfig, __doc__=ServiceConfig.__doc__, **fields
    )


def _settings(root: Entry, path: tuple[str, ...], kind: str, settings: Any) -> Any:
    entry, steps = lookup(root, path)
    if steps < len(path) or not isinstance(entry.value, str) or entry.value == FROM_FILE:
        return None
    try:
        name = ModuleName(kind, (FROM_FILE,) if kind == "arrivals" else ()).check(entry.value)
    except ValueError as error:  # before its other keys are found to be nobody's
        raise InputError(f"{entry.origin}: {'.'.join(path)}: {error}") from None
    return settings(load_module(kind, name))


def _pruned(root: Entry, before: Entry, text: str) -> Entry:
    """Without the keys of a scheduler, or process, that ``text`` has just replaced."""
    changed = tuple(part.strip() for part in text.partition("=")[0].split("."))
    for path, kind, settings in CHOICES:
        if changed not in (path, path[:-1]):
            continue
        own = _settings(root, path, kind, settings)
        section, _ = lookup(root, path[:-1])
        if not isinstance(section.value, dict) or path[-1] not in section.value:
            continue
        if own is None and section.value[path[-1]].value != FROM_FILE:
            continue
        fields = {path[-1]} if own is None else set(own.model_fields)
        # a section that was given whole keeps what it was given, to be refused where it is wrong
        given = set()
        if changed != path:
            former = {key: lookup(before, (*path[:-1], key))[0] for key in section.value}
            given = {key for key, one in section.value.items() if one is not former[key]}
        kept = {key: one for key, one in section.value.items() if key in fields | given}
        root = _with(root, path[:-1], replace(section, value=kept))
    return root


def _with(root: Entry, path: tuple[str, ...], section: Entry) -> Entry:
    if not path:
        return section
    assert isinstance(root.value, dict)
    inner = _with(root.value[path[0]], path[1:], section)
    return replace(root, value={**root.value, path[0]: inner})
