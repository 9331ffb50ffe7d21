"""What users see is what was approved: ``expected/`` holds it, case by case."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from approving import difference
from cases import HERE, Case, all_cases, expected_file

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_output_is_as_approved(case: Case) -> None:
    for each in case.needs:
        pytest.importorskip(each)
    told = difference(case.name, case.text())
    if told:
        pytest.fail(told, pytrace=False)


def test_no_approved_output_is_without_a_case() -> None:
    kept = {path for path in (HERE / "expected").rglob("*.txt")}
    assert kept == {expected_file(case.name) for case in CASES}
