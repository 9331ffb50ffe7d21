"""Rules of inputs, each by a case worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.workload.moe import DROPPED
from pimsim.workload.routing.replay import capacity, dropped


@pytest.mark.parametrize(
    "field", ["channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns"]
)
def test_each_count_of_a_memory_is_a_power_of_two(field: str) -> None:
    with pytest.raises(InputError, match=rf"organization\.{field} is 6, but the address map"):
        load_memory("hbm2", [f"organization.{field}=6"])


def test_an_experts_capacity_is_rounded_up() -> None:
    """10 tokens x 2 experts over 8 experts are 2.5 each; a whole share stays."""
    assert capacity(1.0, 10, 2, 8) == 3
    assert capacity(1.25, 8, 1, 5) == 2
    assert capacity(1.25, 9, 1, 5) == 3


def test_first_choices_come_before_second_ones() -> None:
    """Expert 0 takes two: the first choices of tokens 0 and 2, not the second of token 1."""
    chosen = np.array([[0, 1], [1, 0], [0, 2]])
    assert dropped(chosen, 2, 3).tolist() == [[0, 1], [1, DROPPED], [0, 2]]
