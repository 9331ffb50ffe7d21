"""The PIM command queue of a channel: in order, and clear of refresh.

NeuPIMs section 5: GWRITE fills the global buffer, HEADER announces a GEMV and closes every bank
whose PIM row differs, G_ACT opens the row bank group by bank group, then dot products run in all
banks and a burst reads their results. Before a HEADER or GWRITE the controller estimates how long
it will take; if that reaches into the next refresh, PIM waits for the refresh.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import (
    apply_rules,
    close_row,
    complete,
    earliest,
    log_command,
    open_row,
    reset_wake,
)
from pimsim.hardware.dram.layout import (
    B_ROW,
    C_BUS_BUSY,
    C_COMMANDS,
    C_COMP_COLUMNS,
    C_STACK,
    INFINITY,
    P_COMPS,
    P_GROUP,
    P_LAST,
    P_MARK,
    P_OP,
    P_READS,
    STRIDE,
    X_ACTIVATE,
    X_COMPUTE,
    X_GWRITE,
    X_HEADER,
    X_PRECHARGE,
    X_REFRESH,
    X_TFAW,
)
from pimsim.hardware.dram.pim_program import instruction_after, row_in_round
from pimsim.hardware.dram.rules import Command

__all__ = [
    "gwrite_estimate", "on_column_pins", "pim_forget", "pim_issue", "pim_poll", "tile_estimate",
]  # fmt: skip

ACT, PRE = int(Command.ACT), int(Command.PRE)
G_ACT, PIM_PRE, GWRITE = int(Command.G_ACT), int(Command.PIM_PRE), int(Command.GWRITE)
HEADER, COMP, READRES = int(Command.HEADER), int(Command.COMP), int(Command.READRES)
GEMV = int(Command.GEMV)
GWRITE_BANK = 0
"""Bank that holds GWRITE's source row."""


@njit(cache=True, inline="always")
def on_column_pins(command: int) -> bool:
    """Where row and column commands have pins of their own: it takes those of a RD (the rest of
    ``rules.ROW_COMMANDS``).

    Parameters
    ----------
    command
        A ``Command``.

    Returns
    -------
    bool
        False also of commands that are none of PIM's.
    """
    return command in (GWRITE, COMP, READRES, GEMV)


@njit(cache=True, inline="always")
def gwrite_estimate(p: Any, other_row: bool, opened: bool) -> int:
    """Cycles that a GWRITE will take.

    Parameters
    ----------
    p
        Parameters, a record of ``PARAMETERS``.
    other_row
        Its row must be opened.
    opened
        Another row is to be closed first.

    Returns
    -------
    int
        At least ``PARAMETERS.gwrite``.

    References
    ----------
    NeuPIMs section 5.3.
    """
    cycles = p.gwrite
    if other_row:
        cycles += p.trp + p.trcd
        if opened:
            cycles += p.trtp
    return int(cycles)


@njit(cache=True, inline="always")
def tile_estimate(p: Any, to_close: int, to_open: int, comps: int, reads: int) -> int:
    """Cycles that a tile will take (NeuPIMs section 5.3), bank groups opened two at a time under
    tFAW.

    Parameters
    ----------
    p
        Parameters, a record of ``PARAMETERS``.
    to_close
        Banks with another row.
    to_open
        Bank groups.
    comps
        Dot products.
    reads
        Result reads.

    Returns
    -------
    int
        Of a channel; 0 or less where a tile has next to nothing to do.
    """
    cycles = to_close * p.trtp + p.tfaw * (to_open // 2 - 1) + p.trcd
    cycles += p.tccd_s * max(comps, p.comp_pipeline) + p.tccd_l * (reads - 1)
    return int(cycles)


@njit(cache=True)
def _estimate(ch: Any, p: Any, board: Any) -> int:
    """Cycles that the GWRITE or the tile at the head will take."""
    at = ch.pim_head_at
    row = ch.pim_row
    if board.program[at, P_OP] == GWRITE:
        held = ch.bank[GWRITE_BANK, B_ROW]
        return gwrite_estimate(p, held != row, held >= 0)
    buffer = p.row_buffers - 1
    group_banks = 1 << p.group_shift
    to_open, to_close = 0, 0
    for first in range(0, p.banks, group_banks):
        ready, wrong = 0, 0
        for bank in range(first, first + group_banks):
            held = ch.bank[bank, B_ROW + buffer]
            if held == row:
                ready += 1
            elif held >= 0:
                wrong += 1
        if ready < group_banks:
            to_open += 1
            to_close += wrong + ready
    comps, reads = board.program[at, P_COMPS], board.program[at, P_READS]
    return tile_estimate(p, to_close, to_open, comps, reads)


@njit(cache=True, inline="always")
def pim_forget(ch: Any) -> None:
    """Row buffers changed behind the queue's back, or its head moved on: look at all again.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    """
    ch.pim_estimate = -1
    ch.pim_scan = 0


@njit(cache=True)
def _clear_of_refresh(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """Slack in cycles between the head's estimated end and the next refresh; 0 or less: wait."""
    left = ch.ref_due - cycle - 1
    if p.avoid_refresh == 0:
        return int(max(left, 1))
    if ch.pim_estimate < 0:
        ch.pim_estimate = _estimate(ch, p, board)
    if ch.pim_estimate >= ch.pim_room:  # it did not fit behind the last refresh, nor will it ever
        return int(max(left, 1))
    return int(left - ch.pim_estimate)


@njit(cache=True)
def _gwrite_next(ch: Any, p: Any, row: int) -> tuple[int, int]:
    """``(when, command)`` that brings GWRITE's source row and then GWRITE itself."""
    held = ch.bank[GWRITE_BANK, B_ROW]
    if held == row:
        return earliest(ch, p, GWRITE, GWRITE_BANK), GWRITE
    if held >= 0:
        return earliest(ch, p, PRE, GWRITE_BANK), PRE
    return earliest(ch, p, ACT, GWRITE_BANK), ACT


@njit(cache=True)
def _all_banks(ch: Any, p: Any, command: int) -> int:
    """First cycle at which every bank of the channel allows ``command``."""
    when = 0
    for node in range(p.bank_node + p.banks):
        when = max(when, ch.ready[node * STRIDE + command])
    return when


@njit(cache=True)
def _group_is_open(ch: Any, p: Any, bank: int, row: int) -> bool:
    """Whether the whole bank group of ``bank`` has ``row`` in PIM's buffer."""
    first = bank >> p.group_shift << p.group_shift
    for other in range(first, first + (1 << p.group_shift)):
        if ch.bank[other, B_ROW + p.row_buffers - 1] != row:
            return False
    return True


@njit(cache=True)
def _header_next(ch: Any, p: Any, cycle: int, row: int) -> tuple[int, int, int]:
    """``(when, command, bank)``: close a bank that holds another row, or the header itself.

    One that holds the right row is closed too where its group does not: G_ACT opens whole groups,
    and only closed ones (with one row buffer GWRITE takes the first bank's row away).
    """
    buffers = p.row_buffers
    pim_buffer = buffers - 1
    closer = PIM_PRE if buffers == 2 else PRE
    when, command, target = INFINITY, HEADER, 0
    for bank in range(ch.pim_scan, p.banks):
        held = ch.bank[bank, B_ROW + pim_buffer]
        if held >= 0 and not (held == row and _group_is_open(ch, p, bank, row)):
            at = earliest(ch, p, closer, bank)
            need = closer
        elif buffers == 2 and held < 0 and ch.bank[bank, B_ROW] == row:
            at = earliest(ch, p, PRE, bank)
            need = PRE
        else:
            if bank == ch.pim_scan:
                ch.pim_scan = bank + 1  # nothing to close there any more
            continue
        if at <= cycle:
            return at, need, bank
        if at < when:
            when, command, target = at, need, bank
    if when == INFINITY:
        return earliest(ch, p, HEADER, 0), HEADER, 0
    return when, command, target


@njit(cache=True, inline="always")
def _hold_opening(ch: Any, p: Any, bank: int, when: int) -> None:
    """Let no normal ACT take the place in the window of activations that PIM's next G_ACT, at
    ``when``, waits for: PIM goes first, and a stream that opens rows would keep it out for ever."""
    node = 0 if p.shared_window == 1 else 1 + (bank >> p.rank_shift)
    slot = node * STRIDE + ACT
    if ch.ready[slot] <= when:
        ch.ready[slot] = when + 1


@njit(cache=True)
def _compute_next(ch: Any, p: Any, cycle: int, op: int) -> tuple[int, int, int]:
    """``(when, command, bank)``: open a closed group, or the dot products themselves."""
    pim_buffer = p.row_buffers - 1
    group_banks = 1 << p.group_shift
    when, target = INFINITY, -1
    for first in range(0, p.banks, group_banks):
        if ch.bank[first, B_ROW + pim_buffer] >= 0:
            continue
        at = 0
        for bank in range(first, first + group_banks):
            at = max(at, earliest(ch, p, G_ACT, bank))
        if at <= cycle:
            return at, G_ACT, first
        if p.holds_opening == 1:
            _hold_opening(ch, p, first, at)
        if at < when:
            when, target = at, first
    if target >= 0:
        return when, G_ACT, target
    return _all_banks(ch, p, op), op, 0


@njit(cache=True)
def pim_poll(ch: Any, p: Any, board: Any, cycle: int) -> tuple[int, int]:
    """What the PIM queue, which is not empty, issues at ``cycle``.

    Sets ``pim_next`` to a cycle before which the answer stays the same.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``.
    cycle
        Now, cycles of the memory's tCK.

    Returns
    -------
    (int, int)
        Command and bank; (-1, 0): nothing.

    References
    ----------
    NeuPIMs section 5.
    """
    at = ch.pim_head_at
    op, row = board.program[at, P_OP], ch.pim_row
    if ch.pim_gwriting == 1:
        if op != GWRITE or ch.pim_gwrite_done < INFINITY:
            ch.pim_next = ch.pim_gwrite_done
            return -1, 0
    elif op in (GWRITE, HEADER):
        slack = _clear_of_refresh(ch, p, board, cycle)
        ch.pim_slack = max(slack, 0)
        if slack <= 0:
            ch.pim_skip = 1
            ch.pim_next = INFINITY
            return -1, 0
        if op == GWRITE:
            ch.pim_gwriting = 1
            ch.pim_gwrite_done = INFINITY
        else:
            ch.pim_mode = 1
    if op == GWRITE:
        when, command = _gwrite_next(ch, p, row)
        bank = GWRITE_BANK
    elif op == HEADER:
        when, command, bank = _header_next(ch, p, cycle, row)
        if p.avoid_refresh == 1 and when > cycle:
            # the wait itself may use up the slack
            when = min(when, cycle + ch.pim_slack)
            if when <= cycle:
                when = cycle + 1
            ch.pim_next = when
            return -1, 0
    else:
        when, command, bank = _compute_next(ch, p, cycle, op)
    if when <= cycle:
        ch.pim_next = cycle + 1
        return command, bank
    ch.pim_next = when
    return -1, 0


@njit(cache=True, inline="always")
def _busy(ch: Any, until: int, doing: int) -> None:
    """The command just issued works until then."""
    ch.pim_until = until
    ch.pim_doing = doing


@njit(cache=True)
def _account(ch: Any, cycle: int, cause: int) -> None:
    """Charge the time since the last PIM command to what that one was doing, as long as it
    took, and the rest to what this one had to wait for."""
    doing = min(cycle, ch.pim_until) - ch.pim_last
    if doing > 0:
        ch.counter[C_STACK + ch.pim_doing] += doing
        ch.pim_last += doing
    if ch.pim_refreshed == 1:
        cause = X_REFRESH
        ch.pim_refreshed = 0
    ch.counter[C_STACK + cause] += cycle - ch.pim_last
    ch.pim_last = cycle


@njit(cache=True, inline="always")
def _leave_mode(ch: Any) -> None:
    """The tile is done: with one row buffer, normal requests may go again."""
    ch.pim_mode = 0
    ch.pim_slack = 0


@njit(cache=True, inline="always")
def _pass_head(ch: Any, board: Any) -> None:
    """The head is issued: the next instruction's turn comes."""
    ch.pim_head += 1
    at, number = instruction_after(board, ch.pim_head_at, ch.pim_head_round)
    ch.pim_head_at, ch.pim_head_round = at, number
    if ch.pim_head < ch.pim_end:
        ch.pim_row = row_in_round(board, at, number)


@njit(cache=True)
def _finish(ch: Any, p: Any, board: Any, cycle: int, at: int, done: int) -> None:
    """Instruction ``at`` is complete at ``done``."""
    if ch.pim_head == ch.pim_end and p.row_buffers == 2:
        for bank in range(p.banks):  # requests may now close rows that PIM left open
            reset_wake(ch, p, bank, cycle)
    complete(board, board.program[at, P_GROUP], done)
    if board.program[at, P_MARK] >= 0:
        complete(board, board.program[at, P_MARK], done)


@njit(cache=True)
def pim_issue(
    ch: Any, p: Any, board: Any, cycle: int, command: int, bank: int
) -> None:  # fmt: skip
    """Issue ``command`` for the PIM queue's head.

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
    command, bank
        As ``pim_poll`` answered.
    """
    buffers = p.row_buffers
    at = ch.pim_head_at
    row, comps = ch.pim_row, board.program[at, P_COMPS]
    ch.counter[C_COMMANDS + command] += 1
    ch.last_cmd = cycle
    ch.pim_next = cycle + 1
    log_command(ch, board, cycle, command, bank, row)
    if command == HEADER:
        _account(ch, cycle, X_HEADER)
        ch.pim_opened = 0
        _pass_head(ch, board)
        pim_forget(ch)
        return
    if command == GEMV:
        apply_rules(ch, p, cycle, command, bank, max(comps, p.comp_pipeline))
        _account(ch, cycle, X_COMPUTE)
        done = cycle + p.read_delay
        done += p.result_slope * max(comps, p.comp_pipeline)
        _busy(ch, cycle + p.tccd_s * comps, X_COMPUTE)
        ch.counter[C_COMP_COLUMNS] += comps
        ch.columns_until = max(ch.columns_until, cycle) + p.tccd_s * comps
        ch.counter[C_BUS_BUSY] += p.tccd_s
        ch.bus_until = max(ch.bus_until, cycle) + p.tccd_s
        _pass_head(ch, board)
        _finish(ch, p, board, cycle, at, done)
        if buffers == 1 and board.program[at, P_LAST] == 1:
            _leave_mode(ch)
        return
    apply_rules(ch, p, cycle, command, bank, 0)
    if command == ACT:
        open_row(ch, p, cycle, bank, row, 0)
        _account(ch, cycle, X_GWRITE)
    elif command in (PRE, PIM_PRE):
        close_row(ch, p, cycle, bank, buffers - 1 if command == PIM_PRE else 0)
        if command == PIM_PRE or buffers == 1:
            ch.pim_estimate -= p.trtp
        _account(ch, cycle, X_GWRITE if board.program[at, P_OP] == GWRITE else X_PRECHARGE)
    elif command == G_ACT:
        for other in range(bank, bank + (1 << p.group_shift)):
            open_row(ch, p, cycle, other, row, buffers - 1)
        _account(ch, cycle, X_TFAW if ch.pim_opened == 1 else X_ACTIVATE)
        ch.pim_opened = 1
    elif command == GWRITE:
        _account(ch, cycle, X_GWRITE)
        pim_forget(ch)
        _busy(ch, cycle + p.gwrite, X_GWRITE)
        ch.pim_gwrite_done = cycle + p.gwrite
        ch.pim_next = cycle + p.gwrite
        _pass_head(ch, board)
        _finish(ch, p, board, cycle, at, cycle + p.gwrite)
    elif command == COMP:
        _account(ch, cycle, X_COMPUTE)
        _busy(ch, cycle + p.tccd_s, X_COMPUTE)
        ch.counter[C_COMP_COLUMNS] += 1
        ch.columns_until = max(ch.columns_until, cycle) + p.tccd_s
        if ch.pim_first_comp == 1:
            ch.pim_first_comp = 0
            after = cycle + p.comp_gap
            if ch.ready[READRES] < after:
                ch.ready[READRES] = after
        ch.pim_step += 1
        if ch.pim_step == comps:
            ch.pim_step = 0
            _pass_head(ch, board)
            _finish(ch, p, board, cycle, at, cycle)
    elif command == READRES:
        _account(ch, cycle, X_COMPUTE)
        ch.counter[C_BUS_BUSY] += p.tccd_s
        ch.bus_until = max(ch.bus_until, cycle) + p.tccd_s
        ch.pim_first_comp = 1
        _pass_head(ch, board)
        _finish(ch, p, board, cycle, at, cycle + p.read_delay)
        if board.program[at, P_LAST] == 1:
            _leave_mode(ch)
