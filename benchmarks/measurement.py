"""What a benchmark found, and how to time it on a machine that others use too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Measurement", "best_cpu_s", "print_measurement", "run_process"]


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


def print_measurement(one: Measurement) -> None:
    """A line."""
    limit = ""
    if one.limit is not None:
        sign = ">=" if one.at_least else "<="
        limit = f"{sign} {one.limit:g}  x{one.ratio:.2f}  {'ok' if one.met else 'MISSED'}"
    note = f"  ({one.note})" if one.note else ""
    print(f"{one.what:<52}{one.value:>10.3f} {one.unit:<34}{limit}{note}", flush=True)


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
    """Of the process, or of the largest that it has waited for."""
    stdout: str


_LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
found = time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status
os.write(int(sys.argv[1]), json.dumps(found).encode())
"""
"""A process starts with the peak memory of the one that started it: this one is small."""


def run_process(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Run Python with ``arguments``. Raises ``RuntimeError`` when it fails."""
    read, write = os.pipe()
    command = [
        sys.executable, "-I", "-S", "-c", _LAUNCHER, str(write), sys.executable, *arguments,
    ]  # fmt: skip
    with os.fdopen(read) as told:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, pass_fds=[write], check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        os.close(write)
        wall_s, cpu_s, peak, status = json.loads(told.read())
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}")
    kilo = 1 if sys.platform == "darwin" else 1024
    return Process(wall_s, cpu_s, peak * kilo / 10**6, done.stdout)
