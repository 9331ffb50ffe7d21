"""One command a tick, whatever its kind: the policy of Ramulator 2.0's generic controller.

Requests whose row was opened for them go first, then maintenance, of which only the oldest counts,
then the oldest request of the read or the write queue whose next command is ready. That command
may be a PRE while younger requests hit the row: first ready, first come, but no row hit first. A
PRE that would close a row which a request still waits for costs the tick.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.channel_queues.kernel import (
    column_of_active,
    fall_due,
    issue,
    open_for,
    serve_in_turn,
    step,
    upkeep,
)
from pimsim.hardware.dram.channel_queues.layout import (
    C_CONFLICTS,
    C_HITS,
    C_MISSES,
    INFINITY,
    R_KEY,
)
from pimsim.hardware.dram.channel_queues.requests import (
    answer,
    bank_of,
    count_once,
    dequeue,
    entry_of,
    least_bound,
    put_off,
    row_of,
)
from pimsim.hardware.dram.channel_queues.timing import earliest, gate_of
from pimsim.hardware.dram.rules import Command

__all__ = ["step_as_configured"]

ACT, PRE, RD = int(Command.ACT), int(Command.PRE), int(Command.RD)


@njit(cache=True)
def _oldest_of_queue(ch: Any, p: Any, board: Any, tick: int) -> int:
    """Issue for the oldest request of the queue in turn that is ready; the tick, or when one is."""
    when = min(ch.column_next, ch.row_next)
    if when > tick:
        return int(when)
    kind = ch.writing
    last = ch.queued[kind]
    for i in range(last):
        if ch.bound[kind, i] > tick:
            continue
        word = ch.queue[kind, i]
        bank, row = bank_of(word), row_of(word)
        held = ch.open_row[bank]
        hits = held == row
        command = RD + kind if hits else ACT if held < 0 else PRE
        at = earliest(ch, p, command, bank)
        if at > tick:
            ch.bound[kind, i] = at
            ch.gate[kind, i] = gate_of(p, command, bank)
            continue
        if held >= 0 and p.auto_precharge == 1:  # it is opened for another request alone
            ch.bound[kind, i] = INFINITY
            continue
        if command == PRE and ch.awaited[bank] > 0:
            last = i  # no younger request goes before that one had its row
            break
        entry = entry_of(word)
        count_once(ch, entry, C_HITS if hits else C_MISSES if command == ACT else C_CONFLICTS)
        opened = -1 if command == PRE else row
        issue(ch, p, board, tick, command, bank, opened, ch.request[entry, R_KEY])
        if command == ACT:
            open_for(ch, p, i)
        elif hits:
            answer(ch, p, board, tick, entry)
            dequeue(ch, i)
        put_off(ch, gate_of(p, command, bank))
        return tick
    ch.column_next = ch.row_next = least_bound(ch, last)
    return int(ch.row_next)


@njit(cache=True)
def _step_single_slot(ch: Any, p: Any, board: Any, tick: int) -> int:
    """Process ``tick``; the next one at which this channel can do anything by itself."""
    changed = fall_due(ch, p, tick)
    when = column_of_active(ch, p, board, tick)
    if when > tick:
        if ch.upkeep_len > 0:
            when = min(when, upkeep(ch, p, board, tick))
        else:
            serve_in_turn(ch, p)
            when = min(when, _oldest_of_queue(ch, p, board, tick))
    if when == tick:
        ch.row_next = 0  # a PRE that cost ticks may not be ready any more
        return tick + 1
    if changed or ch.handed >= 0:
        return tick + 1
    return int(max(min(when, ch.due), tick + 1))


@njit(cache=True)
def step_as_configured(ch: Any, p: Any, board: Any, tick: int) -> int:
    """``step`` of the command slots that the controller has.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``; changed.
    tick
        Now, ticks of the command bus.

    Returns
    -------
    int
        The next tick at which this channel can do anything by itself.

    References
    ----------
    With one slot: Ramulator 2.0's generic controller.
    """
    if p.single_slot == 1:
        return _step_single_slot(ch, p, board, tick)
    return step(ch, p, board, tick)
