"""Amounts over time: whole numbers that add up, whatever the intervals do."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.engine.work import KINDS, Span, WorkOverTime
from pimsim.hardware.dram.samples import (
    A_BUS_LEFT,
    A_CYCLE,
    COUNT,
    INTERVAL,
    MOST,
    NEXT,
    make_samples,
    next_sample,
    shares,
)
from pimsim.hardware.ticks import Ticks


def work_of(spans: list[Span], most: int = 8, **amounts: int) -> WorkOverTime:
    """Intervals of 10 cycles of 1 ns."""
    work = WorkOverTime(Ticks.of_period(1000), interval=10, most=most)
    work.spread(spans, amounts.items())
    return work


def test_a_span_is_spread_evenly_over_its_time() -> None:
    """From 5 to 25 ns: a quarter, a half, a quarter; the odd one comes last."""
    assert work_of([(5_000, 25_000, 1)], macs=101).sums("macs") == [25, 50, 26]


def test_spans_share_by_weight() -> None:
    """One of 3 parts in the first 10 ns, two in the last 5 of the next."""
    work = work_of([(0, 10_000, 1), (15_000, 20_000, 2)], macs=9, sram_bytes=30)
    assert work.sums("macs") == [3, 6, 0]
    assert work.sums("sram_bytes") == [10, 20, 0]
    assert work.sums("link_bytes") == [0, 0, 0]


def test_work_without_weights_takes_the_whole_time() -> None:
    assert work_of([(0, 10_000, 0), (20_000, 30_000, 0)], macs=30).sums("macs") == [10, 10, 10, 0]


def test_what_takes_no_time_is_in_the_interval_of_its_moment() -> None:
    assert work_of([(10_000, 10_000, 1)], macs=7).sums("macs") == [0, 7]


def test_too_many_intervals_become_half_as_many() -> None:
    """80 ns and more in at most 4 intervals: of 20 ns, then of 40."""
    work = work_of([(0, 60_000, 1)], most=4, macs=60)
    assert (work.interval, work.sums("macs")) == (20, [20, 20, 20, 0])
    work.spread([(60_000, 90_000, 1)], [("macs", 30)])
    assert (work.interval, work.sums("macs")) == (40, [40, 40, 10])


def test_spans_beside_each_other_have_each_as_much_as_it_is_long() -> None:
    """30 ns in all: 10 of the first and 5 of the second before 10 ns, the last 15 behind."""
    work = work_of([(0, 1, 1)], macs=0)
    starts, ends = np.array([0, 5_000, 15_000]), np.array([10_000, 20_000, 20_000])
    work.spread_beside(starts, ends, [("macs", 60), ("link_bytes", 31)])
    assert work.sums("macs") == [30, 30, 0]
    assert work.sums("link_bytes") == [15, 16, 0]
    work.spread_beside(starts[2:], starts[2:], [("macs", 8)])  # takes no time
    assert work.sums("macs") == [30, 38, 0]


@given(
    spans=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1),
    amount=st.integers(1, 10**12),
)
def test_beside_or_one_by_one_is_the_same(spans: list[tuple[int, int]], amount: int) -> None:
    """But for what shares of whole numbers round, a unit a span."""
    ordered = sorted((min(each), max(each)) for each in spans)
    beside, single = (WorkOverTime(interval=16, most=16) for _ in range(2))
    starts, ends = (np.array([each[at] for each in ordered]) for at in (0, 1))
    beside.spread_beside(starts, ends, [("macs", amount)])
    single.spread([(a, b, b - a) for a, b in ordered], [("macs", amount)])
    assert sum(beside.sums("macs")) == amount and min(beside.sums("macs")) >= 0
    if (ends > starts).any():
        found, right = (np.cumsum(work.sums("macs")[:16]) for work in (beside, single))
        assert np.abs(found - right).max() <= 2 * len(spans)


@given(
    spans=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 9)), min_size=1
    ),
    amount=st.integers(0, 10**12),
    period=st.sampled_from([Fraction(1000), Fraction(2500, 3), Fraction(625, 2)]),
)
def test_nothing_is_lost(spans: list[Span], amount: int, period: Fraction) -> None:
    work = WorkOverTime(Ticks.of_period(period), interval=16, most=16)
    ordered = [(min(a, b), max(a, b), weight) for a, b, weight in spans]
    for kind in KINDS:
        work.spread(ordered, [(kind, amount)])
    assert all(sum(work.sums(kind)) == amount for kind in KINDS)
    assert all(min(work.sums(kind), default=0) >= 0 for kind in KINDS)
    assert len(work.sums("macs")) <= 16


def test_samples_are_thinned_when_the_table_is_full() -> None:
    table, state = make_samples(interval=10)
    for number in range(1, MOST + 1):
        assert state[NEXT] == 10 * number
        table[next_sample(table, state, 10 * number), A_BUS_LEFT] = number
    # only the multiples of 20 will stay: the next one of those
    assert (int(state[COUNT]), int(state[NEXT])) == (MOST, 10 * (MOST + 2))
    row = next_sample(table, state, 10 * (MOST + 2))
    assert (row, int(state[COUNT]), int(state[INTERVAL])) == (MOST // 2, MOST // 2 + 1, 20)
    assert table[: row + 1, A_CYCLE].tolist() == [20 * at for at in range(1, row + 2)]
    assert table[:row, A_BUS_LEFT].tolist() == [2 * at for at in range(1, row + 1)]


def test_a_stop_between_two_samples_waits_for_the_next_multiple() -> None:
    table, state = make_samples(interval=10)
    next_sample(table, state, 27)
    assert (int(table[0, A_CYCLE]), int(state[NEXT])) == (27, 30)


@pytest.mark.parametrize(("done", "part"), [(0, 0), (100, 0), (150, 50), (200, 100), (900, 100)])
def test_what_comes_evenly_is_there_in_part(done: int, part: int) -> None:
    begin, end, amount = (np.array([each]) for each in (100, 200, 100))
    assert shares(begin, end, np.array([done]), amount).tolist() == [part]
