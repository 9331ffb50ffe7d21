"""One command a tick, whatever its kind: the policy of Ramulator 2.0's generic controller.

Requests whose row was opened for them go first, then maintenance, of which only the oldest counts,
then the oldest request of the read or the write queue whose next command is ready. That command
may be a PRE while younger requests hit the row: first ready, first come, but no row hit first. A
PRE that would close a row which a request still waits for costs the tick.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from pimsim.hardware.dram.channel_queues.kernel import (
    _answer,
    _column_of_active,
    _count,
    _fall_due,
    _issue,
    _remove,
    _turn_around,
    _upkeep,
)
from pimsim.hardware.dram.channel_queues.layout import (
    C_CONFLICTS,
    C_HITS,
    C_MISSES,
    INFINITY,
    N_REQUEST,
    R_BANK,
    R_KEY,
    R_ROW,
)
from pimsim.hardware.dram.channel_queues.timing import earliest
from pimsim.hardware.dram.rules import Command

__all__ = ["step_single_slot"]

ACT, PRE, RD = int(Command.ACT), int(Command.PRE), int(Command.RD)


@njit(cache=True)
def _oldest_of_queue(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """Issue for the oldest request of the queue in turn that is ready; the tick, or when one is."""
    kind = ch.writing
    when = INFINITY
    for i in range(ch.queued[kind]):
        bank, row = ch.queue[kind, i, R_BANK], ch.queue[kind, i, R_ROW]
        held = ch.open_row[bank]
        command = RD + kind if held == row else ACT if held < 0 else PRE
        at = earliest(ch, p, command, bank)
        if at > tick:
            when = min(when, at)
            continue
        if command == PRE:
            if ch.awaited[bank] > 0:
                return tick + 1
            _count(ch, ch.queue[kind], i, C_CONFLICTS)
            _issue(ch, p, log, head, tick, PRE, bank, -1, ch.queue[kind, i, R_KEY])
            return tick
        _count(ch, ch.queue[kind], i, C_MISSES if command == ACT else C_HITS)
        _issue(ch, p, log, head, tick, command, bank, row, ch.queue[kind, i, R_KEY])
        if command == ACT:
            for f in range(N_REQUEST):
                ch.active[ch.active_len, f] = ch.queue[kind, i, f]
            ch.active_len += 1
            ch.awaited[bank] += 1
        else:
            _answer(ch, p, tick, kind, ch.queue[kind, i])
        _remove(ch.queue[kind], i, ch.queued[kind])
        ch.queued[kind] -= 1
        return tick
    return int(when)


@njit(cache=True)
def step_single_slot(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """Process ``tick``; the next one at which this channel can do anything by itself."""
    changed = _fall_due(ch, p, tick)
    when = INFINITY
    if ch.active_len > 0:
        when = _column_of_active(ch, p, log, head, tick)
        if when == tick:
            return tick + 1
    if ch.upkeep_len > 0:
        when = min(when, _upkeep(ch, p, log, head, tick))
    else:
        _turn_around(ch, p)
        when = min(when, _oldest_of_queue(ch, p, log, head, tick))
    if changed or when == tick or ch.handed >= 0:
        return tick + 1
    return int(max(min(when, ch.due), tick + 1))
