"""What the charts of a sweep show: which figures along the axis, against which, over which
machine's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pimsim.config.differences import named, short_names, shown
from pimsim.config.errors import InputError, near_miss
from pimsim.report.sweep_groups import Entry, Roles, Values
from pimsim.result.metrics import METRICS, Metric

__all__ = ["Figure", "View", "baseline_of", "figure_of", "view_of"]


@dataclass(frozen=True)
class View:
    """What is drawn of a sweep."""

    metrics: tuple[str, ...] = ("tokens_per_s",)
    """Along the axis, a chart each; the first also against ``against``."""
    against: str = "mj_per_token"
    """Along x of the trade-off."""
    baseline: Mapping[str, str] | None = None
    """Values, as text, of keys of the machine that figures are divided by; None: by none."""


def view_of(metrics: str | None, against: str | None, baseline: str | None) -> View:
    """A view as the command line names it.

    Parameters
    ----------
    metrics
        Names with commas between them.
    against
        A name.
    baseline
        ``KEY=VALUE`` with commas between them.

    Raises
    ------
    InputError
        For an unknown metric, and for a baseline that is no ``KEY=VALUE``.
    """
    names = tuple(name.strip() for name in (metrics or "tokens_per_s").split(","))
    for option, each in (*(("--metrics", name) for name in names), ("--against", against)):
        if each is not None and each not in METRICS:
            raise InputError(
                f"{option}: unknown metric {each!r}{near_miss(each, METRICS)}; "
                f"known: {', '.join(METRICS)}"
            )
    values: dict[str, str] = {}
    for part in baseline.split(",") if baseline is not None else ():
        key, equals, value = part.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise InputError(f"--baseline: KEY=VALUE is expected, found {part!r}")
        values[key.strip()] = value.strip()
    return View(names, against or "mj_per_token", values if baseline is not None else None)


def baseline_of(view: View, roles: Roles, found: Sequence[Entry]) -> Values | None:
    """The machine that figures are divided by; None: there is none.

    Parameters
    ----------
    view
        Names keys of it by their whole name or its last part.
    roles
        Of the sweep's keys.
    found
        Its points.

    Raises
    ------
    InputError
        Where a key is not one that tells machines apart, and where not exactly one machine has the
        values.
    """
    if view.baseline is None:
        return None
    places: dict[int, str] = {}
    for name, value in view.baseline.items():
        matching = [at for at, key in enumerate(roles.machine)
                    if name in (key, key.rpartition(".")[2])]  # fmt: skip
        if len(matching) != 1:
            known = ", ".join(roles.machine) or "none"
            near = near_miss(name, [*roles.machine, *short_names(roles.machine)])
            raise InputError(
                f"--baseline: {name!r} is no key that tells machines of this sweep "
                f"apart{near}; there are: {known}"
            )
        places[matching[0]] = value
    machines = list(dict.fromkeys(each.machine for each in found))
    chosen = [
        machine
        for machine in machines
        if all(shown(machine[at]) == value for at, value in places.items())
    ]
    if len(chosen) != 1:
        wanted = ", ".join(f"{key}={value}" for key, value in view.baseline.items())
        some = "; ".join(named(roles.machine, machine) for machine in machines[:8])
        raise InputError(
            f"--baseline {wanted}: {len(chosen) or 'no'} machines of the sweep are so; one is "
            f"expected, such as: {some}"
        )
    return chosen[0]


@dataclass(frozen=True)
class Figure:
    """A metric of points, or its ratio to a baseline machine's at the same place."""

    metric: Metric
    over: str
    """Words for the baseline; empty: there is none."""
    of: Callable[[Entry], float]
    """Not a number where a point does not have it, or its baseline does not."""

    @property
    def label(self) -> str:
        """Of an axis."""
        return f"{self.metric.words} over that of {self.over}" if self.over else self.metric.label

    def known(self, found: Sequence[Entry]) -> list[Entry]:
        """Points that have it.

        Parameters
        ----------
        found
            Points.
        """
        return [each for each in found if isfinite(self.of(each))]


def figure_of(
    metric: str, row_of: Callable[[int], Any], found: Sequence[Entry], baseline: Values | None,
    words: str,
) -> Figure:  # fmt: skip
    """A figure of all points.

    Parameters
    ----------
    metric
        Its name.
    row_of
        The row of the sweep's table, by its number.
    found
        Points.
    baseline
        The machine that each is divided by, where it was asked the same; None: by none.
    words
        For that machine.
    """
    each = METRICS[metric]
    values = {entry.row: each.of(row_of(entry.row)) for entry in found}
    if baseline is None:
        return Figure(each, "", lambda entry: values[entry.row])
    base = {(entry.asked, entry.place): values[entry.row]
            for entry in found if entry.machine == baseline}  # fmt: skip

    def ratio(entry: Entry) -> float:
        divisor = base.get((entry.asked, entry.place), float("nan"))
        return values[entry.row] / divisor if divisor else float("nan")

    return Figure(each, words, ratio)
