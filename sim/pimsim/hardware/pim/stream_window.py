"""The command stream scheduler for controllers that look into their queue: first ready, oldest.

Any command of a channel's queue may go before older ones that are not ready yet, except past a
wait, and a row that waiting commands still hit is not closed for another. Each channel is fed
as fast as its queue takes commands, and meets nothing of the others. Records and rules are those
of ``stream_kernel``; again only cycles at which something can happen are visited.

A queue is (room, 5), see ``_ENTRY`` to ``_VERSION``; its commands stand at ``first`` to
``last - 1``, in the order in which they came.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit
from pimsim.hardware.pim.stream_kernel import (
    _PATIENCE,
    _earliest,
    _put,
    _reach,
    _refresh,
    _step,
    _taken,
)
from pimsim.hardware.pim.stream_tables import BUSES, EFFECTS, NEVER, ROWS, WAITS

__all__ = ["schedule_window"]

_ROW_BUS, _NO_BUS = BUSES.index("row"), BUSES.index("none")
_ANY_ROW, _OPEN = ROWS.index("any"), ROWS.index("open")
_CLOSES = EFFECTS.index("close")
_BANK_LEVEL = 4
_COMPLETED = WAITS.index("completed")
_ENTRY, _COMMAND, _WAIT, _STEP, _VERSION = range(5)
"""Columns of a queue: the entry, its command and wait, what to issue for it next, and the version
of the open rows for which that was found."""
_FIRST, _LAST, _SEEN, _AGAIN = range(4)
"""Of a queue: bounds, how far no command may go before cycle ``again`` unless one is issued."""


@njit(cache=True)
def _next_step(p: Any, ch: Any, entries: Any, queue: Any, at: int) -> int:
    """What has to be issued next for the command at ``at``; found anew when rows changed."""
    if queue[at, _VERSION] != ch.version:
        command = queue[at, _COMMAND]
        step = command
        if p.row[command] != _ANY_ROW:
            entry = entries[queue[at, _ENTRY]]
            step = _step(p, ch, command, entry.place, entry.row)
        queue[at, _STEP] = step
        queue[at, _VERSION] = ch.version
    return int(queue[at, _STEP])


@njit(cache=True)
def _hits(p: Any, ch: Any, entries: Any, queue: Any, at: int) -> bool:
    """Whether the command at ``at`` finds its row open."""
    command = queue[at, _COMMAND]
    return bool(p.row[command] == _OPEN and _next_step(p, ch, entries, queue, at) == command)


@njit(cache=True)
def _hit_at_address(p: Any, ch: Any, entries: Any, queue: Any, bounds: Any, at: int) -> bool:
    """Whether a row hit waits that has the address of the command at ``at``."""
    place = entries[queue[at, _ENTRY]].place
    for i in range(bounds[_FIRST], bounds[_LAST]):
        other = entries[queue[i, _ENTRY]].place
        if (
            place[3] == other[3]
            and place[2] == other[2]
            and place[1] == other[1]
            and place[0] == other[0]
            and _hits(p, ch, entries, queue, i)
        ):
            return True
    return False


@njit(cache=True)
def _row_is_wanted(p: Any, ch: Any, entries: Any, queue: Any, bounds: Any, at: int) -> bool:
    """Whether the precharge or activate for the command at ``at`` meets banks of older commands,
    or the precharge those of row hits."""
    base = p.offsets[_BANK_LEVEL]
    step = _next_step(p, ch, entries, queue, at)
    ch.marks[:] = 0
    for k in range(_reach(p, ch.nodes, _BANK_LEVEL, step, entries[queue[at, _ENTRY]].place)):
        ch.marks[ch.nodes[k] - base] = 1
    for i in range(bounds[_FIRST], bounds[_LAST]):
        older = i < at and p.row[queue[i, _COMMAND]] == _OPEN
        if not older and (p.effect[step] != _CLOSES or not _hits(p, ch, entries, queue, i)):
            continue
        other = entries[queue[i, _ENTRY]]
        for k in range(_reach(p, ch.nodes, _BANK_LEVEL, other.command, other.place)):
            if ch.marks[ch.nodes[k] - base]:
                return True
    return False


@njit(cache=True)
def _held(p: Any, ch: Any, entries: Any, queue: Any, bounds: Any, at: int) -> bool:
    """Whether the command at ``at``, not the oldest, has to let others go first."""
    step = _next_step(p, ch, entries, queue, at)
    if step != queue[at, _COMMAND]:
        return _row_is_wanted(p, ch, entries, queue, bounds, at)
    return bool(
        p.hits_hold_moves
        and p.row[step] == _ANY_ROW
        and _hit_at_address(p, ch, entries, queue, bounds, at)
    )


@njit(cache=True)
def _select(p: Any, ch: Any, entries: Any, queue: Any, bounds: Any, now: int) -> int:
    """Where in the queue the oldest command stands that may go at ``now``, -1 if none may.

    Behind a wait only precharges and activates may go, and only with row lookahead. What was
    found to wait until a later cycle is not looked at again before, unless something is issued.
    """
    first, last = bounds[_FIRST], bounds[_LAST]
    begin, again = first, NEVER
    if bounds[_AGAIN] > now:
        begin, again = bounds[_SEEN], bounds[_AGAIN]
    # a wait is over for the oldest command, but for one that waits for completion
    behind = first < last and queue[first, _WAIT] == _COMPLETED and ch.done > now
    if behind:
        again = min(again, ch.done)
    for i in range(first + 1, begin):
        behind = behind or queue[i, _WAIT] != 0
    for i in range(begin, last):
        command = queue[i, _COMMAND]
        behind = behind or (i > first and queue[i, _WAIT] != 0)
        if behind and not p.row_lookahead:
            break
        if p.bus[command] == _NO_BUS:
            continue
        step = _next_step(p, ch, entries, queue, i)
        if behind and step == command:
            continue
        # the channel's rules alone often say no
        ready = ch.ready[0, step] if p.bound[step, 0] else 0
        if ready <= now:
            ready = _earliest(p, ch, step, entries[queue[i, _ENTRY]].place)
        if ready > now:
            again = min(again, ready)
        elif i == first or not _held(p, ch, entries, queue, bounds, i):
            bounds[_AGAIN] = 0
            return i
    bounds[_SEEN], bounds[_AGAIN] = last, again
    return -1


@njit(cache=True)
def _fill(p: Any, ch: Any, entries: Any, queue: Any, bounds: Any) -> None:
    """Commands from the host until the queue is full."""
    while bounds[_LAST] - bounds[_FIRST] < p.queue_depth and ch.start + ch.sent < ch.end:
        if bounds[_LAST] == len(queue):
            kept = bounds[_LAST] - bounds[_FIRST]
            for i in range(kept):
                queue[i] = queue[bounds[_FIRST] + i]
            bounds[_SEEN] -= bounds[_FIRST]
            bounds[_FIRST], bounds[_LAST] = 0, kept
        at = bounds[_LAST]
        entry = entries[ch.start + ch.sent]
        queue[at, _ENTRY] = ch.start + ch.sent
        queue[at, _COMMAND] = entry.command
        queue[at, _WAIT] = entry.wait
        queue[at, _VERSION] = -1
        ch.sent += 1
        bounds[_LAST] += 1


@njit(cache=True)
def _bar_elsewhere(p: Any, ch: Any, command: int, place: Any, now: int) -> None:
    """Rules with ``other_place``: the barred bank's coordinates are taken from other levels."""
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
    p: Any, ch: Any, entries: Any, log: Any, queue: Any, bounds: Any, at: int, now: int
) -> None:
    """Issue what the command at ``at`` needs next, and drop it if that is itself."""
    entry, step = entries[queue[at, _ENTRY]], _next_step(p, ch, entries, queue, at)
    done = ch.done
    _put(p, ch, log, step, entry.place, entry.row, now)
    if p.n_elsewhere > 0:
        _bar_elsewhere(p, ch, step, entry.place, now)
    bounds[_AGAIN] = 0
    if step == queue[at, _COMMAND]:
        ch.issued += 1
        ch.refreshes = 0
        for i in range(at, bounds[_FIRST], -1):
            queue[i] = queue[i - 1]
        bounds[_FIRST] += 1
    else:
        # a wait is for commands, not for rows that are opened ahead
        ch.done = done


@njit(cache=True)
def _front_is_free(p: Any, ch: Any, queue: Any, bounds: Any, now: int) -> bool:
    """Whether the oldest command takes no slot and waits for nothing."""
    front = bounds[_FIRST]
    if front == bounds[_LAST] or p.bus[queue[front, _COMMAND]] != _NO_BUS:
        return False
    return bool(queue[front, _WAIT] != _COMPLETED or ch.done <= now)


@njit(cache=True)
def _serve(p: Any, ch: Any, entries: Any, log: Any, queue: Any, bounds: Any, now: int) -> None:
    """Issue what may go at ``now``; sets ``ch.wake``, when to look again."""
    if ch.due <= now and ch.refreshing < 0:
        ch.refreshing = 0
        ch.due += p.refresh_interval
    ch.wake = ch.due
    before = ch.logged
    taken = -1
    for slot in range(p.commands_per_cycle):
        if slot == 0 and ch.refreshing >= 0:
            # refresh has the row bus; until its precharge can go, open rows are still read
            if _refresh(p, ch, log, taken, now) >= 0:
                bounds[_AGAIN] = 0
            taken = _ROW_BUS
            continue
        while _front_is_free(p, ch, queue, bounds, now):
            _issue(p, ch, entries, log, queue, bounds, bounds[_FIRST], now)
        at = _select(p, ch, entries, queue, bounds, now)
        if at < 0:
            ch.wake = min(ch.wake, bounds[_AGAIN])
            break
        bus = p.bus[_next_step(p, ch, entries, queue, at)]
        if _taken(bus, taken):
            # the oldest has to wait for the bus; no younger one overtakes it
            ch.wake = now + 1
            break
        _issue(p, ch, entries, log, queue, bounds, at, now)
        taken = bus
    if ch.logged > before:
        ch.wake = now + 1


@njit(cache=True)
def schedule_window(p: Any, channels: Any, entries: Any, log: Any) -> int:
    """Run a stream to its end.

    Parameters
    ----------
    p
        ``PARAMETERS`` record of the design.
    channels
        (channels,) of ``CHANNEL`` records; written.
    entries
        Of the stream, channel by channel.
    log
        (channels, room, 7), as in ``stream_kernel.schedule``; written.

    Returns
    -------
    int
        Cycle at which all is completed; -1: it cannot go on.
    """
    queue = np.zeros((16 * p.queue_depth, 5), dtype=np.int64)
    bounds = np.zeros(4, dtype=np.int64)
    end = 0
    for c in range(len(channels)):
        ch = channels[c]
        bounds[:] = 0
        now = 0
        while ch.issued < ch.end - ch.start or ch.refreshing >= 0:
            _fill(p, ch, entries, queue, bounds)
            _serve(p, ch, entries, log[c], queue, bounds, now)
            if ch.wake >= NEVER or ch.refreshes > _PATIENCE:
                return -1
            now = ch.wake
        end = max(end, ch.done)
    return end
