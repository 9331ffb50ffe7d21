"""A sweep of single iterations: points a second, on one worker and on two, and memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurement import Measurement, run_process

__all__ = ["measure"]

SWEEP = """\
base: neupims
set: {{workload.layers: 1}}
grid:
  workload.batch: [{batches}]
  npu.frequency: [0.8GHz, 1.0GHz]
  memory.timings.tRP: [14, 16]
  schedule.sub_batches: [true, false]
  npu.systolic.arrays: [4, 8]
"""
POINTS = 1000
LIMIT_S = 60.0


def _sweep(points: int, workers: int) -> tuple[float, float]:
    """Seconds, and the peak of the largest process in MB."""
    # a smaller sweep has fewer batches, not smaller ones: what a run needs grows with them
    step = 4 * POINTS // points
    batches = ", ".join(str(8 + step * at) for at in range(points // 16))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sweep.yaml")
        path.write_text(SWEEP.format(batches=batches))
        done = run_process([
            "-m", "pimsim.cli.main", "sweep", str(path),
            "--out", str(Path(folder, "store")), "--workers", str(workers),
        ])  # fmt: skip
    return done.wall_s, done.peak_mb


def measure() -> list[Measurement]:
    """A warm-up that compiles, then one worker and two side by side."""
    _sweep(16, 2)
    _, small = _sweep(POINTS // 4, 2)
    whole, peak = _sweep(POINTS, 2)
    one, _ = _sweep(POINTS, 1)
    return [
        Measurement(
            f"sweep: {POINTS // 16 * 16} iterations, 2 workers", whole, "s", LIMIT_S, at_least=False
        ),
        Measurement("sweep: two workers over one", one / whole, "times", 1.8),
        Measurement(
            "sweep: peak memory over that of a quarter", peak / small, "times", 1.25,
            at_least=False, note=f"{peak:.0f} MB",
        ),
    ]  # fmt: skip
