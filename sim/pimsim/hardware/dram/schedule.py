"""Which request's command goes next: FR-FCFS over the bank queues, or FCFS over the channel."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import (
    apply_rules,
    apply_silent_precharge,
    bank_candidate,
    close_row,
    column_bound,
    complete,
    earliest,
    log_command,
    open_row,
    rank_opens,
    unlink,
)
from pimsim.hardware.dram.layout import (
    B_HEAD,
    B_HIT_RD,
    B_HIT_WR,
    B_HITS,
    B_PIM_ROW,
    B_ROW,
    C_BUS_BUSY,
    C_COMMANDS,
    C_READ_LATENCY,
    C_READS,
    C_ROW_HITS,
    D_ARRIVAL,
    D_KEY,
    D_MERGED,
    INFINITY,
    Q_BLOCK,
    Q_GROUP,
    Q_ROW,
    Q_SEQ,
    Q_WRITE,
    SEQ_MASK,
)
from pimsim.hardware.dram.pim_queue import GWRITE_BANK, pim_forget
from pimsim.hardware.dram.queues import free_request
from pimsim.hardware.dram.refresh import unit_banks
from pimsim.hardware.dram.rules import Command

__all__ = ["bank_work", "fcfs_next", "issue_next"]

ACT, PRE, RD, WR = (int(c) for c in (Command.ACT, Command.PRE, Command.RD, Command.WR))
PIM_PRE = int(Command.PIM_PRE)


@njit(cache=True, inline="always")
def bank_work(ch: Any, p: Any) -> bool:
    """Whether the bank queues may have something to issue: a request, or a row to close.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.

    Returns
    -------
    bool
        Under the closed page policy always True.
    """
    return bool(ch.waiting > 0 or p.closed_page == 1)


@njit(cache=True)
def _issue(
    ch: Any, p: Any, board: Any, cycle: int, command: int, bank: int,
    entry: int,
) -> None:  # fmt: skip
    """Issue a command for request ``entry`` of a bank queue; -1: for none, a PRE of an idle row."""
    ch.counter[C_COMMANDS + command] += 1
    ch.last_cmd = cycle
    row = ch.request[entry, Q_ROW] if entry >= 0 else -1
    burst = ch.detail[entry, D_KEY] if p.merge == 1 and entry >= 0 else -1
    sent = command + p.auto_precharge if command in (RD, WR) else command
    log_command(ch, board, cycle, sent, bank, row, burst)
    apply_rules(ch, p, cycle, command, bank, 0)
    if sent != command:
        apply_silent_precharge(ch, p, sent, bank)
    if p.row_buffers == 1:
        pim_forget(ch)
    if command == ACT:
        open_row(ch, p, cycle, bank, row, 0)
        return
    if command in (PRE, PIM_PRE):
        close_row(ch, p, cycle, bank, 1 if command == PIM_PRE else 0)
        return
    hits = ch.bank[bank, B_HITS]
    if hits > 0:
        ch.counter[C_ROW_HITS] += 1
    ch.bank[bank, B_HITS] = hits + 1
    ch.counter[C_BUS_BUSY] += p.tccd_s
    ch.bus_until = max(ch.bus_until, cycle) + p.tccd_s
    ch.ref_alone = 0
    unlink(ch, p, bank, entry, cycle)
    if p.auto_precharge > 0:
        close_row(ch, p, cycle, bank, 0)
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


@njit(cache=True, inline="always")
def _beside_pim(ch: Any, p: Any) -> tuple[bool, bool, bool]:
    """Whether PIM commands wait, and whether a row may be opened and closed beside them: only
    if the next refresh is far enough."""
    limited = p.has_pim == 1 and ch.pim_slack > 0 and ch.pim_avail > ch.pim_head
    may_open = not limited or ch.pim_slack > p.trcdwr
    may_close = not limited or ch.pim_slack > p.trp + p.trcdwr
    return limited, may_open, may_close


@njit(cache=True, inline="always")
def _spend_slack(ch: Any, p: Any, command: int) -> None:
    """An ACT or PRE beside PIM takes its time from what is left before the refresh."""
    if command == ACT:
        ch.pim_slack -= p.trcdwr
    elif command == PRE:
        ch.pim_slack -= p.trp


@njit(cache=True)
def _scan(ch: Any, p: Any, board: Any, cycle: int, paired: int, steps: int) -> tuple[int, int]:
    """FR-FCFS: issue the first command that is ready, banks in turn; as ``issue_next``."""
    if ch.bank_next > cycle:
        return -1, 0
    mask = p.banks - 1
    turn = ch.turn
    frozen, thawed = unit_banks(p, ch.ref_first) if ch.in_ref == 1 else (-1, -1)
    limited, may_open, may_close = _beside_pim(ch, p)
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
        if frozen <= bank < thawed or (ch.pim_gwriting == 1 and bank == GWRITE_BANK):
            continue
        if ch.bank[bank, B_ROW] < 0:
            opens = rank_opens(ch, bank >> p.rank_shift)
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
            if limited:
                _spend_slack(ch, p, command)
            _issue(ch, p, board, cycle, command, bank, entry)
            return column, steps - step
        return -1, 0
    return -1, 0


@njit(cache=True)
def _oldest(ch: Any, p: Any) -> int:
    """Bank whose head came to the banks first, -1 if none waits."""
    oldest, seq = -1, 0
    for bank in range(p.banks):
        head = ch.bank[bank, B_HEAD]
        if head < 0:
            continue
        own = ch.request[head, Q_SEQ]
        if oldest < 0 or ((own - seq) & SEQ_MASK) > SEQ_MASK // 2:
            oldest, seq = bank, own
    return oldest


@njit(cache=True)
def _fcfs_candidate(
    ch: Any, p: Any, cycle: int, may_open: bool, may_close: bool
) -> tuple[int, int, int, int]:
    """``(when, command, bank, entry)``: what the oldest request needs; with the closed page
    policy, until that can go, a row that no queued request hits may be closed."""
    frozen, thawed = unit_banks(p, ch.ref_first) if ch.in_ref == 1 else (-1, -1)
    when, command, target, entry = INFINITY, PRE, 0, -1
    bank = _oldest(ch, p)
    if bank >= 0 and not (
        frozen <= bank < thawed or (ch.pim_gwriting == 1 and bank == GWRITE_BANK)
    ):
        target, entry = bank, ch.bank[bank, B_HEAD]
        row, wanted = ch.bank[bank, B_ROW], ch.request[entry, Q_ROW]
        allowed = True
        if row < 0:
            command = ACT
            allowed = may_open
            # one row never sits in both buffers; PIM's own commands close it, else nobody would
            if p.row_buffers == 2 and ch.bank[bank, B_PIM_ROW] == wanted:
                command, allowed = PIM_PRE, ch.pim_head == ch.pim_end
        elif row != wanted:
            allowed = may_close
        else:
            command = WR if ch.request[entry, Q_WRITE] == 1 else RD
        if allowed:
            when = earliest(ch, p, command, bank)
    if when <= cycle or p.closed_page == 0 or not may_close:
        return when, command, target, entry
    for bank in range(p.banks):
        if frozen <= bank < thawed or (ch.pim_gwriting == 1 and bank == GWRITE_BANK):
            continue
        hit = ch.bank[bank, B_HIT_RD] >= 0 or ch.bank[bank, B_HIT_WR] >= 0
        if ch.bank[bank, B_ROW] >= 0 and not hit:
            # of those that can be closed now the first bank's, not the one that could first
            at = max(earliest(ch, p, PRE, bank), cycle)
            if at < when:
                when, command, target, entry = at, PRE, bank, -1
    return when, command, target, entry


@njit(cache=True)
def fcfs_next(ch: Any, p: Any, cycle: int) -> int:
    """A cycle before which FCFS has nothing to issue.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        Now, cycles of the memory's tCK.

    Returns
    -------
    int
        ``INFINITY``: not before something else changes.
    """
    return _fcfs_candidate(ch, p, cycle, True, True)[0]


@njit(cache=True)
def _first_come(ch: Any, p: Any, board: Any, cycle: int, paired: int) -> int:
    """FCFS: issue the candidate if it is ready; its kind as ``issue_next`` tells it."""
    limited, may_open, may_close = _beside_pim(ch, p)
    when, command, bank, entry = _fcfs_candidate(ch, p, cycle, may_open, may_close)
    column = 1 if command in (RD, WR) else 0
    if when > cycle or column == paired:
        return -1
    if limited:
        _spend_slack(ch, p, command)
    _issue(ch, p, board, cycle, command, bank, entry)
    return column


@njit(cache=True)
def issue_next(ch: Any, p: Any, board: Any, cycle: int, paired: int, steps: int) -> tuple[int, int]:
    """Issue the command that the scheduler chooses.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``; changed.
    cycle
        Now, cycles of the memory's tCK.
    paired
        Kind that already went this cycle, or -1; a second command must be of the other kind.
    steps
        Banks to look at, in turn behind the one served last.

    Returns
    -------
    (int, int)
        Kind of the command (1 a column command, 0 a row command, -1 none), and how many of the next
        ``steps`` banks were not looked at.

    References
    ----------
    FR-FCFS: Rixner et al., ISCA 2000; DRAMsim3 command_queue.cc.
    """
    if p.fcfs == 1:
        return _first_come(ch, p, board, cycle, paired), 0
    return _scan(ch, p, board, cycle, paired, steps)
