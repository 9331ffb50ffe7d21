"""Memory: the most that the default run holds, and what a process that goes on and on holds.

``python -m benchmarks.memory runs|points COUNT FIDELITY`` prints, as JSON, the MB that one process
holds after each of so many different runs, or points of a sweep over memories.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measurement import Measurement, run_process

__all__ = ["held_after", "measure", "write_long"]

MOST_MB = 500.0
GROWTH = 1.10
"""The last of many runs holds at most so many times what the second did."""
RUNS, POINTS = 100, 800
LARGE_RUNS = (
    (),
    ("--set", "memory.organization.channels=512"),
    ("--set", "memory=hbm3-6400", "--set", "memory.organization.channels=512"),
)
"""Options of runs that are large in one thing."""
LONG_REQUESTS, LONG_CONTEXT = 64, 131072
LONG_MEMORY = "memory.organization.rows=2097152"
DEVICES = ("neupims", "npu-pim", "npu-only")
POINTS_EACH = 20
"""Of one memory."""


def measure() -> list[Measurement]:
    """Peak of ``pimsim run`` in a process of its own; growth over runs and over points."""
    return [
        *(
            Measurement(
                f"pimsim run {' '.join(options)}, peak memory",
                run_process(["-m", "pimsim.cli.main", "run", "--json", *options]).peak_mb,
                "MB",
                MOST_MB,
                at_least=False,
            )
            for options in LARGE_RUNS
        ),
        *(_long_contexts(fidelity) for fidelity in ("command", "fast")),
        _growth(f"{RUNS} runs, command", held_after("runs", RUNS, "command")),
        _growth(f"{RUNS} runs, fast", held_after("runs", RUNS, "fast")),
        _growth(
            f"{POINTS} points over {POINTS // POINTS_EACH} memories",
            held_after("points", POINTS, "fast"),
        ),
    ]


def _long_contexts(fidelity: str) -> Measurement:
    """``LONG_REQUESTS`` of ``LONG_CONTEXT`` tokens on a memory that is large enough for them."""
    with TemporaryDirectory() as folder:
        requests, card = Path(folder) / "requests.csv", Path(folder) / "card.yaml"
        write_long(requests, card, LONG_REQUESTS, LONG_CONTEXT)
        options = ("--model", str(card), "--requests", str(requests), "--fidelity", fidelity)
        done = run_process(
            ["-m", "pimsim.cli.main", "run", "neupims", "--json", *options, "--set", LONG_MEMORY]
        )
    return Measurement(
        f"{LONG_REQUESTS} contexts of {LONG_CONTEXT}, llama-3-8b, {fidelity}: peak memory",
        done.peak_mb, "MB", MOST_MB, at_least=False, note=f"{done.cpu_s:.1f} CPU s",
    )  # fmt: skip


def write_long(requests: Path, card: Path, count: int, context: int) -> None:
    """Write a trace of ``count`` requests that each see ``context`` tokens, and llama-3-8b's card
    for as many."""
    lines = ["request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"]
    lines += [f"{number},0.0,{context - 1},2,1" for number in range(count)]
    requests.write_text("\n".join(lines) + "\n")
    from pimsim.config.resources import preset_path

    text = preset_path("model", "llama-3-8b").read_text()
    card.write_text(re.sub(r"(?m)^max_context:.*$", f"max_context: {context}", text))


def _growth(what: str, held: list[float]) -> Measurement:
    return Measurement(
        f"{what}: held after the last over the second", held[-1] / held[1], "times", GROWTH,
        at_least=False, note=f"{held[1]:.0f} and {held[-1]:.0f} MB, at most {max(held):.0f}",
    )  # fmt: skip


def held_after(kind: str, count: int, fidelity: str) -> list[float]:
    """MB that a process of its own holds after each of ``count`` ``runs`` or ``points``."""
    arguments = ["-m", "benchmarks.memory", kind, str(count), fidelity]
    found = json.loads(run_process(arguments, {"PIMSIM_CACHE_DIR": "none"}).stdout)
    return [float(each) for each in found]


def _runs(count: int, fidelity: str) -> Iterator[None]:
    """Different devices, batches and memories."""
    from pimsim.simulate import resolve, simulate

    for number in range(count):
        device = DEVICES[number % len(DEVICES)]
        simulate(resolve(device, [
            *_workload(fidelity), f"workload.batch={8 + 5 * number % 7}",
            f"memory.timings.tRP={10 + number // len(DEVICES)}",
        ]))  # fmt: skip
        yield


def _points(count: int, fidelity: str) -> Iterator[None]:
    """As a sweep's worker simulates them: memory by memory."""
    from pimsim.explore.pool import Job, simulate_job

    for number in range(count):
        memory, point = divmod(number, POINTS_EACH)
        frequency, arrays = divmod(point, POINTS_EACH // 2)
        overrides = (
            *_workload(fidelity), "workload.batch=8", f"memory.timings.tRP={10 + memory}",
            f"npu.frequency={1 + frequency}GHz", f"npu.systolic.arrays={1 + arrays}",
        )  # fmt: skip
        answer = simulate_job(Job(str(number), str(number), "neupims", overrides))
        if answer.figures is None:
            raise RuntimeError(answer.error)
        yield


def _workload(fidelity: str) -> tuple[str, ...]:
    return (
        "workload.model=smollm2-135m", "parallel.tp=1", "workload.layers=1", f"fidelity={fidelity}",
    )  # fmt: skip


def _held_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 10**6
    raise RuntimeError("/proc/self/status says nothing of memory")


def main() -> None:
    """The work of the process that is measured."""
    kinds: dict[str, Callable[[int, str], Iterator[None]]] = {"runs": _runs, "points": _points}
    kind, count, fidelity = sys.argv[1:]
    print(json.dumps([_held_mb() for _ in kinds[kind](int(count), fidelity)]))


if __name__ == "__main__":
    main()
