"""Judging rows, and what is written of them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.validate import judge as judging
from pimsim.validate.figures import write_figure
from pimsim.validate.judge import judge, status_of
from pimsim.validate.suites import SUITES, load_suites
from pimsim.validate.tolerances import Tolerance, load_tolerances
from pimsim.validate.types import References, Row
from pimsim.validate.write import write_rows

LIMITS = {
    "exact": Tolerance(each=0.0, reason="integers"),
    "loose": Tolerance(each=0.05, median=0.01, bias=0.02, reason="a model", misses={"c x": "why"}),
    "free": Tolerance(reason="reported"),
}


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "tolerance_of", LIMITS.__getitem__)


def _row(group: str, reference: float, ours: float, case: str = "a", wrong: str = "") -> Row:
    return Row(group, case, "x", reference, ours, wrong)


def test_an_exact_group_fails_on_one_cycle() -> None:
    assert judge([_row("exact", 10**9, 10**9)])[0].failures == ()
    (summary,) = judge([_row("exact", 10**9, 10**9 + 1)])
    assert len(summary.failures) == 1
    assert summary.exact == 0


def test_signed_worst_and_summed_bias() -> None:
    rows = [_row("free", 100, 104), _row("free", 300, 270, case="b")]
    (summary,) = judge(rows)
    assert summary.worst == pytest.approx(-0.1)
    assert summary.worst_row == "b x"
    assert summary.bias == pytest.approx(374 / 400 - 1)
    assert summary.mean == pytest.approx(0.07)


def test_each_median_and_bias_are_judged_apart() -> None:
    (summary,) = judge([_row("loose", 100, 104)])
    said = " ".join(summary.failures)
    assert "median" in said
    assert "bias" in said
    assert "a x" not in said


def test_a_wrong_reference_is_counted_apart() -> None:
    (summary,) = judge([_row("exact", 10, 20, wrong="it never refreshes"), _row("exact", 5, 5)])
    assert (summary.rows, summary.known_wrong, summary.failures) == (1, 1, ())


def test_a_known_miss_passes_and_must_leave_the_list_when_it_is_mended() -> None:
    steady = [_row("loose", 10**6, 10**6, case=f"s{i}") for i in range(3)]
    assert judge([_row("loose", 100, 120, case="c"), *steady])[0].failures == ()
    mended = judge([_row("loose", 100, 101, case="c"), *steady])[0]
    assert "known miss" in mended.failures[0]


def test_status() -> None:
    assert status_of(_row("exact", 3, 3)) == "exact"
    assert status_of(_row("loose", 100, 103)) == "ok"
    assert status_of(_row("loose", 100, 106)) == "outside"
    assert status_of(_row("loose", 100, 106, case="c")) == "known miss"
    assert status_of(_row("exact", 3, 4, wrong="bug")) == "reference wrong"


def test_a_reference_of_zero() -> None:
    assert _row("free", 0, 0).error == 0
    assert _row("free", 0, 1).error == math.inf


def test_the_shipped_tolerances_give_reasons() -> None:
    for group, limits in load_tolerances().items():
        assert limits.reason.strip(), group


def test_every_suite_loads() -> None:
    assert [suite.name for suite in load_suites()] == list(SUITES)


def test_an_unknown_suite_has_a_near_miss() -> None:
    with pytest.raises(InputError, match=r"drum.*dram"):
        load_suites("drum")


def test_a_missing_reference_file_is_named(tmp_path: Path) -> None:
    assert References(tmp_path, None).file("x.csv") is None
    with pytest.raises(InputError, match=r"x\.csv"):
        References(tmp_path, tmp_path).file("x.csv")


def test_rows_and_figure_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pimsim.validate.write.status_of", lambda row: "ok")
    rows = [_row("free", 100, 103), _row("free", 7, 7, case="b, with a comma", wrong="bug")]
    write_rows(tmp_path / "rows.csv", [("dram", row) for row in rows])
    with (tmp_path / "rows.csv").open(newline="") as table:
        found = list(csv.DictReader(table))
    assert [line["case"] for line in found] == ["a", "b, with a comma"]
    assert float(found[0]["error"]) == pytest.approx(0.03)
    write_figure(tmp_path / "dram", "a title", rows)
    for suffix, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (tmp_path / f"dram.{suffix}").read_bytes().startswith(magic)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dram.png", "dram.svg", "rows.csv"]
