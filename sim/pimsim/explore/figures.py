"""The figures of a point: what a sweep keeps of a result, and the columns of its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pimsim.config.prices import Prices
from pimsim.result.cost import Priced
from pimsim.result.metrics import METRICS
from pimsim.result.types import Energy, Result, Utilisation, fidelity_words

__all__ = [
    "COLUMNS", "OPEN_COLUMNS", "Kept", "flat_figures", "kept_figures", "kept_of_row", "metrics_of",
    "row_fidelity", "row_slack",
]  # fmt: skip

_KEPT = (
    "cycles", "time_s", "tokens_per_s", "tokens", "model", "layers_simulated", "layers_model",
    "iteration_s", "devices", "tokens_per_j", "utilisation", "energy_j", "cycle_stack",
    "bound_cycles", "fidelity", "area_mm2", "memory_bytes", "power_w", "warnings",
)  # fmt: skip
"""Fields of a result."""
_PROVENANCE = ("config_sha256", "trace_sha256", "content_sha256", "version")
_PARTS = {
    "utilisation": tuple(each.name for each in fields(Utilisation)),
    "energy_j": tuple(each.name for each in fields(Energy)),
    "fidelity": ("error_mean", "error_ci95"),
}
_OPEN = ("bound_cycles", "cycle_stack", "area_mm2", "power_w")
"""Fields whose parts depend on the machine."""
_FLAT = ("utilisation", "energy_j", "bound_cycles", "area_mm2", "power_w")
"""Fields whose parts are columns by dotted name."""
OPEN_COLUMNS = (*(f"{name}." for name in _OPEN), "decoding.")
"""Beginnings of columns that depend on the machine, or on the decoding strategy."""
COLUMNS = tuple(
    column
    for name in _KEPT
    if name not in _OPEN
    for column in (
        *((name,) if name not in ("utilisation", "energy_j") else ()),
        *(f"{name}.{part}" for part in _PARTS.get(name, ())),
    )
)
"""Columns that every table has."""


def kept_figures(result: Result) -> dict[str, Any]:
    """The parts of a result that do not grow with its length and do not change from run to run.

    Parameters
    ----------
    result
        Of a run.

    Returns
    -------
    dict
        As JSON takes it.
    """
    kept = result.to_dict(_KEPT if result.decoding is None else (*_KEPT, "decoding"))
    kept["provenance"] = {name: getattr(result.provenance, name) for name in _PROVENANCE}
    return kept


def flat_figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Figures that were kept, by column of a table: nested ones under dotted names.

    Parameters
    ----------
    figures
        As ``kept_figures`` gives them.
    """
    for name, value in figures.items():
        if name in _FLAT:
            for part, number in value.items():
                yield f"{name}.{part}", number
        elif name == "decoding":
            shares = value["flops_share"]
            for part, number in value.items():
                if number is not shares:
                    yield f"{name}.{part}", number
            for unit, share in shares.items():
                yield f"{name}.flops_share.{unit}", share
        elif name == "cycle_stack":
            for unit, causes in value.items():
                for cause, cycles in causes.items():
                    yield f"{name}.{unit}.{cause}", cycles
        elif name == "fidelity":
            yield "fidelity", value["mode"]
            for part in _PARTS[name]:
                yield f"{name}.{part}", value[part]
        elif name == "warnings":
            yield name, "; ".join(value)
        elif name != "provenance":
            yield name, value


def metrics_of(figures: Mapping[str, Any], prices: Prices | None = None) -> dict[str, Any]:
    """Figures that were kept, by column, and all metrics by name.

    Parameters
    ----------
    figures
        As ``kept_figures`` gives them.
    prices
        Of parts and energy; None: nothing has a cost.

    Returns
    -------
    dict
        Not a number, where a metric is not known of the point.
    """
    flat = dict(flat_figures(figures))
    row = flat if prices is None else Priced(flat, prices)
    return flat | {name: metric.of(row) for name, metric in METRICS.items()}


def row_fidelity(row: Any) -> str:
    """How a row of a sweep's table was simulated, of ``fast`` with its error; empty where its
    figures do not say.

    Parameters
    ----------
    row
        Of a sweep's table, as pandas gives it.
    """
    mode = row.get("fidelity")
    if not isinstance(mode, str):
        return ""
    mean, half_width = (float(row[f"fidelity.{part}"]) for part in _PARTS["fidelity"])
    return fidelity_words(mode, mean, half_width)


def row_slack(row: Any) -> float:
    """What a rate of fast fidelity may be off by, relative: its mean error and half of the
    interval; 0 of command fidelity.

    Parameters
    ----------
    row
        Of a sweep's table.
    """
    if row.get("fidelity") != "fast":
        return 0.0
    parts = (row.get(f"fidelity.{part}") for part in _PARTS["fidelity"])
    return sum(abs(float(part)) for part in parts if part is not None and part == part)


@dataclass(frozen=True)
class Kept:
    """What is kept of a result, as sentences on its time are made of it."""

    cycles: int
    time_s: float
    layers_simulated: int
    cycle_stack: Mapping[str, Mapping[str, int]]
    bound_cycles: Mapping[str, int]


def kept_of_row(row: Any) -> Kept:
    """What a row of a sweep's table says of a run's time; nothing of what it does not have.

    Parameters
    ----------
    row
        A mapping by column, or as pandas gives it.
    """
    stack: dict[str, dict[str, int]] = {}
    bounds: dict[str, int] = {}
    for column, value in row.items():
        if not isinstance(column, str) or value is None or value != value:
            continue
        if column.startswith("cycle_stack."):
            _, unit, cause = column.split(".", 2)
            stack.setdefault(unit, {})[cause] = int(value)
        elif column.startswith("bound_cycles."):
            bounds[column.partition(".")[2]] = int(value)
    time_s, blocks = (_number(row.get(name)) for name in ("time_s", "layers_simulated"))
    return Kept(int(row["cycles"]), time_s, int(blocks), stack, bounds)


def _number(value: Any) -> float:
    return 0.0 if value is None or value != value else float(value)
