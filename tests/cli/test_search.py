"""``pimsim search``: what it says of trials, keys and wrong input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna")

RunCli = Callable[..., subprocess.CompletedProcess[str]]

SEARCH = """\
name: small
base: npu-only
set: {{workload.model: {card}, workload.layers: 1}}
space:
  workload.batch: {{choices: [1, 2, 4, 500]}}
  npu.systolic.arrays: {{choices: [1, 2]}}
where: ["workload.batch != 2"]
objectives:
  - {{metric: tokens_per_s, direction: maximize}}
  - {{metric: area_mm2, direction: minimize}}
sampler: random
trials: 24
{more}
"""


@pytest.fixture
def write(tmp_path: Path, tiny_card: Path) -> Callable[..., Path]:
    def file(more: str = "", **changes: str) -> Path:
        text = SEARCH.format(card=tiny_card, more=more)
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "search.yaml"
        path.write_text(text)
        return path

    return file


def test_trials_are_counted_by_what_came_of_them(
    run_cli: RunCli, write: Callable[..., Path], tmp_path: Path
) -> None:
    """Eight configs: two are not tried, two fail (more requests than the trace has)."""
    out = tmp_path / "out"
    done = run_cli("search", write(), "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(run_cli("search", write(), "--out", out, "--json").stdout)
    trials = data["trials"]
    assert len(trials) == 24
    left_out = [t for t in trials if not t["tried"]]
    assert {t["point"]["workload.batch"] for t in left_out} == {2}
    assert all(t["error"] == "" and t["values"] == [] for t in left_out)
    first = [t for t in trials if t["tried"] and t["same_as"] is None]
    assert len(first) == 6
    failed = [t for t in first if t["error"]]
    assert {t["point"]["workload.batch"] for t in failed} == {500}
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"small: 24 trials of 6 different configs, 2 failed; {len(left_out)} not tried ('where')"
    )
    said = [line for line in lines if " failed: " in line]
    assert len(said) == 1 and "500" in said[0]  # both for the same reason
    front = done.stdout.partition("the front")[2].partition("which key matters")[0]
    shown = [int(line.split()[0]) for line in front.splitlines() if line.split()[:1] > ["0"] and
             line.split()[0].isdigit()]  # fmt: skip
    assert sorted(shown) == sorted(data["front"])
    points = [tuple(trials[n]["point"].values()) for n in shown]
    assert len(set(points)) == len(points)
    shares = data["importance"]["area_mm2"]["all"]
    assert shares["points"] == 4
    assert shares["keys"]["npu.systolic.arrays"] == pytest.approx(1)
    assert "in combination" in done.stdout and "better half" in done.stdout


def test_a_search_without_a_result_says_why(
    run_cli: RunCli, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(**{"[1, 2, 4, 500]": "[500]", "trials: 24": "trials: 2"})
    done = run_cli("search", path, "--out", tmp_path / "failed")
    assert (done.returncode, done.stderr) == (1, "")
    assert "trial 0 failed: " in done.stdout
    path = write(**{"[1, 2, 4, 500]": "[2]", "trials: 24": "trials: 2"})
    done = run_cli("search", path, "--out", tmp_path / "none", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert [t["tried"] for t in json.loads(done.stdout)["trials"]] == [False, False]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[1, 2, 4, 500]", "[1, '2']", "workload.batch has values of different types"),
        ("workload.batch != 2", "import os", "where.0: 'import os' is no expression"),
        ("workload.batch != 2", "(" * 10_000 + "1" + ")" * 10_000, "where.0: longer than 500"),
        ("trials: 24", "constraints: ['tokens_per_s >']", "constraints.0: 'tokens_per_s >' is no"),
        ("trials: 24", "seed: 99999999999999999999", "seed: found 99999999999999999999; allowed"),
    ],
)
def test_wrong_searches_are_one_line(
    refused: Callable[..., str], write: Callable[..., Path], tmp_path: Path, old: str, new: str,
    expected: str,
) -> None:  # fmt: skip
    line = refused("search", write(**{old: new}), "--out", tmp_path / "out")
    assert expected in line
    assert not (tmp_path / "out").exists()


def test_a_constraint_that_cannot_be_computed_is_one_line(
    refused: Callable[..., str], write: Callable[..., Path], tmp_path: Path
) -> None:
    """Nothing of the workers is left on stderr either."""
    path = write("constraints: ['cycles < model']")
    line = refused("search", path, "--out", tmp_path / "out")
    assert "constraints.0: 'cycles < model': '<' not supported" in line


def test_the_front_is_listed_by_its_first_objective(capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace
    from typing import Any

    from pimsim.cli.search import _print

    def trial(number: int, batch: int, *values: float) -> SimpleNamespace:
        return SimpleNamespace(
            number=number, point={"workload.batch": batch}, values=values, fidelity=None,
            tried=True, same_as=None, error=None,
        )  # fmt: skip

    objectives = [
        SimpleNamespace(metric="area_mm2", sought="least"),
        SimpleNamespace(metric="tokens_per_s", sought="most"),
    ]
    spec: Any = SimpleNamespace(name="s", space={"workload.batch": None}, objectives=objectives)
    trials = [trial(0, 64, 9.0, 900.0), trial(1, 8, 7.0, 100.0), trial(2, 16, 4.0, 400.0)]
    outcome: Any = SimpleNamespace(trials=trials, front=(0, 2), importance={"area_mm2": {}})
    _print(spec, outcome)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words for words in lines if words and words[0].isdigit()] == [
        ["2", "16", "4", "400"], ["0", "64", "9", "900"],
    ]  # fmt: skip
    assert ["s:", "3", "trials", "of", "3", "different", "configs,", "0", "failed"] in lines
