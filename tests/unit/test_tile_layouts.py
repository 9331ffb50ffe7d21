"""Bursts of runs of a row of a matrix, by where they begin."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.loader import load_npu_of
from pimsim.mapping.operands import operands
from pimsim.mapping.tile_layouts import GemmPlaces, RowMajor, Tiled

STARTS = np.array([0, 2, 62, 64, 190])


@pytest.mark.parametrize(
    ("layout", "size", "bursts"),
    [
        ("row-major", 64, [1, 2, 2, 1, 2]),
        ("row-major", 66, [2, 2, 2, 2, 2]),
        ("row-major", 2, [1, 1, 1, 1, 1]),
        ("row-major", 4, [1, 1, 2, 1, 2]),
        ("onnxim_short_runs", 64, [1, 1, 1, 1, 1]),
        ("onnxim_short_runs", 66, [2, 2, 2, 2, 2]),
    ],
)
def test_a_run_takes_the_bursts_that_it_touches(layout: str, size: int, bursts: list[int]) -> None:
    """Of 64 bytes; ONNXim's as many as its bytes fill, wherever it begins."""
    made = operands(layout).layout(
        (8, 8, 8), GemmPlaces(0, 0, 0), 2, load_npu_of("npu-only").systolic, 64, (128, 128)
    )
    assert isinstance(made, RowMajor)
    assert made.run_bursts(STARTS, size).tolist() == bursts


def test_only_tiles_take_weights_that_are_packed() -> None:
    assert Tiled.takes_packed
    assert not RowMajor.takes_packed
    assert operands("tiled").layout is Tiled
