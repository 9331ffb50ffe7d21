"""Simulate the points of a sweep that are not known yet, and tell what is known of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim import __version__
from pimsim.config.errors import CheckFailed, InputError
from pimsim.config.loader import load_run
from pimsim.config.run import RunConfig
from pimsim.explore.spec import SweepSpec, base_of, expand, overrides, read_sweep
from pimsim.explore.store import Store

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Job", "Progress", "SweepOutcome", "flat_figures", "load_table", "run_sweep", "worker_pool",
]  # fmt: skip

_AHEAD = 4
"""Points under way for each worker: enough to keep it busy, few enough to lose little."""


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


@dataclass(frozen=True)
class Job:
    """What a worker needs: small, and the same for any kind of worker."""

    identity: str
    base: str
    overrides: tuple[str, ...]


def _simulate(job: Job) -> tuple[str, str, dict[str, Any] | None, str]:
    """One point: its identity, the result's key, the figures, an error. Runs in a worker."""
    from pimsim.simulate import resolve, simulate
    from pimsim.workload.batch import inputs_sha256
    from pimsim.workload.requests import load_requests

    try:
        resolved = resolve(job.base, job.overrides)
        workload = resolved.config.workload
        requests = load_requests(workload.requests, workload.batch).sha256
        key = Store.result_key(resolved.sha256, inputs_sha256(workload, requests), __version__)
        figures = _figures(simulate(resolved).to_dict()) | {"area_mm2": _area(resolved.config)}
    except (InputError, CheckFailed) as error:
        return job.identity, "", None, str(error)
    return job.identity, key, figures, ""


def _area(config: RunConfig) -> dict[str, float]:
    """Of one device, by part."""
    from dataclasses import asdict

    from pimsim.config.loader import load_area
    from pimsim.hardware.area import device_area

    found = device_area(config.npu, config.memory, config.pim, load_area().config)
    return {**asdict(found), "total": found.total}


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """The parts of a result that do not grow with its length and do not change from run to run."""
    kept = {
        name: result[name]
        for name in (
            "cycles", "time_s", "tokens_per_s", "tokens", "model", "layers_simulated",
            "layers_model", "iteration_s", "devices", "tokens_per_j", "utilisation", "energy_j",
            "cycle_stack", "bound_cycles", "fidelity", "warnings",
        )
    }  # fmt: skip
    provenance = result["provenance"]
    kept["provenance"] = {k: provenance[k] for k in ("config_sha256", "trace_sha256", "version")}
    return kept


def run_sweep(
    path: Path, out: Path, workers: int | None = None, dask: str | None = None,
    on_progress: Callable[[Progress], None] | None = None, retry_failed: bool = False,
) -> SweepOutcome:  # fmt: skip
    """Simulate what ``out`` does not know yet of the sweep in ``path``.

    ``workers``: local processes, as many as there are cores by default. ``dask``: a scheduler's
    address instead. The store does not depend on either. Raises ``InputError`` for a wrong sweep
    or store; a point that fails is recorded with its error and the sweep goes on.
    """
    spec = read_sweep(path)
    store = Store(out, create=True)
    text = path.read_bytes()
    from pimsim.config.files import write_whole

    write_whole(out / "sweep.yaml", text)
    write_whole(out / "base.txt", str(Path(base_of(spec, path))).encode())
    base = base_of(spec, path)
    base_sha256 = load_run(base).sha256
    damaged = set(store.damaged())
    for each in damaged:
        each.unlink(missing_ok=True)
    total = sum(1 for _ in expand(spec, str(path)))
    state = {"done": 0, "simulated": 0, "failed": 0}

    def jobs() -> Iterator[Job]:
        for point in expand(spec, str(path)):
            given = overrides(spec, point)
            identity = Store.point_id(base_sha256, given, __version__)
            known = store.point(identity)
            if known is not None and "error" in known and not retry_failed:
                state["done"] += 1
                state["failed"] += 1
                continue
            if known is not None and store.result(str(known.get("result"))) is not None:
                state["done"] += 1
                continue
            yield Job(identity, base, tuple(given))

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(state["done"], total, state["simulated"], state["failed"]))

    report()
    with worker_pool(workers, dask) as (submit, width):
        for identity, key, figures, error in _unordered(submit, jobs(), width):
            if figures is None:
                store.write_point(identity, {"error": error})
                state["failed"] += 1
            else:
                store.write_result(key, figures)
                store.write_point(identity, {"result": key})
            state["simulated"] += 1
            state["done"] += 1
            report()
    report()
    return SweepOutcome(total, state["simulated"], state["failed"])


Submit = Callable[[Job], "Future[Any]"]


@contextmanager
def worker_pool(workers: int | None, dask: str | None) -> Iterator[tuple[Submit, int]]:
    """Somebody to give jobs to, and how many at once."""
    if dask is None:
        import os

        count = workers or os.cpu_count() or 1
        # spawned: a fork would copy compiled kernels' threads in an unknown state
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            try:
                yield (lambda job: pool.submit(_simulate, job)), count
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--dask needs the extra: pip install 'pimsim[explore]'") from None
    try:
        client = Client(dask, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"--dask {dask}: no scheduler answers ({error})".splitlines()[0]
        ) from error
    with client:
        cores = sum(client.ncores().values()) or 1
        with client.get_executor() as executor:
            yield (lambda job: executor.submit(_simulate, job)), cores


def _unordered(submit: Submit, jobs: Iterator[Job], width: int) -> Iterator[Any]:
    """Results as they come, with a bounded number of jobs under way."""
    waiting: set[Future[Any]] = set()
    for job in islice(jobs, width * _AHEAD):
        waiting.add(submit(job))
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()
        for job in islice(jobs, width * _AHEAD - len(waiting)):
            waiting.add(submit(job))


def load_table(folder: Path) -> pandas.DataFrame:
    """The sweep in ``folder`` as a table, a row a point in the sweep's order: the swept keys, then
    the figures; ``error`` says why a point has none.

    Raises ``InputError`` for what is no store, and for a result file that is damaged.
    """
    import pandas

    store = Store(folder)
    spec, base = _stored_spec(folder)
    base_sha256 = load_run(base).sha256
    rows = []
    for point in expand(spec, str(folder)):
        identity = Store.point_id(base_sha256, overrides(spec, point), __version__)
        rows.append({**point, **_row(store, identity)})
    return pandas.DataFrame(rows)


def _stored_spec(folder: Path) -> tuple[SweepSpec, str]:
    from pimsim.config.loader import read_document

    spec = read_document(SweepSpec, folder / "sweep.yaml")
    try:
        base = (folder / "base.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: {error.filename} cannot be read") from error
    return spec, base


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


def flat_figures(figures: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The figures of a result by name, nested ones under dotted names."""
    for name, value in figures.items():
        if name in ("utilisation", "energy_j", "bound_cycles", "area_mm2"):
            for part, number in value.items():
                yield f"{name}.{part}", number
        elif name == "cycle_stack":
            for unit, causes in value.items():
                for cause, cycles in causes.items():
                    yield f"{name}.{unit}.{cause}", cycles
        elif name == "fidelity":
            yield "fidelity", value["mode"]
        elif name == "warnings":
            yield "warnings", "; ".join(value)
        elif name != "provenance":
            yield name, value
