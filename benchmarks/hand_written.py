"""HBM2-2000 in pseudo channel mode, one channel, written by hand: no table, no refresh.

What ``benchmarks.pseudo_channels`` holds the table-driven kernel against. Numbers are those of
``configs/memory/hbm2-2000.yaml``, delays already adjusted for the ACT's two clocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["replay_hbm2"]

DEPTH, HIGH, LOW = 32, 26, 7
CL, CWL, BL = 14, 5, 2
NEVER = 1 << 60


@njit(cache=True)
def _go(t: Any, kind: int, bank: int, now: int) -> None:
    """Note that a command went: ``t`` holds the last one's cycle of each kind and node."""
    half, group = bank >> 4, bank >> 2
    if kind == 0:  # ACT
        t.row_free = now + 2
        t.bank_act[bank], t.group_act[group], t.half_act[half] = now, now, now
        for i in range(3):
            t.faw[half, i] = t.faw[half, i + 1]
        t.faw[half, 3] = now
    elif kind == 1:  # PRE
        t.row_free = now + 1
        t.bank_pre[bank] = now
    elif kind == 2:  # RD
        t.bank_rd[bank], t.group_rd[group], t.half_rd[half] = now, now, now
    else:
        t.bank_wr[bank], t.group_wr[group], t.half_wr[half] = now, now, now


STATE = np.dtype(
    [("row_free", "i8")]
    + [(f"bank_{k}", "i8", (32,)) for k in ("act", "pre", "rd", "wr")]
    + [(f"group_{k}", "i8", (8,)) for k in ("act", "rd", "wr")]
    + [(f"half_{k}", "i8", (2,)) for k in ("act", "rd", "wr")]
    + [("faw", "i8", (2, 4)), ("held", "i8", (32,)), ("awaited", "i8", (32,)), ("size", "i8", (2,))]
    # a queue's requests, oldest first, and the cycle before which ACT or PRE for one cannot go
    + [(f"queue_{k}", "i8", (2, DEPTH)) for k in ("bank", "row", "came", "bound")]
    + [(f"active_{k}", "i8", (32,)) for k in ("bank", "came", "write")]
)


@njit(cache=True, inline="always")
def _act(t: Any, bank: int) -> int:
    half = bank >> 4
    own = max(t.bank_act[bank] + 48, t.bank_pre[bank] + 13)
    shared = max(t.group_act[bank >> 2] + 4, t.half_act[half] + 4)
    return int(max(max(own, shared), max(t.faw[half, 0] + 15, t.row_free)))


@njit(cache=True, inline="always")
def _pre(t: Any, bank: int) -> int:
    after = max(t.bank_rd[bank] + 5, t.bank_wr[bank] + CWL + BL + 16)
    return int(max(max(t.bank_act[bank] + 35, after), t.row_free))


@njit(cache=True, inline="always")
def _rd(t: Any, bank: int) -> int:
    half, group = bank >> 4, bank >> 2
    reads = max(t.group_rd[group] + 4, t.half_rd[half] + 2)
    writes = max(t.group_wr[group] + CWL + BL + 8, t.half_wr[half] + CWL + BL + 6)
    return int(max(max(reads, writes), t.bank_act[bank] + 15))


@njit(cache=True, inline="always")
def _wr(t: Any, bank: int) -> int:
    half, group = bank >> 4, bank >> 2
    writes = max(t.group_wr[group] + 4, t.half_wr[half] + 2)
    return int(max(max(writes, t.half_rd[half] + CL + BL + 2 - CWL), t.bank_act[bank] + 13))


@njit(cache=True, inline="always")
def _close(values: Any, at: int, last: int) -> None:
    part = values[at : last + 1]
    for i in range(last - at):
        part[i] = part[i + 1]


@njit(cache=True)
def _take(t: Any, w: int, at: int) -> None:
    last = t.size[w] - 1
    _close(t.queue_bank[w], at, last)
    _close(t.queue_row[w], at, last)
    _close(t.queue_came[w], at, last)
    _close(t.queue_bound[w], at, last)
    t.size[w] = last


@njit(cache=True)
def _changed(t: Any, w: int, bank: int) -> None:
    for i in range(t.size[w]):
        t.queue_bound[w, i] = 0 if t.queue_bank[w, i] == bank else t.queue_bound[w, i]


@njit(cache=True)
def _active(t: Any, running: int, writing: int, now: int) -> tuple[int, int, int]:
    """Cycle of the next column of an opened row, whether one went now, and when it is done."""
    soonest, best = NEVER, -1
    for i in range(running):
        bank = t.active_bank[i]
        when = _wr(t, bank) if t.active_write[i] == 1 else _rd(t, bank)
        soonest = min(soonest, when)
        if when <= now and (best < 0 or t.active_came[i] < t.active_came[best]):
            best = i
    if best < 0:
        return soonest, 0, 0
    bank, write = t.active_bank[best], t.active_write[best]
    _go(t, 2 + write, bank, now)
    t.awaited[bank] = 0
    _changed(t, writing, bank)
    _close(t.active_bank, best, running - 1)
    _close(t.active_came, best, running - 1)
    _close(t.active_write, best, running - 1)
    return soonest, 1, now if write == 1 else now + CL + BL


@njit(cache=True)
def _row_hit(t: Any, writing: int, now: int) -> tuple[int, int, int]:
    """The same of the queue's requests to open rows."""
    soonest = NEVER
    for i in range(t.size[writing]):
        bank = t.queue_bank[writing, i]
        if t.held[bank] != t.queue_row[writing, i]:
            continue
        when = _wr(t, bank) if writing == 1 else _rd(t, bank)
        if when > now:
            soonest = min(soonest, when)
            continue
        _go(t, 2 + writing, bank, now)
        _take(t, writing, i)
        return soonest, 1, now if writing == 1 else now + CL + BL
    return soonest, 0, 0


@njit(cache=True)
def _row(t: Any, writing: int, running: int, now: int) -> tuple[int, int]:
    """Cycle of the next ACT or PRE, and -1, 0 or 1: none, a PRE or an ACT went now."""
    for i in range(t.size[writing]):
        if t.queue_bound[writing, i] > now:
            continue
        bank, row = t.queue_bank[writing, i], t.queue_row[writing, i]
        held = t.held[bank]
        if held == row or (held >= 0 and t.awaited[bank] == 1):
            t.queue_bound[writing, i] = NEVER
            continue
        when = _act(t, bank) if held < 0 else _pre(t, bank)
        if when > now:
            t.queue_bound[writing, i] = when
            continue
        if held >= 0:
            _go(t, 1, bank, now)
            t.held[bank] = -1
            _changed(t, writing, bank)
            return now, 0
        _go(t, 0, bank, now)
        t.held[bank], t.awaited[bank] = row, 1
        t.active_bank[running], t.active_write[running] = bank, writing
        t.active_came[running] = t.queue_came[writing, i]
        _take(t, writing, i)
        _changed(t, writing, bank)
        return now, 1
    soonest = NEVER
    for i in range(t.size[writing]):
        soonest = min(soonest, t.queue_bound[writing, i])
    return soonest, -1


@njit(cache=True)
def _run(states: Any, banks: Any, rows: Any, writes: Any) -> int:
    t = states[0]
    running, writing, at, now, done = 0, 0, 0, 0, 0
    total = len(banks)
    while at < total or t.size[0] + t.size[1] + running > 0:
        now += 1
        if at < total and t.size[writes[at]] < DEPTH:
            w = writes[at]
            i = t.size[w]
            t.queue_bank[w, i], t.queue_row[w, i] = banks[at], rows[at]
            t.queue_came[w, i], t.queue_bound[w, i] = now - 1, 0
            t.size[w] = i + 1
            at += 1
        soonest, column, ended = _active(t, running, writing, now)
        running -= column
        row = -1
        for row_slot in range(2):
            if row_slot == 0 and column == 1:
                continue
            before = writing
            if writing == 0 and (t.size[1] >= HIGH or t.size[0] == 0):
                writing = 1
            elif writing == 1 and t.size[1] < LOW and t.size[0] > 0:
                writing = 0
            if writing != before:
                for i in range(t.size[writing]):
                    t.queue_bound[writing, i] = 0
            if row_slot == 0:
                when, column, ended = _row_hit(t, writing, now)
            elif t.row_free > now:
                when = t.row_free
            else:
                when, row = _row(t, writing, running, now)
                running += max(row, 0)
            soonest = min(soonest, when)
        done = max(done, ended)
        room = at < total and t.size[writes[at]] < DEPTH
        if column == 0 and row < 0 and not room and soonest < NEVER:
            now = max(now, soonest - 1)
    return done


def replay_hbm2(banks: Any, rows: Any, writes: Any) -> int:
    """Cycles until all requests are answered; one is offered a cycle, in order."""
    states = np.zeros(1, dtype=STATE)
    for kind in ("bank", "group", "half", "faw"):
        for name in STATE.names or ():
            if name.startswith(kind):
                states[name] = -NEVER
    states["held"] = -1
    return int(_run(states, banks, rows, writes))
