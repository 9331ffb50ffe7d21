"""One channel, tick by tick but only at ticks that matter: refresh, columns, rows.

The policy is that of Ramulator 2.1's HBM controllers. In a tick first the column pins, then the
row pins take a command. Column commands of requests whose row was opened for them go first, then
maintenance, of which only the oldest counts, and while none waits the oldest request of the read
or of the write queue whose next command is ready (FR-FCFS); no PRE closes a row that was opened
for a request which has not had it. ``step`` returns the next tick at which anything can happen.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import count_open, log_command
from pimsim.hardware.dram.channel_queues.layout import (
    ALL_BANK,
    C_COMMANDS,
    C_CONFLICTS,
    C_HITS,
    C_MISSES,
    C_READ_LATENCY,
    C_READS,
    INFINITY,
    MAX_MAINTENANCE,
    PER_BANK,
    R_ARRIVAL,
    R_KEY,
    R_WRITE,
)
from pimsim.hardware.dram.channel_queues.requests import (
    answer,
    bank_of,
    close_gap,
    count_once,
    dequeue,
    enqueue,
    entry_of,
    find_write,
    forget_bounds,
    least_bound,
    put_off,
    rebound,
    row_of,
    waits_at,
)
from pimsim.hardware.dram.channel_queues.timing import (
    apply_rules,
    apply_silent_precharge,
    earliest,
    earliest_wide,
    gate_of,
    on_edge,
)
from pimsim.hardware.dram.rules import Command

__all__ = [
    "admit", "column_of_active", "fall_due", "issue", "open_for", "serve_in_turn", "step",
    "upkeep",
]  # fmt: skip

ACT, PRE, RD = int(Command.ACT), int(Command.PRE), int(Command.RD)
PREA, REF, REFpb = int(Command.PREA), int(Command.REF), int(Command.REFpb)
AUTO_PRECHARGE = Command.RDA - Command.RD
"""From RD to RDA, and from WR to WRA."""


@njit(cache=True)
def admit(ch: Any, tick: int, write: int, bank: int, row: int, key: int) -> None:
    """Take a request in. A read of a buffered write is answered from it in this tick, a write
    to the burst of a buffered one takes its place.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    tick
        In which the controller sees it.
    write
        1 for a write, 0 for a read.
    bank
        Counted over the pseudo channels and ranks of the channel.
    row
        In that bank.
    key
        Burst of the memory, to find buffered writes of it.
    """
    if ch.queued[1] > 0 and find_write(ch, key):
        ch.last_done = max(ch.last_done, tick - write)
        if write == 0:
            ch.counter[C_READS] += 1
            ch.counter[C_READ_LATENCY] += 1
        return
    enqueue(ch, tick, tick - 1, write, bank, row, key, -1, -1)


@njit(cache=True, inline="always")
def _schedule_upkeep(ch: Any, command: int, bank: int) -> None:
    if ch.upkeep_len == MAX_MAINTENANCE:
        ch.overrun = 1
        return
    at = (ch.upkeep_head + ch.upkeep_len) & (MAX_MAINTENANCE - 1)
    ch.upkeep[at, 0] = command
    ch.upkeep[at, 1] = bank
    ch.upkeep_len += 1


@njit(cache=True)
def _refresh_together(ch: Any, p: Any, tick: int) -> bool:
    """REFpb of the same bank in all pseudo channels, one handed over a tick; a rank's next round
    waits tRFCpb from the end of its last."""
    per_half = 1 << p.half_shift
    if ch.handed < 0:
        rank = ch.turn >> p.rank_shift
        free = 0
        for half in range(p.halves):
            free = max(free, ch.set_free[(half * per_half >> p.rank_shift) + rank])
        if tick < free:
            ch.due = free
            return False
        ch.handed = 0
        ch.due += p.ref_interval
    bank = ch.handed * per_half + ch.turn
    _schedule_upkeep(ch, REFpb, bank)
    if ((bank + 1) & ((1 << p.rank_shift) - 1)) == 0:
        ch.set_free[bank >> p.rank_shift] = tick + p.set_gap
    ch.handed += 1
    if ch.handed == p.halves:
        ch.handed = -1
        ch.turn = (ch.turn + 1) & (per_half - 1)
    return True


@njit(cache=True)
def fall_due(ch: Any, p: Any, tick: int) -> bool:
    """Hand the refreshes that fall due over to maintenance.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    tick
        Now, ticks of the command bus.

    Returns
    -------
    bool
        Whether there are any.
    """
    if tick < ch.due and ch.handed < 0:
        return False
    if p.refresh == ALL_BANK:
        ch.due += p.ref_interval
        for half in range(p.halves):
            _schedule_upkeep(ch, REF, half << p.half_shift)
        return True
    if p.refresh == PER_BANK:
        ch.due += p.ref_interval
        _schedule_upkeep(ch, REFpb, ch.turn)
        ch.turn = (ch.turn + 1) % p.banks
        return True
    return _refresh_together(ch, p, tick)


@njit(cache=True)
def reconsider(ch: Any, p: Any, bank: int) -> None:
    """The bank changed: when its requests in the queue in turn can go now.

    With two slots a tick row hits are the column slot's to find, and a row that was opened for a
    request stays open until that had it. Where every access closes its row, nobody else gets it.
    """
    if not waits_at(ch, bank):
        return
    held = ch.open_row[bank]
    command = ACT if held < 0 else PRE
    column_at = earliest(ch, p, RD + ch.writing, bank) if p.single_slot == 1 else INFINITY
    row_at = INFINITY
    if p.single_slot == 1 or held < 0 or ch.awaited[bank] == 0:
        row_at = on_edge(p, command, earliest(ch, p, command, bank))
        ch.row_next = min(ch.row_next, row_at)
    columns, rows = gate_of(p, RD + ch.writing, bank), gate_of(p, command, bank)
    rebound(ch, bank, column_at, row_at, columns, rows)
    if ch.awaited[bank] > 0:  # its row was opened just now
        ch.column_next = 0


@njit(cache=True, inline="always")
def _close(ch: Any, p: Any, tick: int, bank: int) -> None:
    ch.open_row[bank] = -1
    reconsider(ch, p, bank)
    count_open(ch, p, tick, bank, -1)


@njit(cache=True)
def issue(
    ch: Any, p: Any, board: Any, tick: int, command: int, bank: int, row: int,
    key: int,
) -> None:  # fmt: skip
    """``command`` goes out: what it bars, and the rows that it opens or closes.

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
    command
        A ``Command``.
    bank
        That it goes to; of REF and PREA the first of the pseudo channel.
    row
        For the log and an ACT; -1 where the command has none.
    key
        For the log: burst of the request behind it, -1 where there is none.
    """
    apply_rules(ch, p, tick, command, bank)
    ch.counter[C_COMMANDS + command] += 1
    log_command(ch, board, tick, command, bank, row, key)
    if command == ACT:
        ch.open_row[bank] = row
        count_open(ch, p, tick, bank, 1)
    elif command == PRE:
        _close(ch, p, tick, bank)
    elif command == PREA:
        for other in range(bank, bank + (1 << p.half_shift)):
            if ch.open_row[other] >= 0:
                _close(ch, p, tick, other)
    elif p.auto_precharge == 1 and command < REF:  # RD and WR, which their request looks after
        apply_silent_precharge(ch, p, command + AUTO_PRECHARGE, bank)
        ch.open_row[bank] = -1
        count_open(ch, p, tick, bank, -1)


@njit(cache=True, inline="always")
def _turn_around(ch: Any, p: Any) -> bool:
    """Whether the other queue's turn comes: writes are served from the high mark on or when no
    read waits, until below the low mark."""
    if ch.writing == 0:
        return bool(ch.queued[1] >= p.drain_at or ch.queued[0] == 0)
    return bool(ch.queued[1] < p.drain_low and ch.queued[0] > 0)


@njit(cache=True, inline="always")
def serve_in_turn(ch: Any, p: Any) -> None:
    """Serve the queue whose turn it is.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.

    References
    ----------
    Ramulator 2.1's HBM controllers: marks of the write queue.
    """
    if _turn_around(ch, p):
        ch.writing = 1 - ch.writing
        forget_bounds(ch)


@njit(cache=True)
def column_of_active(ch: Any, p: Any, board: Any, tick: int) -> int:
    """Issue for the oldest request whose row was opened for it and is ready.

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
        ``tick`` where a command went, else the first tick at which one can.
    """
    if ch.active_next > tick:
        return int(ch.active_next)
    found, oldest = -1, INFINITY
    for i in range(ch.active_len):
        if ch.active_bound[i] > tick:
            continue
        word = ch.active[i]
        entry = entry_of(word)
        command = RD + ch.request[entry, R_WRITE]
        at = on_edge(p, command, max(tick, earliest(ch, p, command, bank_of(word))))
        ch.active_bound[i] = at
        if at > tick:
            continue
        if ch.request[entry, R_ARRIVAL] < oldest:
            found, oldest = i, ch.request[entry, R_ARRIVAL]
    when = INFINITY
    for i in range(ch.active_len):
        when = min(when, ch.active_bound[i] if i != found else INFINITY)
    if found < 0:
        ch.active_next = when
        return int(when)
    word = ch.active[found]
    entry, bank = entry_of(word), bank_of(word)
    command = RD + ch.request[entry, R_WRITE]
    issue(ch, p, board, tick, command, bank, row_of(word), ch.request[entry, R_KEY])
    answer(ch, p, board, tick, entry)
    ch.awaited[bank] -= 1
    if ch.awaited[bank] == 0:
        reconsider(ch, p, bank)
    ch.active_len -= 1
    close_gap(ch.active, found, ch.active_len)
    close_gap(ch.active_bound, found, ch.active_len)
    ch.active_next = max(when, tick + 1)
    return tick


@njit(cache=True, inline="always")
def open_for(ch: Any, p: Any, place: int) -> None:
    """The row of request ``place`` of the queue in turn is being opened: it is active now.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    place
        In the queue in turn, 0 is the oldest.
    """
    kind = ch.writing
    word = ch.queue[kind, place]
    bank, command = bank_of(word), RD + kind
    at = on_edge(p, command, earliest(ch, p, command, bank))
    ch.active[ch.active_len] = word
    ch.active_bound[ch.active_len] = at
    ch.active_len += 1
    ch.awaited[bank] += 1
    ch.active_next = min(ch.active_next, at)
    dequeue(ch, place)
    reconsider(ch, p, bank)


@njit(cache=True, inline="always")
def _column_bound(ch: Any, p: Any, tick: int) -> int:
    """A tick before which no row hit of the queue in turn can go."""
    command = RD + ch.writing
    return int(max(ch.column_next, on_edge(p, command, max(tick, ch.ready[command]))))


@njit(cache=True, inline="always")
def _row_bound(ch: Any, p: Any, tick: int) -> int:
    """A tick before which no ACT or PRE of the queue in turn can go."""
    opens = on_edge(p, ACT, max(tick, ch.ready[ACT]))
    closes = on_edge(p, PRE, max(tick, ch.ready[PRE]))
    return int(max(ch.row_next, min(opens, closes)))


@njit(cache=True)
def _column_of_queue(ch: Any, p: Any, board: Any, tick: int) -> int:
    """The oldest request of the queue in turn that hits an open row and is ready."""
    when = _column_bound(ch, p, tick)
    if when > tick:
        return when
    kind = ch.writing
    command = RD + kind
    when = INFINITY
    for i in range(ch.queued[kind]):
        word = ch.queue[kind, i]
        bank = bank_of(word)
        if ch.open_row[bank] != row_of(word):
            continue
        at = earliest(ch, p, command, bank)
        if at > tick:
            when = min(when, at)
            continue
        entry = entry_of(word)
        count_once(ch, entry, C_HITS)
        issue(ch, p, board, tick, command, bank, row_of(word), ch.request[entry, R_KEY])
        answer(ch, p, board, tick, entry)
        dequeue(ch, i)
        return tick
    ch.column_next = when if when == INFINITY else on_edge(p, command, when)
    return int(ch.column_next)


@njit(cache=True)
def _row_of_queue(ch: Any, p: Any, board: Any, tick: int) -> int:
    """The oldest request of the queue in turn whose ACT or PRE is ready."""
    when = _row_bound(ch, p, tick)
    if when > tick:
        return when
    kind = ch.writing
    for i in range(ch.queued[kind]):
        if ch.bound[kind, i] > tick:
            continue
        word = ch.queue[kind, i]
        bank = bank_of(word)
        held = ch.open_row[bank]
        if held == row_of(word) or (held >= 0 and ch.awaited[bank] > 0):
            ch.bound[kind, i] = INFINITY
            continue
        command = ACT if held < 0 else PRE
        at = on_edge(p, command, max(tick, earliest(ch, p, command, bank)))
        if at > tick:
            ch.bound[kind, i] = at
            ch.gate[kind, i] = gate_of(p, command, bank)
            continue
        entry = entry_of(word)
        count_once(ch, entry, C_MISSES if held < 0 else C_CONFLICTS)
        row = row_of(word) if held < 0 else -1
        issue(ch, p, board, tick, command, bank, row, ch.request[entry, R_KEY])
        if held < 0:
            open_for(ch, p, i)
        put_off(ch, gate_of(p, command, bank))
        return tick
    ch.row_next = least_bound(ch, ch.queued[kind])
    return int(ch.row_next)


@njit(cache=True)
def upkeep(ch: Any, p: Any, board: Any, tick: int) -> int:
    """Issue the oldest refresh, or the precharge that it needs first.

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
        ``tick`` where a command went, else the first tick at which one can; ``INFINITY``: not
        before a request has had the row that was opened for it.
    """
    command, bank = ch.upkeep[ch.upkeep_head, 0], ch.upkeep[ch.upkeep_head, 1]
    if command == REF:
        for other in range(bank, bank + (1 << p.half_shift)):
            if ch.awaited[other] > 0:
                return INFINITY  # until that request had its row
            if ch.open_row[other] >= 0:
                command = PREA
        when = earliest_wide(ch, p, command, bank)
    else:
        if ch.awaited[bank] > 0:
            return INFINITY
        if ch.open_row[bank] >= 0:
            command = PRE
        when = earliest(ch, p, command, bank)
    when = on_edge(p, command, max(tick, when))
    if when == tick:
        issue(ch, p, board, tick, command, bank, -1, -1)
        if command in (REF, REFpb):
            ch.upkeep_head = (ch.upkeep_head + 1) & (MAX_MAINTENANCE - 1)
            ch.upkeep_len -= 1
    return int(when)


@njit(cache=True)
def step(ch: Any, p: Any, board: Any, tick: int) -> int:
    """Process ``tick``: refresh, a column command, a row command.

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
    Ramulator 2.1's HBM controllers.
    """
    changed = fall_due(ch, p, tick)
    column = column_of_active(ch, p, board, tick)
    if ch.upkeep_len > 0:
        row = upkeep(ch, p, board, tick)
        if changed or row == tick or ch.handed >= 0:
            return tick + 1
        return int(max(min(min(ch.active_next, row), ch.due), tick + 1))
    serve_in_turn(ch, p)
    if column > tick and p.auto_precharge == 0:
        _column_of_queue(ch, p, board, tick)
        serve_in_turn(ch, p)
    elif p.auto_precharge == 1:  # a row that is open is for one request alone
        ch.column_next = INFINITY
    _row_of_queue(ch, p, board, tick)
    if changed or ch.handed >= 0 or _turn_around(ch, p):
        return tick + 1
    soonest = min(_column_bound(ch, p, tick + 1), _row_bound(ch, p, tick + 1))
    return int(max(min(min(soonest, ch.active_next), ch.due), tick + 1))
