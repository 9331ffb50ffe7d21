"""Simulations of the study: each config once, kept on disk, resumed after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pimsim.config.content import run_content
from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.config.loader import load_run
from pimsim.config.run import RunConfig
from pimsim.validate.neupims.study import Study, StudyPoint
from pimsim.workload.batch import input_hashes

__all__ = ["Case", "Figures", "RunStore", "grid_case", "run_cases", "step_config"]


@dataclass(frozen=True)
class Figures:
    """What a simulation says, as far as the study reads it."""

    tokens_per_s: float
    iteration_s: float
    npu: float
    """Utilisation, 0 to 1."""
    pim: float
    note: str = ""
    """Why there are no figures (the model does not fit)."""


@dataclass(frozen=True, eq=False)
class Case:
    """One simulation: its config."""

    config: RunConfig

    @cached_property
    def key(self) -> str:
        """Hash of all that the figures depend on."""
        resolved = Resolved(self.config)
        return run_content(resolved, input_hashes(self.config.workload))


class RunStore:
    """Figures by key in one JSON file, rewritten whole after each simulation."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.figures: dict[str, Figures] = {}
        if path is not None and path.exists():
            self.figures = _read(path)
        self._texts = {key: _text(each) for key, each in self.figures.items()}

    def __contains__(self, case: Case) -> bool:
        return case.key in self.figures

    def __getitem__(self, case: Case) -> Figures:
        return self.figures[case.key]

    def put(self, key: str, figures: Figures) -> None:
        """Keep ``figures``, on disk as well."""
        self.figures[key] = figures
        self._texts[key] = _text(figures)
        if self.path is not None:
            rows = ",\n".join(f' "{known}": {text}' for known, text in sorted(self._texts.items()))
            write_whole(self.path, f"{{\n{rows}\n}}\n".encode())


def _text(figures: Figures) -> str:
    """JSON of a row of the store, once: the file is written after each simulation."""
    return json.dumps(asdict(figures), indent=1).replace("\n", "\n ")


def _read(path: Path) -> dict[str, Figures]:
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {key: Figures(**each) for key, each in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a store of this suite ({error}); remove it to simulate anew"
        ) from None


def grid_case(study: Study, machine: str, mode: str, point: StudyPoint) -> Case:
    """``machine`` at ``point`` of the grid.

    Parameters
    ----------
    study
        The grid and its machines.
    machine
        Its key.
    mode
        One of ``MODES``.
    point
        Model, requests and batch.
    """
    changes = study.machine(machine).changes(study, mode)
    return _case(changes, point.model, study.grid.requests[point.requests], point.batch)


@cache
def _case(changes: tuple[str, ...], model: str, requests: str, batch: int) -> Case:
    config = _config(changes)
    # the artifact counts no rows; a point that has no room for all blocks says so
    workload = {"model": model, "requests": requests, "batch": batch, "beyond_banks": True}
    # nor does it have the caches of other batches in the pipeline; ratios do not depend on them
    update = {
        "workload": config.workload.model_copy(update=workload),
        "parallel": config.parallel.model_copy(update={"batches": 1}),
    }
    return Case(config.model_copy(update=update))


@cache
def _config(changes: tuple[str, ...]) -> RunConfig:
    preset, *overrides = changes
    return load_run(preset, overrides).config


def step_config(study: Study, machine: str, point: StudyPoint, steps: int) -> Case:
    """``machine`` without quirks but for those of the first ``steps`` of the waterfall.

    Parameters
    ----------
    study
        The grid and its machines.
    machine
        Its key.
    point
        Model, requests and batch.
    steps
        Of the waterfall, 0 or more.
    """
    clean = grid_case(study, machine, "clean", point)
    quirks = grid_case(study, machine, "quirks", point)
    keys = tuple(key for step in study.waterfall.steps[:steps] for key in step.keys)
    return _mixed(clean, quirks, keys)


@cache
def _mixed(clean: Case, quirks: Case, keys: tuple[str, ...]) -> Case:
    mixed, source = clean.config.model_dump(), quirks.config.model_dump()
    for key in keys:
        _copy(source, mixed, key.split("."))
    return Case(RunConfig.model_validate(mixed))


def _copy(source: dict[str, Any], target: dict[str, Any], path: list[str]) -> None:
    *folders, leaf = path
    for folder in folders:
        if source.get(folder) is None or target.get(folder) is None:
            return  # a machine without PIM has none of its quirks
        source, target = source[folder], target[folder]
    target[leaf] = source[leaf]


def simulate_case(case: Case) -> Figures:
    """Simulate one case; a model that does not fit is said, not raised."""
    from pimsim.simulate import simulate

    try:
        result = simulate(Resolved(case.config))
    except InputError as error:
        return Figures(0.0, 0.0, 0.0, 0.0, note=str(error))
    return Figures(
        tokens_per_s=result.tokens_per_s,
        iteration_s=result.iteration_s,
        npu=result.utilisation.npu,
        pim=result.utilisation.pim or 0.0,
    )


def run_cases(
    cases: Iterable[Case], store: RunStore, workers: int, tell: Callable[[int, int], None]
) -> None:
    """Simulate what ``store`` lacks.

    Parameters
    ----------
    cases
        Equal ones are simulated once.
    store
        Of simulations; written as they end.
    workers
        Processes; 1: this one.
    tell
        Of how many are done, and of how many, as they end.
    """
    todo = {case.key: case for case in cases if case not in store}
    tell(0, len(todo))
    if workers == 1 or len(todo) < 2:
        for done, (key, case) in enumerate(todo.items(), 1):
            store.put(key, simulate_case(case))
            tell(done, len(todo))
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting = {pool.submit(simulate_case, case): key for key, case in todo.items()}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                store.put(waiting[future], future.result())
                tell(done, len(todo))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
