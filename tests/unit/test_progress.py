"""How far a run is, which a terminal shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pimsim.cli import check, validate
from pimsim.cli.edge import Stopped
from pimsim.cli.progress import count_words, says_how_to_go_on, time_left
from pimsim.cli.sweep import sweep_command
from pimsim.config.loader import load_memory
from pimsim.engine.iteration import Progress
from pimsim.explore import sweep as sweeping
from pimsim.hardware.dram import replay as replaying
from pimsim.simulate import resolve, simulate
from pimsim.validate.types import References, Row, Suite

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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((10.0, 0, 40, "rows", "a/b"), "0 of 40 rows, a/b"),
        ((10.0, 20, 40, "rows", "a"), "20 of 40 rows, 2 a second, about 10 s left, a"),
        ((10.0, 4, 6, "cases", ""), "4 of 6 cases, 2.5 s each, about 5 s left"),
        ((10.0, 20, 40, "rows", "", True), "20 of about 40 rows, 2 a second, about 10 s left"),
        ((10.0, 50, 40, "rows", "", True), "50 rows, 5 a second"),  # more than the last time
        ((1.0, 2_000_000, None, "requests", "x"), "2,000,000 requests, 2e+06 a second, x"),
        ((0.0, 5, 5, "rows"), "5 of 5 rows"),
    ],
)  # fmt: skip
def test_words_for_counts_with_rate_and_time_left(given: Any, said: str) -> None:
    assert count_words(*given) == said


def test_an_interrupted_check_and_validation_say_that_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> Any:
        raise Stopped(2)

    monkeypatch.setattr("sys.argv", ["/bin/pimsim", "check", "--golden", "a b.yaml"])
    golden = tmp_path / "a b.yaml"
    golden.write_text("cases: [{name: one, run: neupims, cycles: 1, stages: {}}]\n")
    monkeypatch.setattr("pimsim.simulate.simulate", stopped)
    cases = [SimpleNamespace(name=name, run="neupims", set=TINY) for name in "ab"]
    monkeypatch.setattr("pimsim.result.golden.source_of", lambda case, path: case.run)
    with pytest.raises(Stopped):
        check._simulate(cases, golden)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert said == (
        "0 of 2 cases were simulated, of which nothing is kept; to begin again: "
        "pimsim check --golden 'a b.yaml'\n"
    )
    monkeypatch.setattr("sys.argv", ["/bin/pimsim", "validate", "npu"])
    monkeypatch.setattr("pimsim.cli.validate._collect", stopped)
    with pytest.raises(Stopped):
        validate.validate_command("npu", None, None, None, False, 2, False, False)
    assert capsys.readouterr().err == (
        "0 rows were compared, of which nothing is kept; to begin again: pimsim validate npu\n"
    )


def test_a_validation_knows_how_many_rows_it_had_the_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path))
    rows = [Row("g", f"case {n}", "cycles", 1.0, 1.0) for n in range(3)]
    suite = Suite("dram", "", lambda references: iter(rows))
    totals: list[float | None] = []
    told: list[tuple[float, str]] = []

    @contextmanager
    def line(name: str, unit: str, total: float | None, about: bool) -> Iterator[Any]:
        totals.append(total)
        yield lambda done, what: told.append((done, what))

    monkeypatch.setattr(validate, "count_line", line)
    for _ in range(2):
        done: list[str] = []
        assert validate._collect(suite, References(tmp_path, None), done) == rows
        assert done == ["case 0", "case 1", "case 2"]
    assert totals == [None, 3]
    assert told[:3] == [(1, "case 0"), (2, "case 1"), (3, "case 2")]


@pytest.mark.parametrize("memory", ["hbm2", "ddr5-4800-ramulator"])
def test_a_replay_in_pieces_is_the_same_and_says_how_far_it_is(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_memory(memory).config
    drawn = np.random.default_rng(0)
    burst = config.organization.burst_bytes
    addresses = drawn.integers(0, config.organization.capacity_bytes // burst, 500) * burst
    writes, arrivals = drawn.integers(0, 2, 500), np.sort(drawn.integers(0, 4000, 500))
    whole = replaying.replay(config, addresses, writes, arrivals)
    monkeypatch.setattr(replaying, "_PIECE", 60)
    told: list[int] = []
    pieces = replaying.replay(config, addresses, writes, arrivals, on_requests=told.append)
    assert told == [60 * n for n in range(1, 9)]
    assert (pieces.cycles, pieces.commands) == (whole.cycles, whole.commands)
    assert pieces.avg_read_latency_cycles == whole.avg_read_latency_cycles


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
