"""Results side by side, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pimsim.config.errors import InputError
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

__all__ = ["compare", "comparison_rows"]


def comparison_rows(
    results: Sequence[Result], names: Sequence[str] | None = None
) -> list[dict[str, str | float | int]]:
    """One row per result: headline, shares, and ratios to the first.

    ``speedup`` is throughput over the first one's, ``energy_ratio`` tokens per joule over the
    first one's. Names default to those of the configs.
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
            "tokens_per_s": result.tokens_per_s,
            "speedup": _ratio(result.tokens_per_s, first.tokens_per_s),
            "cycles": result.cycles,
            "time_s": result.time_s,
            "npu": result.utilisation.npu,
            "vector": result.utilisation.vector,
            "pim": result.utilisation.pim,
            "dram_bus": result.utilisation.dram_bus,
            "command_bus": result.utilisation.command_bus,
            "energy_j": result.energy_j.total,
            "tokens_per_j": result.tokens_per_j,
            "energy_ratio": _ratio(result.tokens_per_j, first.tokens_per_j),
        }
        for label, result in zip(labels, results, strict=True)
    ]


def compare(results: Sequence[Result], names: Sequence[str] | None = None) -> pandas.DataFrame:
    """``comparison_rows`` as a table, one row per result, indexed by name."""
    import pandas

    return pandas.DataFrame(comparison_rows(results, names)).set_index("name")


def _ratio(value: float, reference: float) -> float:
    """NaN where the reference is zero: there is nothing to compare with."""
    return value / reference if reference else float("nan")
