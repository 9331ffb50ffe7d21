"""ONNXim's products: cycles within the limit, each core's work exact, through validate's rows.

The larger ones are for ``pimsim validate``; those here take a second or two each.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.validate.npu import onnxim_rows, scalesim_rows
from pimsim.validate.types import References, Row

REFERENCES = References(Path(__file__).parents[1] / "data", None)
CYCLES_LIMIT = 0.05
"""Of ONNXim's cycles (issue 3)."""
CASES = (
    "onnxim-tpuv4/512x512x512",
    "onnxim-tpuv4/64x1024x1024",
    "onnxim-tpuv4/8x2048x2048",
    "onnxim-tpuv4/256x768x4096",
    "onnxim-tpuv4/700x640x384",
    "onnxim-tpuv4/1x640x128",
    "onnxim-transformer/64x256x256",
    "onnxim-transformer/100x300x200",
    "onnxim-transformer/2x300x100",
)


@pytest.fixture(scope="module")
def compared() -> list[Row]:
    return list(onnxim_rows(REFERENCES, CASES))


def test_all_cases_are_compared(compared: list[Row]) -> None:
    assert {row.case for row in compared if row.group == "onnxim.cycles"} == set(CASES)


def test_cycles_are_onnxim_s(compared: list[Row]) -> None:
    found = [row for row in compared if row.group == "onnxim.cycles"]
    assert [row for row in found if abs(row.error) > CYCLES_LIMIT] == []


def test_each_core_s_work_is_exact(compared: list[Row]) -> None:
    found = [row for row in compared if row.group == "onnxim.work"]
    assert found
    assert [row for row in found if row.ours != row.reference] == []


def test_scalesim_s_closed_forms_are_exact() -> None:
    found = list(scalesim_rows(REFERENCES))
    assert len(found) > 120
    assert [row for row in found if row.ours != row.reference] == []
