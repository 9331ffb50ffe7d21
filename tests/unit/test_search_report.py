"""The report of a search: its front, its best values trial by trial, which key matters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.explore.importance import Importance
from pimsim.explore.search import SearchOutcome, Trial, read_outcome
from pimsim.explore.search_spec import SearchSpec
from pimsim.report import searches
from pimsim.report.charts import LaneChart, XYChart
from pimsim.result.types import Fidelity

SPEC = SearchSpec.model_validate(
    {
        "name": "<b>few", "base": "neupims", "trials": 6,
        "space": {"memory.organization.channels": {"choices": [8, 16, 32]}},
        "objectives": [{"metric": "tokens_per_s"}, {"metric": "mj_per_token"}],
        "constraints": ["area_mm2 < 2200"],
    }
)  # fmt: skip


def trial(number: int, channels: int, *values: float, **more: object) -> Trial:
    given = {"feasible": bool(values), "error": ""} | more
    return Trial(number, {"memory.organization.channels": channels}, values, **given)  # type: ignore[arg-type]


OUTCOME = SearchOutcome(
    (
        trial(0, 8, 100.0, 9.0, fidelity=Fidelity("fast", 4, -0.01, 0.02)),
        trial(1, 16, 150.0, 12.0),
        trial(2, 16, 150.0, 12.0, same_as=1),
        trial(3, 32, 400.0, 5.0, feasible=False),
        trial(4, 8, error="it does not fit"),
        trial(5, 32, tried=False),
        trial(6, 16, 90.0, 11.0),
    ),
    (0, 1),
    {"tokens_per_s": {"all": Importance(4, {"memory.organization.channels": 0.75}, 0.25)}},
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "search.yaml").write_text("base: neupims\n")
    monkeypatch.setattr(searches, "read_outcome", lambda _: (SPEC, OUTCOME))
    return tmp_path


def test_the_charts_show_different_configs_and_the_best_that_keep_constraints(folder: Path) -> None:
    charts = searches.read_found(folder).charts
    assert [chart.key for chart in charts] == [
        "front", "progress-tokens_per_s", "progress-mj_per_token", "importance",
    ]  # fmt: skip
    front, rate, energy, shares = charts
    assert isinstance(front, XYChart) and isinstance(rate, XYChart) and isinstance(energy, XYChart)
    assert {series.name: [(p.x, p.y) for p in series.points] for series in front.points} == {
        "beaten": [(11.0, 90.0)], "breaks a constraint": [(5.0, 400.0)],
        "on the front": [(9.0, 100.0), (12.0, 150.0)],
    }  # fmt: skip
    assert (rate.lines[0].x, rate.lines[0].y) == ((0, 1, 6), (100, 150, 150))
    assert energy.lines[0].y == (9.0, 9.0, 9.0)
    assert isinstance(shares, LaneChart)
    assert [(span.series, span.start, span.end) for span in shares.spans] == [
        ("memory.organization.channels", 0.0, 75.0), ("in combination", 75.0, 100.0),
    ]  # fmt: skip


def test_the_page_says_what_came_of_each_trial(folder: Path) -> None:
    page = searches.search_page(searches.read_found(folder))
    assert "<b>few" not in page and "&lt;b&gt;few" in page
    for words in (
        "The highest throughput is 150.0 tokens/s: trial 1, memory.organization.channels 16.",
        "The lowest energy is 9.000 mJ/token (fast, error -1.00% +- 2.00%): trial 0",
        "memory.organization.channels is 75% of how throughput varies over 4 different points.",
        "6 different configs of 7 trials", "it does not fit", "breaks a constraint", "beaten",
        "not tried: it breaks &#39;where&#39;",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("on the front</td>") == 2


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match=r"search\.yaml"):
        read_outcome(tmp_path)
    (tmp_path / "search.yaml").write_text(
        "space: {npu.systolic.arrays: {choices: [1, 2]}}\nobjectives: [{metric: cycles}]\n"
    )
    with pytest.raises(InputError, match=r"its search has no journal\.log"):
        read_outcome(tmp_path)
    (tmp_path / "journal.log").write_text("")
    with pytest.raises(InputError, match="it has no study 'search'"):
        read_outcome(tmp_path)
