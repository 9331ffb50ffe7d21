"""Schedules of vLLM and Vidur: every column of every request and step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pimsim.validate.serving import rows
from pimsim.validate.types import References, Row


@pytest.fixture(scope="module")
def compared(reference_dir: Path) -> list[Row]:
    return list(rows(References(Path(__file__).parents[1] / "data", reference_dir)))


def test_every_row_is_exact(compared: list[Row]) -> None:
    exact = [row for row in compared if row.group.startswith("serving.") and "rtx" not in row.group]
    different = [row for row in exact if row.ours != row.reference]
    assert not different, different[:5]
    counts = Counter(row.group for row in exact)
    assert counts["serving.steps"] > 80_000
    assert counts["serving.vllm-v1"] + counts["serving.vidur"] > 9_000
    assert counts["serving.speculation"] == 100 * 9


def test_without_the_folder_there_is_nothing_to_compare() -> None:
    assert list(rows(References(Path(), None))) == []
