"""``pimsim designs``: a study's points in one store, and the page that is written from them."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.explore.designs import (
    Place,
    Selection,
    found_at,
    places_of,
    read_study,
    shipped_study,
)
from pimsim.explore.store import Store
from pimsim.report.design_figures import Figures, Outcome, doubts, fastest, gains, mean_gain
from pimsim.report.designs import write_study
from pimsim.simulate import resolve, simulate

RunCli = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
models: [{{name: Tiny, card: {card}, parallel: {{parallel.tp: 1}}}}]
batches: [1]
contexts: {{short: 30, long: 4000}}
groups:
  - name: both
    title: Both
    baseline: alone
    designs:
      - {{name: alone, base: npu-only, does: nothing}}
      - {{name: gpus, base: dgx-a100, does: nothing, set: {{devices: 2}}}}
left_out: [{{name: a third, reason: nobody asked}}]
"""


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Of the page's table, by design and context."""
    with (folder / "designs.csv").open() as file:
        return {(row["design"], row["context"]): row for row in csv.DictReader(file)}


def test_a_study_is_simulated_part_by_part_and_the_page_has_all_of_it(
    run_cli: RunCli, tmp_path: Path, tiny_card: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY.format(card=tiny_card))
    out = tmp_path / "out"
    asked = ("designs", "--study", study, "--out", out, "--workers", "1")
    done = run_cli(*asked, "--contexts", "short")
    assert (done.returncode, done.stderr) == (0, "")
    rows = rows_of(out)
    # as a run of the same config says
    alone = simulate(
        resolve(
            "npu-only",
            [f"workload.model={tiny_card}", "workload.requests=equal:31", "workload.batch=1",
             "parallel.tp=1", "fidelity=fast"],
        )
    )  # fmt: skip
    assert float(rows["alone", "short"]["rate"]) == pytest.approx(alone.tokens_per_s, rel=1e-5)
    area = alone.area_mm2["total"]
    assert float(rows["alone", "short"]["per_mm2"]) == pytest.approx(
        alone.tokens_per_s / area, 1e-5
    )
    assert rows["gpus", "short"]["devices"] == "2"
    assert rows["gpus", "short"]["per_mm2"] == "nan"  # GPUs have no area
    assert rows["alone", "long"]["error"] == rows["gpus", "long"]["error"] == "not run"
    page = (out / "designs.md").read_text()
    assert "2 points were run, 0 cannot be (each says why), and 2 were not run" in page
    assert "a third: nobody asked" in page and "Not run at all" not in page
    before = {path: path.stat().st_mtime_ns for path in (out / "store" / "results").iterdir()}

    done = run_cli(*asked)
    assert done.returncode == 0
    rows = rows_of(out)
    assert "max_context" in rows["alone", "long"]["error"]
    page = (out / "designs.md").read_text()
    assert "and 0 were not run" in page and "| no: 1 |" in page
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing twice


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            ["--models", "Llama-3-8"],
            "--models: 'Llama-3-8' is not in the study; did you mean 'Llama-3-8B'?",
        ),
        (["--batches", "2"], "--batches: '2' is not in the study"),
        (["--batches", "x"], "--batches: whole numbers such as 1,64, found 'x'"),
        (["--contexts", "2k"], "--contexts: '2k' is not in the study"),
    ],
)
def test_what_a_study_does_not_have_is_refused_before_anything_is_made(
    run_cli: RunCli, tmp_path: Path, option: list[str], said: str
) -> None:
    done = run_cli("designs", "--out", tmp_path / "out", *option)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_group_names_its_baseline(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(card="gpt3-7b").replace("baseline: alone", "baseline: alon"))
    with pytest.raises(
        InputError, match=r"baseline 'alon' is no design of it; did you mean 'alone'"
    ):
        read_study(path)


def test_the_shipped_study_names_what_there_is(tmp_path: Path) -> None:
    study = read_study(shipped_study())
    places = list(places_of(study, Selection(batches=(1,), contexts=("1k",))))
    assert len(places) == len(study.models)
    store = Store(tmp_path / "store", create=True)
    for group in study.groups:
        for design in group.designs:
            resolve(design.base, [f"{key}={value}" for key, value in design.set.items()])
            found = found_at(study, store, design, places)
            assert not any(each.figures or each.error for each in found.values())


def outcome(rate: float, share: float = 0.5) -> Outcome:
    return Outcome(Figures(1, rate, rate, rate, 1.0, "dram", share, "", "fast", 0.0, 0.0))


def test_ratios_means_and_the_fastest_are_of_places_that_both_can_do() -> None:
    one, two, three = (Place("m", "1k", batch) for batch in (1, 16, 64))
    base = {one: outcome(10), two: outcome(20), three: Outcome(error="too large")}
    other = {one: outcome(40), two: outcome(20), three: outcome(5)}
    found = gains(other, base, "rate")
    assert found == {one: 4.0, two: 1.0}
    assert mean_gain(found) == pytest.approx(2.0)
    assert mean_gain(found, "batch", 16) == 1.0
    assert mean_gain(found, "batch", 64) is None
    unknown = {one: outcome(float("nan")), two: outcome(30), three: Outcome()}
    assert gains(unknown, base, "rate") == {two: 1.5}
    assert fastest({"base": base, "unknown": unknown}, "rate") == {one: "base", two: "unknown"}
    # of equal ones the first
    assert fastest({"base": base, "other": other}, "rate") == {
        one: "other", two: "base", three: "other",
    }  # fmt: skip


def test_a_bound_above_the_time_and_a_slower_larger_batch_are_told() -> None:
    of = {
        Place("m", "1k", 1): outcome(10),
        Place("m", "1k", 16): outcome(9.9),
        Place("m", "1k", 64): outcome(9, 1.01),
        Place("m", "8k", 1): outcome(1),
    }
    assert list(doubts(of)) == [
        "m, context 1k, batch 64: the bound of dram exceeds the time",
        "m, context 1k, batch 64: 9 tokens/s, 10 at batch 16",
    ]


def test_a_page_names_the_designs_that_were_not_run(tmp_path: Path) -> None:
    study = read_study(shipped_study())
    write_study(study, Store(tmp_path / "store", create=True), tmp_path)
    page = (tmp_path / "designs.md").read_text()
    assert "0 points were run, 0 cannot be" in page
    for group in study.groups:
        names = ", ".join(design.name for design in group.designs)
        assert f"Not run at all yet: {names}. What follows is of the others alone." in page
