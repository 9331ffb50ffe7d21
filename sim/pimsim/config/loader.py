"""Configs by kind: a preset's name or a YAML path to a validated, frozen config (``documents``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from pimsim.config.area import AreaConfig
from pimsim.config.documents import Resolved, load_document
from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.nccl import NcclConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimDesignConfig
from pimsim.config.run import RunConfig
from pimsim.config.system import SystemConfig
from pimsim.config.xpu import XpuConfig

__all__ = [
    "CONFIG_MODELS",
    "DEFAULT_RUN",
    "ResolvedRun",
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
]

DEFAULT_RUN = "neupims"
"""The run of ``pimsim run`` without a name."""

ResolvedRun = Resolved[RunConfig]

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
