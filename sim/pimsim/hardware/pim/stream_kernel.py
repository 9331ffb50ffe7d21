"""The command stream scheduler's kernel: records in, cycles and counts out.

Every channel has lanes (queues that issue in order) and issues the oldest lane head that may
go. What is needed before a command (precharge, activate, mode switch) the controller puts in.
Only cycles at which something can happen are visited: a channel's ``wake`` is one before which
nothing can.

``p`` is a design (``PARAMETERS``), ``ch`` a channel (``CHANNEL``), ``entries`` the stream.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.pim.stream_tables import BUSES, EFFECTS, MODES, NEVER, PLACES, ROWS, WAITS

__all__ = ["schedule"]

_BANK_LEVEL = PLACES.index("bank")
_RANK_LEVEL = PLACES.index("rank")
_OTHER_RANKS = PLACES.index("other_ranks")
_NO_BUS, _BOTH = BUSES.index("none"), BUSES.index("both")
_ANY_ROW, _OPEN, _CLOSED = (ROWS.index(name) for name in ("any", "open", "closed"))
_OPENS, _CLOSES = (EFFECTS.index(name) for name in ("open", "close"))
_ANY_MODE = MODES.index("any")
_COMPLETED = WAITS.index("completed")
_PATIENCE = 10_000
"""Refreshes in a row after which a stream that waits will never go on."""


@njit(cache=True)
def _reach(p: Any, nodes: Any, level: int, command: int, place: Any) -> int:
    """Write the nodes of ``level`` that ``command`` at ``place`` concerns; their number."""
    first = p.offsets[level]
    if level == 0:
        nodes[0] = first
        return 1
    p0, p1 = (0, p.counts[0]) if p.broadcast[command, 0] else (place[0], place[0] + 1)
    r0, r1 = (0, p.counts[1]) if p.broadcast[command, 1] else (place[1], place[1] + 1)
    g0, g1 = (0, p.counts[2]) if p.broadcast[command, 2] else (place[2], place[2] + 1)
    b0, b1 = (0, p.counts[3]) if p.broadcast[command, 3] else (place[3], place[3] + 1)
    step = 1
    if p.broadcast[command, 3] > 1:
        b0 = place[3] - place[3] % p.broadcast[command, 3]
        b1 = b0 + p.broadcast[command, 3]
    elif p.broadcast[command, 3] < 0:
        step = -p.broadcast[command, 3]
        b0 = place[3] % step
    found = 0
    for pseudo in range(p0, p1):
        if level == 1:
            nodes[found] = first + pseudo
            found += 1
            continue
        for rank in range(pseudo * p.counts[1] + r0, pseudo * p.counts[1] + r1):
            if level == 2:
                nodes[found] = first + rank
                found += 1
                continue
            for group in range(rank * p.counts[2] + g0, rank * p.counts[2] + g1):
                if level == 3:
                    nodes[found] = first + group
                    found += 1
                    continue
                for bank in range(group * p.counts[3] + b0, group * p.counts[3] + b1, step):
                    nodes[found] = first + bank
                    found += 1
    return found


@njit(cache=True)
def _earliest(p: Any, ch: Any, command: int, place: Any) -> int:
    """First cycle at which all rules allow ``command``."""
    at = 0
    if p.bound[command, 0]:
        at = ch.ready[0, command]
    for level in range(1, _BANK_LEVEL + 1):
        if p.bound[command, level]:
            for i in range(_reach(p, ch.nodes, level, command, place)):
                at = max(at, ch.ready[ch.nodes[i], command])
    for w in range(p.n_windows):
        if p.window_then[w, command]:
            for i in range(_reach(p, ch.nodes, p.windows[w, 0], command, place)):
                node = ch.nodes[i]
                at = max(at, ch.ring[w, node, ch.ring_at[w, node]])
    return at


@njit(cache=True)
def _bar_other_ranks(p: Any, ch: Any, command: int, place: Any, now: int) -> None:
    """Rules of ``command`` for the ranks of its pseudo channels that it does not reach."""
    if p.broadcast[command, 1]:
        return
    for pseudo in range(p.counts[0]):
        if not p.broadcast[command, 0] and pseudo != place[0]:
            continue
        for rank in range(p.counts[1]):
            if rank == place[1]:
                continue
            node = p.offsets[_RANK_LEVEL] + pseudo * p.counts[1] + rank
            for rule in range(p.first[command, _OTHER_RANKS], p.first[command, _OTHER_RANKS + 1]):
                then, bar = p.rules[rule, 0], now + p.rules[rule, 1]
                if ch.ready[node, then] < bar:
                    ch.ready[node, then] = bar


@njit(cache=True)
def _put(p: Any, ch: Any, log: Any, command: int, place: Any, row: int, now: int) -> None:
    """Issue ``command``: what it bars, rows, count, log."""
    for level in range(_BANK_LEVEL + 1):
        begin, end = p.first[command, level], p.first[command, level + 1]
        if begin == end:
            continue
        found = _reach(p, ch.nodes, level, command, place)
        for rule in range(begin, end):
            then, bar = p.rules[rule, 0], now + p.rules[rule, 1]
            for i in range(found):
                if ch.ready[ch.nodes[i], then] < bar:
                    ch.ready[ch.nodes[i], then] = bar
    begin, end = p.first[command, _OTHER_RANKS], p.first[command, _OTHER_RANKS + 1]
    if begin < end:
        _bar_other_ranks(p, ch, command, place, now)
    for w in range(p.n_windows):
        if p.window_first[w, command]:
            for i in range(_reach(p, ch.nodes, p.windows[w, 0], command, place)):
                node = ch.nodes[i]
                slot = ch.ring_at[w, node]
                ch.ring[w, node, slot] = now + p.windows[w, 2]
                ch.ring_at[w, node] = (slot + 1) % p.windows[w, 1]
    if p.effect[command]:
        ch.version += 1
        held = row if p.effect[command] == _OPENS else -1
        for i in range(_reach(p, ch.nodes, _BANK_LEVEL, command, place)):
            ch.open_row[ch.nodes[i] - p.offsets[_BANK_LEVEL]] = held
    ch.counts[command] += 1
    ch.done = max(ch.done, now + p.latency[command])
    if ch.logged < log.shape[0]:
        log[ch.logged, 0], log[ch.logged, 1] = now, command
        for i in range(4):
            log[ch.logged, 2 + i] = place[i]
        log[ch.logged, 6] = row
    ch.logged += 1


@njit(cache=True)
def _step(p: Any, ch: Any, command: int, place: Any, row: int) -> int:
    """``command``, or the precharge or activate that has to come before it."""
    if p.row[command] == _ANY_ROW:
        return command
    closed = False
    for i in range(_reach(p, ch.nodes, _BANK_LEVEL, command, place)):
        held = ch.open_row[ch.nodes[i] - p.offsets[_BANK_LEVEL]]
        if held < 0:
            closed = True
        elif p.row[command] == _CLOSED or held != row:
            return int(p.precharge[command])
    return int(p.activate[command]) if closed and p.row[command] == _OPEN else command


@njit(cache=True)
def _step_of_head(p: Any, ch: Any, entries: Any, lane: int) -> int:
    """``_step`` of a lane's head; the row of many a command was checked for the one before."""
    entry, seen = entries[ch.head[lane]], ch.checked[lane]
    if seen >= 0 and ch.checked_at[lane] == ch.version:
        other = entries[seen]
        if (
            entry.command == other.command
            and entry.row == other.row
            and entry.place[0] == other.place[0]
            and entry.place[1] == other.place[1]
            and entry.place[2] == other.place[2]
            and entry.place[3] == other.place[3]
        ):
            return int(entry.command)
    step = _step(p, ch, entry.command, entry.place, entry.row)
    if step == entry.command:
        ch.checked[lane], ch.checked_at[lane] = ch.head[lane], ch.version
    return step


@njit(cache=True)
def _wanted_open(p: Any, ch: Any, entries: Any, step: int, at: int) -> bool:
    """Whether an older head still needs a row that precharge ``step`` for entry ``at`` closes."""
    base = p.offsets[_BANK_LEVEL]
    ch.marks[:] = 0
    for i in range(_reach(p, ch.nodes, _BANK_LEVEL, step, entries[at].place)):
        ch.marks[ch.nodes[i] - base] = 1
    for lane in range(p.lanes):
        if ch.head[lane] < 0 or ch.head[lane] >= at:
            continue
        other = entries[ch.head[lane]]
        if p.row[other.command] != _OPEN:
            continue
        for i in range(_reach(p, ch.nodes, _BANK_LEVEL, other.command, other.place)):
            bank = ch.nodes[i] - base
            if ch.marks[bank] and ch.open_row[bank] == other.row:
                return True
    return False


@njit(cache=True)
def _pass_fences(ch: Any, entries: Any, now: int) -> int:
    """Move on past waits that are over; when the next one will be, if that is known."""
    while ch.fence < ch.end:
        wait = entries[ch.fence].wait
        if wait != 0:
            if ch.start + ch.issued < ch.fence:
                return NEVER
            if wait == _COMPLETED and ch.done > now:
                return int(ch.done)
        ch.fence += 1
    return NEVER


@njit(cache=True)
def _taken(bus: int, taken: int) -> bool:
    """Whether ``bus`` is in use in a cycle in which a command took ``taken`` (-1: none did)."""
    return taken >= 0 and (bus == taken or _BOTH in (bus, taken))


@njit(cache=True)
def _refresh(p: Any, ch: Any, log: Any, taken: int, now: int) -> int:
    """One step of a refresh that is due: the bus that it took, or -1 if it has to wait."""
    rest, total = ch.refreshing, 1
    for level in range(3, -1, -1):
        size = 1 if p.broadcast[p.refresh, level] else p.counts[level]
        ch.place[level] = rest % size
        rest //= size
        total *= size
    step = _step(p, ch, p.refresh, ch.place, -1)
    at = _earliest(p, ch, step, ch.place)
    if _taken(p.bus[step], taken):
        at = max(at, now + 1)
    if at > now:
        ch.wake = at
        return -1
    _put(p, ch, log, step, ch.place, -1, now)
    if step == p.refresh:
        ch.refreshing += 1
        ch.refreshes += 1
        if ch.refreshing == total:
            ch.refreshing = -1
    return int(p.bus[step])


@njit(cache=True)
def _serve(p: Any, ch: Any, entries: Any, log: Any, now: int) -> None:
    """Issue what may go at ``now``; sets the cycle at which to look again."""
    if ch.due <= now and ch.refreshing < 0:
        ch.refreshing = 0
        ch.due += p.refresh_interval
    slots, taken, moved = p.commands_per_cycle, -1, False
    while slots > 0:
        if ch.refreshing >= 0:
            taken = _refresh(p, ch, log, taken, now)
            if taken < 0:
                return
            slots -= 1
            moved = True
            continue
        again = min(_pass_fences(ch, entries, now), ch.due)
        limit = ch.start + ch.sent
        best, best_step, best_lane = NEVER, -1, -1
        for lane in range(p.lanes):
            at = ch.head[lane]
            if at < 0 or at >= limit or at >= best:
                continue
            behind = at >= ch.fence
            if behind and not p.row_lookahead:
                continue
            entry = entries[at]
            step = _step_of_head(p, ch, entries, lane)
            if step == entry.command:
                if behind:
                    continue
            elif (
                p.lanes > 1 and p.effect[step] == _CLOSES and _wanted_open(p, ch, entries, step, at)
            ):
                continue
            ready = _earliest(p, ch, step, entry.place)
            mode = p.mode[entry.command]
            if p.mode_switch >= 0 and mode != _ANY_MODE and mode != ch.mode:
                step = p.mode_switch
                ready = max(ready, _earliest(p, ch, step, entry.place))
            if _taken(p.bus[step], taken):
                ready = max(ready, now + 1)
            if ready <= now:
                best, best_step, best_lane = at, step, lane
            else:
                again = min(again, ready)
        if best == NEVER:
            ch.wake = now + 1 if moved else again
            return
        entry = entries[best]
        if best_step == p.mode_switch and best_step != entry.command:
            ch.mode = p.mode[entry.command]
        _put(p, ch, log, best_step, entry.place, entry.row, now)
        moved = True
        if best_step == entry.command:
            ch.head[best_lane] = entry.following
            ch.issued += 1
            ch.refreshes = 0
            if entry.instruction == ch.asked:
                ch.asked_left -= 1
                ch.asked_done = max(ch.asked_done, now + p.latency[best_step])
        if p.bus[best_step] != _NO_BUS:
            taken = p.bus[best_step]
            slots -= 1
    ch.wake = now + 1


@njit(cache=True)
def _send(p: Any, channels: Any, entries: Any, instruction: int, now: int) -> bool:
    """Send what there is room for of ``instruction``; whether that was all."""
    all_sent = True
    for c in range(len(channels)):
        ch = channels[c]
        while ch.start + ch.sent < ch.end:
            entry = entries[ch.start + ch.sent]
            if entry.instruction != instruction:
                break
            waiting = ch.sent - ch.issued
            if waiting >= p.queue_depth or (
                waiting > 0
                and p.queue[entry.command] != p.queue[entries[ch.start + ch.sent - 1].command]
            ):
                all_sent = False
                break
            if ch.asked != instruction:
                ch.asked, ch.asked_left, ch.asked_done = instruction, 0, 0
            ch.asked_left += 1
            ch.sent += 1
            ch.wake = min(ch.wake, now)
    return all_sent


@njit(cache=True)
def _answered(channels: Any, instruction: int) -> int:
    """When ``instruction``, which was sent, is completed; -1 while some of it has not gone."""
    last = 0
    for c in range(len(channels)):
        ch = channels[c]
        if ch.asked == instruction:
            if ch.asked_left > 0:
                return -1
            last = max(last, ch.asked_done)
    return last


@njit(cache=True)
def schedule(p: Any, channels: Any, entries: Any, blocking: Any, log: Any) -> int:
    """Run a stream to its end.

    The host hands out instructions in order, each to all its channels; after one that is blocking
    it waits until that is completed.

    Parameters
    ----------
    p
        ``PARAMETERS`` record of the design.
    channels
        (channels,) of ``CHANNEL`` records; written.
    entries
        Of the stream, channel by channel.
    blocking
        (instructions,).
    log
        (channels, room, 7): cycle, command, pseudo channel, rank, bank group, bank, row; written.

    Returns
    -------
    int
        Cycle at which all is completed; -1: it cannot go on.
    """
    for c in range(len(channels)):
        ch = channels[c]
        for at in range(ch.end - 1, ch.start - 1, -1):
            ch.head[entries[at].lane] = at
    now, instruction, host_wake, blocked = 0, 0, 0, False
    while True:
        handed = 0
        while instruction < len(blocking) and host_wake <= now:
            if blocked:
                answered = _answered(channels, instruction)
                if answered < 0:
                    break
                # the host sees it in the cycle after
                blocked, host_wake = False, answered + 1
                instruction += 1
                continue
            if not _send(p, channels, entries, instruction, now):
                break
            blocked = blocking[instruction]
            if blocked:
                break
            instruction += 1
            handed += 1
            if handed == p.instructions_per_cycle:
                host_wake = now + 1
        left = instruction < len(blocking)
        after = NEVER
        for c in range(len(channels)):
            ch = channels[c]
            if ch.wake <= now:
                _serve(p, ch, entries, log[c], now)
            after = min(after, ch.wake)
            waiting = ch.issued < ch.end - ch.start
            if waiting and ch.refreshes > _PATIENCE:
                return -1
            left = left or waiting
        if not left:
            return int(channels.done.max()) if len(channels) else 0
        if host_wake > now:
            after = min(after, host_wake)
        elif blocked and _answered(channels, instruction) >= 0:
            after = min(after, now + 1)
        if after >= NEVER:
            return -1
        now = max(after, now + 1)
