"""Cycles of small runs are what they were: ``pimsim check`` on tests/golden/cycles.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.resources import preset_names
from pimsim.result.golden import GoldenCase, differences, read_golden, source_of
from pimsim.simulate import resolve, simulate

FILE = Path(__file__).parent / "cycles.yaml"
CASES = read_golden(FILE).cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cycles_are_golden(case: GoldenCase) -> None:
    result = simulate(resolve(source_of(case, FILE), case.set))
    assert differences(case, result) == []


def test_every_hardware_preset_has_a_golden_case() -> None:
    assert {case.run for case in CASES} == set(preset_names("hardware"))


def test_every_golden_case_says_why() -> None:
    assert all(case.reason and case.cycles for case in CASES)
