"""The error of fast fidelity stands beside every figure of it: terminal, JSON, tables, pages."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import pimsim
from pimsim.explore.sweep import load_table, row_fidelity
from pimsim.result.tables import compare_table, result_view
from pimsim.result.types import Fidelity, Result, fidelity_words

RunCli = Callable[..., subprocess.CompletedProcess[str]]
WORDS = "fast, error -0.12% +- 3.40%"
FAST = Fidelity("fast", 4, -0.00123, 0.034)
GIVEN = ["--set", "parallel.tp=1", "--batch", "2", "--layers", "1", "--model", "smollm2-135m"]


def shown(what: RenderableType) -> str:
    console = Console(width=240, no_color=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.fixture(scope="module")
def fast() -> Result:
    return pimsim.run(
        "npu-only", model="smollm2-135m", batch=2, layers=1, fidelity="fast",
        overrides=["parallel.tp=1"],
    )  # fmt: skip


def test_words_have_mean_and_half_width() -> None:
    assert FAST.words == fidelity_words("fast", -0.00123, 0.034) == WORDS
    assert Fidelity("command").words == "command"


def test_every_table_of_a_run_says_it(fast: Result) -> None:
    words = fast.fidelity.words
    lines = shown(result_view(fast)).splitlines()
    text = " ".join(" ".join(lines).split())  # titles of narrow tables are broken
    for title in ("stages", "operators", "utilisation", "cycle stack", "energy"):
        assert f"{title} ({words})" in text
    assert f"What holds it back ({words}): " in text
    throughput = next(line for line in lines if line.strip().startswith("throughput"))
    assert throughput.strip().endswith(words)


def test_every_frame_of_a_run_says_it_and_one_of_commands_has_no_such_column(fast: Result) -> None:
    for name in ("operators", "stages", "cycle_stack", "series"):
        frame = fast.table(name)
        assert list(frame.columns)[-1] == "fidelity"
        assert set(frame["fidelity"]) == {fast.fidelity.words}
    exact = pimsim.run(
        "npu-only", model="smollm2-135m", batch=2, layers=1, overrides=["parallel.tp=1"]
    )
    assert "fidelity" not in exact.table("stages")
    table = pimsim.compare([exact, fast])
    assert table["fidelity"].tolist() == ["command", "fast"]
    assert table["error_mean"].tolist() == [0.0, fast.fidelity.error_mean]
    assert table["error_ci95"].tolist() == [0.0, fast.fidelity.error_ci95]
    text = shown(compare_table([exact, fast], ["a", "b"]))
    assert fast.fidelity.words in text
    assert "fidelity" not in shown(compare_table([exact, exact], ["a", "b"]))


def test_compare_says_it_in_each_line(run_cli: RunCli) -> None:
    runs = ["compare", "npu-only", "npu-pim", *GIVEN, "--fidelity", "fast"]
    text = run_cli(*runs).stdout
    moved = next(line for line in text.splitlines() if line.startswith("npu-pim (fast, error"))
    assert " against npu-only (fast, error" in moved
    rows = json.loads(run_cli(*runs, "--json").stdout)["runs"]
    assert [row["fidelity"] for row in rows] == ["fast", "fast"]
    assert all(row["error_ci95"] > 0 for row in rows)


SWEEP = """\
name: few
base: npu-only
set: {workload.model: smollm2-135m, workload.layers: 1, parallel.tp: 1}
grid: {workload.batch: [1, 2]}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "few.yaml").write_text(SWEEP)
    pimsim.sweep(folder / "few.yaml", folder / "out")
    return folder / "out"


def test_a_sweeps_table_terminal_and_page_say_it(store: Path, run_cli: RunCli) -> None:
    from pimsim.report.sweeps import read_sweep, sweep_page

    table = load_table(store)
    assert set(table["fidelity"]) == {"fast"}
    assert (table["fidelity.error_ci95"] > 0).all()
    words = [row_fidelity(row) for _, row in table.iterrows()]
    assert all(each.startswith("fast, error ") for each in words)
    sweep = str(store.parent / "few.yaml")
    text = run_cli("sweep", sweep, "--out", store).stdout
    page = sweep_page(read_sweep(store))
    for each in words:
        assert each in text
        assert each in page
    assert page.count(words[0]) + page.count(words[1]) >= 6  # headline, front, points


def test_a_sweep_s_headline_says_it_of_each_best_point(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pimsim.report import sweeps

    told: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(
        sweeps, "render_page",
        lambda title, of, headline, *_: told.update({name: said for name, *said in headline}) or "",
    )  # fmt: skip
    sweeps.sweep_page(sweeps.read_sweep(store))
    words = {row_fidelity(row) for _, row in load_table(store).iterrows()}
    for name in ("fastest", "most frugal"):
        assert told[name][1] in words, told[name]


def test_a_search_says_it(store: Path, tmp_path: Path, run_cli: RunCli) -> None:
    pytest.importorskip("optuna")
    from pimsim.explore.search import run_search

    search = tmp_path / "search.yaml"
    search.write_text(
        SWEEP.split("grid")[0] + "space: {workload.batch: {low: 1, high: 2, integer: true}}\n"
        "objectives: [{metric: tokens_per_s, direction: maximize}]\ntrials: 2\n"
    )
    outcome = run_search(search, store)  # the sweep has simulated all of it
    said = [trial.fidelity for trial in outcome.trials]
    assert all(each is not None and each.mode == "fast" for each in said)
    given = ["search", str(search), "--out", str(store)]
    text = run_cli(*given).stdout
    (best,) = (outcome.trials[number].fidelity for number in outcome.front[:1])
    assert best is not None and best.words in text
    trials = json.loads(run_cli(*given, "--json").stdout)["trials"]
    assert trials[0]["fidelity"]["error_ci95"] == said[0].error_ci95  # type: ignore[union-attr]


def test_a_runs_page_says_it(tmp_path: Path, run_cli: RunCli) -> None:
    given = ["run", "npu-only", *GIVEN, "--fidelity", "fast", "--out", str(tmp_path / "run")]
    assert run_cli(*given).returncode == 0
    words = pimsim.load(tmp_path / "run").fidelity.words
    done = run_cli("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    for place in (f"fidelity {words}", f"Stages ({words})", f"Operators ({words})"):
        assert place in page
