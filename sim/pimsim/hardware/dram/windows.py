"""All channels, window by window, until something that was asked for is complete.

Channels share nothing but the work they are given, so each is simulated by itself, in windows that
end before anything of one channel could concern another: no group of requests can be complete
before the end of the window (its slowest channel still has too many requests left), and no softmax
that follows a PIM result can have issued its writes.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.controller import run_channel
from pimsim.hardware.dram.layout import INFINITY, MAX_PIM_WRITES
from pimsim.hardware.dram.samples import NEXT, next_sample, sum_with_banks
from pimsim.hardware.dram.sources import next_offer

__all__ = ["N_AFTER", "advance_channels", "group_bound"]

# columns of the after-state: next mark, last issue, latest finish so far (writes go in order),
# bursts spread so far, unit cycles used
N_AFTER = 5


@njit(cache=True)
def _write_later(ch: Any, now: int, ready: int, bursts: int) -> None:
    """``bursts`` of PIM's output may go to the channel's write queue from ``ready`` on."""
    last = (ch.pw_head + ch.pw_used - 1) & (MAX_PIM_WRITES - 1)
    if ch.pw_used == MAX_PIM_WRITES or (ch.pw_used > 0 and ch.pw[last, 0] == ready):
        ch.pw[last, 0] = ready
        ch.pw[last, 1] += bursts
    else:
        last = (ch.pw_head + ch.pw_used) & (MAX_PIM_WRITES - 1)
        ch.pw[last, 0] = ready
        ch.pw[last, 1] = bursts
        ch.pw_used += 1
    ch.pw_len += bursts
    ch.now = min(ch.now, max(ready, now))


@njit(cache=True)
def _settle(
    channels: Any, board: Any, now: int, first: int, info: Any, finish: Any, after: Any,
    unit_free: Any, spread: bool, not_before: int,
) -> None:  # fmt: skip
    """Schedule the vector work whose PIM results are known, in order, and its writes.

    What is known of a result lies at least the lookahead ahead of ``now``, so no channel has
    passed the cycle from which its writes may go.
    """
    total = len(finish)
    while after[0] < total and board.ticket[first + after[0], 0] == 0:
        mark = after[0]
        if info[mark, 0] < 0:
            finish[mark] = board.ticket[first + mark, 1]
            after[2] = max(after[2], finish[mark])
            after[0] = mark + 1
            continue
        start = max(board.ticket[first + mark, 1], after[1] + 1, not_before)
        if len(unit_free) > 0:
            unit = 0
            for i in range(1, len(unit_free)):
                if unit_free[i] < unit_free[unit]:
                    unit = i
            start = max(start, unit_free[unit])
            unit_free[unit] = start + info[mark, 0]
        after[1] = start
        after[4] += info[mark, 0]
        finish[mark] = start + info[mark, 0]
        after[2] = max(after[2], finish[mark])
        after[0] = mark + 1
        if spread:
            for _ in range(info[mark, 1]):
                _write_later(channels[after[3] % len(channels)], now, after[2], 1)
                after[3] += 1
        elif info[mark, 1] > 0:
            _write_later(channels[info[mark, 2]], now, after[2], info[mark, 1])


@njit(cache=True)
def group_bound(channels: Any, board: Any, now: int, ticket: int, each: int) -> int:
    """A cycle before which the group cannot be complete; exact once nothing is left.

    Parameters
    ----------
    channels
        Records of ``CHANNEL``, (channels,).
    board
        A record of ``BOARD``.
    now
        Cycle at which all channels stand.
    ticket
        First of the group's, one a channel.
    each
        Eight times the least cycles from one completion to the next on a channel.

    Returns
    -------
    int
        Cycle.
    """
    bound = 0
    for c in range(len(channels)):
        left = board.ticket[ticket + c, 0]
        if left > 0:
            bound = max(bound, now + 1 + (left - 1) * each // 8)
        else:
            bound = max(bound, board.ticket[ticket + c, 1])
    return bound


@njit(cache=True)
def _all_done(channels: Any, board: Any, ticket: int) -> int:
    """Cycle at which the group's last result came, -1 while any is to come."""
    done = 0
    for c in range(len(channels)):
        if board.ticket[ticket + c, 0] > 0:
            return -1
        done = max(done, board.ticket[ticket + c, 1])
    return done


@njit(cache=True)
def advance_channels(
    channels: Any, parameters: Any, boards: Any, now: int, until: int, groups: Any,
    pim_group: int, first_mark: int, info: Any, finish: Any, after: Any, unit_free: Any,
    spread: bool, lookahead: int, overlap: bool, released: int, samples: Any, sampling: Any,
) -> tuple[int, int]:  # fmt: skip
    """Simulate until a group is complete or ``until``.

    Parameters
    ----------
    channels
        Records of ``CHANNEL``, (channels,); changed.
    parameters
        Record of ``PARAMETERS``, (1,).
    boards
        Record of ``BOARD``, (1,); changed.
    now, until
        Cycles of tCK: where all channels stand, and where they stop at the latest.
    groups
        (groups, 2): first ticket of each, one a channel, and eight times the least cycles from one
        completion to the next on a channel.
    pim_group
        Row of the PIM operation, -1 where none runs.
    first_mark
        Ticket of its first (request, head).
    info
        (marks, 3): cycles of the vector work behind each result (below 0: none), bursts that it
        writes, its channel.
    finish
        (marks,), out: cycle at which each mark's vector work ends.
    after
        (N_AFTER,), changed: how far vector work has come.
    unit_free
        Cycle from which each vector unit is free, (units,); changed. None: they never queue.
    spread
        Results are written over all channels, not to their own.
    lookahead
        Least cycles from a PIM command to the first write that it brings.
    overlap
        Vector work starts with a result as soon as it is there, not when all PIM work is done.
    released
        A window's most cycles while requests wait for the data of others.
    samples, sampling
        Table and state of ``make_samples``; changed.

    Returns
    -------
    (int, int)
        Cycle that is reached, and row of the group that is complete, -1: none.
    """
    p, board = parameters[0], boards[0]
    while True:
        horizon = min(until, now + released, sampling[NEXT])
        fired = -1
        for g in range(len(groups)):
            bound = group_bound(channels, board, now, groups[g, 0], groups[g, 1])
            if g == pim_group:
                if after[0] < len(finish):
                    bound = max(bound, now + 1)
                    horizon = min(horizon, now + lookahead)
                else:
                    bound = max(bound, after[2])
                    for c in range(len(channels)):
                        if channels[c].pw_len > 0:
                            bound = max(bound, now - (-channels[c].pw_len // p.feed))
            if bound <= now and fired < 0:
                fired = g
            horizon = min(horizon, max(bound, now + 1))
        if fired >= 0 or now >= until:
            return now, fired
        for c in range(len(channels)):
            if released < INFINITY:
                ready = next_offer(channels[c], p, board, now - 1)
                channels[c].now = min(channels[c].now, ready)
            if channels[c].now < horizon:
                run_channel(channels[c], p, board, horizon)
        now = horizon
        if pim_group >= 0:
            ready = 0 if overlap else _all_done(channels, board, groups[pim_group, 0])
            if ready >= 0:
                _settle(
                    channels, board, now, first_mark, info, finish, after, unit_free, spread,
                    ready,
                )  # fmt: skip
        if now >= sampling[NEXT]:
            row = next_sample(samples, sampling, now)
            sum_with_banks(channels, p.ranks, now, samples[row])
