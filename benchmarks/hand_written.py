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
    + [("faw", "i8", (2, 4))]
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


@njit(cache=True)
def _take(queue: Any, at: int, length: int) -> None:
    for i in range(at, length - 1):
        queue[i, 0], queue[i, 1], queue[i, 2] = queue[i + 1, 0], queue[i + 1, 1], queue[i + 1, 2]


@njit(cache=True)
def _run(states: Any, banks: Any, rows: Any, writes: Any) -> int:
    t = states[0]
    queue = np.zeros((2, DEPTH, 3), np.int64)
    active = np.zeros((32, 4), np.int64)
    held = np.full(32, -1, np.int64)
    awaited = np.zeros(32, np.int64)
    size = np.zeros(2, np.int64)
    running, writing, at, now, done = 0, 0, 0, 0, 0
    total = len(banks)
    while at < total or size[0] + size[1] + running > 0:
        now += 1
        if at < total and size[writes[at]] < DEPTH:
            w = writes[at]
            queue[w, size[w], 0], queue[w, size[w], 1] = banks[at], rows[at]
            queue[w, size[w], 2] = now - 1
            size[w] += 1
            at += 1
        soonest, best, went = NEVER, -1, False
        for i in range(running):
            bank = active[i, 0]
            when = _wr(t, bank) if active[i, 3] == 1 else _rd(t, bank)
            soonest = min(soonest, when)
            if when <= now and (best < 0 or active[i, 2] < active[best, 2]):
                best = i
        if best >= 0:
            bank, went = active[best, 0], True
            _go(t, 2 + active[best, 3], bank, now)
            done = max(done, now if active[best, 3] == 1 else now + CL + BL)
            awaited[bank] = 0
            for i in range(best, running - 1):
                active[i] = active[i + 1]
            running -= 1
        for row_slot in range(2):
            if row_slot == 0 and went:
                continue
            if writing == 0 and (size[1] >= HIGH or size[0] == 0):
                writing = 1
            elif writing == 1 and size[1] < LOW and size[0] > 0:
                writing = 0
            if row_slot == 1 and t.row_free > now:
                soonest = min(soonest, t.row_free)
                continue
            for i in range(size[writing]):
                bank, row = queue[writing, i, 0], queue[writing, i, 1]
                if row_slot == 0:
                    if held[bank] != row:
                        continue
                    when = _wr(t, bank) if writing == 1 else _rd(t, bank)
                else:
                    if held[bank] == row or (held[bank] >= 0 and awaited[bank] == 1):
                        continue
                    when = _act(t, bank) if held[bank] < 0 else _pre(t, bank)
                if when > now:
                    soonest = min(soonest, when)
                    continue
                went = True
                if row_slot == 0:
                    _go(t, 2 + writing, bank, now)
                    done = max(done, now if writing == 1 else now + CL + BL)
                elif held[bank] >= 0:
                    _go(t, 1, bank, now)
                    held[bank] = -1
                    break
                else:
                    _go(t, 0, bank, now)
                    held[bank], awaited[bank] = row, 1
                    active[running, 0], active[running, 1] = bank, row
                    active[running, 2], active[running, 3] = queue[writing, i, 2], writing
                    running += 1
                _take(queue[writing], i, size[writing])
                size[writing] -= 1
                break
        room = at < total and size[writes[at]] < DEPTH
        if not went and not room and soonest < NEVER:
            now = max(now, soonest - 1)
    return done


def replay_hbm2(banks: Any, rows: Any, writes: Any) -> int:
    """Cycles until all requests are answered; one is offered a cycle, in order."""
    states = np.zeros(1, dtype=STATE)
    for name in STATE.names or ():
        states[name] = -NEVER if name != "row_free" else 0
    return int(_run(states, banks, rows, writes))
