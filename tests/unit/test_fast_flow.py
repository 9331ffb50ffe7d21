"""Moments at which the flow of a memory at fast fidelity stops."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.hardware.dram.fast import flow as fast_flow
from pimsim.hardware.dram.fast.flow import FLOW, next_begin, next_completion, step


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


STOPS = np.array([(1000, 2, 30, 20, 10, 2, 0)], fast_flow.STOPS)[0]
"""Ranks in turn every 1,000 ticks, the first one first. A stream that lies in the rank stands still
for 30 ticks, one that lies anywhere for 20; the last 2 of 10 bursts in a rank may wait."""
NO_PARTS = np.zeros((1, fast_flow.PARTS), np.int64)
NO_REFRESH = np.zeros(1, fast_flow.REFRESH)[0]


@pytest.mark.parametrize(
    ("now", "place", "run", "work", "end"),
    [
        # 20 of 40 ticks into the first rank
        (1000, 20, 40, 200, 1230),
        (1010, 20, 40, 200, 1230),
        # it meets the first rank 20 ticks later, or after the refresh, or is complete before
        (1000, 60, 40, 200, 1210),
        (1000, 45, 40, 200, 1200),
        (1000, 60, 40, 20, 1020),
        # the last 8 ticks wait at their banks and the second rank's bursts pass; 9 are too many
        (1000, 32, 40, 200, 1200),
        (1000, 31, 40, 200, 1230),
        # 7 wait, and only 10 are behind them
        (1000, 33, 40, 17, 1037),
        # the second refresh is the second rank's
        (2000, 20, 40, 200, 2210),
        (2000, 60, 40, 200, 2230),
        # it lies anywhere
        (1000, 20, 0, 200, 1220),
        # before the first refresh, and between two
        (200, 20, 40, 200, 400),
        (1030, 20, 40, 200, 1230),
        # at the second refresh, with 970 done, it has 10 to go to the second rank
        (1000, 20, 40, 1200, 2250),
    ],
)
def test_a_refresh_stops_the_streams_in_its_rank(
    now: int, place: int, run: int, work: int, end: int
) -> None:
    ch = np.zeros(1, FLOW)
    ch["queued"], ch["begin"] = work, -fast_flow.NEVER
    stretches = np.array([[[0, work, place, run]]])
    trail = np.zeros((1, fast_flow.TRAIL, 3), np.int64)
    targets = np.array([[work]])
    asked = NO_PARTS, now, fast_flow.NEVER, targets, NO_REFRESH, stretches, STOPS
    assert next_completion(ch, *asked) == (end, 0)
    step(ch, NO_PARTS, now, end - 1, NO_REFRESH, stretches, STOPS, trail)
    assert ch["done"][0] == work - 1
    stopped = trail[0, : int(ch["stops"][0])]
    assert (stopped[:, 1] - stopped[:, 0]).sum() == end - now - work


@pytest.mark.parametrize(("idle", "rest", "end"), [(994, 6, 1200), (994, 7, 1230), (0, 8, 1200)])
def test_what_a_channel_has_not_taken_in_yet_does_not_pass(idle: int, rest: int, end: int) -> None:
    """Bursts take 4 ticks and come 2 apart: of ``n`` ticks of work as many wait after ``n``."""
    ch = np.zeros(1, FLOW)
    ch["queued"], ch["begin"] = 200, idle
    stops = STOPS.copy()
    stops["taken"] = 2
    asked = NO_PARTS, 1000, fast_flow.NEVER, np.array([[200]]), NO_REFRESH
    stretches = np.array([[[0, 200, 40 - rest, 40]]])
    assert next_completion(ch, *asked, stretches, stops) == (end, 0)


def test_each_stream_is_stopped_where_it_lies_itself() -> None:
    """The first 100 lie in the second rank, the next 100 in the first; both are in it from 950."""
    ch = np.zeros(1, FLOW)
    ch["queued"] = 200
    stretches = np.array([[[0, 100, 400, 400]], [[100, 200, 0, 400]]])
    asked = NO_PARTS, 950, fast_flow.NEVER, np.array([[100], [200]]), NO_REFRESH, stretches, STOPS
    assert next_completion(ch, *asked) == (1050, 0)
    stretches[0, 0, 2] = 0
    assert next_completion(ch, *asked) == (1080, 0)
    trail = np.zeros((1, fast_flow.TRAIL, 3), np.int64)
    step(ch, NO_PARTS, 950, 1081, NO_REFRESH, stretches, STOPS, trail)
    assert (ch["done"][0], ch["stretch"][0], ch["stops"][0]) == (101, 1, 1)
    assert trail[0, 0].tolist() == [1000, 1030, 50]


def test_parts_of_a_loop_follow_one_another_round_by_round() -> None:
    """Four parts, of which the second and the third are run three times."""
    parts = np.zeros((4, fast_flow.PARTS), np.int64)
    parts[2, [fast_flow.PART_ROUNDS, fast_flow.PART_LOOP]] = 3, 2
    part, seen = 0, []
    for _ in range(9):
        seen.append((part & (1 << 32) - 1, part >> 32))
        part = int(fast_flow._part_after(parts, part))
    assert seen == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2), (3, 0), (4, 0)]
