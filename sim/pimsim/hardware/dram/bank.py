"""Banks and their request queues: what can go next, and what a command changes.

The policy is DRAMsim3's (command_queue.cc): in a bank's queue the first command that is ready
goes; a conflict at the head may close the row when no request hits it, or after ``row_hit_cap``
accesses. ``wake`` keeps, for each bank, a cycle before which none of its requests can go, and
``row_wake`` one before which it can neither open nor close a row: while the data bus is taken,
only those need a look. ``bank_next`` is a cycle before which no bank needs one.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import (
    B_HEAD,
    B_HIT_RD,
    B_HIT_WR,
    B_HITS,
    B_LEN,
    B_PIM_ROW,
    B_ROW,
    B_TAIL,
    INFINITY,
    Q_NEXT,
    Q_ROW,
    Q_SEQ,
    Q_WRITE,
    ROW_SLOTS,
    SEQ_MASK,
    STRIDE,
    WINDOW_SLOT,
)
from pimsim.hardware.dram.rules import BANK, BANK_GROUP, LEVELS, OTHER_RANKS, RANK, Command

__all__ = [
    "apply_rules",
    "apply_silent_precharge",
    "bank_candidate",
    "close_row",
    "column_bound",
    "complete",
    "count_open",
    "earliest",
    "log_command",
    "open_row",
    "rank_opens",
    "reset_wake",
    "unlink",
]

ACT, PRE, RD, WR = (int(c) for c in (Command.ACT, Command.PRE, Command.RD, Command.WR))
PIM_PRE = int(Command.PIM_PRE)


@njit(cache=True, inline="always")
def earliest(ch: Any, p: Any, command: int, bank: int) -> int:
    """First cycle at which ``command`` may go to ``bank``, under the rules of every level.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    command
        A ``Command``.
    bank
        Counted over the ranks of the channel.

    Returns
    -------
    int
        Cycle, at any distance in the past if nothing bars the command.
    """
    rank = bank >> p.rank_shift
    group = p.group_node + (bank >> p.group_shift)
    shared = max(ch.ready[command], ch.ready[(1 + rank) * STRIDE + command])
    own = ch.ready[(p.bank_node + bank) * STRIDE + command]
    return int(max(shared, ch.ready[group * STRIDE + command], own))


@njit(cache=True)
def apply_rules(ch: Any, p: Any, cycle: int, command: int, bank: int, n: int) -> None:
    """Bar what ``command`` at ``cycle`` bars, under the rules of every level and in windows.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        In which ``command`` goes.
    command
        A ``Command``.
    bank
        That it goes to, counted over the ranks of the channel.
    n
        Dot products of a composite command, which stretch its delays; 0 of any other.
    """
    rank = bank >> p.rank_shift
    for level in range(LEVELS):
        first, last = p.first[command, level], p.first[command, level + 1]
        if first == last:
            continue
        if level == OTHER_RANKS:
            for i in range(first, last):
                at = cycle + p.rules[i, 2] + p.rules[i, 3] * n
                for other in range(p.ranks):
                    slot = (1 + other) * STRIDE + p.rules[i, 1]
                    if other != rank and ch.ready[slot] < at:
                        ch.ready[slot] = at
            continue
        node = 0
        if level == BANK:
            node = p.bank_node + bank
        elif level == BANK_GROUP:
            node = p.group_node + (bank >> p.group_shift)
        elif level == RANK:
            node = 1 + rank
        for i in range(first, last):
            at = cycle + p.rules[i, 2] + p.rules[i, 3] * n
            slot = node * STRIDE + p.rules[i, 1]
            if ch.ready[slot] < at:
                ch.ready[slot] = at
    for w in range(p.n_windows):
        adds = p.window_adds[w, command]
        if adds == 0:
            continue
        # a ring of the last places taken, its write position in front; rows of a rule share it
        node = 1 + rank if p.windows[w, 3] == RANK else 0
        ring, length = p.windows[w, 4], p.windows[w, 1]
        base = (ring * p.ranks + max(node - 1, 0)) * WINDOW_SLOT
        if ring == w:
            place = ch.window[base]
            for _ in range(adds):
                ch.window[base + 1 + place] = cycle
                place = place + 1 if place + 1 < length else 0
            ch.window[base] = place
        # as many of the oldest places must be free as the command takes
        last = ch.window[base] + p.windows[w, 5] - 1
        if last >= length:
            last -= length
        at = ch.window[base + 1 + last] + p.windows[w, 2]
        slot = node * STRIDE + p.windows[w, 0]
        if ch.ready[slot] < at:
            ch.ready[slot] = at


@njit(cache=True, inline="always")
def apply_silent_precharge(ch: Any, p: Any, command: int, bank: int) -> None:
    """Bar what the PRE bars that ``bank`` needs none of, since ``command`` closes it.

    It counts from when a PRE could have been sent, which ACT and the access itself put off.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    command
        RDA or WRA, which has been applied as RD or WR.
    bank
        That it goes to, counted over the ranks of the channel.

    References
    ----------
    JEDEC RDA and WRA: tRAS and tRTP or tWR hold the precharge inside the bank back.
    """
    at = ch.ready[(p.bank_node + bank) * STRIDE + PRE]
    apply_rules(ch, p, at, command, bank, 0)


@njit(cache=True, inline="always")
def complete(board: Any, number: int, done: int) -> None:
    """One of the things that ticket ``number`` waits for came at ``done``.

    Parameters
    ----------
    board
        A record of ``BOARD``; changed.
    number
        Row of ``BOARD.ticket``.
    done
        Cycle at which it came; the ticket keeps the latest.
    """
    board.ticket[number, 0] -= 1
    if board.ticket[number, 1] < done:
        board.ticket[number, 1] = done


@njit(cache=True, inline="always")
def log_command(
    ch: Any, board: Any, cycle: int, command: int, bank: int, row: int, burst: int = -1
) -> None:  # fmt: skip
    """Write a command to the log, if one is kept and has room.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    board
        A record of ``BOARD``; changed.
    cycle
        In which it goes.
    command
        A ``Command``.
    bank
        Counted over the ranks of the channel.
    row
        -1 where the command has none.
    burst
        Within the channel, of the request behind it; -1 if that is not known.
    """
    if board.log_limit > 0:
        at = board.logged
        if at < board.log_limit:
            board.log[at, 0] = cycle
            board.log[at, 1] = ch.index
            board.log[at, 2] = command
            board.log[at, 3] = bank
            board.log[at, 4] = row
            board.log_burst[at] = burst
        board.logged = at + 1


@njit(cache=True)
def reset_wake(ch: Any, p: Any, bank: int, cycle: int) -> None:
    """After a change of the bank's row or queue: when it can go, from the next cycle on.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    bank
        Counted over the ranks of the channel.
    cycle
        Now, cycles of the memory's tCK.
    """
    when, row_when = INFINITY, INFINITY
    if ch.bank[bank, B_LEN] > 0:
        when, _, _, row_when = bank_candidate(ch, p, bank, cycle + 1, True, True)
        if when == INFINITY:  # until PIM closes the row, which wakes nobody
            when = row_when = cycle + 1
    elif p.closed_page == 1 and ch.bank[bank, B_ROW] >= 0:  # a row to close
        when = row_when = cycle + 1
    ch.wake[bank] = max(when, cycle + 1)
    ch.row_wake[bank] = max(row_when, cycle + 1)
    ch.bank_next = min(ch.bank_next, ch.wake[bank])


@njit(cache=True)
def count_open(ch: Any, p: Any, cycle: int, bank: int, change: int) -> None:
    """Keep the number of open row buffers of the rank and the cycles with any open.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        Now, cycles of the memory's tCK.
    bank
        Counted over the ranks of the channel.
    change
        Row buffers that open: 1, or -1 where one closes.
    """
    rank = bank >> p.rank_shift
    before = ch.rank[rank, 0]
    ch.rank[rank, 0] = before + change
    if before == 0:
        ch.rank[rank, 1] = cycle
    elif before + change == 0:
        ch.rank[rank, 2] += cycle - ch.rank[rank, 1]


@njit(cache=True, inline="always")
def _next_hit(ch: Any, bank: int, entry: int, row: int, write: int) -> int:
    """First request for ``row`` of that kind from ``entry`` on in the bank's queue, or -1."""
    if ch.rows_queued[bank, write, row & (ROW_SLOTS - 1)] == 0:
        return -1
    while entry >= 0 and (ch.request[entry, Q_ROW] != row or ch.request[entry, Q_WRITE] != write):
        entry = ch.request[entry, Q_NEXT]
    return entry


@njit(cache=True)
def _put_off_opening(ch: Any, p: Any, rank: int) -> None:
    """An ACT went to ``rank``: none of its closed banks opens a row before it takes another."""
    opens = rank_opens(ch, rank)
    for bank in range(p.banks):
        held = opens if (bank >> p.rank_shift) == rank else 0
        ch.wake[bank] = max(ch.wake[bank], held * ch.closed[bank])
    for bank in range(p.banks):
        held = opens if (bank >> p.rank_shift) == rank else 0
        ch.row_wake[bank] = max(ch.row_wake[bank], held * ch.closed[bank])


@njit(cache=True)
def open_row(
    ch: Any, p: Any, cycle: int, bank: int, row: int, buffer: int
) -> None:  # fmt: skip
    """``row`` is now in a row buffer of ``bank``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        In which the ACT or G_ACT went.
    bank
        Counted over the ranks of the channel.
    row
        Now open.
    buffer
        0: normal row buffer, 1: PIM's.
    """
    count_open(ch, p, cycle, bank, 1)
    ch.bank[bank, B_ROW + buffer] = row
    if buffer == 1:
        return
    ch.closed[bank] = 0
    _put_off_opening(ch, p, bank >> p.rank_shift)
    ch.bank[bank, B_HITS] = 0
    head = ch.bank[bank, B_HEAD]
    ch.bank[bank, B_HIT_RD] = _next_hit(ch, bank, head, row, 0)
    ch.bank[bank, B_HIT_WR] = _next_hit(ch, bank, head, row, 1)
    reset_wake(ch, p, bank, cycle)


@njit(cache=True)
def close_row(ch: Any, p: Any, cycle: int, bank: int, buffer: int) -> None:
    """Row buffer ``buffer`` of ``bank`` is closed.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        In which the PRE went.
    bank
        Counted over the ranks of the channel.
    buffer
        0: normal row buffer, 1: PIM's.
    """
    count_open(ch, p, cycle, bank, -1)
    ch.bank[bank, B_ROW + buffer] = -1
    if buffer == 0:
        ch.closed[bank] = 1
        ch.bank[bank, B_HITS] = 0
        ch.bank[bank, B_HIT_RD] = -1
        ch.bank[bank, B_HIT_WR] = -1
    reset_wake(ch, p, bank, cycle)


@njit(cache=True, inline="always")
def unlink(ch: Any, p: Any, bank: int, entry: int, cycle: int) -> None:
    """Take ``entry``, a row hit that goes now, out of its bank's queue; find the next hit.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    bank
        Counted over the ranks of the channel.
    entry
        Of the request in the channel's pool.
    cycle
        In which its RD or WR goes.
    """
    row, is_write = ch.request[entry, Q_ROW], ch.request[entry, Q_WRITE]
    after = ch.request[entry, Q_NEXT]
    head = ch.bank[bank, B_HEAD]
    if head == entry:
        ch.bank[bank, B_HEAD] = after
        if after < 0:
            ch.bank[bank, B_TAIL] = -1
    else:
        while ch.request[head, Q_NEXT] != entry:
            head = ch.request[head, Q_NEXT]
        ch.request[head, Q_NEXT] = after
        if after < 0:
            ch.bank[bank, B_TAIL] = head
    ch.rows_queued[bank, is_write, row & (ROW_SLOTS - 1)] -= 1
    ch.bank[bank, B_HIT_RD + is_write] = _next_hit(ch, bank, after, row, is_write)
    left = ch.bank[bank, B_LEN] - 1
    ch.bank[bank, B_LEN] = left
    reset_wake(ch, p, bank, cycle)


@njit(cache=True, inline="always")
def rank_opens(ch: Any, rank: int) -> int:
    """First cycle at which ``rank`` takes an ACT, whatever the bank.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    rank
        Of the channel.

    Returns
    -------
    int
        Cycle, under the rules of the channel and of the rank.
    """
    return int(max(ch.ready[ACT], ch.ready[(1 + rank) * STRIDE + ACT]))


@njit(cache=True, inline="always")
def column_bound(ch: Any, p: Any, rank: int) -> int:
    """First cycle at which the data bus lets any column command go to ``rank``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    rank
        Of the channel.

    Returns
    -------
    int
        Cycle; the rules of bank groups and banks may bar a command for longer.
    """
    node = (1 + rank) * STRIDE
    of_rank = min(ch.ready[node + RD], ch.ready[node + WR])
    return int(max(of_rank, min(ch.ready[RD], ch.ready[WR])))


@njit(cache=True)
def bank_candidate(
    ch: Any, p: Any, bank: int, cycle: int, may_open: bool, may_close: bool
) -> tuple[int, int, int, int]:
    """What ``bank`` does next: at ``cycle`` if it can, else later. Of an idle bank only the closed
    page policy asks.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    bank
        Counted over the ranks of the channel.
    cycle
        Now, cycles of the memory's tCK.
    may_open, may_close
        False while the time left before PIM's next refresh does not allow an ACT or a PRE.

    Returns
    -------
    (int, int, int, int)
        Cycle; command; entry of the request that it serves, -1 of an idle bank; and the cycle at
        which the bank can open or close its row. ``INFINITY``: not before something else changes.

    References
    ----------
    DRAMsim3 command_queue.cc.
    """
    head = ch.bank[bank, B_HEAD]
    row = ch.bank[bank, B_ROW]
    if row < 0:
        when, command = INFINITY, ACT
        # one row never sits in both buffers; PIM's own commands close it, else nobody would
        if p.row_buffers == 2 and ch.bank[bank, B_PIM_ROW] == ch.request[head, Q_ROW]:
            command = PIM_PRE
            if ch.pim_head == ch.pim_end:
                when = earliest(ch, p, PIM_PRE, bank)
        elif may_open:
            when = earliest(ch, p, ACT, bank)
        return when, command, head, when
    read, write = ch.bank[bank, B_HIT_RD], ch.bank[bank, B_HIT_WR]
    when, command, entry = INFINITY, PRE, head
    if may_close and (head < 0 or ch.request[head, Q_ROW] != row):
        hits = read >= 0 or write >= 0
        if not hits or ch.bank[bank, B_HITS] >= p.hit_cap:
            when = earliest(ch, p, PRE, bank)
            if when <= cycle:
                return when, PRE, head, when
    row_when = when
    if read >= 0:
        at = earliest(ch, p, RD, bank)
        if at < when:
            when, command, entry = at, RD, read
    if write >= 0:
        at = earliest(ch, p, WR, bank)
        behind = (ch.request[write, Q_SEQ] - ch.request[read, Q_SEQ]) & SEQ_MASK
        older = read < 0 or behind > SEQ_MASK // 2
        if (at <= cycle and (when > cycle or older)) or (when > cycle and at < when):
            when, command, entry = at, WR, write
    return when, command, entry, row_when
