"""One channel, tick by tick but only at ticks that matter: refresh, columns, rows.

The policy is that of Ramulator 2.1's HBM controllers. In a tick first the column pins, then the
row pins take a command. Column commands of requests whose row was opened for them go first, then
maintenance, of which only the oldest counts, and while none waits the oldest request of the read
or of the write queue whose next command is ready (FR-FCFS); no PRE closes a row that was opened
for a request which has not had it. ``step`` returns the next tick at which anything can happen.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from pimsim.hardware.dram.bank import count_open
from pimsim.hardware.dram.channel_queues.layout import (
    ALL_BANK,
    C_BUS_BUSY,
    C_COMMANDS,
    C_CONFLICTS,
    C_HITS,
    C_MISSES,
    C_READ_LATENCY,
    C_READS,
    INFINITY,
    MAX_MAINTENANCE,
    N_REQUEST,
    PER_BANK,
    R_ARRIVAL,
    R_BANK,
    R_BLOCK,
    R_COUNTED,
    R_GROUP,
    R_KEY,
    R_ROW,
    R_WRITE,
)
from pimsim.hardware.dram.channel_queues.timing import (
    apply_rules,
    earliest,
    earliest_wide,
    on_edge,
)
from pimsim.hardware.dram.rules import Command

__all__ = ["admit", "step"]

ACT, PRE, RD, WR = (int(c) for c in (Command.ACT, Command.PRE, Command.RD, Command.WR))
PREA, REF, REFpb = int(Command.PREA), int(Command.REF), int(Command.REFpb)


@njit(cache=True)
def admit(ch: Any, tick: int, write: int, bank: int, row: int, key: int) -> None:
    """Take a request in. A read of a buffered write is answered from it in this tick, a write
    to the burst of a buffered one takes its place."""
    for at in range(ch.queued[1]):
        if ch.queue[1, at, R_KEY] == key:
            ch.last_done = max(ch.last_done, tick - write)
            if write == 0:
                ch.counter[C_READS] += 1
                ch.counter[C_READ_LATENCY] += 1
            return
    at = ch.queued[write]
    ch.queue[write, at, R_BANK] = bank
    ch.queue[write, at, R_ROW] = row
    ch.queue[write, at, R_ARRIVAL] = tick - 1
    ch.queue[write, at, R_WRITE] = write
    ch.queue[write, at, R_COUNTED] = 0
    ch.queue[write, at, R_KEY] = key
    ch.queue[write, at, R_GROUP] = -1
    ch.queue[write, at, R_BLOCK] = -1
    ch.queued[write] = at + 1


@njit(cache=True, inline="always")
def _remove(entries: Any, at: int, length: int) -> None:
    """Close the gap that entry ``at`` of ``length`` leaves."""
    for i in range(at, length - 1):
        for f in range(N_REQUEST):
            entries[i, f] = entries[i + 1, f]


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
def _fall_due(ch: Any, p: Any, tick: int) -> bool:
    """Hand the refreshes that fall due over to maintenance; True if there are any."""
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
def _issue(
    ch: Any, p: Any, log: Any, head: Any, tick: int, command: int, bank: int, row: int,
    key: int,
) -> None:  # fmt: skip
    """``command`` goes out: what it bars, and the rows that it opens or closes."""
    apply_rules(ch, p, tick, command, bank)
    ch.counter[C_COMMANDS + command] += 1
    if head.limit > 0:
        at = head.logged
        if at < head.limit:
            log[at, 0] = tick
            log[at, 1] = ch.index
            log[at, 2] = command
            log[at, 3] = bank
            log[at, 4] = row
            log[at, 5] = key
        head.logged = at + 1
    if command == ACT:
        ch.open_row[bank] = row
        count_open(ch, p, tick, bank, 1)
    elif command == PRE:
        ch.open_row[bank] = -1
        count_open(ch, p, tick, bank, -1)
    elif command == PREA:
        for other in range(bank, bank + (1 << p.half_shift)):
            if ch.open_row[other] >= 0:
                ch.open_row[other] = -1
                count_open(ch, p, tick, other, -1)


@njit(cache=True, inline="always")
def _count(ch: Any, entries: Any, at: int, counter: int) -> None:
    """A request's first command tells whether it hit, missed or met another row."""
    if entries[at, R_COUNTED] == 0:
        entries[at, R_COUNTED] = 1
        ch.counter[counter] += 1


@njit(cache=True)
def _answer(ch: Any, p: Any, tick: int, write: int, entry: Any) -> None:
    """A column command went out: a write is done, a read when its data came."""
    done = tick
    ch.counter[C_BUS_BUSY] += p.nbl
    if write == 0:
        done += p.read_delay
        ch.counter[C_READS] += 1
        ch.counter[C_READ_LATENCY] += done - entry[R_ARRIVAL]
    ch.last_done = max(ch.last_done, done)
    ch.answered[0] = entry[R_GROUP]
    ch.answered[1] = entry[R_BLOCK]
    ch.answered[2] = done


@njit(cache=True)
def _turn_around(ch: Any, p: Any) -> None:
    """Serve writes from the high mark on or when no read waits, until below the low mark."""
    if ch.writing == 0:
        if ch.queued[1] >= p.drain_at or ch.queued[0] == 0:
            ch.writing = 1
    elif ch.queued[1] < p.drain_low and ch.queued[0] > 0:
        ch.writing = 0


@njit(cache=True)
def _column_of_active(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """The oldest request whose row was opened for it and is ready; its tick, or when one is."""
    when, found, oldest = INFINITY, -1, INFINITY
    for i in range(ch.active_len):
        command = RD + ch.active[i, R_WRITE]
        at = on_edge(p, command, max(tick, earliest(ch, p, command, ch.active[i, R_BANK])))
        when = min(when, at)
        if at == tick and ch.active[i, R_ARRIVAL] < oldest:
            found, oldest = i, ch.active[i, R_ARRIVAL]
    if found >= 0:
        write, bank = ch.active[found, R_WRITE], ch.active[found, R_BANK]
        row, key = ch.active[found, R_ROW], ch.active[found, R_KEY]
        _issue(ch, p, log, head, tick, RD + write, bank, row, key)
        _answer(ch, p, tick, write, ch.active[found])
        ch.awaited[bank] -= 1
        _remove(ch.active, found, ch.active_len)
        ch.active_len -= 1
    return int(when)


@njit(cache=True)
def _column_of_queue(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """The oldest request of the queue in turn that hits an open row and is ready."""
    kind = ch.writing
    command = RD + kind
    when = on_edge(p, command, max(tick, ch.ready[command]))
    if when > tick:
        return int(when)
    when = INFINITY
    for i in range(ch.queued[kind]):
        bank = ch.queue[kind, i, R_BANK]
        if ch.open_row[bank] != ch.queue[kind, i, R_ROW]:
            continue
        at = max(tick, earliest(ch, p, command, bank))
        if at > tick:
            when = min(when, at)
            continue
        _count(ch, ch.queue[kind], i, C_HITS)
        key = ch.queue[kind, i, R_KEY]
        _issue(ch, p, log, head, tick, command, bank, ch.open_row[bank], key)
        _answer(ch, p, tick, kind, ch.queue[kind, i])
        _remove(ch.queue[kind], i, ch.queued[kind])
        ch.queued[kind] -= 1
        return tick
    return int(when if when == INFINITY else on_edge(p, command, when))


@njit(cache=True)
def _row_of_queue(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """The oldest request of the queue in turn whose ACT or PRE is ready."""
    kind = ch.writing
    opens = on_edge(p, ACT, max(tick, ch.ready[ACT]))
    closes = on_edge(p, PRE, max(tick, ch.ready[PRE]))
    if opens > tick and closes > tick:
        return int(min(opens, closes))
    when = INFINITY
    for i in range(ch.queued[kind]):
        bank, row = ch.queue[kind, i, R_BANK], ch.queue[kind, i, R_ROW]
        held = ch.open_row[bank]
        if held == row or (held >= 0 and ch.awaited[bank] > 0):
            continue
        command = ACT if held < 0 else PRE
        at = on_edge(p, command, max(tick, earliest(ch, p, command, bank)))
        if at > tick:
            when = min(when, at)
            continue
        _count(ch, ch.queue[kind], i, C_MISSES if held < 0 else C_CONFLICTS)
        key = ch.queue[kind, i, R_KEY]
        _issue(ch, p, log, head, tick, command, bank, row if held < 0 else -1, key)
        if held < 0:
            for f in range(N_REQUEST):
                ch.active[ch.active_len, f] = ch.queue[kind, i, f]
            ch.active_len += 1
            ch.awaited[bank] += 1
            _remove(ch.queue[kind], i, ch.queued[kind])
            ch.queued[kind] -= 1
        return tick
    return int(when)


@njit(cache=True)
def _upkeep(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """The oldest refresh, or the precharge that it needs first."""
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
        _issue(ch, p, log, head, tick, command, bank, -1, -1)
        if command in (REF, REFpb):
            ch.upkeep_head = (ch.upkeep_head + 1) & (MAX_MAINTENANCE - 1)
            ch.upkeep_len -= 1
    return int(when)


@njit(cache=True)
def step(ch: Any, p: Any, log: Any, head: Any, tick: int) -> int:
    """Process ``tick``; the next one at which this channel can do anything by itself."""
    changed = _fall_due(ch, p, tick)
    column = INFINITY
    if ch.active_len > 0:
        column = _column_of_active(ch, p, log, head, tick)
    if column > tick and ch.upkeep_len == 0:
        _turn_around(ch, p)
        column = min(column, _column_of_queue(ch, p, log, head, tick))
    if ch.upkeep_len > 0:
        row = _upkeep(ch, p, log, head, tick)
    else:
        _turn_around(ch, p)
        row = _row_of_queue(ch, p, log, head, tick)
    if changed or column == tick or row == tick or ch.handed >= 0:
        return tick + 1
    return int(max(min(min(column, row), ch.due), tick + 1))
