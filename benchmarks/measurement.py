"""What a benchmark found, and how to time it on a machine that others use too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Measurement", "best_cpu_s", "run_process"]


@dataclass(frozen=True)
class Measurement:
    """One number and its limit."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = True
    """The value must reach the limit; else it must stay below it."""
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the limit is kept; True where there is none."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def ratio(self) -> float | None:
        """How many times better than the limit."""
        if self.limit is None:
            return None
        return self.value / self.limit if self.at_least else self.limit / self.value


def best_cpu_s(work: Callable[[], object], times: int) -> float:
    """Least CPU seconds of this process over ``times`` runs, after one that compiles."""
    work()
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


@dataclass(frozen=True)
class Process:
    """A finished process."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str


def run_process(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Run Python with ``arguments``. Raises ``RuntimeError`` when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert process.stdout is not None
    stdout = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}")
    kilo = 1 if sys.platform == "darwin" else 1024
    return Process(
        wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilo / 10**6, stdout
    )  # fmt: skip
