"""What a search is asked for: its YAML, read and checked before anything is simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.errors import InputError, near_miss
from pimsim.config.loader import load_any_run
from pimsim.config.prices import Prices
from pimsim.explore.expressions import check_expression
from pimsim.explore.figures import COLUMNS, OPEN_COLUMNS
from pimsim.explore.spec import RangeSpec, Scalar, check_mixed, common_values, mixed, overrides
from pimsim.result.cost import missing_price, priced_metrics
from pimsim.result.metrics import METRICS, PRICED

__all__ = ["Objective", "SearchSpec", "base_of", "read_search"]


class Objective(ConfigModel):
    """A figure to be made large or small."""

    metric: str = Field(
        description="; ".join(f"``{name}``: {each.meaning}" for name, each in METRICS.items())
    )
    direction: Literal["maximize", "minimize"] | None = None
    """Which values are better; null: as the metric says."""

    @model_validator(mode="after")
    def _known(self) -> Objective:
        if self.metric not in METRICS:
            raise ValueError(
                f"unknown metric {self.metric!r}{near_miss(self.metric, METRICS)}; "
                f"known: {', '.join(METRICS)}"
            )
        return self

    @property
    def sought(self) -> Literal["maximize", "minimize"]:
        """Which values are better."""
        return self.direction or METRICS[self.metric].direction


class SearchSpec(ConfigModel):
    """A search's YAML."""

    name: str = "search"
    """Of the Optuna study in the search's folder: under another name it starts anew there."""
    base: str = "neupims"
    """A run's preset or YAML path (relative to the search's file)."""
    fidelity: Literal["fast", "command"] = "fast"
    """How exact, unless ``set`` or ``space`` says so itself."""
    set: dict[str, Scalar] = Field(default_factory=dict)
    """Values that hold for all points."""
    space: dict[str, RangeSpec] = Field(min_length=1)
    """Ranges or choices by config key."""
    objectives: list[Objective] = Field(min_length=1)
    where: list[str] = Field(default_factory=list)
    """Constraints over keys, known before a point is simulated; others are not tried."""
    prices: Prices | None = None
    """What parts of machines cost (``--prices`` of other commands): of objectives and constraints
    over ``cost``, ``tokens_per_s_cost`` and ``cost_million_tokens``; null: those are not known."""
    constraints: list[str] = Field(default_factory=list)
    """Constraints over keys and figures (``mj_per_token < 20``); a point that breaks one is not
    on the front."""
    trials: int = Field(default=50, ge=1, le=100_000)
    """Points to draw, with those that failed, that ``where`` leaves out, that were drawn before,
    or that an earlier call drew in the same folder."""
    batch: int = Field(default=8, ge=1, le=1000)
    """Points that are chosen at once, from what all batches before have shown; workers share
    them, so that how many there are changes nothing."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """How points are chosen: ``tpe`` (tree-structured Parzen estimator), ``nsga2`` (genetic), or
    ``random``."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """The same seed chooses the same points."""


def read_search(path: Path) -> SearchSpec:
    """Read and check a search.

    Parameters
    ----------
    path
        Of its YAML.

    Raises
    ------
    InputError
        With file, line and key.
    """
    spec = read_document(SearchSpec, path)
    twice = set(spec.set) & set(spec.space)
    if twice:
        raise InputError(f"{path}: {sorted(twice)[0]} is in set and in space")
    for objective in spec.objectives:
        if objective.metric in PRICED and objective.metric not in priced_metrics(spec.prices):
            lacks = missing_price(objective.metric, spec.prices)
            raise InputError(f"{path}: objective {objective.metric} needs prices{lacks}; none ship")
    base = base_of(spec, path)
    first = {key: range_.at(0.0) for key, range_ in spec.space.items()}
    try:
        common = common_values(spec, base)
        load_any_run(base, overrides(common, first, path.resolve().parent))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for key, values in mixed({key: each.choices or [] for key, each in spec.space.items()}).items():
        check_mixed(common, base, path, first, key, values)
    keys = dict.fromkeys([*spec.set, *spec.space], 1)
    for at, text in enumerate(spec.where):
        check_expression(text, keys, f"{path}: where.{at}")
    names = {**keys, **dict.fromkeys([*METRICS, *COLUMNS], 1)}
    for at, text in enumerate(spec.constraints):
        check_expression(text, names, f"{path}: constraints.{at}", OPEN_COLUMNS)
    return spec


def base_of(spec: SearchSpec, path: Path) -> str:
    """The preset or the path of the run that a search starts from.

    Parameters
    ----------
    spec
        Of the search.
    path
        Of its YAML, which ``spec.base`` is relative to.
    """
    from pimsim.config.resources import looks_like_path

    return str(path.parent / spec.base) if looks_like_path(spec.base) else spec.base
