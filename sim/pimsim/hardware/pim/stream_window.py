"""The command stream scheduler for controllers that look into their queue: first ready, oldest.

Any command of a channel's queue may go before older ones that are not ready yet, except past a
wait; a row that waiting commands still hit is not closed for a younger one. Each channel is fed
as fast as its queue takes commands, and meets nothing of the others. Records and rules are those
of ``stream_kernel``; again only cycles at which something can happen are visited.

A queue is (depth, 3): entry, what to issue for it next, the version of the open rows for which
that was found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pimsim.hardware.pim.stream_kernel import (
    _earliest,
    _put,
    _reach,
    _refresh,
    _step,
    _taken,
)
from pimsim.hardware.pim.stream_tables import BUSES, NEVER, ROWS, WAITS

__all__ = ["schedule_window"]

_ROW_BUS, _NO_BUS = BUSES.index("row"), BUSES.index("none")
_OPEN = ROWS.index("open")
_BANK_LEVEL = 4
_COMPLETED = WAITS.index("completed")
_ENTRY, _STEP, _VERSION = range(3)


@njit(cache=True)
def _next_step(p: Any, ch: Any, entries: Any, queue: Any, at: int) -> int:
    """What has to be issued next for the command at ``at``; found anew when rows changed."""
    if queue[at, _VERSION] != ch.version:
        entry = entries[queue[at, _ENTRY]]
        queue[at, _STEP] = _step(p, ch, entry.command, entry.place, entry.row)
        queue[at, _VERSION] = ch.version
    return int(queue[at, _STEP])


@njit(cache=True)
def _hit_waits(p: Any, ch: Any, entries: Any, queue: Any, waiting: int, at: int) -> bool:
    """Whether a command of the queue with the address of that at ``at`` finds its row open."""
    place = entries[queue[at, _ENTRY]].place
    for i in range(waiting):
        other = entries[queue[i, _ENTRY]]
        if (
            p.row[other.command] == _OPEN
            and place[3] == other.place[3]
            and place[2] == other.place[2]
            and place[1] == other.place[1]
            and place[0] == other.place[0]
            and _next_step(p, ch, entries, queue, i) == other.command
        ):
            return True
    return False


@njit(cache=True)
def _select(p: Any, ch: Any, entries: Any, queue: Any, waiting: int, now: int) -> int:
    """Where in the queue the oldest command stands that may go, -1 if none may.

    Behind a wait only precharges and activates may go, and only with row lookahead. Sets
    ``ch.wake`` to the cycle at which to look again.
    """
    behind = False
    again = NEVER
    for i in range(waiting):
        entry = entries[queue[i, _ENTRY]]
        if i > 0 and entry.wait != 0:
            behind = True
            if not p.row_lookahead:
                break
        if i > 0 and p.bus[entry.command] == _NO_BUS:
            continue
        step = _next_step(p, ch, entries, queue, i)
        if behind and step == entry.command:
            continue
        # the channel's rules alone often say no
        ready = ch.ready[0, step] if p.bound[step, 0] else 0
        if i == 0 and entry.wait == _COMPLETED:
            ready = max(ready, ch.done)
        if ready <= now:
            ready = max(ready, _earliest(p, ch, step, entry.place))
        if ready > now:
            again = min(again, ready)
        elif (
            i == 0
            or (step == entry.command and (p.row[step] == _OPEN or not p.hits_hold_moves))
            or not _hit_waits(p, ch, entries, queue, waiting, i)
        ):
            return i
    ch.wake = min(ch.wake, again)
    return -1


@njit(cache=True)
def _fill(p: Any, ch: Any, queue: Any, waiting: int) -> int:
    """Commands from the host until the queue is full; how many wait then."""
    while waiting < p.queue_depth and ch.start + ch.sent < ch.end:
        queue[waiting, _ENTRY] = ch.start + ch.sent
        queue[waiting, _VERSION] = -1
        ch.sent += 1
        waiting += 1
    return waiting


@njit(cache=True)
def _bar_elsewhere(p: Any, ch: Any, command: int, place: Any, now: int) -> None:
    """Rules with ``artifact_place``: the barred bank's coordinates are taken from other levels."""
    for rule in range(p.n_elsewhere):
        if p.elsewhere[rule, 0] != command:
            continue
        for level in range(_BANK_LEVEL):
            ch.place[level] = place[p.elsewhere[rule, 3 + level]]
        then, bar = p.elsewhere[rule, 1], now + p.elsewhere[rule, 2]
        for i in range(_reach(p, ch.nodes, _BANK_LEVEL, command, ch.place)):
            if ch.ready[ch.nodes[i], then] < bar:
                ch.ready[ch.nodes[i], then] = bar


@njit(cache=True)
def _issue(
    p: Any, ch: Any, entries: Any, log: Any, queue: Any, waiting: int, at: int, now: int
) -> int:
    """Issue what the command at ``at`` needs next; how many wait then."""
    entry, step = entries[queue[at, _ENTRY]], _next_step(p, ch, entries, queue, at)
    _put(p, ch, log, step, entry.place, entry.row, now)
    if p.n_elsewhere > 0:
        _bar_elsewhere(p, ch, step, entry.place, now)
    if step != entry.command:
        return waiting
    ch.issued += 1
    for i in range(at, waiting - 1):
        for k in range(3):
            queue[i, k] = queue[i + 1, k]
    return waiting - 1


@njit(cache=True)
def _serve(p: Any, ch: Any, entries: Any, log: Any, queue: Any, waiting: int, now: int) -> int:
    """Issue what may go at ``now``, how many commands wait then; sets ``ch.wake``."""
    if ch.due <= now and ch.refreshing < 0:
        ch.refreshing = 0
        ch.due += p.refresh_interval
    ch.wake = ch.due
    before = ch.logged
    taken = -1
    for slot in range(p.commands_per_cycle):
        if slot == 0 and ch.refreshing >= 0:
            # refresh has the row bus; until its precharge can go, open rows are still read
            _refresh(p, ch, log, taken, now)
            taken = _ROW_BUS
            continue
        while (
            waiting > 0
            and p.bus[entries[queue[0, _ENTRY]].command] == _NO_BUS
            and (entries[queue[0, _ENTRY]].wait != _COMPLETED or ch.done <= now)
        ):
            waiting = _issue(p, ch, entries, log, queue, waiting, 0, now)
        at = _select(p, ch, entries, queue, waiting, now)
        if at < 0:
            break
        bus = p.bus[_next_step(p, ch, entries, queue, at)]
        if _taken(bus, taken):
            # the oldest has to wait for the bus; no younger one overtakes it
            ch.wake = now + 1
            break
        waiting = _issue(p, ch, entries, log, queue, waiting, at, now)
        taken = bus
    if ch.logged > before:
        ch.wake = now + 1
    return waiting


@njit(cache=True)
def schedule_window(p: Any, channels: Any, entries: Any, log: Any) -> int:
    """Run a stream to its end; the cycle at which all is completed, -1 if it cannot go on.

    ``entries`` lie channel by channel; ``log`` as in ``schedule``.
    """
    queue = np.empty((p.queue_depth, 3), dtype=np.int64)
    end = 0
    for c in range(len(channels)):
        ch = channels[c]
        waiting, now = 0, 0
        while ch.issued < ch.end - ch.start or ch.refreshing >= 0:
            waiting = _fill(p, ch, queue, waiting)
            waiting = _serve(p, ch, entries, log[c], queue, waiting, now)
            if ch.wake >= NEVER:
                return -1
            now = ch.wake
        end = max(end, ch.done)
    return end
