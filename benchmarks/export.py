"""Operator traces of large models from hyperparameters alone: time and memory of the command."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurement import Measurement, run_process

__all__ = ["measure"]

MOST_S, MOST_MB, TIMES = 5.0, 1000.0, 3
MODELS = ("llama-3-70b", "deepseek-v3")


def measure() -> list[Measurement]:
    """Wall seconds (best of ``TIMES``) and peak resident set, PyTorch's import included."""
    found = []
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                "-m",
                "pimsim.cli.main",
                "export",
                name,
                "--out",
                str(Path(folder, "t.json")),
            ]
            runs = [run_process(command) for _ in range(TIMES)]
        best = min(runs, key=lambda run: run.wall_s)
        found += [
            Measurement(
                f"pimsim export {name}", best.wall_s, "s", MOST_S, at_least=False,
                note=f"{best.cpu_s:.1f} s CPU",
            ),
            Measurement(
                f"pimsim export {name}, peak memory", max(run.peak_mb for run in runs), "MB",
                MOST_MB, at_least=False,
            ),
        ]  # fmt: skip
    return found
