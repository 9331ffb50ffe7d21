"""``python -m benchmarks.paired OTHER [--rounds N]``: this checkout's CPU time over another's.

Points of a sweep at fast fidelity, a run's start and the replay of a DRAM trace, in turn in both
checkouts, so that a machine which others use too is as slow for one as for the other. Kernels of
each are compiled before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks.measurement import Measurement, print_measurement, run_process

__all__ = ["measure"]

ROUNDS, MOST = 15, 1.03
POINTS = 4
"""In a round."""
START = (
    "run", "neupims", "--model", "smollm2-135m", "--layers", "1", "--batch", "4", "--set",
    "parallel.tp=1", "--json",
)  # fmt: skip
_WORKER = """
import inspect, json, sys, time
import numpy as np
from pimsim.config.loader import load_memory
from pimsim.hardware.dram.replay import replay
from pimsim.simulate import resolve, simulate

options = {"over_time": False} if "over_time" in inspect.signature(simulate).parameters else {}
memory = load_memory("hbm2", ["organization.channels=1"]).config
burst = memory.organization.burst_bytes
addresses = np.random.default_rng(1).integers(0, 10**6, 10**5) * burst
reads = np.zeros(len(addresses), dtype=np.int64)

def points(first, batch):
    for number in range(first, first + int(sys.argv[1])):
        given = ["fidelity=fast", "workload.layers=1", f"npu.frequency={1000 + number}MHz"]
        batches = [f"workload.batch={16 + 8 * (number % 29)}"] if batch else []
        simulate(resolve("neupims", given + batches), **options)

for line in sys.stdin:
    number = int(line)
    found = {}
    for name, work in (
        ("points of one batch", lambda: points(number, False)),
        ("points of new batches", lambda: points(number, True)),
        ("replay", lambda: replay(memory, addresses, reads)),
    ):
        start = time.process_time()
        work()
        found[name] = time.process_time() - start
    print(json.dumps(found), flush=True)
"""


class _Checkout:
    """A process that works in a checkout, and where its kernels are."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"PYTHONPATH": str(folder / "sim")}
        self._worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(POINTS)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, **self.environment},
        )  # fmt: skip

    def round(self, number: int) -> Mapping[str, float]:
        """CPU seconds of each kind of work."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        print(number, file=self._worker.stdin, flush=True)
        found: dict[str, float] = json.loads(self._worker.stdout.readline())
        start = run_process(["-m", "pimsim.cli.main", *START], self.environment)
        return {**found, "start of a small run": start.cpu_s}

    def end(self) -> None:
        """Let the process end."""
        self._worker.communicate()


def measure(other: Path, rounds: int = ROUNDS) -> list[Measurement]:
    """Median ratios of CPU seconds, this checkout's over those of the one in ``other``."""
    both = [_Checkout(Path(__file__).resolve().parents[1]), _Checkout(other)]
    ratios: dict[str, list[float]] = {}
    try:
        for number in range(rounds + 1):
            # each goes first in turn
            order = both if number % 2 else both[::-1]
            found = {id(each): each.round(POINTS * number) for each in order}
            if not number:
                continue  # compiles
            own, its = (found[id(each)] for each in both)
            for name, seconds in own.items():
                ratios.setdefault(name, []).append(seconds / its[name])
    finally:
        for each in both:
            each.end()
    return [
        Measurement(
            name, median(each), "of its CPU time", MOST, at_least=False,
            note=f"{min(each):.2f} to {max(each):.2f} in {rounds} rounds",
        )
        for name, each in ratios.items()
    ]  # fmt: skip


def main() -> int:
    """Print the ratios; 1 where one is above ``MOST``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__)
    parser.add_argument("other", type=Path, help="a checkout of pimsim")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    found = measure(options.other.resolve(), options.rounds)
    for one in found:
        print_measurement(one)
    return 0 if all(one.met for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
