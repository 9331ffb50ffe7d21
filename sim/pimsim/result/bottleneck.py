"""What a run's time went to, in a sentence: cycle stacks and bounds, read for an architect."""

from __future__ import annotations

from pimsim.result.cells import percent
from pimsim.result.types import Result
from pimsim.result.words import cause_words

__all__ = ["bottleneck", "main_cause"]

_UNIT = {"npu": "the NPU", "pim": "PIM"}
_BOUND = {"array": "the arrays as loaded"}
_LEAST_SHARE = 0.02
"""Causes below this share of the run are no reason for its time."""


def bottleneck(result: Result) -> str:
    """The cause of the time, from the cycle stack and the bounds.

    What the NPU's cycles went to; where it waited for PIM, what PIM did meanwhile; and the bound
    that is nearest to the run's time.

    Parameters
    ----------
    result
        Of a run.
    """
    sentences = []
    explained = ["npu"]
    if _shares(result, "npu").get("pim", 0) >= _LEAST_SHARE:
        explained.append("pim")
    for unit in explained:
        shares = _shares(result, unit)
        if unit == "pim":
            shares.pop("npu", None)
            shares.pop("idle", None)
        ranked = sorted(shares.items(), key=lambda item: -item[1])[:3]
        causes = [
            f"{percent(share)} {cause_words(c)}" for c, share in ranked if share >= _LEAST_SHARE
        ]
        if causes:
            sentences.append(f"{_UNIT[unit]} spends {', '.join(causes)}")
    if result.bound_cycles:
        unit = max(result.bound_cycles, key=lambda name: result.bound_cycles[name])
        share = percent(result.bound_cycles[unit] / result.cycles)
        sentences.append(
            f"the nearest bound is {_BOUND.get(unit, unit)} ({share} of the time even if all else "
            "were free)"
        )
    return "; ".join(sentences) if sentences else "no cycle stack was recorded"


def main_cause(result: Result) -> str:
    """What most of the NPU's cycles went to, and if that is PIM, what most of PIM's did.

    Parameters
    ----------
    result
        Of a run.
    """
    shares = _shares(result, "npu")
    if not shares:
        return ""
    cause = max(shares, key=lambda name: shares[name])
    text = f"{percent(shares[cause])} {cause_words(cause)}"
    of_pim = _shares(result, "pim")
    of_pim.pop("npu", None)
    if cause == "pim" and of_pim:
        inner = max(of_pim, key=lambda name: of_pim[name])
        text += f" ({percent(of_pim[inner])} {cause_words(inner)})"
    return text


def _shares(result: Result, unit: str) -> dict[str, float]:
    """Of the run's cycles, what a unit spent on each cause.

    Parameters
    ----------
    result
        Of a run.
    unit
        Whose cycle stack it is (``npu``, ``pim``, ``dram_bus``).

    Returns
    -------
    dict
        By cause, those of no cycles left out; empty where there is no such stack.
    """
    stack = result.cycle_stack.get(unit, {})
    return {cause: cycles / result.cycles for cause, cycles in stack.items() if cycles}
