"""How far a run is, which a terminal shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pimsim.cli.edge import Stopped
from pimsim.cli.progress import says_how_to_go_on, time_left
from pimsim.cli.sweep import sweep_command
from pimsim.engine.iteration import Progress
from pimsim.explore import sweep as sweeping
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


@pytest.mark.parametrize(
    ("elapsed_s", "done", "total", "said"),
    [
        (10, 0, 4, ""), (10, 4, 4, ""), (10, 1, 4, "about 30 s left"),
        (10, 1, 8, "about 1 min 10 s left"), (600, 1, 16, "about 2 h 30 min left"),
        (59, 1, 2, "about 59 s left"), (60, 1, 2, "about 1 min 0 s left"),
    ],
)  # fmt: skip
def test_the_time_that_is_left(elapsed_s: float, done: float, total: float, said: str) -> None:
    assert time_left(elapsed_s, done, total) == said


def test_a_signal_says_what_is_kept_and_the_command_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Stopped), says_how_to_go_on(lambda: "2 are kept", ["a", "b c"]):
        raise Stopped(2)
    assert capsys.readouterr().err == "2 are kept; to go on: a 'b c'\n"
    with pytest.raises(ValueError), says_how_to_go_on(lambda: "2 are kept", ["a"]):
        raise ValueError
    assert capsys.readouterr().err == ""


def test_an_interrupted_sweep_says_how_many_points_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*given: Any, **_more: Any) -> None:
        given[4](sweeping.Progress(7, 20, 7, 0))
        raise Stopped(2)

    monkeypatch.setattr(sweeping, "run_sweep", stopped)
    with pytest.raises(Stopped):
        sweep_command(str(tmp_path / "s.yaml"), str(tmp_path / "out"), workers=3)
    said = capsys.readouterr().err
    assert said.startswith(f"7 points are kept in {tmp_path / 'out'}; to go on: pimsim sweep ")
    assert said.endswith(f"--out {tmp_path / 'out'} --workers 3\n")
