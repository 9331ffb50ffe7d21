"""Waiting at the command line: with and without compiled kernels, and for the help."""

from __future__ import annotations

import tempfile

from benchmarks.measurement import Measurement, run_process

__all__ = ["measure"]

FIRST_S, LATER_S, HELP_S, IMPORT_S = 30.0, 3.0, 0.5, 0.1
TIMES = 3
RUN = ["-m", "pimsim.cli.main", "run", "--json"]


def measure() -> list[Measurement]:
    """Wall seconds; best of ``TIMES`` but for the first run, which can only be had once."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {"NUMBA_CACHE_DIR": cache}
        first = run_process(RUN, environment)
        later = min((run_process(RUN, environment) for _ in range(TIMES)), key=lambda p: p.wall_s)
    found = [
        Measurement(
            "pimsim run, kernels to compile", first.wall_s, "s", FIRST_S, at_least=False,
            note=f"{first.cpu_s:.1f} s CPU",
        ),
        Measurement(
            "pimsim run, later", later.wall_s, "s", LATER_S, at_least=False,
            note=f"{later.cpu_s:.1f} s CPU",
        ),
    ]  # fmt: skip
    bare = min(run_process(["-c", "pass"]).wall_s for _ in range(TIMES))
    for name, arguments, limit, base in (
        ("pimsim --help", ["-m", "pimsim.cli.main", "--help"], HELP_S, 0.0),
        ("import pimsim", ["-c", "import pimsim"], IMPORT_S, bare),
    ):
        wall_s = min(run_process(arguments).wall_s for _ in range(TIMES)) - base
        note = f"beside {bare:.3f} s of the interpreter" if base else ""
        found.append(Measurement(name, wall_s, "s", limit, at_least=False, note=note))
    return found
