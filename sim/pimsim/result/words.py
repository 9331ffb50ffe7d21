"""Words for what results say by key: units, and causes of a cycle stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pimsim.result.rows import CYCLE_CAUSES

__all__ = ["OPERATOR_UNITS", "cause_words", "ordered_causes", "unit_words"]

OPERATOR_UNITS: Mapping[str, str] = {
    "systolic": "NPU arrays", "vector": "vector units", "dma": "DMA", "pim": "PIM", "link": "links",
}  # fmt: skip
"""Units that operators run on, in the order in which they are shown."""
_UNITS = {**OPERATOR_UNITS, "npu": "NPU", "dram_bus": "DRAM data bus"}


def unit_words(unit: str) -> str:
    """A unit of an operator or of a cycle stack."""
    return _UNITS.get(unit, unit)


def cause_words(cause: str) -> str:
    """A cause of a cycle stack."""
    return CYCLE_CAUSES.get(cause, cause.replace("_", " "))


def ordered_causes(causes: Iterable[str]) -> list[str]:
    """Each once, in the order of ``CYCLE_CAUSES``; those that are not in it before ``idle``."""
    found = set(causes)
    known = [cause for cause in CYCLE_CAUSES if cause != "idle" and cause in found]
    return [*known, *sorted(found - set(CYCLE_CAUSES)), *(["idle"] if "idle" in found else [])]
