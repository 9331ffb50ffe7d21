"""What the channels have done by cycles at equal distances: cumulative counters over time.

A kernel takes a sample between its windows, when all channels stand at the same cycle. The table
has room for ``MOST`` samples; when it is full every second one goes and the distance doubles, so
that a run of any length leaves between ``MOST / 2`` and ``MOST`` of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import N_COUNTERS

__all__ = [
    "A_ACTIVE",
    "A_BUS_LEFT",
    "A_COLUMNS_LEFT",
    "A_CYCLE",
    "FIRST_INTERVAL",
    "MOST",
    "NEXT",
    "N_SAMPLE",
    "make_samples",
    "next_sample",
    "shares",
    "stop_sampling",
    "sum_channels",
    "sum_with_banks",
]  # fmt: skip

Ints = NDArray[np.int64]
MOST = 256
"""Even."""
FIRST_INTERVAL = 1024
"""Cycles between samples, at first."""

# a row: the channels' counters in their own places, then
A_CYCLE = N_COUNTERS
A_ACTIVE = N_COUNTERS + 1  # cycles times ranks with any row open
A_BUS_LEFT = N_COUNTERS + 2  # of bursts that were counted: time on the bus that is still to come
A_COLUMNS_LEFT = N_COUNTERS + 3  # the same of dot products in the banks
N_SAMPLE = N_COUNTERS + 4

# the state: rows taken, cycles between them, cycle of the next
COUNT, INTERVAL, NEXT = range(3)


def make_samples(interval: int = FIRST_INTERVAL, most: int = MOST) -> tuple[Ints, Ints]:
    """An empty table and its state.

    Parameters
    ----------
    interval
        Cycles between samples, at first.
    most
        Rows; even.

    Returns
    -------
    (Ints, Ints)
        Table, (most, N_SAMPLE); rows taken, cycles between them and cycle of the next, (3,).
    """
    return np.zeros((most, N_SAMPLE), np.int64), np.array([0, interval, interval], np.int64)


def stop_sampling(samples: tuple[Ints, Ints]) -> None:
    """Take no more: nobody looks at them.

    Parameters
    ----------
    samples
        Of ``make_samples``; changed.
    """
    samples[1][NEXT] = np.iinfo(np.int64).max


def shares(begin: Ints, end: Ints, done: Ints, amounts: Ints) -> Ints:
    """Of ``amounts`` what has come at ``done``, if they come evenly from ``begin`` to ``end``.

    Parameters
    ----------
    begin, end
        When they begin and end to come, any one unit of time.
    done
        Now, in that unit.
    amounts
        Whole numbers of any unit; all four are broadcast.

    Returns
    -------
    Ints
        Rounded down; 0 before ``begin``, ``amounts`` from ``end`` on.
    """
    size = np.maximum(end - begin, 1)
    part: Ints = amounts * np.clip(done - begin, 0, size) // size
    return part


@njit(cache=True)
def next_sample(table: Any, state: Any, now: int) -> int:
    """Where the sample of cycle ``now`` goes.

    Parameters
    ----------
    table
        (most, N_SAMPLE); changed.
    state
        (3,) of ``make_samples``; changed.
    now
        Cycle, from ``state[NEXT]`` on.

    Returns
    -------
    int
        Row of ``table``.
    """
    if state[COUNT] == len(table):
        for row in range(1, len(table), 2):
            table[row // 2] = table[row]
        state[COUNT] = len(table) // 2
        state[INTERVAL] *= 2
    row = state[COUNT]
    state[COUNT] = row + 1
    # of a table that is full now only the multiples of twice the distance stay
    step = 2 * state[INTERVAL] if row + 1 == len(table) else state[INTERVAL]
    state[NEXT] = (now // step + 1) * step
    table[row, A_CYCLE] = now
    return int(row)


@njit(cache=True)
def sum_channels(channels: Any, ranks: int, now: int, scale: int, sample: Any) -> None:
    """Counters of all channels, open rows, and what the buses still hold.

    Parameters
    ----------
    channels
        Records of either controller's ``CHANNEL``, (channels,).
    ranks
        Of a channel.
    now
        Tick of the channels at which the sample is taken.
    scale
        Buses of a channel, in whose time ``bus_until`` counts.
    sample
        Row of the table, (N_SAMPLE,), out; its ``A_CYCLE`` stays.
    """
    for at in range(len(sample)):
        if at != A_CYCLE:
            sample[at] = 0
    for c in range(len(channels)):
        counter = channels[c].counter
        for at in range(N_COUNTERS):
            sample[at] += counter[at]
        for rank in range(ranks):
            sample[A_ACTIVE] += channels[c].rank[rank, 2]
            if channels[c].rank[rank, 0] > 0:
                sample[A_ACTIVE] += max(now - channels[c].rank[rank, 1], 0)
        sample[A_BUS_LEFT] += max(channels[c].bus_until - now * scale, 0)


@njit(cache=True)
def sum_with_banks(channels: Any, ranks: int, now: int, sample: Any) -> None:
    """``sum_channels`` of a kernel with PIM, whose banks may still be busy.

    Parameters
    ----------
    channels
        Records of ``CHANNEL``, (channels,).
    ranks
        Of a channel.
    now
        Cycle at which the sample is taken.
    sample
        Row of the table, (N_SAMPLE,), out; its ``A_CYCLE`` stays.
    """
    sum_channels(channels, ranks, now, 1, sample)
    for c in range(len(channels)):
        sample[A_COLUMNS_LEFT] += max(channels[c].columns_until - now, 0)
