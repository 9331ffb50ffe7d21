"""One channel, event by event: refresh, PIM queue, bank queues, write drain, streams.

``run_channel`` jumps from cycle to cycle at which something can happen; within a cycle the order
is DRAMsim3's: requests come in, refresh falls due, commands go out, a request moves to its bank.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from pimsim.hardware.dram.bank import (
    apply_rules,
    bank_candidate,
    close_row,
    column_bound,
    complete,
    earliest,
    log_command,
    open_row,
    unlink,
)
from pimsim.hardware.dram.layout import (
    B_HITS,
    B_PIM_ROW,
    B_ROW,
    C_BUS_BUSY,
    C_COMMANDS,
    C_READ_LATENCY,
    C_READS,
    C_ROW_HITS,
    D_ARRIVAL,
    D_MERGED,
    F_BANK,
    F_GROUP,
    F_RANK,
    F_ROW,
    INFINITY,
    MAX_PIM_WRITES,
    P_READY,
    Q_BLOCK,
    Q_GROUP,
    Q_ROW,
    S_BLOCK,
    S_BLOCK_SHIFT,
    S_COMMON,
    S_COMMONS,
    S_COUNT,
    S_FIRST,
    S_GROUP,
    S_LAG,
    S_LANE,
    S_LISTED,
    S_READY,
    S_STRIDE,
    S_WAIT,
    S_WAITS,
    S_WRITE,
    STRIDE,
)
from pimsim.hardware.dram.pim_queue import GWRITE_BANK, pim_forget, pim_issue, pim_poll
from pimsim.hardware.dram.queues import admit, free_request, move_to_bank, start_drain
from pimsim.hardware.dram.rules import Command

__all__ = ["controller_cycle", "feed", "next_cycle", "run_channel"]

ACT, PRE, RD, WR = (int(c) for c in (Command.ACT, Command.PRE, Command.RD, Command.WR))
REF, PIM_PRE = int(Command.REF), int(Command.PIM_PRE)
PIM_QUEUE = 128
"""Depth of the single-row-buffer design's PIM command queue (the artifact's)."""


@njit(cache=True)
def _issue(
    ch: Any, p: Any, board: Any, cycle: int, command: int, bank: int,
    entry: int,
) -> None:  # fmt: skip
    """Issue a command of a bank queue."""
    ch.counter[C_COMMANDS + command] += 1
    ch.last_cmd = cycle
    log_command(ch, board, cycle, command, bank, ch.request[entry, Q_ROW])
    apply_rules(ch, p, cycle, command, bank, 0)
    if p.row_buffers == 1:
        pim_forget(ch)
    if command == ACT:
        open_row(ch, p, cycle, bank, ch.request[entry, Q_ROW], 0)
        return
    if command == PRE:
        close_row(ch, p, cycle, bank, 0)
        return
    hits = ch.bank[bank, B_HITS]
    if hits > 0:
        ch.counter[C_ROW_HITS] += 1
    ch.bank[bank, B_HITS] = hits + 1
    ch.counter[C_BUS_BUSY] += p.nbl
    unlink(ch, p, bank, entry, cycle)
    if command == RD:
        done = cycle + p.read_delay
        if p.merge == 1:
            answered = 1 + ch.detail[entry, D_MERGED]
            ch.counter[C_READS] += answered
            ch.counter[C_READ_LATENCY] += answered * done - ch.detail[entry, D_ARRIVAL]
        ch.last_done = max(ch.last_done, done)
        group = ch.request[entry, Q_GROUP]
        if group >= 0:
            complete(board, group, done)
            if ch.request[entry, Q_BLOCK] >= 0:
                complete(board, ch.request[entry, Q_BLOCK], done)
    free_request(ch, p, entry)


@njit(cache=True)
def _try_refresh(ch: Any, p: Any, board: Any, cycle: int) -> bool:
    """Bring the refresh that is due: close the rank's banks one by one, then REF."""
    rank = ch.ref_first
    ch.in_ref = 1
    first = rank << p.rank_shift
    last = (rank + 1) << p.rank_shift
    closed = True
    for bank in range(first, last):
        if ch.bank[bank, B_ROW] >= 0:
            command, buffer = PRE, 0
        elif p.row_buffers == 2 and ch.bank[bank, B_PIM_ROW] >= 0:
            command, buffer = PIM_PRE, 1
        else:
            continue
        closed = False
        if earliest(ch, p, command, bank) <= cycle:
            ch.counter[C_COMMANDS + command] += 1
            log_command(ch, board, cycle, command, bank, -1)
            apply_rules(ch, p, cycle, command, bank, 0)
            close_row(ch, p, cycle, bank, buffer)
            pim_forget(ch)
            return True
    if not closed:
        return False
    for bank in range(first, last):
        if earliest(ch, p, REF, bank) > cycle:
            return False
    ch.counter[C_COMMANDS + REF] += 1
    log_command(ch, board, cycle, REF, first, -1)
    apply_rules(ch, p, cycle, REF, first, 0)
    ch.in_ref = 0
    ch.ref_pending -= 1
    ch.ref_first = (rank + 1) % p.ranks
    ch.pim_refreshed = 1
    ch.pim_skip = 0
    ch.pim_slack = 0
    ch.pim_next = 0
    return True


@njit(cache=True)
def _banks_blocked(ch: Any, p: Any) -> bool:
    """PIM keeps normal commands off the command bus."""
    waiting = ch.pim_avail - ch.pim_head
    if ch.pim_skip == 1:
        return False
    if p.row_buffers == 2:
        return bool(waiting > 0 and ch.in_ref == 0 and ch.pim_slack < p.slack)
    return bool(ch.pim_mode == 1)


@njit(cache=True)
def _scan(ch: Any, p: Any, board: Any, cycle: int, paired: int, steps: int) -> tuple[int, int]:
    """Issue the first command that is ready, banks in turn.

    Returns its kind (1 a column command, 0 a row command, -1 none) and how many of the next
    ``steps`` banks were not looked at. ``paired``: the kind that already went this cycle, or
    -1; a second command must be of the other kind.
    """
    mask = p.banks - 1
    turn = ch.turn
    frozen = ch.ref_first if ch.in_ref == 1 else -1
    # beside waiting PIM commands a row may only be opened or closed if the refresh is far enough
    limited = p.has_pim == 1 and ch.pim_slack > 0 and ch.pim_avail > ch.pim_head
    may_open = not limited or ch.pim_slack > p.trcdwr
    may_close = not limited or ch.pim_slack > p.trp + p.trcdwr
    open_ranks = 0
    for rank in range(p.ranks):
        if column_bound(ch, p, rank) <= cycle:
            open_ranks |= 1 << rank
    if open_ranks == 0:
        soonest = INFINITY
        for bank in range(p.banks):
            soonest = min(soonest, ch.row_wake[bank])
        if soonest > cycle:
            return -1, 0
    for step in range(1, steps + 1):
        bank = (turn + step) & mask
        # a rank that the data bus shuts out can only open and close rows
        shut = (open_ranks >> (bank >> p.rank_shift)) & 1 == 0
        if (ch.row_wake[bank] if shut else ch.wake[bank]) > cycle:
            continue
        if bank >> p.rank_shift == frozen or (ch.pim_gwriting == 1 and bank == GWRITE_BANK):
            continue
        if ch.bank[bank, B_ROW] < 0:
            opens = max(ch.ready[ACT], ch.ready[(1 + (bank >> p.rank_shift)) * STRIDE + ACT])
            if opens > cycle:  # the rank takes no ACT yet, whatever the bank says
                ch.wake[bank] = opens
                ch.row_wake[bank] = opens
                continue
        when, command, entry, row_when = bank_candidate(ch, p, bank, cycle, may_open, may_close)
        if when > cycle:
            if may_open and may_close:
                ch.wake[bank] = when
                ch.row_wake[bank] = row_when
            continue
        ch.turn = bank
        column = 1 if command in (RD, WR) else 0
        if column != paired:
            if limited and command == ACT:
                ch.pim_slack -= p.trcdwr
            elif limited and command == PRE:
                ch.pim_slack -= p.trp
            _issue(ch, p, board, cycle, command, bank, entry)
            return column, steps - step
        return -1, 0
    return -1, 0


@njit(cache=True)
def _select(ch: Any, p: Any, board: Any, cycle: int) -> tuple[int, int]:
    """Issue this cycle's command: PIM first, then the bank queues. Answers as ``_scan``."""
    if p.has_pim == 1 and ch.pim_skip == 0:
        waiting = ch.pim_avail - ch.pim_head
        if p.row_buffers == 2:
            turn = waiting > 0 and ch.in_ref == 0
            alone = ch.pim_slack < p.slack
        else:
            # one row buffer: normal requests and PIM take turns, never together
            turn = ch.pim_mode == 1 or (waiting > 0 and ch.waiting == 0)
            alone = True
        if turn:
            if waiting > 0 and ch.in_ref == 0 and ch.pim_next <= cycle:
                command, bank = pim_poll(ch, p, board, cycle)
                if command >= 0:
                    pim_issue(ch, p, board, cycle, command, bank)
                    return 0, p.banks
                alone = p.row_buffers == 1 or ch.pim_slack < p.slack
            if alone:
                return -1, 0
    if ch.waiting == 0:
        return -1, 0
    return _scan(ch, p, board, cycle, -1, p.banks)


@njit(cache=True, inline="always")
def _drain_holds(ch: Any, draining: bool) -> bool:
    """Draining writes keep PIM instructions out, unless they wait for the tile under way."""
    return draining and not (ch.pim_mode == 1 and ch.movable[1] == 0)


@njit(cache=True)
def _transfer(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """Move one request to its bank, or one PIM instruction to the PIM command queue."""
    start_drain(ch, p)
    draining = ch.drain > 0
    if p.has_pim == 1:
        available = ch.pim_avail
        waiting = available - ch.pim_head
        offered = available < ch.pim_end and board.program[available, P_READY] <= cycle
        if p.row_buffers == 2:
            if offered and (
                not (draining and waiting >= 2)
                and (waiting < 2 or ch.queued[0] == 0)
                and waiting < PIM_QUEUE
            ):
                ch.pim_avail += 1
                if waiting == 0:
                    ch.pim_next = cycle + 1
                return
        elif offered and waiting < PIM_QUEUE and not _drain_holds(ch, draining):
            ch.pim_avail += 1
            if waiting == 0:
                ch.pim_next = cycle + 1
            return
        elif waiting > 0:
            return
    if draining:
        if ch.movable[1] > 0 and move_to_bank(ch, p, cycle, 1) and ch.movable[0] > 0:
            move_to_bank(ch, p, cycle, 0)
    elif ch.movable[0] > 0:
        move_to_bank(ch, p, cycle, 0)


@njit(cache=True)
def controller_cycle(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """What the controller does in one cycle."""
    if cycle >= ch.ref_due:
        if ch.ref_pending == 0:
            ch.ref_first = ch.ref_rank
        ch.ref_pending += 1
        ch.ref_rank = (ch.ref_rank + 1) % p.ranks
        ch.ref_due += p.ref_interval
    if ch.pim_gwriting == 1 and cycle >= ch.pim_gwrite_done:
        ch.pim_gwriting = 0
    if ch.ref_pending > 0 and _try_refresh(ch, p, board, cycle):
        kind, unseen = 0, p.banks
    else:
        kind, unseen = _select(ch, p, board, cycle)
    if kind >= 0 and p.dual_command == 1 and ch.waiting > 0:
        # what was not ready before the first command is not ready after it
        _scan(ch, p, board, cycle, kind, unseen)
    _transfer(ch, p, board, cycle)


@njit(cache=True)
def _refresh_next(ch: Any, p: Any) -> int:
    """Next cycle at which the refresh under way can go on."""
    rank = ch.ref_first
    first = rank << p.rank_shift
    last = (rank + 1) << p.rank_shift
    when, closed = INFINITY, True
    for bank in range(first, last):
        if ch.bank[bank, B_ROW] >= 0:
            when = min(when, earliest(ch, p, PRE, bank))
            closed = False
        elif p.row_buffers == 2 and ch.bank[bank, B_PIM_ROW] >= 0:
            when = min(when, earliest(ch, p, PIM_PRE, bank))
            closed = False
    if closed:
        when = 0
        for bank in range(first, last):
            when = max(when, earliest(ch, p, REF, bank))
    return int(when)


@njit(cache=True)
def next_cycle(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """First cycle after ``cycle`` at which this channel can do anything by itself."""
    after = cycle + 1
    draining = ch.drain > 0
    has_pim = p.has_pim == 1
    waiting = ch.pim_avail - ch.pim_head
    dual = p.row_buffers == 2
    if not has_pim or dual or waiting == 0:
        if draining:
            if ch.movable[1] > 0:
                return after
        elif ch.movable[0] > 0:
            return after
    when = ch.ref_due
    blocked = False
    frozen = -1
    if ch.in_ref == 1 or ch.ref_pending > 0:
        when = min(when, _refresh_next(ch, p))
        frozen = ch.ref_first
    if has_pim:
        available = ch.pim_avail
        if available < ch.pim_end:
            room = waiting < 2 or (dual and ch.queued[0] == 0)
            held = not dual and _drain_holds(ch, draining)
            if (room or not dual) and waiting < PIM_QUEUE and not held:
                when = min(when, board.program[available, P_READY])
        blocked = _banks_blocked(ch, p)
        turn = dual or ch.waiting == 0 or ch.pim_mode == 1
        if turn and waiting > 0 and frozen < 0 and ch.pim_skip == 0:
            when = min(when, ch.pim_next)
        if ch.pim_gwriting == 1:
            when = min(when, ch.pim_gwrite_done)
    if not blocked and ch.waiting > 0:
        columns = INFINITY
        for rank in range(p.ranks):
            columns = min(columns, column_bound(ch, p, rank))
        soonest, row_soonest = INFINITY, INFINITY
        if frozen < 0 and ch.pim_gwriting == 0:
            for bank in range(p.banks):
                soonest = min(soonest, ch.wake[bank])
            for bank in range(p.banks):
                row_soonest = min(row_soonest, ch.row_wake[bank])
        else:
            for bank in range(p.banks):
                held = ch.pim_gwriting == 1 and bank == GWRITE_BANK
                if not held and bank >> p.rank_shift != frozen:
                    soonest = min(soonest, ch.wake[bank])
                    row_soonest = min(row_soonest, ch.row_wake[bank])
        when = min(when, min(row_soonest, max(soonest, columns)))
    return int(max(when, after))


@njit(cache=True)
def _field(p: Any, at: int, burst: int) -> int:
    """Field ``at`` of a channel's own burst index."""
    return int((burst >> p.field[at, 0]) & ((1 << p.field[at, 1]) - 1))


@njit(cache=True)
def _take(
    ch: Any, p: Any, cycle: int, write: int, burst: int, group: int, block: int
) -> None:  # fmt: skip
    """Admit the request for ``burst``, counted within the channel."""
    bank = _field(p, F_RANK, burst) << p.rank_shift
    bank += (_field(p, F_GROUP, burst) << p.group_shift) + _field(p, F_BANK, burst)
    admit(ch, p, cycle, write, bank, _field(p, F_ROW, burst), group, block, burst)


@njit(cache=True, inline="always")
def _has_room(ch: Any, p: Any, write: int) -> bool:
    """Whether the channel takes another request of that kind."""
    if write == 1:
        return bool(ch.queued[1] < p.write_depth)
    return bool(ch.queued[0] < p.read_depth and ch.queued[0] + ch.waiting < p.in_flight)


@njit(cache=True)
def segment_ready(board: Any, at: int) -> int:
    """Cycle from which the segment may be taken; never, as long as a ticket that it waits for
    is open."""
    when = board.segment[at, S_READY]
    if board.segment[at, S_WAIT] > 0:
        lag = board.segment[at, S_LAG]
        for first, count in ((S_WAIT, S_WAITS), (S_COMMON, S_COMMONS)):
            ticket = board.segment[at, first] - 1
            for number in range(ticket, ticket + board.segment[at, count]):
                if board.ticket[number, 0] > 0:
                    return INFINITY
                when = max(when, board.ticket[number, 1] + lag)
    return int(when)


@njit(cache=True)
def feed(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """Take this cycle's request from the streams, and one of PIM's writes."""
    at = ch.seg
    if at < ch.seg_end:
        write = board.segment[at, S_WRITE]
        if _has_room(ch, p, write) and segment_ready(board, at) <= cycle:
            position = ch.seg_pos
            burst = board.segment[at, S_FIRST] + position * board.segment[at, S_STRIDE]
            block = board.segment[at, S_BLOCK]
            listed = board.segment[at, S_LISTED]
            if listed > 0:
                burst = board.listed[listed - 1 + position, 0]
                if block >= 0:
                    block += board.listed[listed - 1 + position, 1]
            elif block >= 0:
                whole = (position << p.channel_width) + board.segment[at, S_LANE]
                block += whole >> board.segment[at, S_BLOCK_SHIFT]
            group = board.segment[at, S_GROUP]
            _take(ch, p, cycle, write, burst, group, block)
            if write == 1:
                complete(board, group, cycle + 1)
            position += 1
            if position == board.segment[at, S_COUNT]:
                ch.seg = at + 1
                position = 0
            ch.seg_pos = position
    if ch.pw_len > 0 and ch.pw[ch.pw_head, 0] <= cycle and ch.queued[1] < p.write_depth:
        ch.pw_len -= 1
        ch.pw[ch.pw_head, 1] -= 1
        if ch.pw[ch.pw_head, 1] == 0:
            ch.pw_head = (ch.pw_head + 1) & (MAX_PIM_WRITES - 1)
            ch.pw_used -= 1
        _take(ch, p, cycle, 1, ch.pw_burst, -1, -1)
        ch.pw_burst += 1


@njit(cache=True, inline="always")
def _feed_next(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """Next cycle at which ``feed`` has something to take and room for it."""
    soonest = INFINITY
    if ch.pw_len > 0 and ch.queued[1] < p.write_depth:
        soonest = max(cycle + 1, ch.pw[ch.pw_head, 0])
    at = ch.seg
    if at >= ch.seg_end:
        return soonest
    if not _has_room(ch, p, board.segment[at, S_WRITE]):
        return soonest
    return int(min(soonest, max(cycle + 1, segment_ready(board, at))))


@njit(cache=True)
def run_channel(ch: Any, p: Any, board: Any, until: int) -> None:
    """Simulate channel ``ch`` up to, not including, cycle ``until``."""
    cycle = ch.now
    while cycle < until:
        for _ in range(p.feed):
            feed(ch, p, board, cycle)
        controller_cycle(ch, p, board, cycle)
        again = _feed_next(ch, p, board, cycle)
        if again > cycle + 1:
            again = min(again, next_cycle(ch, p, board, cycle))
        cycle = again
    ch.now = cycle
