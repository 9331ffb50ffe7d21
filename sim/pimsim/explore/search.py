"""Search for good configs with Optuna: several objectives, constraints, resumable, seeded.

Every point goes through the store of a sweep, so nothing is simulated twice; the study itself is in
Optuna's journal beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isfinite, isnan, log
from pathlib import Path
from typing import Any

from pimsim.config.documents import read_document
from pimsim.config.errors import InputError, reason
from pimsim.config.files import write_whole
from pimsim.config.loader import load_any_run
from pimsim.explore.expressions import holds
from pimsim.explore.figures import metrics_of
from pimsim.explore.importance import Importance, importance
from pimsim.explore.keys import Contents, point_id, result_key
from pimsim.explore.pool import Job, Pool, answers, worker_pool
from pimsim.explore.search_spec import SearchSpec, base_of, read_search
from pimsim.explore.spec import RangeSpec, Scalar, common_values, overrides
from pimsim.explore.store import Store
from pimsim.result.types import Fidelity

__all__ = ["SEARCH_FILE", "SearchOutcome", "Trial", "read_outcome", "run_search"]

SEARCH_FILE = "search.yaml"
"""In a search's folder: its YAML as it was when it was last called."""


@dataclass(frozen=True)
class Trial:
    """A point that was drawn."""

    number: int
    point: dict[str, Any]
    values: tuple[float, ...]
    """Of the objectives; empty where it failed or was not tried."""
    feasible: bool
    error: str
    """Why it failed."""
    tried: bool = True
    """False: it breaks a constraint of ``where``."""
    same_as: int | None = None
    """The first trial with the same config, where there is one."""
    fidelity: Fidelity | None = None
    """How its figures were simulated, and what they are off by; None where it has none."""


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found."""

    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    """Numbers of the trials that no other beats, constraints kept; equal configs once."""
    importance: dict[str, dict[str, Importance]]
    """By objective: what each key adds to its variance over ``all`` points, and over the better
    half of them (``good_end``). Without what too few points were tried for."""


def run_search(
    path: Path, out: Path, workers: int = 1, on_trial: Callable[[int, int], None] | None = None
) -> SearchOutcome:
    """Try points until the study has as many trials as the search asks for.

    The same search gives the same trials, with any number of workers, interrupted or not.

    Parameters
    ----------
    path
        Of the search's YAML.
    out
        Folder of the study and of its store.
    workers
        Processes that simulate at once.
    on_trial
        Hears of trials that are done, and of how many there will be.

    Raises
    ------
    InputError
        For wrong input, or where the extra ``explore`` is not installed.
    """
    optuna = _optuna()
    spec = read_search(path)
    store = Store(out, create=True)
    with _alone(out):
        write_whole(out / SEARCH_FILE, path.read_bytes())
        return _search(optuna, spec, store, path, workers, on_trial)


def read_outcome(folder: Path) -> tuple[SearchSpec, SearchOutcome]:
    """What a search has found so far; nothing is simulated.

    Parameters
    ----------
    folder
        Of the study and its store.

    Returns
    -------
    (SearchSpec, SearchOutcome)
        As the search's YAML was when it was last called.

    Raises
    ------
    InputError
        For what is no search's folder, or where the extra ``explore`` is not installed.
    """
    optuna = _optuna()
    spec = read_document(SearchSpec, folder / SEARCH_FILE)
    journal = folder / "journal.log"
    if not journal.is_file():
        raise InputError(f"{folder}: its search has no {journal.name}")
    try:
        study = optuna.load_study(study_name=spec.name, storage=_journal(journal))
    except KeyError:
        raise InputError(f"{journal}: it has no study {spec.name!r}") from None
    return spec, _outcome(study, spec)


def _optuna() -> Any:
    """The library, which then tells warnings alone. Raises ``InputError`` without the extra."""
    try:
        import optuna
    except ImportError:
        raise InputError("this needs the extra: pip install 'pimsim[explore]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One search at a time in a folder. The system frees the lock of a process that is killed."""
    path = folder / "search.lock"
    try:
        held = path.open("w")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {reason(error)}") from error
    with held:
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on Windows
            pass
        except BlockingIOError:
            raise InputError(f"--out {folder}: another search is under way there") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked: {reason(error)}") from error
        yield


def _search(
    optuna: Any, spec: SearchSpec, store: Store, path: Path, workers: int,
    on_trial: Callable[[int, int], None] | None,
) -> SearchOutcome:  # fmt: skip
    storage = _journal(store.folder / "journal.log")
    study = optuna.create_study(
        study_name=spec.name, storage=storage, load_if_exists=True,
        directions=[objective.sought for objective in spec.objectives],
    )  # fmt: skip
    _same_prices(study, spec, path)
    base, contents = base_of(spec, path), Contents()
    with worker_pool(workers, None) as pool:
        while True:
            asked = _batch(optuna, study, spec)
            done = sum(t.state.is_finished() for t in _valid(study))
            if on_trial is not None:
                on_trial(done, spec.trials)
            if not asked:
                break
            found = _simulated(spec, asked, store, pool, base, path, contents, _failed(study))
            for trial in asked:
                _tell(optuna, study, trial, spec, found[trial.number], path)
    return _outcome(study, spec)


def _same_prices(study: Any, spec: SearchSpec, path: Path) -> None:
    """Raise ``InputError`` where trials of the study were told their values at other prices."""
    now = None if spec.prices is None else spec.prices.model_dump(mode="json")
    before = study.user_attrs.get("prices")
    if before == now:
        return
    if study.get_trials(deepcopy=False):
        raise InputError(
            f"{path}: prices are not those of the trials that the study {spec.name!r} has; give "
            "the search another name, under which its points are not simulated again"
        )
    study.set_user_attr("prices", now)


def _journal(path: Path) -> Any:
    """Optuna's journal; what a kill left of it is put right: a lock without an owner, and a last
    line that was not written to its end."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        path.with_name(path.name + ".lock").unlink(missing_ok=True)
        if path.exists():
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if whole != text:
                write_whole(path, whole)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be used: {reason(error)}") from error


def _valid(study: Any) -> list[Any]:
    """The trials that were asked to the end; a kill may have left some that were not."""
    return [t for t in study.get_trials(deepcopy=False) if not t.user_attrs.get("lost")]


def _batch(optuna: Any, study: Any, spec: SearchSpec) -> list[Any]:
    """The trials of the next batch, those that an earlier call asked for first.

    Each is drawn by a sampler of its own, seeded by its number among the valid ones, and only
    after the batch before has been told: whatever was interrupted, the same is asked.
    """
    for trial in _valid(study):
        if not trial.state.is_finished() and set(trial.params) != set(spec.space):
            lost = optuna.trial.Trial(study, trial._trial_id)
            lost.set_user_attr("lost", True)
            study.tell(lost, state=optuna.trial.TrialState.FAIL)
    valid = _valid(study)
    open_ = [t for t in valid if not t.state.is_finished()]
    begun = len(valid) - len(valid) % spec.batch
    if open_ and valid.index(open_[0]) < begun:
        begun -= spec.batch  # a whole batch was asked and not told
    asked = [optuna.trial.Trial(study, t._trial_id) for t in open_]
    for number in range(len(valid), min(begun + spec.batch, spec.trials)):
        study.sampler = _sampler(spec, (spec.seed * 1_000_003 + number) % 2**32)
        trial = study.ask()
        for key, each in spec.space.items():
            _suggest(trial, key, each)
        asked.append(trial)
    return asked


@dataclass(frozen=True)
class _Found:
    """What came of a trial: figures, or why there are none."""

    figures: Mapping[str, Any] | None = None
    error: str = ""
    key: str = ""
    """Of the result; equal configs have equal ones."""
    tried: bool = True


def _failed(study: Any) -> dict[str, str]:
    """Errors of configs that failed, by key: they are not simulated again."""
    attributes = [trial.user_attrs for trial in _valid(study)]
    return {each["key"]: each["error"] for each in attributes if each.get("error")}


def _simulated(
    spec: SearchSpec, asked: Sequence[Any], store: Store, pool: Pool, base: str, path: Path,
    contents: Contents, failed: Mapping[str, str],
) -> dict[int, _Found]:  # fmt: skip
    """What is known of each trial by its number, after simulating what is not."""
    found: dict[int, _Found] = {}
    keys: dict[str, list[int]] = {}
    jobs: list[Job] = []
    common = common_values(spec, base)
    for trial in asked:
        point = _point(spec, trial.params)
        values = {**spec.set, **point}
        if not all(holds(t, values, f"{path}: where.{n}") for n, t in enumerate(spec.where)):
            found[trial.number] = _Found(tried=False)
            continue
        given = overrides(common, point, path.resolve().parent)
        try:
            key = result_key(load_any_run(base, given), contents)
        except InputError as error:
            found[trial.number] = _Found(error=str(error))
            continue
        known = store.result(key)
        if known is not None:
            found[trial.number] = _Found(known, key=key)
        elif key in failed:
            found[trial.number] = _Found(error=failed[key], key=key)
        elif key in keys:
            keys[key].append(trial.number)
        else:
            keys[key] = [trial.number]
            jobs.append(Job(point_id(base, given), key, base, tuple(given)))
    for answer in answers(pool, iter(jobs)):
        key = answer.job.key
        if answer.figures is not None:
            store.write_result(key, answer.figures)
        for number in keys[key]:
            found[number] = _Found(answer.figures, answer.error, key)
    return found


def _point(spec: SearchSpec, params: Mapping[str, Any]) -> dict[str, Scalar]:
    """A trial's values as a config takes them."""
    return {
        key: each.written(params[key]) if each.choices is None and not each.integer
        else params[key]
        for key, each in spec.space.items()
    }  # fmt: skip


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


def _suggest(trial: Any, key: str, each: RangeSpec) -> None:
    if each.choices is not None:
        trial.suggest_categorical(key, each.choices)
        return
    assert each.low is not None and each.high is not None
    if each.integer:
        trial.suggest_int(key, int(each.low), int(each.high), log=each.log)
    else:
        trial.suggest_float(key, float(each.low), float(each.high), log=each.log)


def _tell(optuna: Any, study: Any, trial: Any, spec: SearchSpec, found: _Found, path: Path) -> None:
    trial.set_user_attr("key", found.key)
    if found.figures is None:
        trial.set_user_attr("tried", found.tried)
        trial.set_user_attr("error", found.error)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    metrics = metrics_of(found.figures, spec.prices)
    unknown = [o.metric for o in spec.objectives if isnan(metrics[o.metric])]
    if unknown:
        trial.set_user_attr("error", f"{unknown[0]} is not known of this point")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    names = {**spec.set, **_point(spec, trial.params), **metrics}
    kept = [holds(t, names, f"{path}: constraints.{n}") for n, t in enumerate(spec.constraints)]
    trial.set_user_attr("fidelity", found.figures["fidelity"])
    trial.set_user_attr("feasible", all(kept))
    study.tell(trial, [float(metrics[objective.metric]) for objective in spec.objectives])


def _outcome(study: Any, spec: SearchSpec) -> SearchOutcome:
    trials: list[Trial] = []
    first: dict[str, int] = {}
    """By what a config is known by, the first trial that has it."""
    drawn = _valid(study)
    for number, each in enumerate(drawn):
        told, point = each.user_attrs, _point(spec, each.params)
        said = told.get("fidelity")  # a journal of before says nothing
        same = first.setdefault(told.get("key") or repr(point), number)
        trials.append(
            Trial(
                number, point, tuple(each.values or ()), bool(told.get("feasible", False)),
                str(told.get("error", "")), bool(told.get("tried", True)),
                None if same == number else same, Fidelity(**said) if said else None,
            )
        )  # fmt: skip
    different = [trial for trial in trials if trial.values and trial.same_as is None]
    signs = [1 if o.sought == "maximize" else -1 for o in spec.objectives]
    scores = {
        trial.number: [sign * value for sign, value in zip(signs, trial.values, strict=True)]
        for trial in different if trial.feasible
    }  # fmt: skip
    front = tuple(n for n, mine in scores.items() if not any(
        _beats(other, mine) for k, other in scores.items() if k != n))  # fmt: skip
    points = [(drawn[trial.number].params, trial.values) for trial in different]
    return SearchOutcome(tuple(trials), front, _importance(points, spec))


def _beats(other: list[float], mine: list[float]) -> bool:
    return all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine


def _importance(
    points: Sequence[tuple[Mapping[str, Any], Sequence[float]]], spec: SearchSpec
) -> dict[str, dict[str, Importance]]:
    """Of each objective, over different points."""
    axes: dict[str, Callable[[float], float]] = {
        key: log if each.log else float for key, each in spec.space.items() if each.numbers
    }
    found: dict[str, dict[str, Importance]] = {}
    for at, objective in enumerate(spec.objectives):
        best = objective.sought == "maximize"
        known = [(point, values[at]) for point, values in points if isfinite(values[at])]
        better = sorted(known, key=lambda each: each[1], reverse=best)[: ceil(len(known) / 2)]
        found[objective.metric] = {}
        for name, some in (("all", known), ("good_end", better)):
            shares = importance([each[0] for each in some], [each[1] for each in some], axes)
            if shares is not None:
                found[objective.metric][name] = shares
    return found
