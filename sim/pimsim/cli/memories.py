"""The memory that ``--memory`` names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pimsim.config.memory import MemoryConfig

__all__ = ["read_memory"]


def read_memory(name: str, overrides: Sequence[str]) -> MemoryConfig:
    """A preset, a YAML of ours, or a DRAMsim3 ``.ini``; overrides apply to each."""
    from pathlib import Path

    from pimsim.config.loader import load_memory

    path = Path(name).expanduser()
    if path.suffix.lower() != ".ini":
        return load_memory(name, overrides).config
    from pydantic import ValidationError

    from pimsim.config.compose import Layout, apply_override
    from pimsim.config.memory import MemoryConfig
    from pimsim.config.schema import explain
    from pimsim.config.tree import parse_text, plain
    from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini

    config = read_dramsim3_ini(path)
    if not overrides:
        return config
    root = parse_text(json.dumps(config.model_dump(mode="json")), name)
    for text in overrides:
        root = apply_override(root, text, MemoryConfig, Layout("memory", {}))
    try:
        return MemoryConfig.model_validate(plain(root))
    except ValidationError as error:
        raise explain(error, root, MemoryConfig) from None
