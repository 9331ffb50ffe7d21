"""`fast` against `command` fidelity on random machines, models and batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Point", "draw_points", "measure"]

POINTS = 100
SEED = 20261125

MEMORIES = (
    "hbm2-neupims", "hbm2", "hbm2-2000", "hbm2-2400", "hbm2e-3600", "hbm3-6400", "hbm3e-9600",
    "gddr6", "lpddr4-2400", "lpddr5-6400", "ddr4-3200", "ddr5-4800",
)  # fmt: skip
MODELS = {
    "gpt3-7b": 4, "gpt3-13b": 4, "gpt3-30b": 4, "gpt3-175b": 8, "llama-3-8b": 1, "llama-3-70b": 8,
    "opt-66b": 8, "smollm2-135m": 1, "gemma-3-27b": 4, "mixtral-8x7b": 4, "qwen3-30b-a3b": 4,
}  # fmt: skip
"""And on how many devices."""


@dataclass(frozen=True)
class Point:
    """A run."""

    preset: str
    overrides: tuple[str, ...]


def draw_points(seed: int, count: int) -> Iterator[Point]:
    """Random runs that the tool accepts."""
    from pimsim.config.errors import InputError
    from pimsim.simulate import device_of, resolve

    draw = random.Random(seed)
    found = 0
    while found < count:
        point = _draw(draw)
        try:
            device_of(resolve(point.preset, list(point.overrides)))
        except InputError:
            continue  # too small a memory, a design that the controller does not serve
        found += 1
        yield point


def _draw(draw: random.Random) -> Point:
    preset = draw.choice(("npu-only", "npu-pim", "npu-pim", "neupims", "neupims", "neupims"))
    model = draw.choice(list(MODELS))
    requests = draw.choice(("sharegpt", "alpaca"))
    batch = draw.choice((8, 16, 24, 48, 64, 96, 128, 200, 256, 384, 512))
    overrides = [
        f"workload.model={model}", f"parallel.tp={MODELS[model]}", "workload.layers=2",
        f"workload.requests={requests}-512", f"workload.batch={batch}",
        f"memory={draw.choice(MEMORIES)}",
        f"memory.organization.channels={draw.choice((8, 16, 32))}",
        f"npu.frequency={draw.choice((0.7, 1.0, 1.4))}GHz",
        f"npu.systolic.arrays={draw.choice((2, 4, 8))}",
        f"memory.controller.refresh={draw.choice(('all-bank', 'all-bank', 'per-bank', 'none'))}",
        f"schedule.channel_assignment={draw.choice(('greedy', 'greedy', 'round-robin'))}",
    ]  # fmt: skip
    if preset == "neupims":
        overrides.append(f"schedule.sub_batches={draw.choice(('true', 'false'))}")
    if preset != "npu-only":
        overrides.append(f"pim={draw.choice(('neupims', 'newton'))}")
    return Point(preset, tuple(overrides))


def _simulate(point: Point, fidelity: str) -> Any:
    from pimsim.simulate import resolve, simulate

    return simulate(resolve(point.preset, [*point.overrides, f"fidelity={fidelity}"]))
