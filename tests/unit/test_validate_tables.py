"""What ``pimsim validate`` prints: which rows of a long table, and a group's line."""

from __future__ import annotations

from pimsim.validate.judge import judge
from pimsim.validate.tables import row_table, summary_table
from pimsim.validate.types import Row


def cells(table: object) -> dict[str, list[str]]:
    return {str(column.header): list(column.cells) for column in table.columns}  # type: ignore[attr-defined]


def test_a_long_table_has_the_worst_rows_of_either_sign_in_their_order() -> None:
    ours = {"a": 101, "b": 80, "c": 110, "d": 100}
    rows = [Row("papers.reported", case, "x", 100, value) for case, value in ours.items()]
    table = row_table("papers.reported", rows, 2)
    assert table.title == "papers.reported: the worst 2 of 4"
    shown = cells(table)
    assert (shown["case"], shown["error"]) == (["b", "c"], ["-20.00%", "+10.00%"])
    assert (shown["reference"], shown["ours"]) == (["100", "100"], ["80", "110"])
    assert cells(row_table("papers.reported", rows, 4))["case"] == list(ours)


def test_a_group_is_summed_up_in_a_line() -> None:
    """4 % too many, 10 % too few, exact: 474 in place of 500 altogether."""
    pairs = [(100, 104), (300, 270), (100, 100)]
    rows = [Row("papers.reported", str(at), "x", *pair) for at, pair in enumerate(pairs)]
    shown = cells(summary_table(judge(rows)))
    assert {name: shown[name] for name in ("rows", "exact", "mean", "median", "worst", "bias")} == {
        "rows": ["3"], "exact": ["1"], "mean": ["4.67%"], "median": ["4.00%"],
        "worst": ["-10.00%"], "bias": ["-5.20%"],
    }  # fmt: skip
