"""Search for good configs with Optuna: several objectives, constraints, resumable, seeded.

Every point goes through the store of a sweep, so nothing is simulated twice; the study itself is in
Optuna's journal beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pimsim import __version__
from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError, near_miss
from pimsim.config.loader import load_run, read_document
from pimsim.explore.expressions import holds
from pimsim.explore.spec import RangeSpec, Scalar
from pimsim.explore.store import Store
from pimsim.explore.sweep import Job, flat_figures, worker_pool

__all__ = ["METRICS", "SearchOutcome", "SearchSpec", "Trial", "read_search", "run_search"]

METRICS = {
    "tokens_per_s": "tokens a second",
    "mj_per_token": "energy of a token, all devices (mJ)",
    "iteration_s": "time of an iteration of all blocks (s)",
    "cycles": "cycles of the simulated blocks",
    "devices": "devices that share the model",
    "area_mm2": "silicon of all devices (mm2), by configs/area",
}
"""What may be an objective; constraints may use any figure of the store's table."""


class Objective(ConfigModel):
    """A figure to be made large or small."""

    metric: str
    direction: Literal["maximize", "minimize"]

    @model_validator(mode="after")
    def _known(self) -> Objective:
        if self.metric not in METRICS:
            raise ValueError(
                f"unknown metric {self.metric!r}{near_miss(self.metric, METRICS)}; "
                f"known: {', '.join(METRICS)}"
            )
        return self


class SearchSpec(ConfigModel):
    """A search's YAML."""

    name: str = "search"
    base: str = "neupims"
    set: dict[str, Scalar] = Field(default_factory=dict)
    space: dict[str, RangeSpec] = Field(min_length=1)
    """Ranges or choices by config key."""
    objectives: list[Objective] = Field(min_length=1)
    where: list[str] = Field(default_factory=list)
    """Constraints over keys, known before a point is simulated; others are not tried."""
    constraints: list[str] = Field(default_factory=list)
    """Constraints over keys and figures (``mj_per_token < 20``); a point that breaks one is not
    on the front."""
    trials: int = Field(default=50, ge=1, le=100_000)
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Trial:
    """A point that was tried."""

    number: int
    point: dict[str, Any]
    values: tuple[float, ...]
    """Of the objectives; empty where it failed."""
    feasible: bool
    error: str


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found."""

    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    """Numbers of the trials that no other beats, constraints kept."""
    importance: dict[str, dict[str, float]]
    """Share of each key in the spread of each objective (PED-ANOVA, Watanabe et al. 2023)."""


def read_search(path: Path) -> SearchSpec:
    """Read and check a search. Raises ``InputError`` with file, line and key."""
    spec = read_document(SearchSpec, path)
    twice = set(spec.set) & set(spec.space)
    if twice:
        raise InputError(f"{path}: {sorted(twice)[0]} is in set and in space")
    base = _base(spec, path)
    first = {key: range_.at(0.0) for key, range_ in spec.space.items()}
    load_run(base, _overrides(spec, first))
    for at, text in enumerate(spec.where):
        holds(text, {**spec.set, **first}, f"{path}: where.{at}")
    return spec


def _base(spec: SearchSpec, path: Path) -> str:
    from pimsim.config.resources import looks_like_path

    return str(path.parent / spec.base) if looks_like_path(spec.base) else spec.base


def _overrides(spec: SearchSpec, point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in {**spec.set, **point}.items()]


def run_search(
    path: Path, out: Path, workers: int = 1, on_trial: Callable[[int, int], None] | None = None
) -> SearchOutcome:
    """Try points until the study in ``out`` has ``trials`` of them; ``workers`` at once.

    The same search with as many workers gives the same trials, interrupted or not. Raises
    ``InputError`` for wrong input, or where the extra ``explore`` is not installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise InputError("this needs the extra: pip install 'pimsim[explore]'") from None
    spec = read_search(path)
    store = Store(out, create=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / "journal.log")))
    study = optuna.create_study(
        study_name=spec.name, storage=storage, load_if_exists=True,
        directions=[objective.direction for objective in spec.objectives],
    )  # fmt: skip
    base = _base(spec, path)
    base_sha256 = load_run(base).sha256
    with worker_pool(workers, None) as (submit, _):
        while True:
            done = len([t for t in study.get_trials(deepcopy=False) if t.state.is_finished()])
            if on_trial is not None:
                on_trial(done, spec.trials)
            if done >= spec.trials:
                break
            # seeded by how far it is, so that a search that goes on asks the same
            study.sampler = _sampler(spec, spec.seed * 1_000_003 + done)
            asked = []
            for _ in range(min(workers, spec.trials - done)):
                trial = study.ask()
                point = {key: _suggest(trial, key, each) for key, each in spec.space.items()}
                asked.append((trial, point))
            waiting = []
            for trial, point in asked:
                if not all(holds(t, {**spec.set, **point}, "where") for t in spec.where):
                    trial.set_user_attr("error", "breaks a constraint of 'where'")
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    continue
                given = _overrides(spec, point)
                identity = Store.point_id(base_sha256, given, __version__)
                known = store.point(identity)
                figures = store.result(str(known.get("result"))) if known else None
                job = Job(identity, base, tuple(given))
                waiting.append((trial, point, figures, None if figures else submit(job)))
            for trial, point, figures, future in waiting:
                error = ""
                if figures is None:
                    assert future is not None
                    identity, key, figures, error = future.result()
                    if figures is not None:
                        store.write_result(key, figures)
                    store.write_point(identity, {"result": key} if figures else {"error": error})
                _tell(optuna, study, trial, spec, point, figures, error)
    return _outcome(optuna, study, spec)


def _sampler(spec: SearchSpec, seed: int) -> Any:
    import warnings

    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that Optuna calls experimental
        if spec.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if spec.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, constraints_func=_broken)
        return optuna.samplers.TPESampler(seed=seed, constraints_func=_broken)


def _broken(trial: Any) -> list[float]:
    """Above 0 where a constraint is broken, as Optuna wants it."""
    return [1.0 if trial.user_attrs.get("feasible") is False else -1.0]


def _suggest(trial: Any, key: str, each: RangeSpec) -> Scalar:
    if each.choices is not None:
        chosen: Scalar = trial.suggest_categorical(key, each.choices)
        return chosen
    assert each.low is not None and each.high is not None
    if each.integer:
        return int(trial.suggest_int(key, int(each.low), int(each.high), log=each.log))
    return float(trial.suggest_float(key, float(each.low), float(each.high), log=each.log))


def _metrics(figures: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(flat_figures(dict(figures)))
    frugal = flat.get("tokens_per_j") or 0.0
    area = flat.get("area_mm2.total", 0.0) * flat.get("devices", 1)
    return flat | {"mj_per_token": 1e3 / frugal if frugal else float("inf"), "area_mm2": area}


def _tell(
    optuna: Any, study: Any, trial: Any, spec: SearchSpec, point: Mapping[str, Any],
    figures: Mapping[str, Any] | None, error: str,
) -> None:  # fmt: skip
    if figures is None:
        trial.set_user_attr("error", error)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    metrics = _metrics(figures)
    names = {**spec.set, **point, **metrics}
    trial.set_user_attr("feasible", all(holds(t, names, "constraints") for t in spec.constraints))
    study.tell(trial, [float(metrics[objective.metric]) for objective in spec.objectives])


def _outcome(optuna: Any, study: Any, spec: SearchSpec) -> SearchOutcome:
    trials, complete = [], []
    for each in study.get_trials(deepcopy=False):
        feasible = bool(each.user_attrs.get("feasible", False))
        values = tuple(each.values or ())
        trials.append(
            Trial(each.number, dict(each.params), values, feasible,
                  str(each.user_attrs.get("error", "")))
        )  # fmt: skip
        if values and feasible:
            complete.append(trials[-1])
    signs = [1 if o.direction == "maximize" else -1 for o in spec.objectives]
    scores = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in complete}
    front = tuple(n for n, mine in scores.items() if not any(
        _beats(other, mine) for k, other in scores.items() if k != n))  # fmt: skip
    return SearchOutcome(tuple(trials), front, _importance(optuna, study, spec))


def _beats(other: list[float], mine: list[float]) -> bool:
    return all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine


def _importance(optuna: Any, study: Any, spec: SearchSpec) -> dict[str, dict[str, float]]:
    """Empty where there are too few trials to tell."""
    import warnings

    if len([t for t in study.get_trials(deepcopy=False) if t.values]) < 4:
        return {}
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at, objective in enumerate(spec.objectives):
            try:
                found[objective.metric] = optuna.importance.get_param_importances(
                    study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
                    target=lambda trial, at=at: trial.values[at],
                )  # fmt: skip
            except (ValueError, RuntimeError):  # all values alike: nothing has an influence
                found[objective.metric] = dict.fromkeys(spec.space, 0.0)
    return found
