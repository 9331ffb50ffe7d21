"""The ranges in docs/limits.md are those that ``validate`` finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.validate.judge import judge
from pimsim.validate.ranges import BEGIN, END, range_lines, split_page, write_ranges
from pimsim.validate.suites import load_suites
from pimsim.validate.tolerances import load_tolerances, tolerance_of
from pimsim.validate.types import References, Row

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "limits.md"


def _rows(group: str, *ours: float) -> list[Row]:
    return [Row(group, str(at), "cycles", 100, each) for at, each in enumerate(ours)]


def test_a_line_has_both_ends_of_a_range() -> None:
    (group,) = judge(_rows("aim.plain_cycles", 97, 100, 102, 104))
    assert range_lines([group]) == {
        "aim.plain_cycles": "| aim.plain_cycles | 4 | 1 | 2.50% | -3.00% | +4.00% | ok |"
    }


def test_lines_of_other_groups_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A\n\n{BEGIN}\n{END}\n\nafter | not a row |\n")
    write_ranges(page, judge(_rows("aim.cycles", 100)))
    write_ranges(page, judge(_rows("papers.reported", 150)))
    first = page.read_text()
    assert "| aim.cycles | 1 | 1 | 0.00% | +0.00% | +0.00% | ok |" in first
    assert "| papers.reported | 1 | 0 | 50.00% | +50.00% | +50.00% | reported |" in first
    assert first.endswith("after | not a row |\n")
    write_ranges(page, judge(_rows("aim.cycles", 100)))
    assert page.read_text() == first  # nothing is added twice
    page.write_text("no block")
    with pytest.raises(InputError, match="no block"):
        write_ranges(page, [])


def test_the_page_says_what_the_suite_finds() -> None:
    """Of one suite that CI can bear, to the last digit."""
    (suite,) = load_suites("pim")
    groups = judge(suite.rows(References(REPO / "tests" / "data", None)))
    lines = PAGE.read_text().splitlines()
    for group, line in range_lines(groups).items():
        assert line in lines, f"{group}: run pimsim validate pim --ranges docs/limits.md"


def test_the_page_has_every_group_within_its_limits() -> None:
    """As ``pimsim validate --reference DIR --ranges docs/limits.md`` wrote it, all suites run."""
    _, block, _ = split_page(PAGE)
    found = [line for line in block.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found]
    # what only --grid finds is in docs/neupims.md
    expected = {group for group in load_tolerances() if not group.startswith("neupims.published")}
    assert {row[0] for row in cells} == expected
    for group, rows, exact, median, least, greatest, verdict in cells:
        limit = tolerance_of(group)
        assert verdict == ("ok" if limit.judges else "reported"), group
        assert int(exact.replace(",", "")) <= int(rows.replace(",", "")), group
        worst = max(abs(float(end.rstrip("%"))) for end in (least, greatest))
        if limit.each is not None and limit.share is None and not limit.misses:
            assert worst <= 100 * limit.each + 0.005, group
        if limit.median is not None:
            assert float(median.rstrip("%")) <= 100 * limit.median + 0.005, group
