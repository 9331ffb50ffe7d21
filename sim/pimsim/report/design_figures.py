"""Figures of a study of designs, and what is reckoned from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import isnan
from statistics import geometric_mean
from typing import Any

from pimsim.explore.designs import Found, Place
from pimsim.explore.figures import Kept, metrics_of
from pimsim.result.bottleneck import main_cause, nearest_bound
from pimsim.result.metrics import METRICS

__all__ = ["Figures", "Outcome", "doubts", "fastest", "gains", "mean_gain", "outcome_of"]

_SLACK = 0.02
"""Less than this is no difference."""


@dataclass(frozen=True)
class Figures:
    """Of a design at a place."""

    devices: int
    rate: float
    """tokens/s of all devices."""
    per_j: float
    """tokens/J of all devices."""
    per_mm2: float
    """tokens/s/mm2 of all silicon; not a number where it is not known, as of GPUs."""
    iteration_s: float
    bound: str
    """The unit whose bound is nearest."""
    bound_share: float
    """Of the time."""
    cause: str
    """What most of the time went to."""
    fidelity: str
    error_mean: float
    """Relative, as its own sample showed it."""
    error_ci95: float
    """Half of the 95 % interval."""

    @staticmethod
    def columns() -> tuple[str, ...]:
        """Names of the figures."""
        return tuple(each.name for each in fields(Figures))

    def value(self, name: str) -> float:
        """A figure that is a number.

        Parameters
        ----------
        name
            One of ``columns``.
        """
        return float(getattr(self, name))

    def text(self, name: str) -> str:
        """A figure as a table of text has it.

        Parameters
        ----------
        name
            One of ``columns``.
        """
        value = getattr(self, name)
        return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Outcome:
    """Figures, or why there are none; neither where it was not simulated."""

    figures: Figures | None = None
    error: str = ""

    @property
    def known(self) -> bool:
        """Whether it was simulated or refused."""
        return self.figures is not None or bool(self.error)


def outcome_of(found: Found) -> Outcome:
    """Figures from what a store knows.

    Parameters
    ----------
    found
        Of ``found_at``.
    """
    if not found.figures:
        return Outcome(error=found.error)
    kept: Mapping[str, Any] = found.figures
    values = metrics_of(kept)
    names = (each.name for each in fields(Kept))
    explained = Kept(**{name: kept[name] for name in names})
    unit, share = nearest_bound(explained) or ("", 0.0)
    return Outcome(
        Figures(
            devices=int(values["devices"]),
            rate=values["tokens_per_s"],
            per_j=values["tokens_per_j"],
            per_mm2=values["tokens_per_s"] / values["area_mm2"],
            iteration_s=values["iteration_s"],
            bound=unit,
            bound_share=share,
            cause=main_cause(explained),
            fidelity=kept["fidelity"]["mode"],
            error_mean=kept["fidelity"]["error_mean"],
            error_ci95=kept["fidelity"]["error_ci95"],
        )
    )


def gains(
    of: Mapping[Place, Outcome], over: Mapping[Place, Outcome], metric: str
) -> dict[Place, float]:
    """Ratios of a metric at the places that both designs can do and whose metric is known.

    Parameters
    ----------
    of
        Outcomes of a design.
    over
        Outcomes of the one that it is compared with.
    metric
        One of ``Figures.columns``.
    """
    ratios = {
        place: outcome.figures.value(metric) / other.value(metric)
        for place, outcome in of.items()
        if outcome.figures is not None and (other := over[place].figures) is not None
    }
    return {place: ratio for place, ratio in ratios.items() if not isnan(ratio)}


def mean_gain(found: Mapping[Place, float], by: str = "", value: object = None) -> float | None:
    """Geometric mean of ratios; None where there is none.

    Parameters
    ----------
    found
        Of ``gains``.
    by
        Field of a place that must be ``value``; empty: all places count.
    value
        Of the field.
    """
    chosen = [each for place, each in found.items() if not by or getattr(place, by) == value]
    return geometric_mean(chosen) if chosen else None


def fastest(known: Mapping[str, Mapping[Place, Outcome]], metric: str) -> dict[Place, str]:
    """The design with the most of a metric at each place that any can do; of equal ones the first.

    Parameters
    ----------
    known
        Outcomes by design and place.
    metric
        One of ``Figures.columns``.
    """
    best: dict[Place, tuple[float, str]] = {}
    for name, of in known.items():
        for place, outcome in of.items():
            if outcome.figures is None:
                continue
            value = outcome.figures.value(metric)
            if isnan(value):
                continue
            if place not in best or value > best[place][0]:
                best[place] = value, name
    return {place: name for place, (_, name) in best.items()}


def doubts(of: Mapping[Place, Outcome]) -> Iterator[str]:
    """What is not as one expects it of a design: a bound above the time, and fewer tokens/s of a
    larger batch.

    Parameters
    ----------
    of
        Outcomes of a design.
    """
    before: dict[tuple[str, str], tuple[int, float]] = {}
    for place, outcome in sorted(of.items()):
        if outcome.figures is None:
            continue
        where = f"{place.model}, context {place.context}, batch {place.batch}"
        if outcome.figures.bound_share > 1:
            yield f"{where}: the bound of {outcome.figures.bound} exceeds the time"
        key = place.model, place.context
        rate = outcome.figures.rate
        if key in before and rate < before[key][1] * (1 - _SLACK):
            batch, more = before[key]
            unit = METRICS["tokens_per_s"].unit
            yield f"{where}: {rate:,.0f} {unit}, {more:,.0f} at batch {batch}"
        before[key] = place.batch, rate
