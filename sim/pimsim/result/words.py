"""Words for what results say by key: units, and causes of a cycle stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pimsim.result.metrics import METRICS
from pimsim.result.rows import CYCLE_CAUSES
from pimsim.result.types import Result

__all__ = ["OPERATOR_UNITS", "cause_words", "ordered_causes", "throughput_words", "unit_words"]

OPERATOR_UNITS: Mapping[str, str] = {
    "systolic": "NPU arrays", "vector": "vector units", "dma": "DMA", "pim": "PIM", "link": "links",
    "pim_link": "PIM's link", "xpu": "GPU", "host": "host",
}  # fmt: skip
"""Units that operators run on, in the order in which they are shown."""
_UNITS = {**OPERATOR_UNITS, "npu": "NPU", "dram_bus": "DRAM data bus"}


def unit_words(unit: str) -> str:
    """A unit of an operator or of a cycle stack.

    Parameters
    ----------
    unit
        Key of a result's rows.
    """
    return _UNITS.get(unit, unit)


def cause_words(cause: str) -> str:
    """A cause of a cycle stack.

    Parameters
    ----------
    cause
        Key of a cycle stack.
    """
    return CYCLE_CAUSES.get(cause, cause.replace("_", " "))


def ordered_causes(causes: Iterable[str]) -> list[str]:
    """Each once, in the order of ``CYCLE_CAUSES``; those that are not in it before ``idle``.

    Parameters
    ----------
    causes
        Keys of cycle stacks.
    """
    found = set(causes)
    known = [cause for cause in CYCLE_CAUSES if cause != "idle" and cause in found]
    return [*known, *sorted(found - set(CYCLE_CAUSES)), *(["idle"] if "idle" in found else [])]


def throughput_words(result: Result, digits: int | None = None) -> str:
    """Tokens/s with what it is uncertain by, and by what.

    Parameters
    ----------
    result
        Of a run.
    digits
        Behind the point; None: as the metric is always shown.
    """
    metric = METRICS["tokens_per_s"]
    text = metric.text(result.tokens_per_s, digits)
    interval = result.tokens_per_s_interval
    if interval is None or interval[0] >= interval[1]:
        return text
    low, high = (metric.number(end, digits) for end in interval)
    why = []
    if result.block_spread is not None:
        why.append(f"blocks differ, their times by {result.block_spread:.1%}")
    elif result.layers_simulated < result.layers_model:
        why.append(f"{result.layers_simulated} of {result.layers_model} blocks simulated")
    if result.fidelity.mode == "fast":
        why.append("rates for commands")
    return f"{text}, 95 % interval {low} to {high} ({'; '.join(why)})"
