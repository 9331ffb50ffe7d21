"""An ordinary memory controller in front of a PIM device: one request queue a channel, fences.

HBM-PIM has no commands of its own: a host drives it with reads, writes and row commands, and
orders them with fences. The policy is DRAMSim2's with one queue a rank and open pages, as in
Samsung's PIMSimulator (CommandQueue.cpp): every cycle the first of these that may go goes out:

1. what a due refresh needs (precharges, then REF); it holds nothing else back;
2. the oldest queued column access whose row is open;
3. the oldest activate for a request whose bank is closed;
4. a precharge of a bank whose open row no queued request wants; banks in turn.

Then one request of the host enters the queue. An entry with a wait is a fence: it goes after
all before it and before all behind it, but a fence at the head lets activates pass.
Only cycles at which something can happen are visited. Rules, rows and counts are those of
``stream_kernel``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pimsim.hardware.pim.stream_kernel import earliest, put

__all__ = ["WindowState", "new_window_state", "run_window"]

_NEVER = 2**62
_LEVELS = 5
_MODE_ANY, _MODE_BANK = 0, 1
_DEPTH, _REFRESH = 0, 5

Ints = NDArray[np.int64]


class WindowState(NamedTuple):
    """What a channel keeps beside ``StreamState``."""

    clock: Ints
    """(channels,): the cycle to go on with."""
    opener: Ints
    """(channels, banks): the command whose activate opened the bank; it names the precharge."""
    turn: Ints
    """(channels,): the bank at which the search for rows to close begins."""
    marked: Ints
    """(channels, mode rows): banks that have had their part of a mode change, as bits."""
    owed: Ints
    """(channels,): nodes whose refresh is due and has not gone out."""
    turn_refresh: Ints
    """(channels,): the next node to refresh."""
    queue: Ints
    """Scratch: entries of the queue, oldest first."""
    places: Ints
    """(banks, 4): pseudo channel, rank, bank group, bank."""


def new_window_state(tables, channels: int, banks: int, mode_rows: int) -> WindowState:  # type: ignore[no-untyped-def]
    """Nothing queued, nothing open."""
    places = np.array(list(np.ndindex(*tables.counts)), dtype=np.int64).reshape(banks, 4)
    return WindowState(
        clock=np.zeros(channels, dtype=np.int64),
        opener=np.zeros((channels, banks), dtype=np.int64),
        turn=np.zeros(channels, dtype=np.int64),
        marked=np.zeros((channels, max(mode_rows, 1)), dtype=np.int64),
        owed=np.zeros(channels, dtype=np.int64),
        turn_refresh=np.zeros(channels, dtype=np.int64),
        queue=np.zeros(int(tables.controller[_DEPTH]), dtype=np.int64),
        places=places,
    )


@njit(cache=True)  # type: ignore[untyped-decorator]
def _bank_of(tables, stream, entry):  # type: ignore[no-untyped-def]
    """Number of the entry's bank within its channel."""
    bank = stream.place[entry, 0]
    for level in range(1, 4):
        bank = bank * tables.counts[level] + stream.place[entry, level]
    return bank


@njit(cache=True)  # type: ignore[untyped-decorator]
def _switch_mode(mode_rows, state, window, channel, command, bank, row):  # type: ignore[no-untyped-def]
    """A row command on a mode row: the mode changes when all its banks have had it."""
    for at in range(mode_rows.shape[0]):
        if mode_rows[at, 0] == command and mode_rows[at, 1] == row:
            if state.mode[channel] == mode_rows[at, 3]:
                continue
            window.marked[channel, at] |= mode_rows[at, 2] & (1 << bank)
            if window.marked[channel, at] == mode_rows[at, 2]:
                window.marked[channel, at] = 0
                state.mode[channel] = mode_rows[at, 3]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _fall_due(tables, state, window, channel):  # type: ignore[no-untyped-def]
    """A refresh falls due: of one node, or of all; it may drop one that is still to come."""
    fresh = tables.refresh_nodes * tables.refresh_step // tables.refresh_interval
    state.due[channel] += tables.refresh_step
    if tables.refresh_drops != 0 and window.owed[channel] > 0:
        late = window.turn_refresh[channel] + window.owed[channel]
        window.turn_refresh[channel] = late % tables.refresh_nodes
        window.owed[channel] = fresh
    else:
        window.owed[channel] += fresh


@njit(cache=True)  # type: ignore[untyped-decorator]
def _refresh_step(tables, state, window, channel, now):  # type: ignore[no-untyped-def]
    """What a due refresh can issue now: (command, bank, else when to look again)."""
    command = tables.controller[_REFRESH]
    width = 1
    for level in range(4):
        if tables.broadcast[command, level]:
            width *= tables.counts[level]
    first = window.turn_refresh[channel] * width
    bound, closed = _NEVER, True
    for bank in range(first, first + width):
        if state.open_row[channel, bank] < 0:
            continue
        closed = False
        close = tables.precharge[window.opener[channel, bank]]
        at = earliest(tables, state, channel, close, window.places[bank])
        if at <= now:
            return close, bank, now
        bound = min(bound, at)
    if not closed:
        return -1, -1, bound
    at = earliest(tables, state, channel, command, window.places[first])
    if at <= now:
        return command, first, now
    return -1, -1, at


@njit(cache=True)  # type: ignore[untyped-decorator]
def _column_access(tables, stream, state, window, channel, queued, now):  # type: ignore[no-untyped-def]
    """Position in the queue of the oldest access to an open row that may go, or when one may."""
    bound = _NEVER
    for slot in range(queued):
        entry = window.queue[slot]
        fence = stream.wait[entry] != 0
        if fence and slot > 0:
            break
        bank = _bank_of(tables, stream, entry)
        if state.open_row[channel, bank] == stream.row[entry]:
            at = earliest(tables, state, channel, stream.command[entry], stream.place[entry])
            if at <= now:
                return slot, now
            bound = min(bound, at)
        if fence:
            break
    return -1, bound


@njit(cache=True)  # type: ignore[untyped-decorator]
def _activate(tables, stream, state, window, channel, queued, now):  # type: ignore[no-untyped-def]
    """Position of the oldest request whose closed bank may be activated, or when one may."""
    bound = _NEVER
    for slot in range(queued):
        entry = window.queue[slot]
        if slot > 0 and stream.wait[entry] != 0:
            break
        bank = _bank_of(tables, stream, entry)
        if state.open_row[channel, bank] >= 0:
            continue
        command = tables.activate[stream.command[entry]]
        mode = tables.mode[command]
        if mode != _MODE_ANY and mode != state.mode[channel]:
            continue
        at = earliest(tables, state, channel, command, stream.place[entry])
        if at <= now:
            return slot, now
        bound = min(bound, at)
    return -1, bound


@njit(cache=True)  # type: ignore[untyped-decorator]
def _unwanted_row(tables, stream, state, window, channel, queued, now):  # type: ignore[no-untyped-def]
    """A bank whose open row nobody up to the first fence wants, or when one may be closed."""
    bound, banks = _NEVER, state.open_row.shape[1]
    for turn in range(banks):
        bank = (window.turn[channel] + turn) % banks
        row = state.open_row[channel, bank]
        if row < 0:
            continue
        wanted = False
        for slot in range(queued):
            entry = window.queue[slot]
            if stream.row[entry] == row and _bank_of(tables, stream, entry) == bank:
                wanted = True
                break
            if stream.wait[entry] != 0:
                break
        if wanted:
            continue
        close = tables.precharge[window.opener[channel, bank]]
        at = earliest(tables, state, channel, close, window.places[bank])
        if at <= now:
            window.turn[channel] = bank
            return bank, now
        bound = min(bound, at)
    return -1, bound


@njit(cache=True)  # type: ignore[untyped-decorator]
def _issue_one(tables, stream, state, window, mode_rows, channel, queued, now):  # type: ignore[no-untyped-def]
    """Issue one command at ``now``: (queue position served or -1, issued?, when to look again)."""
    bound = _NEVER
    if window.owed[channel] > 0:
        command, bank, at = _refresh_step(tables, state, window, channel, now)
        if command >= 0:
            row = state.open_row[channel, bank]
            put(tables, state, channel, command, window.places[bank], -1, now)
            if command == tables.controller[_REFRESH]:
                window.owed[channel] -= 1
                turn = window.turn_refresh[channel] + 1
                window.turn_refresh[channel] = turn % tables.refresh_nodes
            else:
                _switch_mode(mode_rows, state, window, channel, command, bank, row)
            return -1, True, now
        bound = at
    slot, at = _column_access(tables, stream, state, window, channel, queued, now)
    if slot >= 0:
        entry = window.queue[slot]
        put(tables, state, channel, stream.command[entry], stream.place[entry],
            stream.row[entry], now)  # fmt: skip
        return slot, True, now
    bound = min(bound, at)
    slot, at = _activate(tables, stream, state, window, channel, queued, now)
    if slot >= 0:
        entry = window.queue[slot]
        command, bank = tables.activate[stream.command[entry]], _bank_of(tables, stream, entry)
        put(tables, state, channel, command, stream.place[entry], stream.row[entry], now)
        window.opener[channel, bank] = stream.command[entry]
        _switch_mode(mode_rows, state, window, channel, command, bank, stream.row[entry])
        return -1, True, now
    bound = min(bound, at)
    bank, at = _unwanted_row(tables, stream, state, window, channel, queued, now)
    if bank >= 0:
        row = state.open_row[channel, bank]
        command = tables.precharge[window.opener[channel, bank]]
        put(tables, state, channel, command, window.places[bank], -1, now)
        _switch_mode(mode_rows, state, window, channel, command, bank, row)
        return -1, True, now
    return -1, False, min(bound, at)


@njit(cache=True)  # type: ignore[untyped-decorator]
def run_window(tables, stream, state, window, mode_rows, channel, first, last, start, stop):  # type: ignore[no-untyped-def]
    """Run one channel until entries ``first`` to ``last - 1`` are issued and ``stop`` is reached.

    The host hands them over from cycle ``start``, one a cycle while the queue has room. Returns
    whether it came to the end.
    """
    now, fresh, queued = window.clock[channel], first, 0
    left = last - first
    depth = tables.controller[_DEPTH]
    while left > 0 or now < stop:
        if state.due[channel] <= now:
            _fall_due(tables, state, window, channel)
        slot, issued, after = _issue_one(
            tables, stream, state, window, mode_rows, channel, queued, now
        )
        if slot >= 0:
            for at in range(slot, queued - 1):
                window.queue[at] = window.queue[at + 1]
            queued -= 1
            left -= 1
            state.issued[channel] += 1
        entered = False
        if fresh < last and queued < depth:
            if now >= start:
                window.queue[queued] = fresh
                queued += 1
                fresh += 1
                entered = True
            else:
                after = min(after, start)
        if issued or entered:
            now += 1
            continue
        after = min(after, state.due[channel])
        if left == 0:
            after = min(after, stop)
        if after >= _NEVER:
            return False
        now = max(now + 1, after)
    window.clock[channel] = now
    return True
