"""A sweep's YAML, and the points that it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from math import exp, log, prod
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.errors import InputError
from pimsim.config.loader import load_any_run, run_kind
from pimsim.config.resources import looks_like_path
from pimsim.config.settings_text import with_files
from pimsim.explore.expressions import check_expression, holds
from pimsim.workload.draws import RandomStream

__all__ = [
    "MOST_POINTS", "Point", "SweepSpec", "common_values", "expand", "mixed_keys", "overrides",
    "placed", "read_sweep",
]  # fmt: skip

MOST_POINTS = 1_000_000
LARGEST = 2**53
"""Of an interval's ends: whole numbers up to it are doubles."""
Scalar = bool | int | float | str | None
_Value = TypeVar("_Value", bound=Scalar)
Point = dict[str, Scalar]
"""Values by config key."""


class RangeSpec(ConfigModel):
    """What a key is sampled from: an interval, or choices."""

    low: float | int | None = None
    """Least value of an interval."""
    high: float | int | None = None
    """Greatest value."""
    log: bool = False
    """Evenly in the logarithm."""
    integer: bool = False
    """Whole numbers alone, ``low`` and ``high`` among them."""
    choices: list[Scalar] | None = Field(default=None, min_length=1)
    """These values, in place of ``low`` and ``high``."""
    unit: str = Field(default="", max_length=8, pattern="^[A-Za-z/]*$")
    """Of low and high, such as ``GHz``; values then have six digits."""

    @model_validator(mode="after")
    def _one_kind(self) -> RangeSpec:
        interval = self.low is not None and self.high is not None
        if interval == (self.choices is not None):
            raise ValueError("either low and high, or choices")
        if interval:
            assert self.low is not None and self.high is not None
            for name, value in (("low", self.low), ("high", self.high)):
                if abs(value) > LARGEST:
                    raise ValueError(f"{name} is {value:.3g}; allowed are -2^53 to 2^53")
                if self.integer and value != int(value):
                    raise ValueError(f"integer: {name} must be a whole number, found {value}")
            if self.low > self.high:
                raise ValueError(f"low ({self.low}) exceeds high ({self.high})")
            if self.unit and self.integer:
                raise ValueError("unit and integer: a whole number needs no unit")
            if self.log and self.low <= 0:
                raise ValueError(f"log needs a low above 0, found {self.low}")
        return self

    @property
    def numbers(self) -> bool:
        """Whether all values are numbers, so that some lie between others."""
        return all(_kind(each) == "number" for each in self.choices or [])

    def at(self, share: float) -> Scalar:
        """The value at ``share``, 0 to 1, of the range."""
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None and self.high is not None
        if self.integer:
            first, last = int(self.low), int(self.high)
            if self.log:
                return min(int(exp(log(first) + share * log((last + 1) / first))), last)
            return min(first + int(share * (last - first + 1)), last)
        if self.log:
            return self.written(exp(log(self.low) + share * (log(self.high) - log(self.low))))
        return self.written(self.low + share * (self.high - self.low))

    def written(self, value: float) -> Scalar:
        """A number of the interval as a config takes it."""
        return f"{value:.6g}{self.unit}" if self.unit else float(value)


class SampleSpec(ConfigModel):
    """Points drawn at random."""

    method: Literal["random", "latin-hypercube"] = "latin-hypercube"
    """``random``: each point by itself. ``latin-hypercube``: each range is cut into ``count`` equal
    parts, and each part holds one point."""
    count: int = Field(ge=1, le=MOST_POINTS)
    """Points drawn; every combination of the rest of the sweep takes all of them."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """The same seed draws the same points."""
    ranges: dict[str, RangeSpec] = Field(min_length=1)
    """Ranges or choices by config key."""


class SweepSpec(ConfigModel):
    """Every combination of the grid, the zip, the list and the samples that obeys ``where``."""

    name: str = "sweep"
    """Title of the report."""
    base: str = "neupims"
    """A run's preset or YAML path (relative to the sweep's file)."""
    fidelity: Literal["fast", "command"] = "fast"
    """How exact, unless ``set`` or a point says so itself; a base of GPUs has one fidelity, and
    takes none here."""
    set: dict[str, Scalar] = Field(default_factory=dict)
    """Values that hold for all points."""
    grid: dict[str, list[Scalar]] = Field(default_factory=dict)
    """All combinations of these."""
    zip: dict[str, list[Scalar]] = Field(default_factory=dict)
    """These go together: first with first, second with second."""
    points: list[dict[str, Scalar]] | None = Field(default=None, min_length=1)
    """These, as they are written."""
    sample: SampleSpec | None = None
    where: list[str] = Field(default_factory=list)
    """Constraints over the keys of the sweep; a point that breaks one is left out."""

    @model_validator(mode="after")
    def _consistent(self) -> SweepSpec:
        for name, axes in (("grid", self.grid), ("zip", self.zip)):
            for key, values in axes.items():
                if not values:
                    raise ValueError(f"{name}.{key} is empty")
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{key} {count}" for key, count in lengths.items())
            raise ValueError(f"zip: all must be as long, found {found}")
        if not (self.grid or self.zip or self.points or self.sample):
            raise ValueError("nothing to sweep: give grid, zip, points or sample")
        seen: dict[str, str] = {}
        sections: dict[str, Sequence[str]] = {
            "set": list(self.set), "grid": list(self.grid), "zip": list(self.zip),
            "points": sorted({key for point in self.points or [] for key in point}),
            "sample": list(self.sample.ranges) if self.sample else [],
        }  # fmt: skip
        for section, keys in sections.items():
            for key in keys:
                if key in seen:
                    raise ValueError(f"{key} is in {seen[key]} and in {section}")
                seen[key] = section
        return self

    @property
    def count(self) -> int:
        """Points before constraints."""
        sizes = [len(values) for values in self.grid.values()]
        sizes += [len(next(iter(self.zip.values())))] if self.zip else []
        sizes += [len(self.points)] if self.points else []
        sizes += [self.sample.count] if self.sample else []
        return prod(sizes)

    @property
    def keys(self) -> list[str]:
        """Keys that differ between points."""
        names = [*self.grid, *self.zip, *(key for point in self.points or [] for key in point)]
        names += list(self.sample.ranges) if self.sample else []
        return list(dict.fromkeys(names))


def read_sweep(path: Path) -> SweepSpec:
    """Read and check a sweep.

    Parameters
    ----------
    path
        Of its YAML.

    Raises
    ------
    InputError
        With file, line and key; for more points than ``MOST_POINTS``, for keys that the base does
        not have, and for constraints that are none.
    """
    spec = read_document(SweepSpec, path)
    if spec.count > MOST_POINTS:
        raise InputError(f"{path}: {spec.count:,} points; at most {MOST_POINTS:,} are simulated")
    for at, text in enumerate(spec.where):
        names = dict.fromkeys([*spec.set, *spec.keys], 1)
        check_expression(text, names, f"{path}: where.{at}")
    first, base = next(iter(expand(spec, str(path))), None), base_of(spec, path)
    if first is None:
        raise InputError(f"{path}: no point obeys 'where'")
    try:
        load_any_run(base)
    except InputError as error:
        raise InputError(f"{path}: base: {error}") from None
    common = common_values(spec, base)
    try:
        load_any_run(base, overrides(common, first, path.resolve().parent))
    except InputError as error:
        # a value may be wrong at one point and right at others; a key is wrong everywhere
        if "unknown key" in str(error) or "not a key" in str(error) or "no such" in str(error):
            raise InputError(f"{path}: {error}") from None
    for key, values in mixed_keys(spec).items():
        check_mixed(common, base, path, first, key, values)
    return spec


def check_mixed(
    common: Mapping[str, Scalar], base: str, path: Path, first: Point, key: str,
    values: Sequence[Scalar],
) -> None:  # fmt: skip
    """Raise ``InputError`` where one of ``values`` is of a type that the key does not take."""
    for value in values:
        try:
            load_any_run(base, overrides(common, {**first, key: value}, path.resolve().parent))
        except InputError as error:
            if len(values) == 1:
                raise InputError(f"{path}: {error}") from None
            shown = ", ".join(map(json.dumps, values))
            raise InputError(
                f"{path}: {key} has values of different types ({shown}): {error}"
            ) from None


def mixed_keys(spec: SweepSpec) -> dict[str, list[Scalar]]:
    """Keys whose values are ``mixed``, with one value of each type.

    Parameters
    ----------
    spec
        Of a sweep.
    """
    columns: dict[str, list[Scalar]] = {key: [] for key in spec.keys}
    for axes in (spec.grid, spec.zip, *(_lists(point) for point in spec.points or [])):
        for key, values in axes.items():
            columns[key] += values
    for key, range_ in (spec.sample.ranges if spec.sample else {}).items():
        columns[key] += range_.choices or [range_.at(0.0)]
    return mixed(columns)


def mixed(columns: Mapping[str, Sequence[Scalar]]) -> dict[str, list[Scalar]]:
    """Keys whose values are of different types, or too large for a column of numbers, with one
    value of each type."""
    found = {}
    for key, values in columns.items():
        kinds: dict[str, Scalar] = {}
        for value in values:
            if _kind(value) != "none":
                kinds.setdefault(_kind(value), value)
        if len(kinds) > 1 or "large" in kinds:
            found[key] = list(kinds.values())
    return found


def _lists(point: Point) -> dict[str, list[Scalar]]:
    return {key: [value] for key, value in point.items()}


def _kind(value: Scalar) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number" if abs(value) < 2**63 or isinstance(value, float) else "large"
    return "text"


def base_of(spec: SweepSpec, path: Path) -> str:
    """The base run; a path is relative to the sweep's file."""
    return str(path.parent / spec.base) if looks_like_path(spec.base) else spec.base


def expand(spec: SweepSpec, where: str) -> Iterator[Point]:
    """The points in their order: the grid's last key changes fastest, samples fastest of all.

    Parameters
    ----------
    spec
        Of a sweep.
    where
        Its file, for messages.
    """
    axes: list[list[Point]] = [
        [{key: value} for value in values] for key, values in spec.grid.items()
    ]
    if spec.zip:
        rows = zip(*spec.zip.values(), strict=True)
        axes.append([dict(zip(spec.zip, row, strict=True)) for row in rows])
    if spec.points:
        axes.append(list(spec.points))
    if spec.sample:
        axes.append(_samples(spec.sample))
    for parts in product(*axes):
        point: Point = {key: value for part in parts for key, value in part.items()}
        values: Mapping[str, Any] = {**spec.set, **point}
        if all(holds(text, values, f"{where}: where") for text in spec.where):
            yield point


def _samples(spec: SampleSpec) -> list[Point]:
    random = RandomStream(spec.seed)
    columns: dict[str, list[float]] = {}
    for key in spec.ranges:
        if spec.method == "random":
            columns[key] = random.uniform(spec.count).tolist()
            continue
        # one in each of ``count`` equal parts, in random order (McKay et al. 1979)
        cells = random.permutation(spec.count)
        columns[key] = ((cells + random.uniform(spec.count)) / spec.count).tolist()
    return [
        {key: spec.ranges[key].at(columns[key][at]) for key in spec.ranges}
        for at in range(spec.count)
    ]


class ManyRuns(Protocol):
    """What a sweep's YAML and a search's have in common."""

    @property
    def fidelity(self) -> str: ...

    @property
    def set(self) -> Mapping[str, Scalar]: ...

    @property
    def model_fields_set(self) -> AbstractSet[str]: ...


def common_values(spec: ManyRuns, base: str) -> dict[str, Scalar]:
    """What all points have: the fidelity, which GPUs have none of, and ``set``.

    Parameters
    ----------
    spec
        Of a sweep or a search.
    base
        Its base run.
    """
    asked = "fidelity" in spec.model_fields_set or run_kind(base) == "hardware"
    return {**({"fidelity": spec.fidelity} if asked else {}), **spec.set}


def overrides(
    common: Mapping[str, Scalar], point: Mapping[str, Scalar], folder: Path
) -> list[str]:  # fmt: skip
    """A point as ``--set`` takes it.

    Parameters
    ----------
    common
        Values that all points have, of ``common_values``.
    point
        Value by key.
    folder
        That relative files count from.
    """
    values = {**common, **point}
    return [f"{key}={json.dumps(placed(value, folder))}" for key, value in values.items()]


def placed(value: _Value, folder: Path) -> _Value | str:
    """A value of a config as it is, the path of a file counted from ``folder``.

    Parameters
    ----------
    value
        As it was written.
    folder
        That relative files count from.
    """
    if isinstance(value, str):
        return with_files(value, lambda file: str(folder / file))
    return value
