"""Two sweeps point by point: what differs in their configs, and what that did where both asked the
same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from pimsim.config.differences import Difference, differences, short_names, shown
from pimsim.config.errors import InputError
from pimsim.config.loader import ResolvedAny, load_any_run
from pimsim.config.prices import Prices
from pimsim.config.schema import quantity_at
from pimsim.explore.figures import kept_of_row, row_fidelity, row_slack
from pimsim.explore.spec import Point, SweepSpec, common_values, expand, overrides
from pimsim.explore.sweep import load_table, stored_spec
from pimsim.result.compare import Cause, causes
from pimsim.result.cost import priced_metrics, priced_table
from pimsim.result.metrics import METRICS

__all__ = ["Pair", "SweepComparison", "compare_sweeps", "is_sweep"]

_MOST_VALUES = 6
_MOST_CAUSES = 2
_SHOWN = ("tokens_per_s", "mj_per_token")
"""Metrics of the table of points."""
_Identity = tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """The same point of two sweeps."""

    values: tuple[Any, ...]
    """Of ``SweepComparison.keys``."""
    before: dict[str, Any]
    """Its row of the first sweep's table."""
    after: dict[str, Any]
    """Of the other's."""

    @property
    def rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both."""
        return self.before, self.after

    @property
    def known(self) -> bool:
        """Whether both have a result."""
        return all(row.get("error") is None for row in self.rows)

    def ratio(self, metric: str) -> float:
        """Of the other sweep's figure to the first one's; not a number where one is missing."""
        first, second = (METRICS[metric].of(row) for row in self.rows)
        return second / first if first else float("nan")

    def value(self, key: str) -> Any:
        """Of a key that one of the sweeps has in its table."""
        return self.before[key] if key in self.before else self.after.get(key)

    @property
    def level(self) -> bool:
        """The rates differ by no more than they may be off by."""
        slack = row_slack(self.before) + row_slack(self.after)
        return abs(self.ratio("tokens_per_s") - 1) <= slack

    @cached_property
    def causes(self) -> list[Cause]:
        """What moved between the two, the largest first."""
        return causes(kept_of_row(self.before), kept_of_row(self.after))


@dataclass(frozen=True)
class SweepComparison:
    """A sweep held against another one."""

    names: tuple[str, str]
    differences: tuple[Difference, ...]
    """Of the configs of both, swept keys aside; then keys that do not take the same values."""
    keys: tuple[str, ...]
    """That tell points apart: those that either sweeps."""
    pairs: tuple[Pair, ...]
    """Points that both have, in the first one's order."""
    alone: tuple[int, int]
    """Points that one has and the other does not."""
    priced: tuple[str, ...] = ()
    """Metrics of cost, where there are prices."""

    @cached_property
    def known(self) -> tuple[Pair, ...]:
        """Pairs of which both have a result."""
        return tuple(pair for pair in self.pairs if pair.known)

    def words(self) -> Iterator[str]:
        """What was found, in sentences."""
        first, second = self.names
        count = len(self.known)
        yield (
            f"{_points(len(self.pairs))} in both; {self.alone[0]:,} of {first} and "
            f"{self.alone[1]:,} of {second} alone."
        )
        if len(self.pairs) > count:
            yield f"{_points(len(self.pairs) - count)} of these have no result in one of them."
        if not count:
            return
        rates = [pair.ratio("tokens_per_s") for pair in self.known]
        level = sum(pair.level for pair in self.known)
        if level == count:
            yield f"{second} and {first} are level at all of them."
            return
        low, high = min(rates), max(rates)
        span = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        middle = f", {median(rates):.3g} in the median" if count > 2 else ""
        yield f"{second} has {span} times the rate of {first}{middle}."
        if level:
            yield f"{_points(level)} are level within what their rates may be off by."

    def furthest(self, most: int) -> list[Pair]:
        """Pairs in their order, of many those whose rates are furthest apart.

        Parameters
        ----------
        most
            How many.
        """

        def apart(at: int) -> float:
            ratio = self.known[at].ratio("tokens_per_s")
            return -max(ratio, 1 / ratio) if ratio > 0 else 0.0

        chosen = sorted(range(len(self.known)), key=apart)[:most]
        return [self.known[at] for at in sorted(chosen)]

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of a table of points."""
        first, second = self.names
        parts = [
            (f"{METRICS[name].column}: {first}", second, "ratio")
            for name in (*_SHOWN, *self.priced)
        ]  # fmt: skip
        return (
            *short_names(self.keys),
            *(each for part in parts for each in part),
            "fidelity",
            "what moved",
        )

    def cells(self, pair: Pair) -> tuple[str, ...]:
        """A row of that table.

        Parameters
        ----------
        pair
            With two results.
        """
        cells = []
        for name in (*_SHOWN, *self.priced):
            cells += [METRICS[name].number(METRICS[name].of(row)) for row in pair.rows]
            ratio = pair.ratio(name)
            cells.append(f"{ratio:.3f}" if ratio == ratio else "")
        found = dict.fromkeys(row_fidelity(row) for row in pair.rows)
        moved = "; ".join(each.words() for each in pair.causes[:_MOST_CAUSES])
        why = "level" if pair.level else moved or "nothing moved"
        return (*pair.values, *cells, " / ".join(found), why)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is the store of a sweep, or of a search.

    Parameters
    ----------
    folder
        Any path.
    """
    return (folder / "store.json").is_file()


@dataclass(frozen=True)
class _Read:
    spec: SweepSpec
    points: Sequence[Point]
    rows: Sequence[dict[str, Any]]
    config: ResolvedAny
    """Of the first point that can be."""


def _read(folder: Path, prices: Prices | None) -> _Read:
    if not is_sweep(folder):
        raise InputError(
            f"{folder}: no sweep (it has no store.json), which sweeps are compared with"
        )
    if not (folder / "sweep.yaml").is_file():
        raise InputError(f"{folder}: a search is not compared point by point; give sweeps, or runs")
    spec, base, files = stored_spec(folder)
    points = list(expand(spec, str(folder)))
    rows = [
        {str(key): _plain(value) for key, value in row.items()}
        for row in priced_table(load_table(folder), prices).to_dict("records")
    ]
    common = common_values(spec, base)
    for point in points:
        try:
            return _Read(spec, points, rows, load_any_run(base, overrides(common, point, files)))
        except InputError:
            continue  # a point that cannot be, as the sweep's table says
    raise InputError(f"{folder}: no point of the sweep has a config that can be")


def _plain(value: Any) -> Any:
    return None if value is None or value != value else value


def compare_sweeps(
    folders: Sequence[Path], names: Sequence[str], prices: Prices | None = None
) -> list[SweepComparison]:
    """Each sweep but the first held against the first, at the points that both have.

    Points are the same where all keys that either sweeps have the same value; what one alone
    sweeps has the other's config.

    Parameters
    ----------
    folders
        Of two or more stores.
    names
        Of each.
    prices
        Of parts and energy; None: no cost is told.

    Raises
    ------
    InputError
        For what is no sweep's store.
    """
    first, *others = (_read(folder, prices) for folder in folders)
    priced = priced_metrics(prices)
    return [
        _compared(first, other, (names[0], name), priced)
        for other, name in zip(others, names[1:], strict=True)
    ]


def _compared(
    first: _Read, other: _Read, names: tuple[str, str], priced: tuple[str, ...]
) -> SweepComparison:
    keys = tuple(dict.fromkeys([*first.spec.keys, *other.spec.keys]))
    mine, theirs = _identities(first, keys), _identities(other, keys)
    both = [identity for identity in mine if identity in theirs]
    pairs = tuple(
        Pair(identity, first.rows[mine[identity]], other.rows[theirs[identity]])
        for identity in both
    )
    found = [
        each
        for each in differences([first.config, other.config])
        if not any(each.key == key or each.key.startswith(f"{key}.") for key in keys)
    ]
    found += _axes(keys, mine, theirs)
    alone = len(mine) - len(both), len(theirs) - len(both)
    return SweepComparison(names, tuple(found), keys, pairs, alone, priced)


def _axes(
    keys: Sequence[str], mine: Mapping[_Identity, int], theirs: Mapping[_Identity, int]
) -> Iterator[Difference]:
    """Swept keys that take other values in the one than in the other."""
    for at, key in enumerate(keys):
        values = [list(dict.fromkeys(each[at] for each in all_)) for all_ in (mine, theirs)]
        if set(values[0]) != set(values[1]):
            yield Difference(key, (_few(values[0]), _few(values[1])))


def _few(values: Sequence[str]) -> str:
    more = len(values) - _MOST_VALUES
    return ", ".join(values[:_MOST_VALUES]) + (f" and {more} more" if more > 0 else "")


def _identities(read: _Read, keys: Sequence[str]) -> dict[_Identity, int]:
    """Values of all keys of each point, each in one spelling, and the point's place; of equal
    points the first."""
    fixed = {key: _value_at(read.config, key) for key in keys if key not in read.spec.keys}
    found: dict[_Identity, int] = {}
    for at, point in enumerate(read.points):
        values = {**fixed, **point}
        identity = tuple(_spelled(read.config, key, values.get(key)) for key in keys)
        found.setdefault(identity, at)
    return found


def _value_at(resolved: ResolvedAny, key: str) -> Any:
    value: Any = resolved.config.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name", json.dumps(value)) if isinstance(value, Mapping) else value


def _spelled(resolved: ResolvedAny, key: str, value: Any) -> str:
    quantity = quantity_at(type(resolved.config), tuple(key.split(".")))
    if quantity is None or value is None or isinstance(value, bool):
        return shown(value)
    try:
        return quantity.format(quantity.parse(value))
    except (ValueError, TypeError):
        return shown(value)  # a point that cannot be, as its error says


def _points(count: int) -> str:
    return "1 point" if count == 1 else f"{count:,} points"
