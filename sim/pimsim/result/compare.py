"""Results side by side: numbers, and what moved between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pimsim.config.errors import InputError
from pimsim.result.bottleneck import Timed, compute_unit
from pimsim.result.metrics import METRICS
from pimsim.result.types import Result
from pimsim.result.words import cause_words

if TYPE_CHECKING:
    import pandas

__all__ = ["COMPARED", "Cause", "causes", "compare", "comparison_rows"]

COMPARED = (
    "tokens_per_s", "cycles", "time_s", "npu", "vector", "pim", "dram_bus", "command_bus",
    "energy_j", "tokens_per_j", "area_mm2",
)  # fmt: skip
"""Metrics that runs are compared by."""


def comparison_rows(
    results: Sequence[Result], names: Sequence[str] | None = None
) -> list[dict[str, str | float | int]]:
    """One row per result: headline, shares, and ratios to the first.

    ``speedup`` is throughput over the first one's, ``energy_ratio`` tokens per joule over the
    first one's, ``area_mm2`` silicon of all devices; ``error_mean`` and ``error_ci95`` (half of the
    95 % interval) are what ``fidelity`` fast is off by, relative. Names default to those of the
    configs.

    Parameters
    ----------
    results
        The first is what the others are held against.
    names
        Of each; None: those of their configs.
    """
    if not results:
        raise InputError("compare: no results given")
    labels = list(names) if names is not None else [result.name for result in results]
    if len(labels) != len(results):
        raise InputError(f"compare: {len(results)} results, but {len(labels)} names")
    first = results[0]
    return [
        {
            "name": label,
            **{name: METRICS[name].of(result) for name in COMPARED},
            "cycles": result.cycles,
            "speedup": _ratio(result.tokens_per_s, first.tokens_per_s),
            "energy_ratio": _ratio(result.tokens_per_j, first.tokens_per_j),
            "fidelity": result.fidelity.mode,
            "error_mean": result.fidelity.error_mean,
            "error_ci95": result.fidelity.error_ci95,
        }
        for label, result in zip(labels, results, strict=True)
    ]


def compare(results: Sequence[Result], names: Sequence[str] | None = None) -> pandas.DataFrame:
    """``comparison_rows`` as a table, one row per result, indexed by name.

    Parameters
    ----------
    results
        The first is what the others are held against.
    names
        Of each; None: those of their configs.
    """
    import pandas

    return pandas.DataFrame(comparison_rows(results, names)).set_index("name")


def _ratio(value: float, reference: float) -> float:
    """NaN where the reference is zero: there is nothing to compare with."""
    return value / reference if reference else float("nan")


@dataclass(frozen=True)
class Cause:
    """Why one run takes more or less time than another."""

    unit: str
    cause: str
    before: float
    """Microseconds a block, or of the run where it has one kind of block only."""
    after: float

    @property
    def saved(self) -> float:
        """Microseconds; below 0 where it costs."""
        return self.before - self.after

    def words(self) -> str:
        """One clause, as in ``waiting for weights fell by 41 % (120 to 71 us)``."""
        what = cause_words(self.cause)
        unit = _OF.get(self.unit, f"of {self.unit}")
        where = f"{what} {unit}"
        amounts = f"{self.before:,.1f} to {self.after:,.1f} us a block"
        if not self.before:
            return f"{where} came up ({amounts})"
        if not self.after:
            return f"{where} went away ({amounts})"
        share = abs(self.after / self.before - 1)
        change = "fell" if self.after < self.before else "rose"
        return f"{where} {change} by {share:.0%} ({amounts})"


def causes(before: Timed, after: Timed, most: int = 3) -> list[Cause]:
    """What moved between two runs: their cycle stacks subtracted, the largest first.

    Times are a block's, so that runs of different numbers of blocks compare. The stack of
    what computes says where the time of the run went; PIM's how long it waited for it. Being idle
    is nobody's cause.

    Parameters
    ----------
    before
        A run, or what a sweep keeps of one.
    after
        Another one, of the same work.
    most
        Causes that are told.
    """
    found = []
    computing = compute_unit(before), compute_unit(after)
    sides = [(computing[0] if computing[0] == computing[1] else "", *computing)]
    for unit, mine, other in (*sides, ("pim", "pim", "pim")):
        ours, theirs = _micro(before, mine), _micro(after, other)
        for cause in dict.fromkeys([*ours, *theirs]):
            if cause in _NO_CAUSE.get(unit, ()):
                continue
            each = Cause(unit, cause, ours.get(cause, 0.0), theirs.get(cause, 0.0))
            if abs(each.saved) >= _LEAST * (before.time_s / max(before.layers_simulated, 1)) * 1e6:
                found.append(each)
    return sorted(found, key=lambda each: -abs(each.saved))[:most]


_LEAST = 0.01
"""Of a block's time: what moves less is no cause."""
_NO_CAUSE = {"npu": ("idle",), "xpu": ("idle",), "": ("idle",), "pim": ("idle", "npu", "xpu")}
_OF = {"npu": "of the NPU", "pim": "of PIM", "xpu": "of the GPU", "": "of what computes"}


def _micro(result: Timed, unit: str) -> dict[str, float]:
    """A unit's stack in microseconds a block."""
    if not result.cycles:
        return {}
    each = result.time_s / result.cycles * 1e6 / max(result.layers_simulated, 1)
    return {cause: n * each for cause, n in result.cycle_stack.get(unit, {}).items()}
