"""What a result depends on, by content: the one hash of provenance, stores and calibrations.

A result follows from its resolved config, the files that it names (model, requests, routing,
sparsity), the table of areas, what plugins bring and pimsim's own sources. Of the sources those
count that a simulation can reach; that nothing else is, the import contracts in ``pyproject.toml``
see to. Compiled kernels are kept by content too, of their bytecode (``hardware/compiled.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.plugins import plugins

if TYPE_CHECKING:
    from pimsim.config.documents import Resolved

__all__ = [
    "HARDWARE", "SERVICE", "SIMULATION", "digest", "folder_sha256", "machine_content",
    "run_content", "service_content", "sources_sha256",
]  # fmt: skip

HARDWARE = ("__init__.py", "config", "hardware")
"""Sources that the timing of a part depends on."""
SIMULATION = (
    *HARDWARE, "workload", "mapping", "engine", "result", "reproductions", "simulate.py",
    "technique_runs.py", "intervals.py",
)  # fmt: skip
"""Sources that a result depends on."""
SERVICE = (
    "__init__.py", "config", "workload", "serving", "result", "reproductions", "services.py",
    "service_pools.py", "hardware/compiled.py", "intervals.py",
)  # fmt: skip
"""The same of a service whose step times are given."""


def digest(*parts: object) -> str:
    """Of values that JSON can hold: equal values, equal hash, and no two ways to read one."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def folder_sha256(folder: Path, suffixes: tuple[str, ...] = (".py",)) -> str:
    """Names and contents of all files below ``folder`` that end so.

    Parameters
    ----------
    folder
        Whose files, and those of folders below it, are read.
    suffixes
        Ends of names.
    """
    found = sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes and path.is_file():
            content = sha256(path.read_bytes()).digest()
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + content)
    return found.hexdigest()


@cache
def sources_sha256(names: tuple[str, ...] = SIMULATION) -> str:
    """Of pimsim's own sources: packages and modules directly below it. Read once a process, as
    Python reads them.

    Parameters
    ----------
    names
        Of packages and modules.
    """
    package = Path(__file__).parents[1]
    found = []
    for name in names:
        path = package / name
        own = folder_sha256(path) if path.is_dir() else sha256(path.read_bytes()).hexdigest()
        found.append((name, own))
    return digest(found)


def service_content(config: object, inputs: Mapping[str, str], simulated: bool = False) -> str:
    """The hash of all that the result of a service depends on.

    Parameters
    ----------
    config
        Whose values count.
    inputs
        Hash of each file that it names, by key.
    simulated
        Whether its steps are those of a machine, so that the simulator's sources count.
    """
    return digest({
        "config": config, "inputs": dict(inputs), "plugins": _plugins(),
        "sources": sources_sha256(tuple(dict.fromkeys(SERVICE + SIMULATION * simulated))),
    })  # fmt: skip


def machine_content(config: object, inputs: Mapping[str, str]) -> str:
    """The hash of all that a machine's steps depend on.

    Parameters
    ----------
    config
        Whose values count.
    inputs
        Hash of each file that its model names, by key.
    """
    return digest({
        "config": config, "inputs": dict(inputs), "plugins": _plugins(),
        "sources": sources_sha256(tuple(dict.fromkeys((*SIMULATION, "serving")))),
    })  # fmt: skip


@cache
def _plugins() -> list[tuple[str, str, str]]:
    """Name, version and sources of each; their presets count where a config uses them."""
    return [(one.name, one.version, folder_sha256(one.folder)) for one in plugins()]


def run_content(resolved: Resolved[Any], inputs: Mapping[str, str]) -> str:
    """The hash of all that the result of a run depends on.

    Parameters
    ----------
    resolved
        Its config.
    inputs
        What else it is given, by name: of each key of ``workload`` the hash of what that names
        (``workload.batch.input_hashes``).

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    InputError
        Where a plugin is broken.
    """
    from pimsim.config.loader import load_area

    return digest({
        "config": resolved.config.model_dump(mode="json"), "inputs": dict(inputs),
        "area": load_area().sha256, "plugins": _plugins(), "sources": sources_sha256(),
    })  # fmt: skip
