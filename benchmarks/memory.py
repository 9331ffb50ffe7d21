"""Most memory that the default run ever holds."""

from __future__ import annotations

from benchmarks.measurement import Measurement, run_process

__all__ = ["measure"]

MOST_MB = 500.0


def measure() -> list[Measurement]:
    """Peak resident set of ``pimsim run`` in a process of its own."""
    done = run_process(["-m", "pimsim.cli.main", "run", "--json"])
    return [Measurement("pimsim run, peak memory", done.peak_mb, "MB", MOST_MB, at_least=False)]
