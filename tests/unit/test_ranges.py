"""Ranges of a table have owners: what one holds nobody else gets, and an overrun is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.hardware.dram.ranges import Ranges

SIZE = 24


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_no_entry_has_two_owners_and_none_is_refused_that_is_there(
    steps: list[tuple[bool, int]],
) -> None:
    ranges = Ranges(SIZE, "things")
    held: dict[int, range] = {}
    for takes, number in steps:
        taken = {entry for own in held.values() for entry in own}
        assert ranges.held == len(taken)
        if not takes and held:
            first = sorted(held)[number % len(held)]
            ranges.give_back([first])
            del held[first]
            continue
        room = any(
            not taken & set(range(first, first + number)) for first in range(SIZE - number + 1)
        )
        if not room:
            with pytest.raises(InputError, match=r"things: .* of 24 entries are taken"):
                ranges.take(number)
            continue
        first = ranges.take(number)
        assert 0 <= first <= SIZE - number
        assert not taken & set(range(first, first + number))
        held[first] = range(first, first + number)


def test_an_entry_rests_between_two_owners() -> None:
    ranges = Ranges(SIZE, "things")
    assert ranges.take(4) == 0
    ranges.give_back([0])
    assert [ranges.take(4), ranges.take(16)] == [4, 8]
    assert ranges.take(4) == 0


def test_what_was_taken_is_collected_once() -> None:
    ranges = Ranges(SIZE, "things")
    ranges.take(2)
    ranges.take(3)
    assert ranges.collect() == (0, 2)
    assert ranges.collect() == ()
