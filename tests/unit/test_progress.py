"""How far a run is, which a terminal shows."""

from __future__ import annotations

from pimsim.engine.iteration import Progress
from pimsim.simulate import resolve, simulate

TINY = ["workload.model=smollm2-135m", "parallel.tp=1", "workload.layers=3", "workload.batch=4"]


def test_every_stage_tells_the_blocks_begun_of_all() -> None:
    """Two sub-batches: A and B start block 1; each C begins the next block, D its other half."""
    found: list[Progress] = []
    result = simulate(resolve("neupims", TINY), found.append)
    assert [(now.stage, now.blocks_begun) for now in found] == [
        ("A", 1), ("B", 1), ("C", 2), ("D", 2), ("C", 3), ("D", 3), ("E", 3), ("F", 3),
    ]  # fmt: skip
    assert {now.blocks for now in found} == {3}
    assert [stage.name for stage in result.stages] == [now.stage for now in found]
