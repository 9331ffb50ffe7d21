"""An ordinary memory controller in front of a PIM device: one request queue a channel, fences.

HBM-PIM has no commands of its own: a host drives it with reads, writes and row commands, and
orders them with fences. The policy is DRAMSim2's with one queue a rank and open pages, as in
Samsung's PIMSimulator (CommandQueue.cpp): every cycle the first of these that may go goes out:

1. what a due refresh needs (precharges, then REF); when too many are owed, nothing else
   until all have gone out;
2. the oldest queued column access whose row is open;
3. the oldest activate for a request whose bank is closed;
4. a precharge of a bank whose open row no queued request wants; banks in turn.

Then one request of the host enters the queue. An entry with a wait is a fence: it goes after
all before it and before all behind it, but a fence at the head lets activates pass.
Only cycles at which something can happen are visited. ``p``, ``ch``, ``entries`` and ``log``
are those of ``stream_kernel``, whose rules apply; ``q`` is a channel's ``QUEUE`` record.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit
from pimsim.hardware.pim.stream_kernel import _earliest, _put
from pimsim.hardware.pim.stream_tables import MAX_BANKS, MODES, NEVER

__all__ = ["MAX_DEPTH", "QUEUE", "run_requests"]

MAX_DEPTH = 1024
MAX_MODE_ROWS = 8
MAX_LATE = 64
"""Refreshes of a node, beyond those that may be postponed, that leave no time for anything."""
_ANY_MODE = MODES.index("any")

QUEUE = np.dtype(
    [
        ("clock", np.int64),  # the cycle to go on with
        ("queued", np.int64),
        ("turn", np.int64),  # bank at which the search for rows to close begins
        ("owed", np.int64),  # refreshes that are due and have not gone out
        ("catching_up", np.int64),  # whether nothing else goes until none is owed
        ("turn_refresh", np.int64),  # the node that the next one of them refreshes
        ("marked", np.int64, MAX_MODE_ROWS),  # banks that had their part of a mode change, as bits
        ("queue", np.int64, MAX_DEPTH),  # entries, oldest first
        ("opener", np.int64, MAX_BANKS),  # command for which the bank's row was opened
        ("place", np.int64, 4),  # scratch
    ]
)
"""What a channel keeps beside its ``CHANNEL`` record."""


@njit(cache=True)
def _bank(p: Any, place: Any) -> int:
    """Number of the bank at ``place`` within its channel."""
    at = place[0]
    for level in range(1, 4):
        at = at * p.counts[level] + place[level]
    return int(at)


@njit(cache=True)
def _set_place(p: Any, q: Any, bank: int) -> None:
    """``q.place`` of the bank of that number."""
    for level in range(3, -1, -1):
        q.place[level] = bank % p.counts[level]
        bank //= p.counts[level]


@njit(cache=True)
def _switch_mode(mode_rows: Any, ch: Any, q: Any, command: int, bank: int, row: int) -> None:
    """A row command on a mode row: the mode changes when all its banks have had it."""
    for at in range(len(mode_rows)):
        if mode_rows[at, 0] == command and mode_rows[at, 1] == row and ch.mode != mode_rows[at, 3]:
            q.marked[at] |= mode_rows[at, 2] & (1 << bank)
            if q.marked[at] == mode_rows[at, 2]:
                q.marked[at] = 0
                ch.mode = mode_rows[at, 3]


@njit(cache=True)
def _in_mode(p: Any, ch: Any, mode_rows: Any, command: int, row: int) -> bool:
    """Whether the channel's mode lets ``command`` open ``row``.

    A row that has set the mode may be opened again: a refresh may close it before its access.
    """
    if p.mode[command] == _ANY_MODE or p.mode[command] == ch.mode:
        return True
    for at in range(len(mode_rows)):
        if mode_rows[at, 1] == row and mode_rows[at, 3] == ch.mode:
            return True
    return False


@njit(cache=True)
def _close(p: Any, ch: Any, q: Any, log: Any, mode_rows: Any, bank: int, now: int) -> int:
    """Precharge ``bank``: 0 when it went out, else the cycle at which it may."""
    command = p.precharge[q.opener[bank]]
    _set_place(p, q, bank)
    at = _earliest(p, ch, command, q.place)
    if at > now:
        return at
    row = ch.open_row[bank]
    _put(p, ch, log, command, q.place, -1, now)
    _switch_mode(mode_rows, ch, q, command, bank, row)
    return 0


@njit(cache=True)
def _fall_due(p: Any, ch: Any, q: Any) -> None:
    """A refresh falls due: of one node, or of all; it may take the place of one still to come."""
    fresh = 1 if p.refresh_step > 0 else p.refresh_nodes
    ch.due += p.refresh_step if p.refresh_step > 0 else p.refresh_interval
    if p.refresh_drops and q.owed > 0:
        q.turn_refresh = (q.turn_refresh + q.owed) % p.refresh_nodes
        q.owed = fresh
    else:
        q.owed += fresh


@njit(cache=True)
def _refresh(p: Any, ch: Any, q: Any, log: Any, mode_rows: Any, now: int) -> int:
    """A step of a due refresh: 0 when it went out, else the cycle at which one may."""
    width = 1
    for level in range(4):
        if p.broadcast[p.refresh, level]:
            width *= p.counts[level]
    first = q.turn_refresh * width
    again, closed = NEVER, True
    for bank in range(first, first + width):
        if ch.open_row[bank] >= 0:
            closed = False
            at = _close(p, ch, q, log, mode_rows, bank, now)
            if at == 0:
                return 0
            again = min(again, at)
    if not closed:
        return again
    _set_place(p, q, first)
    at = _earliest(p, ch, p.refresh, q.place)
    if at > now:
        return at
    _put(p, ch, log, p.refresh, q.place, -1, now)
    q.owed -= 1
    if q.owed == 0:
        q.catching_up = 0
    q.turn_refresh = (q.turn_refresh + 1) % p.refresh_nodes
    return 0


@njit(cache=True)
def _access(p: Any, ch: Any, q: Any, entries: Any, log: Any, now: int) -> int:
    """The oldest access to an open row: 0 when it went out, else the cycle at which one may."""
    again = NEVER
    for slot in range(q.queued):
        entry = entries[q.queue[slot]]
        if slot > 0 and entry.wait:
            break
        if ch.open_row[_bank(p, entry.place)] == entry.row:
            at = _earliest(p, ch, entry.command, entry.place)
            if at <= now:
                _put(p, ch, log, entry.command, entry.place, entry.row, now)
                ch.issued += 1
                q.queued -= 1
                for i in range(slot, q.queued):
                    q.queue[i] = q.queue[i + 1]
                return 0
            again = min(again, at)
        if entry.wait:
            break
    return again


@njit(cache=True)
def _activate(p: Any, ch: Any, q: Any, entries: Any, log: Any, mode_rows: Any, now: int) -> int:
    """A row for the oldest request: 0 when it went out, else the cycle at which one may."""
    again = NEVER
    for slot in range(q.queued):
        entry = entries[q.queue[slot]]
        if slot > 0 and entry.wait:
            break
        bank = _bank(p, entry.place)
        command = p.activate[entry.command]
        if ch.open_row[bank] >= 0 or not _in_mode(p, ch, mode_rows, command, entry.row):
            continue
        at = _earliest(p, ch, command, entry.place)
        if at <= now:
            _put(p, ch, log, command, entry.place, entry.row, now)
            q.opener[bank] = entry.command
            _switch_mode(mode_rows, ch, q, command, bank, entry.row)
            return 0
        again = min(again, at)
    return again


@njit(cache=True)
def _wanted(p: Any, q: Any, entries: Any, bank: int, row: int) -> bool:
    """Whether a request up to the first fence goes to ``row`` of ``bank``.

    A fence waits for those before it: they come first where they want another row there.
    (PIMSimulator keeps the fence's row open, and then goes on at the next refresh only.)
    """
    other = False
    for slot in range(q.queued):
        entry = entries[q.queue[slot]]
        if _bank(p, entry.place) == bank:
            if entry.row == row:
                return not (entry.wait and other)
            other = True
        if entry.wait:
            return False
    return False


@njit(cache=True)
def _unwanted(p: Any, ch: Any, q: Any, entries: Any, log: Any, mode_rows: Any, now: int) -> int:
    """Close a row that nobody wants: 0 when it went out, else the cycle at which one may."""
    again, banks = NEVER, p.offsets[5] - p.offsets[4]
    for i in range(banks):
        bank = (q.turn + i) % banks
        if ch.open_row[bank] < 0 or _wanted(p, q, entries, bank, ch.open_row[bank]):
            continue
        at = _close(p, ch, q, log, mode_rows, bank, now)
        if at == 0:
            q.turn = bank
            return 0
        again = min(again, at)
    return again


@njit(cache=True)
def _issue(p: Any, ch: Any, q: Any, entries: Any, log: Any, mode_rows: Any, now: int) -> int:
    """Issue the first command that may go: 0 when one did, else when to look again."""
    again = NEVER
    if q.owed > 0:
        if q.owed > p.refresh_postponed:
            q.catching_up = 1
        again = _refresh(p, ch, q, log, mode_rows, now)
        if q.catching_up:
            return again
    if again > 0:
        again = min(again, _access(p, ch, q, entries, log, now))
    if again > 0:
        again = min(again, _activate(p, ch, q, entries, log, mode_rows, now))
    if again > 0:
        again = min(again, _unwanted(p, ch, q, entries, log, mode_rows, now))
    return again


@njit(cache=True)
def run_requests(
    p: Any, ch: Any, q: Any, entries: Any, log: Any, mode_rows: Any,
    last: int, start: int, stop: int,
) -> bool:  # fmt: skip
    """Run a channel until all its entries before ``last`` are issued and ``stop`` is reached.

    Parameters
    ----------
    p
        ``PARAMETERS`` record of the design.
    ch
        ``CHANNEL`` record; written.
    q
        ``QUEUE`` record of the channel; written.
    entries
        Of the stream, channel by channel.
    log
        (room, 7) of the channel: cycle, command, pseudo channel, rank, bank group, bank, row;
        written.
    mode_rows
        (rows, 4): command, row, banks as bits, mode.
    last
        Entry behind the last that is sent.
    start
        Cycle from which on the host hands over, one entry a cycle while the queue has room.
    stop
        Cycle up to which refreshes go on.

    Returns
    -------
    bool
        Whether it came to the end; not when a request waits for a mode or an activate for ever, or
        refreshes leave no time.

    References
    ----------
    DRAMSim2 in Samsung's PIMSimulator, CommandQueue.cpp.
    """
    now = q.clock
    while ch.start + ch.issued < last or now < stop:
        while ch.due <= now:
            _fall_due(p, ch, q)
        again = _issue(p, ch, q, entries, log, mode_rows, now)
        fresh = ch.start + ch.sent
        if fresh < last and q.queued < p.queue_depth:
            if now >= start:
                q.queue[q.queued] = fresh
                q.queued += 1
                ch.sent += 1
                again = 0
            else:
                again = min(again, start)
        if ch.start + ch.issued == last:
            again = min(again, stop)
        stuck = again >= NEVER  # a request waits for a mode, which no refresh changes
        again = min(again, ch.due)
        if stuck or q.owed > p.refresh_postponed + MAX_LATE * p.refresh_nodes:
            return False
        now = max(now + 1, again)
    q.clock = now
    return True
