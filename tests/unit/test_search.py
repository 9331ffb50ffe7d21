"""Searches: the front, constraints, and that an interrupted one goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from pimsim.config.errors import InputError
from pimsim.explore import search
from pimsim.explore.pool import Answer, Job
from pimsim.explore.search import read_outcome, run_search
from pimsim.explore.search_spec import read_search
from pimsim.explore.spec import RangeSpec

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("no_workers")]

SEARCH = """\
name: tiny
base: npu-only
set: {{workload.model: {card}, workload.layers: 1}}
space:
  workload.batch: {{low: 1, high: 8, integer: true}}
  npu.systolic.arrays: {{choices: [1, 2]}}
objectives:
  - {{metric: tokens_per_s, direction: maximize}}
  - {{metric: mj_per_token, direction: minimize}}
sampler: {sampler}
trials: {trials}
{more}
"""


def write(folder: Path, card: Path, trials: int = 6, sampler: str = "tpe", more: str = "") -> Path:
    path = folder / f"{trials}.yaml"
    path.write_text(SEARCH.format(card=card, trials=trials, sampler=sampler, more=more))
    return path


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_goes_on_is_the_one_that_was_never_stopped(
    tmp_path: Path, tiny_card: Path, sampler: str
) -> None:
    whole = run_search(write(tmp_path, tiny_card, 6, sampler), tmp_path / "whole")
    run_search(write(tmp_path, tiny_card, 2, sampler), tmp_path / "parts")
    parts = run_search(write(tmp_path, tiny_card, 6, sampler), tmp_path / "parts")
    assert read_outcome(tmp_path / "parts")[1] == parts
    assert parts == whole
    assert len(whole.trials) == 6
    assert set(whole.importance) == {"tokens_per_s", "mj_per_token"}


def test_workers_and_kills_change_nothing(
    tmp_path: Path, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle, twice; and another number of workers."""
    monkeypatch.undo()  # here there are workers
    search = write(tmp_path, tiny_card, 12, more="batch: 4")
    whole = run_search(search, tmp_path / "whole", workers=2)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "pimsim.cli.main", "search", search, "--out", out]
    for delay in (2.5, 4.0):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    journal = out / "journal.log"
    if journal.exists():  # a last line that was not written to its end
        with journal.open("ab") as stream:
            stream.write(b'{"op_code": 5, "work')
    assert run_search(search, out, workers=1) == whole
    assert run_search(search, out, workers=1) == whole


def test_importance_is_of_the_objective_itself(tmp_path: Path, tiny_card: Path) -> None:
    """Channels have nearly all of the silicon, sub-batches none: over all points, and over the
    better half, where a sampler has changed keys together."""
    path = tmp_path / "row.yaml"
    path.write_text(
        f"base: neupims\nset: {{workload.model: {tiny_card}, workload.layers: 1, workload.batch: 4,"
        " parallel.tp: 1}\nspace:\n"
        "  npu.systolic.arrays: {low: 2, high: 16, integer: true, log: true}\n"
        "  memory.organization.channels: {choices: [8, 16, 32]}\n"
        "  schedule.sub_batches: {choices: [true, false]}\n"
        "objectives:\n  - {metric: tokens_per_s, direction: maximize}\n"
        "  - {metric: area_mm2, direction: minimize}\ntrials: 30\n"
    )
    outcome = run_search(path, tmp_path / "out", workers=2)
    for end in ("all", "good_end"):
        found = outcome.importance["area_mm2"][end]
        assert found.keys["memory.organization.channels"] > 0.98, end
        assert found.keys["npu.systolic.arrays"] > 1e-5, end
        assert found.keys["schedule.sub_batches"] < 1e-6, end
        assert sum(found.keys.values()) + found.together == pytest.approx(1.0)
    points = outcome.importance["area_mm2"]
    different = [t for t in outcome.trials if t.values and t.same_as is None]
    assert points["all"].points == len(different)
    assert points["good_end"].points == (len(different) + 1) // 2


@pytest.mark.parametrize(("direction", "best"), [("maximize", (3, 4)), ("minimize", (1, 2))])
def test_the_good_end_is_the_better_half(
    tmp_path: Path, tiny_card: Path, direction: str, best: tuple[int, int]
) -> None:
    """Of an objective that a key decides, the better half has that key's better values alone."""
    text = write(tmp_path, tiny_card).read_text()
    text = text.replace("metric: tokens_per_s, direction: maximize",
                        f"metric: devices, direction: {direction}")  # fmt: skip
    path = tmp_path / "search.yaml"
    path.write_text(text)
    spec = read_search(path)
    points = [
        ({"workload.batch": batch, "npu.systolic.arrays": arrays}, (10.0 * batch + arrays, 1.0))
        for batch in (1, 2, 3, 4) for arrays in (1, 2)
    ]  # fmt: skip
    seen = []

    def kept(some: Any, values: Any, axes: Any) -> None:
        seen.append({point["workload.batch"] for point in some})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "importance", kept)
        search._importance(points, spec)
    assert seen == [{1, 2, 3, 4}, set(best), {1, 2, 3, 4}, {1, 2}]


def test_equal_configs_are_simulated_and_listed_once(tmp_path: Path, tiny_card: Path) -> None:
    """Twelve trials of four configs, two of which are one: 1 GHz is 1000 MHz."""
    path = write(tmp_path, tiny_card, 12, "random")
    text = path.read_text().replace("{low: 1, high: 8, integer: true}", "{choices: [1, 2]}")
    text = text.replace("npu.systolic.arrays: {choices: [1, 2]}",
                        "npu.frequency: {choices: [1GHz, 1000MHz]}")  # fmt: skip
    path.write_text(text)
    outcome = run_search(path, tmp_path / "out")
    assert len(list((tmp_path / "out" / "results").glob("*.json"))) == 2
    first: dict[Any, int] = {}
    for trial in outcome.trials:
        batch = trial.point["workload.batch"]
        same = first.setdefault(batch, trial.number)
        assert trial.same_as == (None if same == trial.number else same)
        assert trial.values == outcome.trials[same].values
    assert set(outcome.front) <= set(first.values())
    assert len({outcome.trials[n].point["workload.batch"] for n in outcome.front}) == len(
        outcome.front
    )


def test_a_config_that_failed_is_not_simulated_again(
    tmp_path: Path, tiny_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, tiny_card, 6, "random", "batch: 2")
    text = path.read_text().replace("{low: 1, high: 8, integer: true}", "{choices: [1]}")
    path.write_text(text.replace("arrays: {choices: [1, 2]}", "arrays: {choices: [1]}"))
    asked = []

    def failing(pool: Any, jobs: Iterator[Job]) -> Iterator[Answer]:
        for job in jobs:
            asked.append(job)
            yield Answer(job, None, "no room")

    monkeypatch.setattr(search, "answers", failing)
    outcome = run_search(path, tmp_path / "out")
    assert len(asked) == 1
    assert [trial.error for trial in outcome.trials] == ["no room"] * 6
    assert [trial.same_as for trial in outcome.trials] == [None, 0, 0, 0, 0, 0]
    assert (outcome.front, outcome.importance["tokens_per_s"]) == ((), {})


def test_energy_of_a_token_is_one_over_tokens_a_joule(tmp_path: Path, tiny_card: Path) -> None:
    outcome = run_search(write(tmp_path, tiny_card, 1), tmp_path / "out")
    stored = next((tmp_path / "out" / "results").glob("*.json"))
    figures = json.loads(stored.read_text())["content"]
    assert outcome.trials[0].values == (figures["tokens_per_s"], 1e3 / figures["tokens_per_j"])


def test_the_front_is_beaten_by_nobody(tmp_path: Path, tiny_card: Path) -> None:
    found = run_search(write(tmp_path, tiny_card, 8), tmp_path / "out")
    values = {trial.number: trial.values for trial in found.trials if trial.same_as is None}
    assert found.front
    for number, (rate, energy) in values.items():
        beaten = any(
            (r >= rate and e <= energy and (r, e) != (rate, energy)) for r, e in values.values()
        )
        assert beaten != (number in found.front)


def test_constraints_keep_points_off_the_front_or_from_being_tried(
    tmp_path: Path, tiny_card: Path
) -> None:
    more = "constraints: ['workload.batch < 5']\nwhere: ['workload.batch != 2']"
    found = run_search(write(tmp_path, tiny_card, 10, "random", more), tmp_path / "out")
    batches = {trial.number: trial.point["workload.batch"] for trial in found.trials}
    assert all(batches[number] < 5 for number in found.front)
    assert 2 in batches.values()
    for trial in found.trials:
        assert trial.tried == (trial.point["workload.batch"] != 2)  # which is no failure
        assert trial.error == ""
        assert bool(trial.values) == trial.tried
        assert trial.feasible == (bool(trial.values) and trial.point["workload.batch"] < 5)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("sampeler: tpe", "did you mean 'sampler'?"),
        ("where: ['workload.btch > 1']", "did you mean 'workload.batch'?"),
        ("where: ['import os']", "where.0: 'import os' is no expression"),
        ("where: ['tokens_per_s > 1']", "'tokens_per_s' is unknown"),
        (
            "constraints: ['devices > 0', 'import os']",
            "constraints.1: 'import os' is no expression",
        ),
        ("constraints: ['mj_per_tokn < 3']", "did you mean 'mj_per_token'?"),
        ("constraints: ['energy_j.dramm < 3']", "did you mean 'energy_j.dram'?"),
        ("constraints: ['cycle_stack < 3']", "'cycle_stack' is unknown"),
        (f"where: ['{'(' * 10_000}1{')' * 10_000}']", "longer than 500 characters"),
        (f"constraints: ['{'(' * 240}1{')' * 240}']", "is no expression"),
        ("seed: 4294967296", "seed: found 4294967296; allowed: at least 0, at most 4294967295"),
        ("seed: -1", "seed: found -1; allowed: at least 0"),
    ],
)
def test_wrong_searches_are_refused(
    tmp_path: Path, tiny_card: Path, more: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_search(write(tmp_path, tiny_card, more=more))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ("{choices: [1, '2']}", 'workload.batch has values of different types (1, "2")'),
        ("{choices: [true, 2]}", "workload.batch: found true; a whole"),
        ("{low: 1, high: 10000000000000000000000, integer: true}", "high is 1e+22; allowed are"),
        ("{low: 1.5, high: 3, integer: true}", "low must be a whole number, found 1.5"),
        ("{low: 1, high: .inf}", "a finite number is expected"),
    ],
)
def test_wrong_ranges_are_refused(
    tmp_path: Path, tiny_card: Path, batch: str, expected: str
) -> None:
    path = write(tmp_path, tiny_card)
    path.write_text(path.read_text().replace("{low: 1, high: 8, integer: true}", batch))
    with pytest.raises(InputError) as caught:
        read_search(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_largest_seed_is_a_seed(tmp_path: Path, tiny_card: Path) -> None:
    points = []
    for seed in (2**32 - 1, 2**32 - 2):
        path = write(tmp_path, tiny_card, 4, "random", f"seed: {seed}")
        points.append([t.point for t in run_search(path, tmp_path / str(seed)).trials])
    assert points[0] != points[1]


def test_constraints_may_be_over_any_figure(tmp_path: Path, tiny_card: Path) -> None:
    more = (
        "constraints: ['energy_j.dram > 0', 'cycle_stack.npu.weights >= 0', 'utilisation.npu <= 1',"
        " 'bound_cycles.dram > 0', 'area_mm2.total > 0', \"fidelity == 'fast'\"]"
    )
    outcome = run_search(write(tmp_path, tiny_card, 1, more=more), tmp_path / "out")
    assert outcome.trials[0].feasible
    path = write(tmp_path, tiny_card, 1, more="constraints: ['bound_cycles.dra > 0']")
    with pytest.raises(InputError, match=r"constraints\.0: .*did you mean 'bound_cycles\.dram'"):
        run_search(path, tmp_path / "out2")


def test_unknown_metrics_and_keys_are_refused(tmp_path: Path, tiny_card: Path) -> None:
    path = write(tmp_path, tiny_card)
    text = path.read_text()
    path.write_text(text.replace("metric: tokens_per_s", "metric: token_per_s"))
    with pytest.raises(InputError, match=r"did you mean 'tokens_per_s'\?"):
        read_search(path)
    path.write_text(text.replace("npu.systolic.arrays", "npu.systolic.array"))
    with pytest.raises(InputError, match=r"did you mean"):
        read_search(path)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("integer", [True, False])
def test_a_range_is_asked_for_as_it_is_written(integer: bool, log: bool) -> None:
    asked: list[tuple[object, ...]] = []

    class Trial:
        def suggest_int(self, key: str, low: int, high: int, log: bool = False) -> None:
            asked.append((True, key, low, high, log))

        def suggest_float(self, key: str, low: float, high: float, log: bool = False) -> None:
            asked.append((False, key, low, high, log))

    search._suggest(Trial(), "k", RangeSpec(low=2, high=8, integer=integer, log=log))
    assert asked == [(integer, "k", 2, 8, log)]
