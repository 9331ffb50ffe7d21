"""Moments at which the flow of a memory at fast fidelity stops."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.hardware.dram.fast.flow import FLOW, next_begin


@pytest.mark.parametrize(
    ("tick", "until", "found"),
    [
        (0, 100, 2), (2, 100, 5), (5, 6, 6), (5, 100, 7), (7, 100, 9), (9, 100, 12), (9, 12, 12),
        (12, 100, 30), (30, 100, 100),
    ],
)  # fmt: skip
def test_a_channel_sets_out_with_streams_or_with_pim(tick: int, until: int, found: int) -> None:
    flow = np.zeros(3, dtype=FLOW)
    flow["begin"] = [5, 9, 30]
    flow["pim_begin"] = [7, 2, 12]
    assert next_begin(flow, tick, until) == found
