"""Every preset as it resolves: in full, or where another one is much the same, what differs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from cases import values
from facts import facts

KINDS = (
    "memory", "pim", "hardware", "xpu", "system", "nccl", "energy", "area", "service", "model",
)  # fmt: skip
MOST_ALIKE = 0.5
"""Share of lines that may differ from the nearest preset's, for the difference to be told."""


def alike(texts: dict[str, list[str]]) -> Iterator[str]:
    """The first in full, each other one as it differs from the nearest of those before it."""
    told: dict[str, list[str]] = {}
    for name, lines in texts.items():
        mine = set(lines)
        nearest = min(told, key=lambda one: len(mine.symmetric_difference(told[one])), default=None)
        told[name] = lines
        if nearest is None or len(mine.symmetric_difference(told[nearest])) > MOST_ALIKE * len(
            mine
        ):
            yield f"=== {name}"
            yield from lines
            continue
        yield f"=== {name}: as {nearest}, but"
        for line in difflib.unified_diff(told[nearest], lines, n=0, lineterm=""):
            if not line.startswith(("---", "+++", "@@")):
                yield line


def _resolved(kind: str) -> dict[str, list[str]]:
    from pimsim.config.resources import preset_names

    return {name: list(facts(_config(kind, name))) for name in sorted(preset_names(kind))}


def _config(kind: str, name: str) -> Any:
    from pimsim.config import documents, loader
    from pimsim.config.service_loader import load_service
    from pimsim.workload.cards import ModelCard

    if kind == "model":
        return documents.load_document(ModelCard, "model", name, []).config
    if kind == "service":
        return load_service(name, []).config
    return loader.load_preset(kind, name).config


def _register(kind: str) -> None:
    @values(f"presets/{kind}")
    def _lines() -> Iterator[str]:
        yield from alike(_resolved(kind))


for _kind in KINDS:
    _register(_kind)
