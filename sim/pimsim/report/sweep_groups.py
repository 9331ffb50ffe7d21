"""What a sweep compares with what: groups of the same work, machines, and who wins where.

Keys below ``workload`` say what is asked, but for techniques; all others say what does it. Points
that are asked the same are a group: only within one are rates, energies and fronts compared, and no
mean is taken over groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Any

__all__ = ["Effect", "Entry", "Reign", "Roles", "effects", "entries", "reigns", "roles_of"]

_ASKED = "workload."
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Roles:
    """What each swept key is for."""

    axis: str | None
    """The number along x: of what is asked where a key of that is swept, else of the machine."""
    asked: tuple[str, ...]
    """Other keys of what is asked; each of their values has charts of its own."""
    machine: tuple[str, ...]
    """Keys that tell machines apart, but the axis."""

    @property
    def group(self) -> tuple[str, ...]:
        """Keys whose values are the same in a group."""
        own = (self.axis,) if self.axis is not None and self.axis.startswith(_ASKED) else ()
        return (*self.asked, *own)


@dataclass(frozen=True)
class Entry:
    """A point with a result."""

    row: int
    """Of the table."""
    asked: Values
    place: float
    """On the axis; 0 without one."""
    machine: Values
    rate: float
    """Tokens a second, of all devices."""
    energy: float
    """Millijoule a token."""
    group: Values = field(default=())
    slack: float = 0.0
    """What the rate may be off by, relative."""


@dataclass(frozen=True)
class Reign:
    """Neighbouring places of an axis at which one machine is the fastest, of others or alone."""

    asked: Values
    first: float
    last: float
    machine: Values
    over: float
    """Its rate at ``last`` over the next machine's there; 1 where it is alone."""
    next_machine: Values | None
    row: int
    """Its point at ``last``."""
    next_row: int | None
    level: bool
    """The two differ by no more than their rates may be off by."""


@dataclass(frozen=True)
class Effect:
    """What another value of a key does where all else is equal."""

    key: str
    value: Any
    baseline: Any
    pairs: int
    rate: tuple[float, float, float]
    """Least, median, greatest ratio of tokens a second to the baseline's."""
    energy: tuple[float, float, float]
    """The same of millijoule a token."""


def roles_of(values: Mapping[str, Sequence[Any]], techniques: Collection[str] = ()) -> Roles:
    """Which key is the axis, and what the others are.

    Parameters
    ----------
    values
        By swept key, in the sweep's order, the values of all points.
    techniques
        Keys below ``workload`` that say how the work is done, as a machine does, not what it is.
    """
    different = {key: list(dict.fromkeys(map(_hashable, each))) for key, each in values.items()}
    moving = {key: each for key, each in different.items() if len(each) > 1}
    numbers = {key: each for key, each in moving.items() if all(map(_is_number, each))}
    load = {key for key in values if key.startswith(_ASKED) and key not in techniques}
    asked = [key for key in numbers if key in load]
    axis = max(asked or numbers, key=lambda key: len(numbers[key]), default=None)
    rest = [key for key in values if key != axis]
    return Roles(
        axis, tuple(key for key in rest if key in load),
        tuple(key for key in rest if key not in load),
    )  # fmt: skip


def entries(
    roles: Roles, rows: Sequence[Mapping[str, Any]], places: Sequence[float],
    rates: Sequence[float], energies: Sequence[float], slacks: Sequence[float],
) -> list[Entry]:  # fmt: skip
    """Points by their roles, all sequences a value a point.

    Parameters
    ----------
    roles
        Of the keys.
    rows
        Values by key.
    places
        On the axis.
    rates
        Tokens a second.
    energies
        Millijoule a token.
    slacks
        What the rates may be off by, relative.
    """

    def of(row: Mapping[str, Any], keys: Sequence[str]) -> Values:
        return tuple(_hashable(row[key]) for key in keys)

    return [
        Entry(
            at, of(row, roles.asked), places[at], of(row, roles.machine), rates[at], energies[at],
            of(row, roles.group), slacks[at],
        )
        for at, row in enumerate(rows)
    ]  # fmt: skip


def reigns(found: Sequence[Entry]) -> Iterator[Reign]:
    """Who is the fastest where, along the axis, for each value of what is asked.

    Parameters
    ----------
    found
        Points of a sweep.
    """
    for asked in dict.fromkeys(each.asked for each in found):
        best = []
        own = sorted((each for each in found if each.asked == asked), key=lambda each: each.place)
        for place, same in groupby(own, key=lambda each: each.place):
            ranked = sorted(same, key=lambda each: -each.rate)
            others = [each for each in ranked if each.machine != ranked[0].machine]
            best.append((place, ranked[0], others[0] if others else None))
        for (machine, _), run in groupby(best, key=lambda each: (each[1].machine, each[2] is None)):
            places = list(run)
            last, winner, second = places[-1]
            over = winner.rate / second.rate if second is not None and second.rate else 1.0
            level = second is not None and over - 1 <= winner.slack + second.slack
            yield Reign(
                asked, places[0][0], last, machine, over,
                None if second is None else second.machine, winner.row,
                None if second is None else second.row, level,
            )  # fmt: skip


def effects(keys: Sequence[str], rows: Sequence[Mapping[str, Any]], found: Sequence[Entry],
            compared: Sequence[str]) -> Iterator[Effect]:  # fmt: skip
    """What each value of a key does beside the key's first one, all other keys equal.

    Parameters
    ----------
    keys
        All swept ones.
    rows
        Values by key, of the points of ``found``.
    found
        Points of a sweep.
    compared
        Keys whose effect is asked for.
    """
    for key in compared:
        others = [each for each in keys if each != key]
        by_rest: dict[Values, dict[Any, Entry]] = {}
        for row, entry in zip(rows, found, strict=True):
            rest = tuple(_hashable(row[each]) for each in others)
            by_rest.setdefault(rest, {})[_hashable(row[key])] = entry
        baseline, *values = dict.fromkeys(_hashable(row[key]) for row in rows)
        for value in values:
            pairs = [
                (same[value], same[baseline])
                for same in by_rest.values()
                if value in same and baseline in same and same[baseline].rate
            ]
            if pairs:
                rates = [one.rate / base.rate for one, base in pairs]
                energies = [one.energy / base.energy for one, base in pairs if base.energy]
                yield Effect(
                    key, value, baseline, len(pairs), _spread(rates), _spread(energies or [1.0])
                )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), median(values), max(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    """Lists and mappings as text; numpy's scalars as Python's, so that 64 is 64."""
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
