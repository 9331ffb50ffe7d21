"""Simulate the points of a sweep that are not known yet, and tell what is known of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError
from pimsim.config.loader import load_any_run
from pimsim.explore.figures import flat_figures, row_fidelity
from pimsim.explore.keys import Contents, kin_of, point_id, result_key
from pimsim.explore.pool import Answer, Job, Pool, answers, worker_pool
from pimsim.explore.spec import (
    SweepSpec,
    base_of,
    common_values,
    expand,
    mixed_keys,
    overrides,
    read_sweep,
)
from pimsim.explore.store import Store

if TYPE_CHECKING:
    import pandas

__all__ = ["Progress", "SweepOutcome", "load_table", "row_fidelity", "run_sweep", "stored_spec"]


@dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    done: int
    """Points whose fate is known, those of earlier runs included."""
    total: int
    simulated: int
    failed: int


@dataclass(frozen=True)
class SweepOutcome:
    """What a call did."""

    points: int
    simulated: int
    """In this call; the others were known."""
    failed: int
    damaged: tuple[str, ...] = ()
    """Files of the store that were not what had been written, and were made anew."""


@dataclass
class _Sweeping:
    """A call under way."""

    spec: SweepSpec
    store: Store
    base: str
    folder: Path
    """What relative files in values count from."""
    retry_failed: bool
    contents: Contents = field(default_factory=Contents)
    done: int = 0
    simulated: int = 0
    failed: int = 0
    asked: dict[str, list[str]] = field(default_factory=dict)
    """Points by the key of the result that they wait for."""

    def jobs(self, where: str) -> Iterator[Job]:
        """What has to be simulated; what is known is counted."""
        common = common_values(self.spec, self.base)
        for point in expand(self.spec, where):
            given = overrides(common, point, self.folder)
            identity = point_id(self.base, given)
            try:
                key = result_key(load_any_run(self.base, given), self.contents)
            except InputError as error:
                self._wrong(identity, str(error))
                continue
            if key in self.asked:
                self.asked[key].append(identity)
                continue
            known = self.store.point(identity)
            if self.store.result(key) is not None:
                if known != {"result": key}:
                    self.store.write_point(identity, {"result": key})
                self.done += 1
                continue
            failed_before = known is not None and known.get("failed") == key
            if failed_before and not self.retry_failed:
                self.done += 1
                self.failed += 1
                continue
            self.asked[key] = [identity]
            yield Job(identity, key, self.base, tuple(given), kin_of(given))

    def _wrong(self, identity: str, error: str) -> None:
        """A point whose config cannot be."""
        if self.store.point(identity) != {"error": error}:
            self.store.write_point(identity, {"error": error})
            self.simulated += 1
        elif self.retry_failed:
            self.simulated += 1
        self.done += 1
        self.failed += 1

    def keep(self, answer: Answer) -> None:
        """Write down what came of a job, for all points that wait for it."""
        key = answer.job.key
        what = {"result": key}
        if answer.figures is None:
            what = {"error": answer.error, "failed": key}
        else:
            self.store.write_result(key, answer.figures)
        for identity in self.asked.pop(key):
            self.store.write_point(identity, what)
            self.done += 1
            self.failed += answer.figures is None
        self.simulated += 1


def run_sweep(
    path: Path, out: Path, workers: int | None = None, dask: str | None = None,
    on_progress: Callable[[Progress], None] | None = None, retry_failed: bool = False,
    replace: bool = False, pool: Pool | None = None,
) -> SweepOutcome:  # fmt: skip
    """Simulate what the store does not know yet of a sweep.

    A result is known by everything that it depends on, the content of files included. The store
    does not depend on who simulates. A point that fails is recorded with its error and the sweep
    goes on.

    Parameters
    ----------
    path
        Of the sweep's YAML.
    out
        Folder of the store.
    workers
        Local processes; None: as many as there are cores.
    dask
        Address of a Dask scheduler, in place of local processes.
    on_progress
        Hears of points that are done.
    retry_failed
        Whether points that failed before are tried again.
    replace
        Let the sweep take the place of another one's in ``out``, whose results are kept.
    pool
        Of ``worker_pool``, for several sweeps one after the other, in place of ``workers`` and
        ``dask``; None: one that is started for this sweep.

    Raises
    ------
    InputError
        For a wrong sweep or store.
    """
    spec = read_sweep(path)
    store = Store(out, create=True)
    base, folder = base_of(spec, path), path.resolve().parent
    if not replace:
        _check_owner(out, spec, base, path)
    store.write_source(path, {"base": base, "folder": str(folder), "file": str(path.resolve())})
    damaged = tuple(str(each) for each in store.drop_damaged())
    total = sum(1 for _ in expand(spec, str(path)))
    state = _Sweeping(spec, store, base, folder, retry_failed)

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(state.done, total, state.simulated, state.failed))

    report()
    with worker_pool(workers, dask) if pool is None else nullcontext(pool) as used:
        for answer in answers(used, state.jobs(str(path))):
            state.keep(answer)
            report()
    report()
    return SweepOutcome(total, state.simulated, state.failed, damaged)


def _check_owner(folder: Path, spec: SweepSpec, base: str, path: Path) -> None:
    """Raise ``InputError`` where ``folder`` holds the sweep of another file. The same file may have
    been edited: then the sweep goes on."""
    try:
        source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        stored, stored_base, _ = stored_spec(folder)
        owner = str(source.get("file", "")) or str(source["folder"])
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # none, or a damaged one, which is written anew
    if owner == str(path.resolve()) or (stored, stored_base) == (spec, base):
        return
    raise InputError(
        f"--out {folder} holds the sweep {stored.name!r} of {owner}; give another folder, or "
        f"--replace to put {path} in its place (results of both are kept)"
    )


def load_table(folder: Path) -> pandas.DataFrame:
    """A sweep's store as a table, a row a point in the sweep's order: the swept keys, then the
    figures; ``error`` says why a point has none.

    Parameters
    ----------
    folder
        Of the store.

    Returns
    -------
    pandas.DataFrame
        Figures that a point lacks are not a number.

    Raises
    ------
    InputError
        For what is no store, and for a result file that is damaged.
    """
    import pandas

    store = Store(folder)
    spec, base, files_from = stored_spec(folder)
    rows = []
    mixed, common = mixed_keys(spec), common_values(spec, base)
    for point in expand(spec, str(folder)):
        identity = point_id(base, overrides(common, point, files_from))
        # a column has one type: what a key takes in two of them is text
        shown = {key: _text(value) if key in mixed else value for key, value in point.items()}
        rows.append({**shown, **_row(store, identity)})
    return pandas.DataFrame(rows)


def stored_spec(folder: Path) -> tuple[SweepSpec, str, Path]:
    """The sweep of a store, its base, and the folder that its relative files count from.

    Parameters
    ----------
    folder
        Of the store.

    Raises
    ------
    InputError
        Where it is not there, or damaged.
    """
    from pimsim.config.documents import read_document

    spec = read_document(SweepSpec, folder / "sweep.yaml")
    source = folder / "source.json"
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        return spec, str(data["base"]), Path(data["folder"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{source}: damaged or missing; sweeping again writes it anew") from None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _row(store: Store, identity: str) -> dict[str, Any]:
    known = store.point(identity)
    if known is None:
        return {"error": "not simulated yet"}
    if "error" in known:
        return {"error": known["error"]}
    key = str(known["result"])
    figures = store.result(key)
    if figures is None:
        path = store.folder / "results" / f"{key}.json"
        raise InputError(f"{path}: damaged or missing; sweeping again simulates its point anew")
    row = dict(flat_figures(figures))
    row["error"] = None
    return row
