"""Configs by kind: a preset's name or a YAML path to a validated, frozen config (``documents``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pimsim.config.area import AreaConfig
from pimsim.config.documents import Resolved, load_document
from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError, near_miss
from pimsim.config.memory import MemoryConfig
from pimsim.config.nccl import NcclConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimDesignConfig
from pimsim.config.resources import find_source, is_preset, looks_like_path, preset_names
from pimsim.config.run import RunConfig
from pimsim.config.system import SystemConfig
from pimsim.config.tree import read_tree
from pimsim.config.xpu import XpuConfig

__all__ = [
    "CONFIG_MODELS",
    "DEFAULT_RUN",
    "AnyRun",
    "ResolvedAny",
    "ResolvedRun",
    "load_any_run",
    "load_area",
    "load_energy",
    "load_memory",
    "load_nccl",
    "load_npu_of",
    "load_pim",
    "load_preset",
    "load_run",
    "load_stream_pim",
    "load_system",
    "run_kind",
]

DEFAULT_RUN = "neupims"
"""The run of ``pimsim run`` without a name."""

ResolvedRun = Resolved[RunConfig]
AnyRun = RunConfig | SystemConfig
"""What can be run: an NPU and its memory, or GPUs."""
ResolvedAny = Resolved[RunConfig] | Resolved[SystemConfig]

CONFIG_MODELS: dict[str, type[BaseModel]] = {
    "hardware": RunConfig,
    "memory": MemoryConfig,
    "pim": PimDesignConfig,
    "energy": EnergyConfig,
    "xpu": XpuConfig,
    "area": AreaConfig,
    "nccl": NcclConfig,
    "system": SystemConfig,
}
"""The config model of each kind of YAML; model cards belong to ``workload``."""


def load_run(name_or_path: str = DEFAULT_RUN, overrides: Sequence[str] = ()) -> ResolvedRun:
    """Load a run: a hardware preset's name or a YAML path, with ``--set`` overrides.

    Parameters
    ----------
    name_or_path
        A hardware preset's name, or the path of a run's YAML.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(RunConfig, "hardware", name_or_path, overrides)


def load_any_run(name_or_path: str = DEFAULT_RUN, overrides: Sequence[str] = ()) -> ResolvedAny:
    """Load a run on whatever computes in it: an NPU or GPUs.

    Parameters
    ----------
    name_or_path
        A hardware or system preset's name, or the path of a run's YAML.
    overrides
        ``key.of.it=value``, applied in order.

    Returns
    -------
    ResolvedAny
        Of a ``SystemConfig`` where ``run_kind`` says ``system``, else of a ``RunConfig``.

    Raises
    ------
    InputError
        With file, line, key.

    Examples
    --------
    >>> import pimsim
    >>> resolved = pimsim.load_config("neupims", ["npu.frequency=1.5GHz"])
    >>> resolved.config.npu.frequency
    1500000000
    >>> resolved.origins["npu.frequency"]
    '--set'
    """
    if run_kind(name_or_path) == "system":
        return load_system(name_or_path, overrides)
    return load_run(name_or_path, overrides)


def run_kind(name_or_path: str, folder: Path | None = None) -> str:
    """The kind of a run's document.

    Parameters
    ----------
    name_or_path
        As ``load_any_run`` takes it.
    folder
        That a relative path counts from; None: the working directory.

    Returns
    -------
    str
        ``system`` where it has an ``xpu`` section, itself or by what it extends, or is a
        preset of that kind; else ``hardware``.

    Raises
    ------
    InputError
        For a name that no preset has.
    """
    if not looks_like_path(name_or_path):
        kind = next((k for k in ("hardware", "system") if is_preset(k, name_or_path)), None)
        if kind is None:
            _refuse_unknown(name_or_path, [*preset_names("hardware"), *preset_names("system")])
        return kind or "hardware"
    path, seen = find_source("hardware", name_or_path, folder), set[Path]()
    while path not in seen:
        seen.add(path)
        entry = read_tree(path)
        keys = entry.value if isinstance(entry.value, dict) else {}
        if "xpu" in keys or "npu" in keys or "extends" not in keys:
            return "system" if "xpu" in keys else "hardware"
        parent = keys["extends"].value
        if not isinstance(parent, str):
            break
        if not looks_like_path(parent):
            return run_kind(parent)
        path = find_source("hardware", parent, path.parent)
        if not path.exists():
            break
    return "hardware"  # whose loader says what is wrong


def _refuse_unknown(name: str, names: Sequence[str]) -> None:
    """Raises ``InputError`` for a preset that no kind of run has, with the near miss among all."""
    try:
        find_source("hardware", name)
    except InputError as error:
        near = near_miss(name, names)
        if near and near not in str(error):
            known = ", ".join(names)
            raise InputError(f"unknown hardware {name!r}{near}; known: {known}") from None
        raise


def load_memory(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[MemoryConfig]:
    """Load a memory: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(MemoryConfig, "memory", name_or_path, overrides)


def load_pim(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[PimDesignConfig]:
    """Load a PIM design: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(PimDesignConfig, "pim", name_or_path, overrides)


def load_stream_pim(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[PimDesignConfig]:
    """Load a PIM design that has a controller of its own: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key, or where its commands go through a memory's controller.
    """
    found = load_pim(name_or_path, overrides)
    if found.config.controller is None:
        raise InputError(
            f"pim {name_or_path!r} has no controller of its own: its commands go through the "
            "memory's, which pimsim run and pimsim kernel attention have; a design with one is "
            "expected (such as aim)"
        )
    return found


def load_preset(kind: str, name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[Any]:
    """Load a preset or file of any kind of ``CONFIG_MODELS``.

    Parameters
    ----------
    kind
        Of ``CONFIG_MODELS``.
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(CONFIG_MODELS[kind], kind, name_or_path, overrides)


def load_energy(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[EnergyConfig]:
    """Load energy constants: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(EnergyConfig, "energy", name_or_path, overrides)


def load_area(name_or_path: str = "default") -> Resolved[AreaConfig]:
    """Load areas of building blocks: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(AreaConfig, "area", name_or_path)


def load_nccl(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[NcclConfig]:
    """Load NCCL's constants on a device: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(NcclConfig, "nccl", name_or_path, overrides)


def load_system(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved[SystemConfig]:
    """Load a system of devices and attention PIM: a preset's name or a YAML path.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_document(SystemConfig, "system", name_or_path, overrides)


def load_npu_of(name_or_path: str) -> NpuConfig:
    """The NPU of a hardware preset or of a run's YAML.

    Parameters
    ----------
    name_or_path
        Of the preset or the run.

    Raises
    ------
    InputError
        With file, line, key.
    """
    return load_run(name_or_path).config.npu
