"""``pimsim study techniques``: techniques against machines without one, their page and heat map."""

from __future__ import annotations

import csv
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.explore.designs import Place
from pimsim.explore.techniques import as_designs, read_techniques, shipped_techniques
from pimsim.report.design_figures import Figures, Outcome
from pimsim.report.techniques import _cell, _colour, _moved
from pimsim.simulate import resolve, simulate

RunCli = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
models: [{{name: Tiny, card: {card}, parallel: {{parallel.tp: 1}}}}]
batches: [1]
contexts: {{short: 30, longer: 60}}
machines:
  - {{name: alone, base: npu-only, does: nothing}}
  - {{name: gpus, base: dgx-a100, does: nothing, set: {{devices: 2}}}}
techniques:
  - {{name: lookup, set: {{workload.decoding: "prompt_lookup:tokens=2,drafts=3"}}}}
  - {{name: cut, set: {{workload.kv_view: "snapkv:budget=40"}}}}
left_out: [{{name: a third, reason: nobody asked}}]
"""


@pytest.fixture
def study(tmp_path: Path, tiny_card: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(card=tiny_card))
    return path


def test_each_technique_is_held_against_the_machine_without(
    run_cli: RunCli, tmp_path: Path, study: Path, tiny_card: Path
) -> None:
    out = tmp_path / "out"
    asked = ("study", "techniques", "--study", study, "--out", out, "--workers", "1")
    done = run_cli(*asked, "--contexts", "short", "--machines", "alone")
    assert (done.returncode, done.stderr) == (0, "")
    page = (out / "technique-study.md").read_text()
    # a plain run and lookup; 40 tokens are not fewer than 31, which is refused
    assert "2 points were run, 1 cannot be (each says why), 9 were not run" in page
    with (out / "technique-study.csv").open() as file:
        rows = {(r["machine"], r["technique"], r["context"]): r for r in csv.DictReader(file)}
    common = [
        f"workload.model={tiny_card}", "workload.requests=equal:31", "workload.batch=1",
        "parallel.tp=1", "fidelity=fast", "workload.outside=true",
    ]  # fmt: skip
    plain, lookup = (
        simulate(resolve("npu-only", [*common, f"workload.decoding={each}"]))
        for each in ("none", "prompt_lookup:tokens=2,drafts=3")
    )
    found = rows["alone", "lookup", "short"]
    assert float(found["speed_up"]) == pytest.approx(
        lookup.tokens_per_s / plain.tokens_per_s, rel=1e-5
    )
    assert float(found["tokens_per_j_gain"]) == pytest.approx(
        lookup.tokens_per_j / plain.tokens_per_j, rel=1e-5
    )
    assert "nothing would be left out" in rows["alone", "cut", "short"]["error"]
    assert rows["gpus", "lookup", "short"]["error"] == "not run"
    assert f"| lookup | {float(found['speed_up']):.2f} / " in page
    assert "a third: nobody asked" in page and "no: 1" in page

    done = run_cli(*asked, "--techniques", "cut")
    assert done.returncode == 0
    page = (out / "technique-study.md").read_text()
    # all but lookup where it was not asked for
    assert "7 points were run, 2 cannot be (each says why), 3 were not run" in page
    drawn = ET.parse(out / "technique-study.svg").getroot()
    words = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"alone", "gpus", "lookup", "cut", "-"} <= set(words)


@pytest.mark.parametrize(
    ("machines", "techniques", "words"),
    [
        (("alon",), (), "--machines: 'alon' is not in the study; did you mean 'alone'?"),
        ((), ("look",), "--techniques: 'look' is not in the study"),
    ],
)
def test_what_is_not_in_a_study_is_said(
    study: Path, machines: tuple[str, ...], techniques: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        as_designs(read_techniques(study), machines, techniques)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("name: cut", "name: lookup", "two techniques have the name 'lookup'"),
        ("name: gpus", "name: alone", "two machines have the name 'alone'"),
        ("name: cut", "name: none", "a technique is called 'none'"),
        ("name: cut, set", "name: cut, sets", "did you mean 'set'"),
    ],
)
def test_a_wrong_study_is_one_line(study: Path, before: str, after: str, words: str) -> None:
    study.write_text(study.read_text().replace(before, after))
    with pytest.raises(InputError) as caught:
        read_techniques(study)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_each_machine_of_the_shipped_study_has_each_technique_and_one_without() -> None:
    asked = read_techniques(shipped_techniques())
    groups = as_designs(asked).groups
    assert [each.title for each in groups] == [each.name for each in asked.machines]
    for group in groups:
        assert [each.name for each in group.designs] == [
            "none", *(each.name for each in asked.techniques)
        ]  # fmt: skip
    one = asked.techniques[0].set
    assert all(group.designs[1].set.items() >= one.items() for group in groups)
    assert all(design.set["workload.outside"] is True for g in groups for design in g.designs)


FIGURES = Figures(1, 100.0, 4.0, 1.0, 0.01, "dram", 0.9, "", "fast", 0.0, 0.0)


def test_a_cell_says_speed_energy_and_where_the_bound_went() -> None:
    moved = Outcome(replace(FIGURES, rate=150.0, per_j=8.0, bound="array"))
    notes: dict[str, int] = {}
    assert _cell(Outcome(FIGURES), moved, notes) == "1.50 / 2.00, dram → array"
    assert _cell(Outcome(FIGURES), Outcome(FIGURES), notes) == "1.00 / 1.00, dram"
    assert _cell(Outcome(FIGURES), Outcome(), notes) == "not run"
    assert _cell(Outcome(error="a"), Outcome(FIGURES), notes) == "no: 1"
    assert _cell(Outcome(FIGURES), Outcome(error="b"), notes) == "no: 2"
    at = Place("m", "1k", 1)
    assert list(_moved({at: Outcome(FIGURES)}, {at: moved})) == [("dram", "array")]
    assert list(_moved({at: Outcome(FIGURES)}, {at: Outcome(FIGURES)})) == [None]


def test_colours_grow_with_doublings() -> None:
    assert _colour(None) == "#e6e6e6" and _colour(1.0) == "#ffffff"
    assert _colour(4.0) == _colour(16.0) == "#78be82"
    assert _colour(0.25) == "#e6786e"
    assert _colour(2.0) not in (_colour(1.0), _colour(4.0), _colour(0.5))
