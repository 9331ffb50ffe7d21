"""Workers that simulate points: processes of this machine, or a Dask cluster's."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from math import fsum
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from multiprocessing.resource_tracker import ensure_running
from types import ModuleType
from typing import Any, Protocol

from pimsim.config.errors import CheckFailed, InputError
from pimsim.explore.figures import kept_figures

__all__ = ["Answer", "Job", "Pool", "answers", "simulate_job", "worker_pool"]

_AHEAD = 2
"""Chunks under way for each worker: enough to keep it busy, few enough to lose little."""
_CHUNK_S = 0.5
_MOST = 16
"""A chunk takes about so long, and has at most so many points."""
_WINDOW = 64
"""Points among which kin are looked for."""
_WHY = "out of memory?"
_TRIES = 2
"""A point that had a worker to itself that died, so often in a row, has failed."""


@dataclass(frozen=True)
class Job:
    """What a worker needs: small, and the same for any kind of worker."""

    identity: str
    key: str
    base: str
    overrides: tuple[str, ...]
    kin: str = ""
    """Equal for jobs that a worker does faster one after the other: same memory, same PIM, same
    requests."""

    def figures(self) -> dict[str, Any]:
        """Simulate it: a run. Runs in a worker. Raises ``InputError`` where it cannot be."""
        from pimsim.simulate import resolve, simulate

        return kept_figures(simulate(resolve(self.base, self.overrides), over_time=False))


@dataclass(frozen=True)
class Answer:
    """What came of a job: figures, or why there are none."""

    job: Job
    figures: dict[str, Any] | None
    error: str = ""
    seconds: float = 0.0
    """That the worker was busy with it."""


def simulate_jobs(jobs: tuple[Job, ...]) -> list[Answer]:
    """Points, one after the other. Runs in a worker."""
    found = []
    for job in jobs:
        start = time.perf_counter()
        answer = simulate_job(job)
        found.append(replace(answer, seconds=time.perf_counter() - start))
    return found


def simulate_job(job: Job) -> Answer:
    """One point. Runs in a worker; a bug of the simulator is an error of the point, too.

    Parameters
    ----------
    job
        What is simulated.
    """
    try:
        figures = job.figures()
    except (InputError, CheckFailed) as error:
        return Answer(job, None, str(error))
    except Exception as error:  # whatever it is, the other points can still be simulated
        return Answer(job, None, f"simulator bug, {type(error).__name__}: {error}")
    return Answer(job, figures)


class Pool(Protocol):
    """Somebody to give jobs to."""

    width: int
    """Jobs that are simulated at once."""

    def submit(self, jobs: tuple[Job, ...]) -> Future[list[Answer]]:
        """Simulate ``jobs`` some time, one after the other."""

    def revive(self) -> None:
        """After a worker died: take jobs again."""


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait_for([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


@contextmanager
def _without_main() -> Iterator[None]:
    """As if Python ran no script: a new process would run it again up to its main guard, and
    without one sweep in it, and so on without end. Workers need pimsim alone."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started do not hear Ctrl-C, which a terminal sends to all: whoever started
    them ends them, and only that one has something to say. What comes meanwhile comes after."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    ensure_running()  # it would lift the block where it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _LocalPool:
    """Processes of this machine."""

    def __init__(self, workers: int) -> None:
        self.width = workers
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # spawned: a fork would copy compiled kernels' threads in an unknown state
        return ProcessPoolExecutor(
            self.width, mp_context=get_context("spawn"), initializer=_end_with_parent
        )

    def submit(self, jobs: tuple[Job, ...]) -> Future[list[Answer]]:
        with _without_main(), _deaf():  # workers are started where there is work for them
            return self._executor.submit(simulate_jobs, jobs)

    def revive(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._start()

    def end(self, finished: bool) -> None:
        """Tell the workers to end; what they hold takes a while to give back. Those whose answers
        nobody waits for are ended, so that none is left behind with what it shares with us."""
        if finished:
            self._executor.shutdown(wait=False)
            return
        for worker in list((getattr(self._executor, "_processes", None) or {}).values()):
            worker.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)


class _DaskPool:
    """A cluster's workers."""

    def __init__(self, executor: Any, width: int) -> None:
        self.width = width
        self._executor = executor

    def submit(self, jobs: tuple[Job, ...]) -> Future[list[Answer]]:
        future: Future[list[Answer]] = self._executor.submit(simulate_jobs, jobs)
        return future

    def revive(self) -> None:
        """The scheduler replaces workers by itself."""


@contextmanager
def worker_pool(workers: int | None, dask: str | None) -> Iterator[Pool]:
    """Processes that simulate points.

    Parameters
    ----------
    workers
        Local ones; None: as many as there are cores.
    dask
        Address of a Dask scheduler, whose workers are taken in place of local ones; None: none.

    Raises
    ------
    InputError
        Where nobody answers there.
    """
    if dask is None:
        pool = _LocalPool(workers or os.cpu_count() or 1)
        try:
            yield pool
        except BaseException:
            pool.end(finished=False)
            raise
        pool.end(finished=True)
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
            yield _DaskPool(executor, cores)


def answers(pool: Pool, jobs: Iterator[Job]) -> Iterator[Answer]:
    """Answers as they come, a bounded number of jobs under way. A job whose worker dies is given
    to another one by itself, twice at most; then it has failed.

    Parameters
    ----------
    pool
        Of ``worker_pool``.
    jobs
        In the order in which they are begun.
    """
    waiting: dict[Future[list[Answer]], tuple[Job, ...]] = {}
    suspects: list[Job] = []
    """Under way when a worker died: each is given again alone, so that it takes no other along."""
    deaths = 0
    size = 1
    window: list[Job] = []

    def chunk_of_kin() -> tuple[Job, ...]:
        window.extend(islice(jobs, _WINDOW - len(window)))
        # towards the end everybody gets a part of what is left
        most = size if len(window) == _WINDOW else min(size, len(window) // (2 * pool.width))
        kin = [job for job in window if job.kin == window[0].kin][: max(most, 1)]
        window[:] = [job for job in window if job not in kin]
        return tuple(kin)

    def give() -> None:
        if suspects:
            if not waiting:
                job = suspects.pop()
                waiting[pool.submit((job,))] = (job,)
            return
        while len(waiting) < pool.width * _AHEAD and (chunk := chunk_of_kin()):
            waiting[pool.submit(chunk)] = chunk

    give()
    while waiting:
        alone = sum(map(len, waiting.values())) == 1
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        lost: list[Job] = []
        for future in finished:
            chunk = waiting.pop(future)
            error = future.exception()
            if error is None:
                found = future.result()
                each = fsum(answer.seconds for answer in found) / len(found)
                size = min(max(int(_CHUNK_S / max(each, 1e-6)), 1), _MOST)
                yield from found
            elif isinstance(error, BrokenProcessPool) or type(error).__name__ == "KilledWorker":
                lost += chunk
            else:
                yield from (Answer(job, None, f"{type(error).__name__}: {error}") for job in chunk)
        if lost:
            # all that were under way are lost with the pool
            lost += chain(*waiting.values())
            waiting.clear()
            pool.revive()
            deaths = deaths + 1 if alone else 0
            if alone and deaths >= _TRIES:
                yield Answer(lost.pop(), None, f"the worker died, {deaths} times ({_WHY})")
                deaths = 0
            suspects.extend(lost)
        elif alone:
            deaths = 0
        give()
