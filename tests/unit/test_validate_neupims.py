"""The study of the NeuPIMs result: complete, resumable, and written from its store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.simulate import device_of
from pimsim.validate.neupims import explain, page, plots, runs
from pimsim.validate.neupims.measured import BRANCHES, read_measured
from pimsim.validate.neupims.ratios import grid_cases, waterfall, waterfall_cases
from pimsim.validate.neupims.runs import Case, Figures, RunStore, grid_case, run_cases, step_config
from pimsim.validate.neupims.study import MODES, StudyPoint, load_study, points_of

STUDY = load_study()
POINT = StudyPoint("gpt3-7b", "ShareGPT", 512)
LABELS = {"name", "description", "memory.name", "memory.source", "pim.name", "pim.source"}
"""Where presets differ without a difference in what is simulated."""


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


def _differences(one: Case, other: Case) -> set[str]:
    first, second = (dict(_leaves(case.config.model_dump())) for case in (one, other))
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


def test_the_grid_is_the_papers() -> None:
    assert len(list(points_of(STUDY))) == 4 * 2 * 5


@pytest.mark.parametrize("machine", [machine.key for machine in STUDY.machines])
def test_all_steps_of_the_waterfall_make_the_artifacts_machine(machine: str) -> None:
    last = step_config(STUDY, machine, POINT, len(STUDY.waterfall.steps))
    quirks = grid_case(STUDY, machine, "quirks", POINT)
    # blocks of one batch are alike, so how many are simulated does not matter
    assert _differences(last, quirks) <= LABELS | {"workload.layers"}
    assert not _differences(
        step_config(STUDY, machine, POINT, 0), grid_case(STUDY, machine, "clean", POINT)
    )


@pytest.mark.parametrize("step", STUDY.waterfall.steps, ids=lambda step: step.name)
def test_every_step_changes_some_machine(step: Any) -> None:
    at = STUDY.waterfall.steps.index(step)
    moved = [
        _differences(
            step_config(STUDY, machine.key, POINT, at),
            step_config(STUDY, machine.key, POINT, at + 1),
        )
        for machine in STUDY.machines
    ]
    assert set().union(*moved) >= set(step.keys)


def _made_up(case: Case) -> Figures:
    """Figures that differ from case to case, without a simulation."""
    digest = int(case.key[-8:], 16) % 1000
    return Figures(1000.0 + digest, 0.01, 0.3, 0.2)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    seen: list[Case] = []

    def simulate(case: Case) -> Figures:
        seen.append(case)
        return _made_up(case)

    monkeypatch.setattr(runs, "simulate_case", simulate)
    return seen


def test_nothing_is_simulated_twice_and_an_interrupted_grid_resumes(
    tmp_path: Path, counted: list[Case]
) -> None:
    cases = list(waterfall_cases(STUDY, [POINT]))
    distinct = len({case.key for case in cases})
    assert distinct < len(cases)
    store = RunStore(tmp_path / "store.json")
    run_cases(cases[:5], store, 1, lambda done, of: None)
    run_cases(cases, RunStore(tmp_path / "store.json"), 1, lambda done, of: None)
    assert len(counted) == distinct


def test_a_waterfall_multiplies_up_to_its_last_ratio(counted: list[Case]) -> None:
    store = RunStore(None)
    run_cases(waterfall_cases(STUDY, [POINT]), store, 1, lambda done, of: None)
    for published in STUDY.published:
        ratio, steps = waterfall(STUDY, store, published, POINT)
        for step in steps:
            ratio *= step.factor
        assert ratio == pytest.approx(steps[-1].ratio)


def test_the_page_and_its_figures(
    tmp_path: Path, counted: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = explain.explain(tmp_path, 1, lambda done, of: None)
    assert len(rows) == len(MODES) * len(STUDY.published)
    page = (tmp_path / "neupims.md").read_text()
    for step in STUDY.waterfall.steps:
        assert step.name in page
    # 1 TB/s over 2-byte weights for 128 requests, of 8 arrays of 128 x 128 at 1 GHz
    assert "keeps 50% of the multipliers busy" in page
    crowded = "At gpt3-7b ShareGPT 512, gpt3-13b ShareGPT 384, "
    assert crowded in page and "34331 rows" in page
    assert "gpt3-30b and gpt3-175b are cut into pipeline stages." in page
    linked = {part.split(")")[0] for part in page.split("](")[1:]}
    assert len(linked) == 3
    for link in linked:
        assert (tmp_path / link).stat().st_size > 10_000
    # the same store gives the same page, with nothing simulated; the figures were seen above
    before = len(counted)
    monkeypatch.setattr(plots, "save_figure", lambda figure, stem: None)
    explain.explain(tmp_path, 1, lambda done, of: None)
    assert len(counted) == before
    assert (tmp_path / "neupims.md").read_text() == page


def test_a_broken_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    path.write_text('{"a": {"unknown": 1}}')
    with pytest.raises(InputError, match=r"store\.json"):
        RunStore(path)


def test_points_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(case: Case) -> Figures:
        if case.config.workload.batch == 512:
            return Figures(0.0, 0.0, 0.0, 0.0, note="too large")
        return _made_up(case)

    monkeypatch.setattr(runs, "simulate_case", simulate)
    store = RunStore(None)
    run_cases(grid_cases(STUDY, list(points_of(STUDY))), store, 1, lambda done, of: None)
    said = "\n".join(page._left_out(STUDY, store))
    assert "over 32 of the 40 points" in said
    assert "gpt3-30b Alpaca 512" in said and "too large" in said


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("too large")

    monkeypatch.setattr("pimsim.simulate.simulate", refuse)
    found = runs.simulate_case(grid_case(STUDY, "npu-only", "clean", POINT))
    assert found.note == "too large"


def test_a_simulated_point_agrees_with_a_run() -> None:
    import pimsim

    point = StudyPoint("gpt3-7b", "Alpaca", 8)
    found = runs.simulate_case(grid_case(STUDY, "npu-pim", "clean", point))
    run = pimsim.run("npu-pim", model="gpt3-7b", requests="alpaca-512", batch=8)
    assert found.tokens_per_s == run.tokens_per_s


def test_what_was_measured() -> None:
    table = Path(__file__).parents[1] / "data" / "neupims_cycles.csv"
    measured = read_measured(table)
    assert set(measured["sg-clb-512"]) == set(BRANCHES)
    assert measured["u512-64"]["main on"] == 123471 + 121984


def test_a_pipeline_of_the_grid_holds_the_cache_of_one_batch() -> None:
    """As the artifact counts it; with one for each stage this point would need 33.8 GiB of 32."""
    case = grid_case(STUDY, "npu-only", "clean", StudyPoint("gpt3-30b", "ShareGPT", 256))
    device, _ = device_of(Resolved(case.config))
    assert (device.whole.pp, device.work.batches) == (2, 1)
    apart = case.config.parallel.model_copy(update={"batches": None})
    with pytest.raises(InputError, match=r"256 requests in each of 2 batches\) needs 33\.76 GiB"):
        device_of(Resolved(case.config.model_copy(update={"parallel": apart})))


def test_each_column_of_the_grid_says_its_ratio_and_its_axes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, _: drawn.append(figure))
    monkeypatch.setattr(plots, "ratio_at", lambda *_: 1.5)
    plots.draw_grid(STUDY, RunStore(None), [POINT], tmp_path / "grid")
    (figure,) = drawn
    rows, columns = len(STUDY.grid.requests), len(STUDY.published)
    assert len(figure.axes) == rows * columns
    for at, axes in enumerate(figure.axes):
        row, column = divmod(at, columns)
        title = STUDY.published[column].name if row == 0 else ""
        below = "batch (requests)" if row == rows - 1 else ""
        assert (axes.get_title(), axes.get_xlabel()) == (title, below)
        left = f"{list(STUDY.grid.requests)[row]}\nthroughput ratio" if column == 0 else ""
        assert axes.get_ylabel() == left
