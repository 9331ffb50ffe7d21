"""The command stream scheduler for controllers that look into their queue: first ready, oldest.

Any command of a channel's queue may go before older ones that are not ready yet, except past a
wait; a row that waiting commands still hit is not closed for a younger one. Each channel is fed
as fast as its queue takes commands. Tables, state and rules are those of ``stream_kernel``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pimsim.hardware.pim.stream_kernel import _earliest, _needed, _put, _refresh, _same

__all__ = ["schedule_window"]

_NEVER = 2**62
_BUS_NONE = 2
_ROW_OPEN = 1
_WAIT_DONE = 2
_DEPTH, _PER_CYCLE, _INSTRUCTIONS, _LOOKAHEAD = range(4)


@njit(cache=True)
def _hit_waits(tables, stream, state, channel, queue, waiting, entry):  # type: ignore[no-untyped-def]
    """Whether a command of the queue at ``entry``'s place finds its row open."""
    place = stream.place
    for i in range(waiting):
        other = queue[i]
        command = stream.command[other]
        if tables.row[command] != _ROW_OPEN or (
            place[other, 0] != place[entry, 0]
            or place[other, 1] != place[entry, 1]
            or place[other, 2] != place[entry, 2]
            or place[other, 3] != place[entry, 3]
        ):
            continue
        if _needed(tables, state, channel, command, place[other], stream.row[other]) == command:
            return True
    return False


@njit(cache=True)
def _select(tables, stream, state, channel, queue, waiting, now):  # type: ignore[no-untyped-def]
    """The oldest command that may go: (position or -1, what to issue for it, when to look again).

    Behind a wait only precharges and activates may go, and only with row lookahead.
    """
    again = _NEVER
    lookahead = tables.controller[_LOOKAHEAD] != 0
    behind = False
    step, at, last = -1, 0, -1
    for i in range(waiting):
        entry = queue[i]
        command, where = stream.command[entry], stream.place[entry]
        if i > 0 and stream.wait[entry] != 0:
            behind = True
        if behind and not lookahead:
            break
        if tables.bus[command] == _BUS_NONE and i > 0:
            continue
        if last < 0 or not _same(stream, entry, last):
            step = _needed(tables, state, channel, command, where, stream.row[entry])
            at = _earliest(tables, state, channel, step, where)
            last = entry
        if behind and step == command:
            continue
        ready = at
        if i == 0 and stream.wait[entry] == _WAIT_DONE:
            ready = max(ready, state.done[channel])
        if ready > now:
            again = min(again, ready)
        elif (
            i == 0
            or tables.row[step] == _ROW_OPEN
            or (step == command and tables.hits_hold_moves == 0)
            or not _hit_waits(tables, stream, state, channel, queue, waiting, entry)
        ):
            return i, step, now
    return -1, -1, again


@njit(cache=True)
def _fill(tables, stream, state, channel, queue, waiting):  # type: ignore[no-untyped-def]
    """Commands from the host until the queue is full; how many wait then."""
    end = stream.start[channel + 1]
    while waiting < tables.controller[_DEPTH]:
        entry = stream.start[channel] + state.sent[channel]
        if entry >= end:
            break
        queue[waiting] = entry
        waiting += 1
        state.sent[channel] += 1
    return waiting


@njit(cache=True)
def _take(queue, waiting, at):  # type: ignore[no-untyped-def]
    for i in range(at, waiting - 1):
        queue[i] = queue[i + 1]
    return waiting - 1


@njit(cache=True)
def _cycle(tables, stream, state, channel, queue, waiting, now, place):  # type: ignore[no-untyped-def]
    """What a channel does at ``now``: (commands left in its queue, when to look again)."""
    if state.due[channel] <= now and state.refreshing[channel] < 0:
        state.refreshing[channel] = 0
        state.due[channel] += tables.refresh_interval
    again = _NEVER
    taken = -1
    moved = False
    for slot in range(tables.controller[_PER_CYCLE]):
        if state.refreshing[channel] >= 0 and slot == 0:
            # refresh goes first; while it waits for its precharge, open rows are still read
            gone, taken, retry = _refresh(tables, state, channel, now, place, taken)
            moved = moved or gone
            again = min(again, retry)
            if taken < 0:
                taken = 0
            continue
        # waits at the front that are over; a command that takes no slot goes at once
        while (
            waiting > 0
            and tables.bus[stream.command[queue[0]]] == _BUS_NONE
            and (stream.wait[queue[0]] != _WAIT_DONE or state.done[channel] <= now)
        ):
            entry = queue[0]
            _put(tables, state, channel, stream.command[entry], stream.place[entry], -1, now)
            state.issued[channel] += 1
            waiting = _take(queue, waiting, 0)
            moved = True
        at, step, retry = _select(tables, stream, state, channel, queue, waiting, now)
        if at < 0:
            again = min(again, retry)
            break
        if tables.bus[step] == taken:
            again = now + 1
            break
        entry = queue[at]
        _put(tables, state, channel, step, stream.place[entry], stream.row[entry], now)
        taken = tables.bus[step]
        moved = True
        if step == stream.command[entry]:
            state.issued[channel] += 1
            waiting = _take(queue, waiting, at)
    return waiting, now + 1 if moved else min(again, state.due[channel])


@njit(cache=True)
def schedule_window(tables, stream, state):  # type: ignore[no-untyped-def]
    """Run ``stream`` (``StreamArrays``) to its end; the cycle at which all is completed.

    Channels meet nothing of each other, so each is run by itself; -1 where one cannot go on.
    """
    queue = np.empty(tables.controller[_DEPTH], dtype=np.int64)
    place = np.zeros(4, dtype=np.int64)
    end = 0
    for channel in range(state.sent.shape[0]):
        commands = stream.start[channel + 1] - stream.start[channel]
        waiting = 0
        now = 0
        while state.issued[channel] < commands or state.refreshing[channel] >= 0:
            waiting = _fill(tables, stream, state, channel, queue, waiting)
            waiting, after = _cycle(tables, stream, state, channel, queue, waiting, now, place)
            if after >= _NEVER:
                return -1
            now = after
        end = max(end, state.done[channel])
    return end
