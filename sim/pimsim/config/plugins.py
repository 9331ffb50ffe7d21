"""Modules found by their names, ours and those of other distributions.

What is one file to add (DESIGN section 6) is found by where it lies. A distribution adds to that
with an entry point of the group ``pimsim.plugins`` that names a package of its own, laid out as
this project is: ``configs/KIND/*.yaml``, ``models/``, ``traces/``, and a module each in
``dataflows/``, ``designs/``, ``policies/`` and ``transforms/``. A name is taken once: a plugin
cannot change what another one, or pimsim, means by it.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pimsim.config.errors import InputError, near_miss

__all__ = [
    "GROUP", "ModuleName", "Plugin", "load_module", "module_names", "plugin_versions", "plugins",
]  # fmt: skip

GROUP = "pimsim.plugins"
_OURS = {
    "dataflow": "pimsim.hardware.npu.dataflows",
    "design": "pimsim.hardware.pim.designs",
    "policy": "pimsim.engine.policies",
    "transform": "pimsim.workload.transforms",
}
"""Our package of each kind; a plugin's has its last name."""


@dataclass(frozen=True)
class Plugin:
    """A package of another distribution."""

    name: str
    package: str
    folder: Path
    version: str


@cache
def plugins() -> tuple[Plugin, ...]:
    """Those that are installed, by name. Raises ``InputError`` where one is not there."""
    found = (_plugin(entry) for entry in entry_points(group=GROUP))
    return tuple(sorted(found, key=lambda plugin: plugin.name))


def _plugin(entry: EntryPoint) -> Plugin:
    try:
        spec = find_spec(entry.module)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"plugin {entry.name!r} ({GROUP}): no package {entry.module!r}; "
            "an entry point names a package with configs, models, policies and so on"
        )
    version = entry.dist.version if entry.dist is not None else ""
    return Plugin(entry.name, entry.module, Path(spec.submodule_search_locations[0]), version)


def plugin_versions() -> tuple[str, ...]:
    """Name and version of each: what a result depends on."""
    return tuple(f"{plugin.name} {plugin.version}" for plugin in plugins())


@cache
def _modules(kind: str) -> dict[str, str]:
    """Modules of a kind by the name that configs use."""
    _, *inside = _OURS[kind].split(".")
    last = inside[-1]
    places = [("pimsim", _OURS[kind], Path(__file__).parents[1].joinpath(*inside))]
    places += [(p.name, f"{p.package}.{last}", p.folder / last) for p in plugins()]
    found: dict[str, str] = {}
    for owner, package, folder in places:
        for module in pkgutil.iter_modules([str(folder)]):
            name = module.name.rstrip("_")  # ``is_``: a keyword of Python
            if name in found:
                raise InputError(
                    f"plugin {owner!r}: {kind} {name!r} is there already, in {found[name]}"
                )
            found[name] = f"{package}.{module.name}"
    return found


def module_names(kind: str) -> list[str]:
    """Names of all modules of a kind, sorted; none is imported."""
    return sorted(_modules(kind))


def load_module(kind: str, name: str) -> ModuleType:
    """The module of that name; ``InputError`` with the near miss where there is none."""
    known = _modules(kind)
    if name not in known:
        raise InputError(
            f"unknown {kind} {name!r}{near_miss(name, known)}; known: {', '.join(sorted(known))}"
        )
    return import_module(known[name])


@dataclass(frozen=True, slots=True)
class ModuleName:
    """Marks a config field as the name of a module of a kind."""

    kind: str

    def check(self, name: str) -> str:
        """``name``, if there is such a module; ``ValueError`` otherwise."""
        names = module_names(self.kind)
        if name not in names:
            raise ValueError(f"found {name!r}{near_miss(name, names)}; allowed: {', '.join(names)}")
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """As text that is checked."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
