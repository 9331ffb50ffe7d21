"""The command stream scheduler's kernel: plain arrays in, cycles and counts out.

Every channel has lanes (queues that issue in order) and issues the oldest lane head that may
go. What is needed before a command (precharge, activate, mode switch) the controller puts in.
Only cycles at which something can happen are visited.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pimsim.hardware.pim.stream_tables import StreamTables

__all__ = ["StreamArrays", "StreamState", "new_state", "schedule"]

_NEVER = 2**62
_LEVELS = 5
_BUS_NONE = 2
_ROW_OPEN, _ROW_CLOSED = 1, 2
_EFFECT_OPEN, _EFFECT_CLOSE = 1, 2
_MODE_ANY, _MODE_BANK = 0, 1
_WAIT_DONE = 2
_DEPTH, _PER_CYCLE, _INSTRUCTIONS, _LOOKAHEAD, _SWITCH, _REFRESH = range(6)

Ints = NDArray[np.int64]


class StreamArrays(NamedTuple):
    """A stream by channel: entries of channel ``c`` are ``start[c]`` to ``start[c + 1] - 1``."""

    start: Ints
    command: Ints
    place: Ints
    """(entries, 4): pseudo channel, rank, bank group, bank."""
    row: Ints
    lane: Ints
    lane_next: Ints
    """The next entry of the same lane and channel, -1 for the last."""
    wait: Ints
    """0 none; 1: until all before it are issued; 2: until all before it are completed."""
    instruction: Ints
    """Host instruction that it belongs to; never falls within a channel."""
    blocking: NDArray[np.bool_]
    """(instructions,): the host goes on only when all its commands are completed."""


class StreamState(NamedTuple):
    """What a run changes, by channel."""

    ready: Ints
    """(channels, nodes, commands): first cycle at which the node allows the command."""
    ring: Ints
    """(channels, windows, nodes, longest window): last issue cycles."""
    ring_at: Ints
    open_row: Ints
    """(channels, banks), -1 closed."""
    version: Ints
    """Counts changes of open rows: a checked row stays open while it is the same."""
    head: Ints
    """(channels, lanes): the oldest entry not issued, -1 none."""
    checked: Ints
    """(channels, lanes, 2): the entry whose row was last found open, at which version."""
    sent: Ints
    issued: Ints
    fence: Ints
    """The next entry with a wait that is not over."""
    done: Ints
    """When everything issued so far is completed."""
    mode: Ints
    due: Ints
    refreshing: Ints
    """Next node to refresh, -1 when no refresh is due."""
    wake: Ints
    counts: Ints
    """(channels, commands)."""
    log: Ints
    """(entries, 8): cycle, channel, command, pseudo channel, rank, bank group, bank, row."""
    logged: Ints
    nodes: Ints
    """Scratch: node numbers."""
    marks: NDArray[np.bool_]
    """Scratch: banks."""


def new_state(
    tables: StreamTables, channels: int, lanes: int, banks: int, log_entries: int
) -> StreamState:
    """All banks closed, nothing issued."""
    nodes = int(tables.offsets[-1])
    commands = len(tables.bus)
    windows = len(tables.windows)
    longest = int(tables.windows[:, 1].max()) if windows else 1
    shape = (channels, windows, nodes)

    def filled(value: int, *size: int) -> Ints:
        return np.full(size, value, dtype=np.int64)

    return StreamState(
        ready=filled(0, channels, nodes, commands),
        ring=filled(-(2**40), *shape, longest),
        ring_at=filled(0, *shape),
        open_row=filled(-1, channels, banks),
        version=filled(0, channels),
        head=filled(-1, channels, lanes),
        checked=filled(-1, channels, lanes, 2),
        sent=filled(0, channels),
        issued=filled(0, channels),
        fence=filled(0, channels),
        done=filled(0, channels),
        mode=filled(_MODE_BANK, channels),
        due=filled(tables.refresh_interval or _NEVER, channels),
        refreshing=filled(-1, channels),
        wake=filled(_NEVER, channels),
        counts=filled(0, channels, commands),
        log=filled(0, log_entries, 8),
        logged=filled(0, 1),
        nodes=filled(0, max(banks, 1)),
        marks=np.zeros(banks, dtype=np.bool_),
    )


@njit(cache=True)
def _reach(tables, nodes, level, command, place):  # type: ignore[no-untyped-def]
    """Write the nodes of ``level`` that ``command`` at ``place`` concerns; their number."""
    first = tables.offsets[level]
    if level == 0:
        nodes[0] = first
        return 1
    wide = tables.broadcast[command]
    counts = tables.counts
    found = 0
    p0, p1 = (0, counts[0]) if wide[0] else (place[0], place[0] + 1)
    r0, r1 = (0, counts[1]) if wide[1] else (place[1], place[1] + 1)
    g0, g1 = (0, counts[2]) if wide[2] else (place[2], place[2] + 1)
    b0, b1 = (0, counts[3]) if wide[3] else (place[3], place[3] + 1)
    for p in range(p0, p1):
        if level == 1:
            nodes[found] = first + p
            found += 1
            continue
        for r in range(p * counts[1] + r0, p * counts[1] + r1):
            if level == 2:
                nodes[found] = first + r
                found += 1
                continue
            for g in range(r * counts[2] + g0, r * counts[2] + g1):
                if level == 3:
                    nodes[found] = first + g
                    found += 1
                    continue
                for b in range(g * counts[3] + b0, g * counts[3] + b1):
                    nodes[found] = first + b
                    found += 1
    return found


@njit(cache=True)
def _earliest(tables, state, channel, command, place):  # type: ignore[no-untyped-def]
    """First cycle at which all rules allow ``command``."""
    nodes = state.nodes
    at = 0
    for level in range(_LEVELS):
        if tables.bound[command, level]:
            for i in range(_reach(tables, nodes, level, command, place)):
                at = max(at, state.ready[channel, nodes[i], command])
    for w in range(tables.windows.shape[0]):
        if tables.window_then[w, command]:
            for i in range(_reach(tables, nodes, tables.windows[w, 0], command, place)):
                oldest = state.ring[channel, w, nodes[i], state.ring_at[channel, w, nodes[i]]]
                at = max(at, oldest + tables.windows[w, 2])
    return at


@njit(cache=True)
def _put(tables, state, channel, command, place, row, now):  # type: ignore[no-untyped-def]
    """Issue ``command``: rules, rows, count, log."""
    nodes = state.nodes
    for level in range(_LEVELS):
        begin, end = tables.first[command, level], tables.first[command, level + 1]
        if begin == end:
            continue
        found = _reach(tables, nodes, level, command, place)
        for rule in range(begin, end):
            then, bar = tables.rules[rule, 0], now + tables.rules[rule, 1]
            for i in range(found):
                if state.ready[channel, nodes[i], then] < bar:
                    state.ready[channel, nodes[i], then] = bar
    for w in range(tables.windows.shape[0]):
        if tables.window_first[w, command]:
            length = tables.windows[w, 1]
            for i in range(_reach(tables, nodes, tables.windows[w, 0], command, place)):
                slot = state.ring_at[channel, w, nodes[i]]
                state.ring[channel, w, nodes[i], slot] = now
                state.ring_at[channel, w, nodes[i]] = (slot + 1) % length
    effect = tables.effect[command]
    if effect != 0:
        state.version[channel] += 1
        for i in range(_reach(tables, nodes, _LEVELS - 1, command, place)):
            bank = nodes[i] - tables.offsets[_LEVELS - 1]
            state.open_row[channel, bank] = row if effect == _EFFECT_OPEN else -1
    state.counts[channel, command] += 1
    state.done[channel] = max(state.done[channel], now + tables.latency[command])
    at = state.logged[0]
    if at < state.log.shape[0]:
        state.log[at, 0], state.log[at, 1], state.log[at, 2] = now, channel, command
        state.log[at, 3:7] = place
        state.log[at, 7] = row
    state.logged[0] += 1


@njit(cache=True)
def _needed(tables, state, channel, command, place, row):  # type: ignore[no-untyped-def]
    """``command``, or the precharge or activate that has to come before it."""
    need = tables.row[command]
    if need == 0:
        return command
    nodes = state.nodes
    closed = False
    for i in range(_reach(tables, nodes, _LEVELS - 1, command, place)):
        held = state.open_row[channel, nodes[i] - tables.offsets[_LEVELS - 1]]
        if held < 0:
            closed = True
        elif need == _ROW_CLOSED or held != row:
            return tables.precharge[command]
    return tables.activate[command] if closed and need == _ROW_OPEN else command


@njit(cache=True)
def _same(stream, entry, other):  # type: ignore[no-untyped-def]
    """Whether two entries want the same row of the same banks."""
    return (
        stream.command[entry] == stream.command[other]
        and stream.row[entry] == stream.row[other]
        and stream.place[entry, 0] == stream.place[other, 0]
        and stream.place[entry, 1] == stream.place[other, 1]
        and stream.place[entry, 2] == stream.place[other, 2]
        and stream.place[entry, 3] == stream.place[other, 3]
    )


@njit(cache=True)
def _wanted_open(tables, stream, state, channel, command, entry, limit):  # type: ignore[no-untyped-def]
    """Whether an older head still needs a row that precharge ``command`` of ``entry`` closes."""
    nodes, base = state.nodes, tables.offsets[_LEVELS - 1]
    state.marks[:] = False
    for i in range(_reach(tables, nodes, _LEVELS - 1, command, stream.place[entry])):
        state.marks[nodes[i] - base] = True
    for lane in range(state.head.shape[1]):
        other = state.head[channel, lane]
        if other < 0 or other >= min(entry, limit):
            continue
        wants = stream.command[other]
        if tables.row[wants] != _ROW_OPEN:
            continue
        for i in range(_reach(tables, nodes, _LEVELS - 1, wants, stream.place[other])):
            bank = nodes[i] - base
            if state.marks[bank] and state.open_row[channel, bank] == stream.row[other]:
                return True
    return False


@njit(cache=True)
def _pass_fences(stream, state, channel, now):  # type: ignore[no-untyped-def]
    """Move on past waits that are over; when the next one will be, if that is known."""
    end = stream.start[channel + 1]
    while state.fence[channel] < end:
        fence = state.fence[channel]
        if stream.wait[fence] != 0:
            if stream.start[channel] + state.issued[channel] < fence:
                return _NEVER
            if stream.wait[fence] == _WAIT_DONE and state.done[channel] > now:
                return state.done[channel]
        state.fence[channel] += 1
    return _NEVER


@njit(cache=True)
def _refresh(tables, state, channel, now, place, taken):  # type: ignore[no-untyped-def]
    """One step of a due refresh: (issued?, bus taken, when to try again)."""
    command = tables.controller[_REFRESH]
    wide, counts = tables.broadcast[command], tables.counts
    rest = state.refreshing[channel]
    total = 1
    for level in range(3, -1, -1):
        size = 1 if wide[level] else counts[level]
        place[level] = rest % size
        rest //= size
        total *= size
    step = _needed(tables, state, channel, command, place, -1)
    at = _earliest(tables, state, channel, step, place)
    if tables.bus[step] == taken:
        at = max(at, now + 1)
    if at > now:
        return False, taken, at
    _put(tables, state, channel, step, place, -1, now)
    if step == command:
        state.refreshing[channel] += 1
        if state.refreshing[channel] == total:
            state.refreshing[channel] = -1
    return True, tables.bus[step], now + 1


@njit(cache=True)
def _serve(tables, stream, state, channel, now, place):  # type: ignore[no-untyped-def]
    """Issue what may go at ``now``; sets the cycle at which to look again."""
    if state.due[channel] <= now and state.refreshing[channel] < 0:
        state.refreshing[channel] = 0
        state.due[channel] += tables.refresh_interval
    slots = tables.controller[_PER_CYCLE]
    lookahead = tables.controller[_LOOKAHEAD] != 0
    taken = -1
    while slots > 0:
        if state.refreshing[channel] >= 0:
            gone, taken, again = _refresh(tables, state, channel, now, place, taken)
            state.wake[channel] = again
            if not gone:
                return
            slots -= 1
            continue
        again = min(_pass_fences(stream, state, channel, now), state.due[channel])
        limit = stream.start[channel] + state.sent[channel]
        best, best_step, best_lane = _NEVER, -1, -1
        for lane in range(state.head.shape[1]):
            entry = state.head[channel, lane]
            if entry < 0 or entry >= limit or entry >= best:
                continue
            behind = entry >= state.fence[channel]
            if behind and not lookahead:
                continue
            command, where = stream.command[entry], stream.place[entry]
            seen = state.checked[channel, lane, 0]
            if (
                seen >= 0
                and state.checked[channel, lane, 1] == state.version[channel]
                and _same(stream, entry, seen)
            ):
                step = command
            else:
                step = _needed(tables, state, channel, command, where, stream.row[entry])
                if step == command:
                    state.checked[channel, lane, 0] = entry
                    state.checked[channel, lane, 1] = state.version[channel]
            if step == command:
                if behind:
                    continue
            elif (
                state.head.shape[1] > 1
                and tables.effect[step] == _EFFECT_CLOSE
                and _wanted_open(tables, stream, state, channel, step, entry, limit)
            ):
                continue
            at = _earliest(tables, state, channel, step, where)
            if tables.bus[step] == taken:
                at = max(at, now + 1)
            if at <= now:
                best, best_step, best_lane = entry, step, lane
            else:
                again = min(again, at)
        if best == _NEVER:
            state.wake[channel] = again if slots == tables.controller[_PER_CYCLE] else now + 1
            return
        mode = tables.mode[stream.command[best]]
        switch = tables.controller[_SWITCH]
        if switch >= 0 and mode != _MODE_ANY and mode != state.mode[channel]:
            state.mode[channel] = mode
            best_step = switch
        _put(tables, state, channel, best_step, stream.place[best], stream.row[best], now)
        if best_step == stream.command[best]:
            state.head[channel, best_lane] = stream.lane_next[best]
            state.issued[channel] += 1
        if tables.bus[best_step] != _BUS_NONE:
            taken = tables.bus[best_step]
            slots -= 1
    state.wake[channel] = now + 1


@njit(cache=True)
def _hand_out(tables, stream, state, host, now):  # type: ignore[no-untyped-def]
    """The host hands out instructions at ``now``; ``host``: instruction, cycle, blocked."""
    channels = state.sent.shape[0]
    instructions = stream.blocking.shape[0]
    per_cycle, depth = tables.controller[_INSTRUCTIONS], tables.controller[_DEPTH]
    handed = 0
    while host[0] < instructions:
        if host[2] != 0:
            last = 0
            for c in range(channels):
                if state.issued[c] < state.sent[c]:
                    return
                last = max(last, state.done[c])
            host[1], host[2] = max(host[1], last + 1), 0
            host[0] += 1
            continue
        if now < host[1]:
            return
        full = False
        for c in range(channels):
            while stream.start[c] + state.sent[c] < stream.start[c + 1]:
                if stream.instruction[stream.start[c] + state.sent[c]] != host[0]:
                    break
                if state.sent[c] - state.issued[c] >= depth:
                    full = True
                    break
                state.sent[c] += 1
                state.wake[c] = min(state.wake[c], now)
        if full:
            return
        if stream.blocking[host[0]]:
            host[2] = 1
            return
        host[0] += 1
        handed += 1
        if handed == per_cycle:
            host[1] = now + 1


@njit(cache=True)
def schedule(tables, stream, state):  # type: ignore[no-untyped-def]
    """Run ``stream`` (``StreamArrays``) to its end; the cycle at which all is completed."""
    channels = state.sent.shape[0]
    instructions = stream.blocking.shape[0]
    host = np.zeros(3, dtype=np.int64)
    place = np.zeros(4, dtype=np.int64)
    for c in range(channels):
        state.fence[c] = stream.start[c]
        for entry in range(stream.start[c + 1] - 1, stream.start[c] - 1, -1):
            state.head[c, stream.lane[entry]] = entry
    now = 0
    while True:
        _hand_out(tables, stream, state, host, now)
        left = host[0] < instructions
        for c in range(channels):
            if state.wake[c] <= now:
                _serve(tables, stream, state, c, now, place)
            left = left or state.issued[c] < stream.start[c + 1] - stream.start[c]
        if not left:
            break
        after = _NEVER
        for c in range(channels):
            after = min(after, state.wake[c])
        if host[0] < instructions and host[2] == 0 and host[1] > now:
            after = min(after, host[1])
        elif host[2] != 0:
            # completion is known when all is issued; it may be the next thing to happen
            idle = True
            for c in range(channels):
                idle = idle and state.issued[c] == state.sent[c]
            if idle:
                after = min(after, now + 1)
        if after >= _NEVER:
            return -1
        now = max(after, now + 1)
    end = 0
    for c in range(channels):
        end = max(end, state.done[c])
    return end
