"""GDDR6-AiM against the public AiM simulator: its nine test traces and random ones of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.validate.aim import rows
from pimsim.validate.types import References, Row


@pytest.fixture(scope="module")
def found(repo_dir: Path) -> list[Row]:
    return list(rows(References(repo_dir / "tests" / "data", None)))


def test_all_traces_are_there(found: list[Row]) -> None:
    cycles = [row.case for row in found if row.metric == "cycles"]
    assert len(cycles) == len(set(cycles)) == 9 + 20 + 7
    assert sum(row.group == "aim.plain_cycles" for row in found) >= 4


def test_pim_instructions_take_the_same_cycles(found: list[Row]) -> None:
    assert [row for row in found if row.group == "aim.cycles" and row.error != 0] == []


def test_commands_are_the_same(found: list[Row]) -> None:
    assert [row for row in found if row.group == "aim.counts" and row.error != 0] == []


def test_plain_reads_and_writes_are_close(found: list[Row]) -> None:
    # that simulator closes rows which older reads of the queue still hit, and answers a blocking
    # instruction only after the data of plain reads before it
    far = [row for row in found if row.group == "aim.plain_cycles" and abs(row.error) > 0.05]
    assert far == []
