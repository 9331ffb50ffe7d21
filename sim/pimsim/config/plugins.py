"""Modules found by their names, ours and those of other distributions.

What is one file to add (DESIGN section 6) is found by where it lies. A distribution adds to that
with an entry point of the group ``pimsim.plugins`` that names a package of its own, laid out as
this project is: ``configs/KIND/*.yaml``, ``models/``, ``traces/``, and a module each in
``arrivals/``, ``collectives/``, ``dataflows/``, ``decoding/``, ``designs/``, ``formats/``,
``kv_views/``, ``measurements/``, ``request_formats/``, ``routers/``, ``schedulers/``,
``schedules/``, ``topologies/``, ``transforms/`` and the folders of ``_VARIANTS``.
``pimsim.reproductions`` is laid out in the same way and found by the same path. A name is taken
once: a plugin cannot change what another one, or pimsim, means by it.
"""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pimsim.config.errors import InputError, near_miss

if TYPE_CHECKING:  # a list of presets needs no models
    from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

__all__ = [
    "GROUP", "ModuleName", "Plugin", "check_modules", "chosen_modules", "former_name",
    "is_reproduction", "load_class", "load_module", "module_names", "plugin_versions", "plugins",
]  # fmt: skip

Base = TypeVar("Base")

GROUP = "pimsim.plugins"
_OURS = {
    "arrivals": "pimsim.workload.arrivals",
    "collective": "pimsim.hardware.fabric.collectives",
    "dataflow": "pimsim.hardware.npu.dataflows",
    "decoding": "pimsim.workload.decoding",
    "design": "pimsim.hardware.pim.designs",
    "format": "pimsim.workload.formats",
    "kv_view": "pimsim.workload.kv_views",
    "measurement": "pimsim.capture.measurements",
    "policy": "pimsim.engine.schedules",
    "request_format": "pimsim.workload.request_formats",
    "router": "pimsim.serving.routers",
    "scheduler": "pimsim.serving.schedulers",
    "topology": "pimsim.hardware.fabric.topologies",
    "transform": "pimsim.workload.transforms",
}
"""Our package of each kind; a plugin's has its last name."""
_VARIANTS = {
    "cost_rule": "cost_rules",
    "front_end": "front_ends",
    "gpu_kernels": "gpu_kernels",
    "link_timing": "link_timings",
    "npu_attention": "npu_attention",
    "operand_layout": "operand_layouts",
    "result_writes": "result_writes",
    "setting": "settings",
    "stage_rule": "stage_rules",
    "tiling": "tilings",
    "vector_timing": "vector_timings",
}
"""Kinds whose usual choices are parts of the main path: the folder in which others have theirs."""
_REPRODUCTIONS = "pimsim.reproductions"
"""What published simulators do differently; imported only where a config asks for it."""


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
            "an entry point names a package with configs, models, schedules and so on"
        )
    version = entry.dist.version if entry.dist is not None else ""
    return Plugin(entry.name, entry.module, Path(spec.submodule_search_locations[0]), version)


def plugin_versions() -> tuple[str, ...]:
    """Name and version of each: what a result depends on."""
    return tuple(f"{plugin.name} {plugin.version}" for plugin in plugins())


@cache
def _modules(kind: str) -> dict[str, str]:
    """Modules of a kind by the name that configs use."""
    last = _VARIANTS.get(kind) or _OURS[kind].rpartition(".")[-1]
    packages = [_OURS[kind]] if kind in _OURS else []
    packages.append(f"{_REPRODUCTIONS}.{last}")
    root = Path(__file__).parents[2]
    places = [("pimsim", package, root.joinpath(*package.split("."))) for package in packages]
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
    """Names of all modules of a kind, sorted, reproductions last; none is imported.

    Parameters
    ----------
    kind
        Of modules (``policy``, ``router``).
    """
    return sorted(_modules(kind), key=lambda name: (is_reproduction(kind, name), name))


def load_module(kind: str, name: str) -> ModuleType:
    """The module of a name.

    Parameters
    ----------
    kind
        Of modules (``policy``, ``router``).
    name
        With hyphens or underscores.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    known = _modules(kind)
    name = _as_module(name, known)
    if name not in known:
        raise InputError(
            f"unknown {kind} {name!r}{near_miss(name, known)}; known: {', '.join(sorted(known))}"
        )
    return import_module(known[name])


def load_class(kind: str, name: str, attribute: str, base: type[Base]) -> type[Base]:
    """The class that the module of that name calls ``attribute``.

    Parameters
    ----------
    kind
        Of modules (``policy``, ``router``).
    name
        Of the module.
    attribute
        What modules of the kind call their class.
    base
        Which it must be derived from.

    Raises
    ------
    InputError
        Where there is no such module, or it has none that is a subclass of ``base``.
    """
    module = load_module(kind, name)
    found = getattr(module, attribute, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{kind} {name!r}: module {module.__name__} has no {attribute} that is a subclass of "
            f"{base.__module__}.{base.__qualname__}"
        )
    return found


def _as_module(name: str, known: Collection[str]) -> str:
    """``name``, or with underscores in place of hyphens, where that is a name."""
    other = name.replace("-", "_")
    return other if name not in known and other in known else name


def is_reproduction(kind: str, name: str) -> bool:
    """Whether the module of that name follows a published simulator and no hardware.

    Parameters
    ----------
    kind
        Of modules.
    name
        Of the module.
    """
    return _modules(kind).get(name, "").startswith(f"{_REPRODUCTIONS}.")


def former_name(path: Sequence[str | int], value: object = None) -> str:
    """What the key at ``path`` is called now, as the end of a message; empty where it is new.

    Parameters
    ----------
    path
        Keys from the document's root to the value.
    value
        That stands there; some names were those of a value.
    """
    former: Mapping[str, str] = import_module(_REPRODUCTIONS).FORMER_NAMES
    for begin in range(len(path)):
        key = ".".join(map(str, path[begin:]))
        for known in (key, f"{key}={value}"):
            if known in former:
                return f"; it is {former[known]} now"
    return ""


@dataclass(frozen=True, slots=True)
class ModuleName:
    """Marks a config field as the name of a module of a kind."""

    kind: str
    words: tuple[str, ...] = ()
    """Further choices, which are parts of the main path."""

    @property
    def choices(self) -> list[str]:
        """All names that are allowed."""
        return [*self.words, *module_names(self.kind)]

    def check(self, name: str) -> str:
        """The module's name, if there is such a one; ``ValueError`` otherwise."""
        choices = self.choices
        name = _as_module(name, choices)
        if name not in choices:
            raise ValueError(
                f"found {name!r}{near_miss(name, choices)}; allowed: {', '.join(choices)}"
            )
        return name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """As text that is checked."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The names, with hyphens too."""
        names = {form for name in self.choices for form in (name, name.replace("_", "-"))}
        return {**handler(core), "enum": sorted(names)}


@cache
def _module_fields(model: type[BaseModel]) -> tuple[tuple[str, ModuleName], ...]:
    """Fields of ``model`` that name a module, or list some."""
    found = []
    for name, field in model.model_fields.items():
        marks: list[Any] = list(field.metadata)
        for member in (field.annotation, *typing.get_args(field.annotation)):
            marks += typing.get_args(member)[1:] if hasattr(member, "__metadata__") else ()
        found += [(name, mark) for mark in marks if isinstance(mark, ModuleName)]
    return tuple(found)


def chosen_modules(section: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Key, kind and name of each module that ``section`` itself names.

    Parameters
    ----------
    section
        Of a config.
    """
    for key, mark in _module_fields(type(section)):
        value = getattr(section, key)
        for name in (value,) if isinstance(value, str) else value or ():
            if name not in mark.words:
                yield key, mark.kind, name


def check_modules(section: BaseModel) -> None:
    """Let each module that is not of the main path say what it needs of ``section``.

    Its ``check``, where it has one, takes the section and raises ``ValueError`` with a message that
    begins with a key.

    Parameters
    ----------
    section
        Of a config.

    Raises
    ------
    ValueError
        Of a module, with what it needs.
    """
    for _, kind, name in chosen_modules(section):
        ours = _OURS.get(kind)
        if ours is None or not _modules(kind)[name].startswith(f"{ours}."):
            check = getattr(load_module(kind, name), "check", None)
            if check is not None:
                check(section)
