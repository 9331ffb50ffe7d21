"""The memory that ``--memory`` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pimsim.config.memory import MemoryConfig

__all__ = ["read_memory"]


def read_memory(name: str, overrides: Sequence[str]) -> MemoryConfig:
    """A memory, with overrides whatever it is read from.

    Parameters
    ----------
    name
        A preset's name, or the path of a YAML of ours or of a DRAMsim3 ``.ini``.
    overrides
        ``key.of.it=value``, applied in order.

    Raises
    ------
    InputError
        With file, line, key.
    """
    from pimsim.config.loader import load_memory
    from pimsim.config.paths import given_path

    path = given_path(name)
    if path.suffix.lower() != ".ini":
        return load_memory(name, overrides).config
    from pydantic import ValidationError

    from pimsim.config.compose import Layout, apply_override
    from pimsim.config.documents import Resolved
    from pimsim.config.memory import MemoryConfig
    from pimsim.config.schema import explain
    from pimsim.config.tree import parse_text, plain
    from pimsim.config.units import WRITTEN
    from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini

    config = read_dramsim3_ini(path)
    if not overrides:
        return config
    root = parse_text(Resolved(config).to_yaml(), name)
    for text in overrides:
        root = apply_override(root, text, MemoryConfig, Layout("memory", {}))
    try:
        return MemoryConfig.model_validate(plain(root), context=WRITTEN)
    except ValidationError as error:
        raise explain(error, root, MemoryConfig) from None
