"""Searches: the front, constraints, and that an interrupted one goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from pimsim.config.errors import InputError
from pimsim.explore.search import read_search, run_search

pytestmark = pytest.mark.filterwarnings("default")

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
    assert parts == whole
    assert len(whole.trials) == 6
    assert set(whole.importance) == {"tokens_per_s", "mj_per_token"}


def test_workers_and_kills_change_nothing(tmp_path: Path, tiny_card: Path) -> None:
    """SIGKILL in the middle, several times; and another number of workers."""
    search = write(tmp_path, tiny_card, 12, more="batch: 4")
    whole = run_search(search, tmp_path / "whole", workers=2)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "pimsim.cli.main", "search", search, "--out", out]
    for delay in (2.5, 3.0, 3.5, 4.0):
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


def test_importance_is_of_the_good_end(tmp_path: Path, tiny_card: Path) -> None:
    """One key decides a maximised metric, another one nothing."""
    path = write(tmp_path, tiny_card, 24, "random", "seed: 1")
    text = path.read_text().replace(
        "npu.systolic.arrays: {choices: [1, 2]}", "seed: {choices: [1, 2]}"
    )
    path.write_text(text)
    found = run_search(path, tmp_path / "out", workers=2).importance["tokens_per_s"]
    assert found["workload.batch"] > 0.9 > found["seed"]


def test_the_front_is_beaten_by_nobody(tmp_path: Path, tiny_card: Path) -> None:
    found = run_search(write(tmp_path, tiny_card, 8), tmp_path / "out")
    values = {trial.number: trial.values for trial in found.trials}
    assert found.front
    for number, (rate, energy) in values.items():
        beaten = any(
            (r >= rate and e <= energy and (r, e) != (rate, energy)) for r, e in values.values()
        )
        assert beaten != (number in found.front)


def test_constraints_keep_points_off_the_front_or_from_being_tried(
    tmp_path: Path, tiny_card: Path
) -> None:
    more = "constraints: ['workload.batch < 5']\nwhere: ['workload.batch != 3']"
    found = run_search(write(tmp_path, tiny_card, 10, "random", more), tmp_path / "out")
    batches = {trial.number: trial.point["workload.batch"] for trial in found.trials}
    assert all(batches[number] < 5 for number in found.front)
    for trial in found.trials:
        assert bool(trial.error) == (trial.point["workload.batch"] == 3)
        assert trial.feasible == (bool(trial.values) and trial.point["workload.batch"] < 5)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("sampeler: tpe", "did you mean 'sampler'?"),
        ("where: ['workload.btch > 1']", "did you mean 'workload.batch'?"),
        ("where: ['import os']", "is no expression"),
    ],
)
def test_wrong_searches_are_refused(
    tmp_path: Path, tiny_card: Path, more: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_search(write(tmp_path, tiny_card, more=more))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_metrics_and_keys_are_refused(tmp_path: Path, tiny_card: Path) -> None:
    path = write(tmp_path, tiny_card)
    text = path.read_text()
    path.write_text(text.replace("metric: tokens_per_s", "metric: token_per_s"))
    with pytest.raises(InputError, match=r"did you mean 'tokens_per_s'\?"):
        read_search(path)
    path.write_text(text.replace("npu.systolic.arrays", "npu.systolic.array"))
    with pytest.raises(InputError, match=r"did you mean"):
        read_search(path)
