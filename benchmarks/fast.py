"""`fast` against `command` fidelity on random machines, models and batches."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from benchmarks.block import ARTIFACT_CPU_S
from benchmarks.measurement import Measurement, best_cpu_s

if TYPE_CHECKING:
    from pimsim.result.types import Result

__all__ = ["Point", "draw_points", "measure"]

POINTS = 100
NEW_BLOCKS = 9
SEED = 20261125

MEMORIES = (
    "hbm2-neupims", "hbm2", "hbm2-2000", "hbm2-2400", "hbm2e-3600", "hbm3-6400", "hbm3e-9600",
    "gddr6", "lpddr4-2400", "lpddr5-6400", "ddr4-3200", "ddr5-4800",
)  # fmt: skip
BY_BANK = frozenset(MEMORIES) - {"lpddr5-6400", "ddr4-3200", "ddr5-4800"}
"""Those whose single banks can be refreshed."""
LARGE = {
    "gpt3-7b": 4, "gpt3-13b": 4, "gpt3-30b": 4, "gpt3-175b": 8, "llama-3-8b": 1, "llama-3-70b": 8,
    "opt-66b": 8, "gemma-3-27b": 4,
}  # fmt: skip
"""Models, and on how many devices."""
SMALL = {"smollm2-135m": 1, "gemma-3-270m": 1}
EXPERTS = {"mixtral-8x7b": 16, "qwen3-30b-a3b": 8, "olmoe-1b-7b": 8, "gpt-oss-120b": 32}
BATCHES = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200, 256, 384, 512)


@dataclass(frozen=True)
class Point:
    """A run."""

    preset: str
    overrides: tuple[str, ...]


def draw_points(seed: int, count: int, most_bursts: float = float("inf")) -> Iterator[Point]:
    """Random runs that the tool accepts, a third each of large models, small ones and ones with
    experts; their weights and caches in all (sub-)batches have at most ``most_bursts``."""
    from pimsim.config.errors import InputError
    from pimsim.simulate import device_of, resolve

    draw = random.Random(seed)
    found = 0
    while found < count:
        point = _draw(draw)
        resolved = resolve(point.preset, list(point.overrides))
        try:
            device, _ = device_of(resolved)
        except InputError:
            continue  # too small a memory, a design that the controller does not serve
        moved = sum(
            operator.weight_bytes + operator.kv_read_bytes
            for forward in device.passes
            for block in forward.blocks
            for operator in block.operators
        )
        if moved > most_bursts * device.memory.organization.burst_bytes:
            continue
        found += 1
        yield point


def _draw(draw: random.Random) -> Point:
    preset = draw.choice(("npu-only", "npu-pim", "npu-pim", "neupims", "neupims", "neupims"))
    memory = draw.choice(MEMORIES)
    by_bank = preset == "npu-only" and memory in BY_BANK
    refreshes = ("all-bank", "per-bank", "none") if by_bank else ("all-bank", "all-bank", "none")
    models = draw.choice((LARGE, SMALL, EXPERTS))
    model = draw.choice(list(models))
    overrides = [
        f"workload.model={model}", f"parallel.tp={models[model]}", "workload.layers=2",
        f"workload.requests={draw.choice(('sharegpt', 'alpaca'))}-512",
        f"workload.batch={draw.choice(BATCHES)}",
        f"memory={memory}",
        f"memory.organization.channels={draw.choice((8, 16, 32))}",
        f"npu.frequency={draw.choice((0.7, 1.0, 1.4))}GHz",
        f"npu.systolic.arrays={draw.choice((2, 4, 8))}",
        f"memory.controller.refresh={draw.choice(refreshes)}",
        "schedule.channel_assignment="
        + draw.choice(("least-loaded", "least-loaded", "round-robin")),
    ]  # fmt: skip
    if preset == "neupims":
        overrides.append(f"schedule.sub_batches={draw.choice(('true', 'true', 'false'))}")
    if preset != "npu-only":
        overrides.append(f"pim={draw.choice(('neupims', 'newton'))}")
    if models is EXPERTS:
        overrides.append(f"workload.routing={draw.choice(('uniform', 'zipf:0.5', 'zipf:1'))}")
        if preset != "npu-only":
            placed = draw.choice(("npu", "pim", "by-tokens"))
            overrides.append(f"schedule.expert_placement={placed}")
    return Point(preset, tuple(overrides))


def _simulate(point: Point, fidelity: str) -> Result:
    from pimsim.simulate import resolve, simulate

    return simulate(resolve(point.preset, [*point.overrides, f"fidelity={fidelity}"]))


def measure() -> list[Measurement]:
    """Errors of the iteration's time over random runs, what the runs said of them, and speed."""
    errors, covered, ratios = [], [], []
    for point in draw_points(SEED, POINTS):
        start = time.process_time()
        exact = _simulate(point, "command")
        between = time.process_time()
        fast = _simulate(point, "fast")
        ratios.append((between - start) / (time.process_time() - between))
        error = fast.iteration_s / exact.iteration_s - 1
        errors.append(error)
        said = fast.fidelity
        covered.append(abs(error - said.error_mean) <= said.error_ci95)
    worst = max(errors, key=abs)
    bias = sum(errors) / len(errors)
    count = f"{len(errors)} runs, seed {SEED}"
    return [
        Measurement(
            "fast: mean absolute error of iteration time", 100 * fmean(map(abs, errors)), "%",
            2.0, at_least=False, note=count,
        ),
        Measurement("fast: worst error", 100 * abs(worst), "%", 5.0, at_least=False),
        Measurement("fast: bias", 100 * abs(bias), "%", 1.0, at_least=False, note=f"{bias:+.3%}"),
        Measurement("fast: reported interval holds the error", 100 * fmean(covered), "%", 90.0),
        Measurement("fast: command's CPU time over fast's, median", median(ratios), "times"),
        *_block(),
    ]  # fmt: skip


def _block() -> list[Measurement]:
    """One GPT3-7B block at batch 256, from reading the requests to the result: of requests that
    the process has met before, and of new ones each time."""
    from pimsim.simulate import resolve, simulate

    given = ["schedule.sub_batches=false", "workload.layers=1", "fidelity=fast"]
    resolved = resolve("neupims", given)
    warm_s = best_cpu_s(lambda: simulate(resolved), 10)
    with tempfile.TemporaryDirectory() as folder:
        new_s = [_new_block_s(Path(folder), number, given) for number in range(NEW_BLOCKS)]
    what, unit = "fast: block, neupims, sharegpt-256", "times less CPU than the artifact"
    new = median(new_s)
    note = f"median {new * 1000:.1f} ms, {min(new_s) * 1000:.1f} to {max(new_s) * 1000:.1f}"
    return [
        Measurement(
            what, ARTIFACT_CPU_S / warm_s, unit, 1000.0, note=f"{warm_s * 1000:.1f} ms"
        ),
        Measurement(f"{what}, new requests", ARTIFACT_CPU_S / new, unit, note=note),
    ]  # fmt: skip


def _new_block_s(folder: Path, number: int, given: list[str]) -> float:
    """CPU seconds of a batch that nobody has met: contexts drawn from the trace's."""
    from pimsim.simulate import resolve, simulate
    from pimsim.workload.requests import load_requests

    draw = random.Random(f"{SEED} {number}")
    known = [request.context for request in load_requests("sharegpt-512", None).requests]
    path = folder / f"{number}.csv"
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"
    lines = [f"{at},0,{context},1,0" for at, context in enumerate(draw.choices(known, k=256))]
    path.write_text("\n".join([header, *lines]) + "\n")
    resolved = resolve("neupims", [*given, f"workload.requests={path}"])
    start = time.process_time()
    simulate(resolved)
    return time.process_time() - start
