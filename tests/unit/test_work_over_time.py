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
