"""What a run's time went to, in a sentence: cycle stacks and bounds, read for an architect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pimsim.result.cells import percent
from pimsim.result.words import cause_words

__all__ = [
    "Explained",
    "Timed",
    "bottleneck",
    "compute_name",
    "compute_unit",
    "main_cause",
    "nearest_bound",
]

_UNIT = {"npu": "the NPU", "pim": "PIM", "xpu": "the GPU"}
_BOUND = {
    "array": "the arrays as loaded", "xpu_compute": "the GPU's arithmetic",
    "xpu_memory": "the GPU's memory",
}  # fmt: skip
_COMPUTE = ("xpu", "npu")
_LEAST_SHARE = 0.02
"""Causes below this share of the run are no reason for its time."""


class Explained(Protocol):
    """What a sentence is made of: a result, or what a sweep keeps of one."""

    @property
    def cycles(self) -> int: ...

    @property
    def cycle_stack(self) -> Mapping[str, Mapping[str, int]]: ...

    @property
    def bound_cycles(self) -> Mapping[str, int]: ...


class Timed(Explained, Protocol):
    """What two runs' times are compared by."""

    @property
    def time_s(self) -> float: ...

    @property
    def layers_simulated(self) -> int: ...


def bottleneck(result: Explained) -> str:
    """The cause of the time, from the cycle stack and the bounds.

    What the NPU's cycles went to; where it waited for PIM, what PIM did meanwhile; and the bound
    that is nearest to the run's time.

    Parameters
    ----------
    result
        Of a run.
    """
    sentences = []
    explained = [compute_unit(result)]
    if _shares(result, explained[0]).get("pim", 0) >= _LEAST_SHARE:
        explained.append("pim")
    for unit in explained:
        shares = _shares(result, unit)
        if unit == "pim":
            for waits in (*_COMPUTE, "idle"):
                shares.pop(waits, None)
        ranked = sorted(shares.items(), key=lambda item: -item[1])[:3]
        causes = [
            f"{percent(share)} {cause_words(c)}" for c, share in ranked if share >= _LEAST_SHARE
        ]
        if causes:
            sentences.append(f"{_UNIT[unit]} spends {', '.join(causes)}")
    nearest = nearest_bound(result)
    if nearest is not None:
        unit, share = nearest
        sentences.append(
            f"the nearest bound is {_BOUND.get(unit, unit)} ({percent(share)} of the time even if "
            "all else were free)"
        )
    return "; ".join(sentences) if sentences else "no cycle stack was recorded"


def nearest_bound(result: Explained) -> tuple[str, float] | None:
    """The unit whose bound is nearest to the time, and the bound's share of it; None where there is
    none.

    Parameters
    ----------
    result
        Of a run.
    """
    if not result.bound_cycles:
        return None
    unit = max(result.bound_cycles, key=lambda name: result.bound_cycles[name])
    return unit, result.bound_cycles[unit] / result.cycles


def main_cause(result: Explained) -> str:
    """What most of the NPU's cycles went to, and if that is PIM, what most of PIM's did.

    Parameters
    ----------
    result
        Of a run.
    """
    shares = _shares(result, compute_unit(result))
    if not shares:
        return ""
    cause = max(shares, key=lambda name: shares[name])
    text = f"{percent(shares[cause])} {cause_words(cause)}"
    of_pim = _shares(result, "pim")
    for waits in _COMPUTE:
        of_pim.pop(waits, None)
    if cause == "pim" and of_pim:
        inner = max(of_pim, key=lambda name: of_pim[name])
        text += f" ({percent(of_pim[inner])} {cause_words(inner)})"
    return text


def compute_unit(result: Explained) -> str:
    """The compute side by its key in a cycle stack: ``npu``, or ``xpu`` of GPUs.

    Parameters
    ----------
    result
        Of a run.
    """
    return next((unit for unit in _COMPUTE if unit in result.cycle_stack), "npu")


def compute_name(result: Explained) -> str:
    """What a reader calls the compute side: ``NPU``, or ``GPU``.

    Parameters
    ----------
    result
        Of a run.
    """
    return _UNIT[compute_unit(result)].removeprefix("the ")


def _shares(result: Explained, unit: str) -> dict[str, float]:
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
