"""Work that GPU and PIM share: the pipeline over heads, and the split of weights."""

from __future__ import annotations

import pytest

from pimsim.hardware.xpu.sharing import device_share, exposed


@pytest.mark.parametrize(
    ("attention", "others"),
    [(9.0, [2.0, 3.0]), (2.0, [9.0, 3.0]), (2.0, [3.0, 9.0]), (0.0, [1.0, 0.0]), (4.0, [0.0])],
)
def test_a_pipeline_takes_its_longest_stage_and_one_step_of_the_others(
    attention: float, others: list[float]
) -> None:
    heads = 12
    stages = [attention, *others]
    longest = max(stages)
    total = attention + sum(exposed(attention, others, heads))
    assert total == pytest.approx(longest + (sum(stages) - longest) / heads)


def test_with_one_head_nothing_overlaps() -> None:
    assert exposed(3.0, [5.0, 2.0], 1) == [5.0, 2.0]


def test_shares_end_together() -> None:
    share = device_share(2.0, 6.0)
    assert share * 2.0 == pytest.approx((1 - share) * 6.0)
    assert share == 0.75
