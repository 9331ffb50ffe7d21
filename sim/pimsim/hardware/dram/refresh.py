"""Refresh: which banks it takes next, closing them, and REF or REFpb itself.

A refresh unit is what one command refreshes: a rank (REF) or a bank (REFpb). Units take turns, one
every ``ref_interval``; ranks alternate, and within a rank bank groups do, as DRAMsim3's refresh.cc
orders them. From the cycle in which a refresh is due its unit takes no request; its open banks are
closed as soon as they may be, then the command goes. Refreshes are not postponed.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import apply_rules, close_row, earliest, log_command
from pimsim.hardware.dram.layout import B_PIM_ROW, B_ROW, C_COMMANDS, INFINITY
from pimsim.hardware.dram.pim_queue import pim_forget
from pimsim.hardware.dram.rules import Command

__all__ = ["fall_due", "refresh_next", "try_refresh", "unit_banks"]

PRE, PIM_PRE = int(Command.PRE), int(Command.PIM_PRE)


@njit(cache=True, inline="always")
def unit_banks(p: Any, unit: int) -> tuple[int, int]:
    """First bank of refresh unit ``unit`` and the one after its last.

    Parameters
    ----------
    p
        Parameters, a record of ``PARAMETERS``.
    unit
        A rank, or with ``ref_per_bank`` the place of a bank in the order of refreshes.

    Returns
    -------
    (int, int)
        Counted over the ranks of the channel.

    References
    ----------
    DRAMsim3 refresh.cc.
    """
    if p.ref_per_bank == 0:
        return unit << p.rank_shift, (unit + 1) << p.rank_shift
    rank, place = unit % p.ranks, unit // p.ranks
    groups = 1 << (p.rank_shift - p.group_shift)
    bank = (rank << p.rank_shift) + ((place % groups) << p.group_shift) + place // groups
    return bank, bank + 1


@njit(cache=True, inline="always")
def fall_due(ch: Any, p: Any, cycle: int) -> None:
    """Take note of a refresh that falls due at ``cycle``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        Now, cycles of the memory's tCK.
    """
    if cycle >= ch.ref_due:
        if ch.ref_pending == 0:
            ch.ref_first = ch.ref_unit
        ch.ref_pending += 1
        ch.ref_unit = (ch.ref_unit + 1) % p.ref_units
        ch.ref_due += p.ref_interval


@njit(cache=True)
def try_refresh(ch: Any, p: Any, board: Any, cycle: int) -> bool:
    """Bring the refresh that is due: close its banks one by one, then refresh them.

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

    Returns
    -------
    bool
        Whether a command went.

    References
    ----------
    JEDEC REF and REFpb (HBM's REFSB).
    """
    ch.in_ref = 1
    first, last = unit_banks(p, ch.ref_first)
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
        if earliest(ch, p, p.ref_command, bank) > cycle:
            return False
    ch.counter[C_COMMANDS + p.ref_command] += 1
    log_command(ch, board, cycle, p.ref_command, first, -1)
    apply_rules(ch, p, cycle, p.ref_command, first, 0)
    ch.in_ref = 0
    ch.ref_pending -= 1
    if ch.waiting > 0:
        ch.ref_alone += 1
    ch.ref_first = (ch.ref_first + 1) % p.ref_units
    ch.pim_refreshed = 1
    ch.pim_skip = 0
    ch.pim_room = ch.ref_due - cycle - 1
    ch.pim_slack = 0
    ch.pim_next = 0
    return True


@njit(cache=True)
def refresh_next(ch: Any, p: Any) -> int:
    """Next cycle at which the refresh under way can go on.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.

    Returns
    -------
    int
        At which a bank of the unit may be closed or, with all closed, all of them refreshed.
    """
    first, last = unit_banks(p, ch.ref_first)
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
            when = max(when, earliest(ch, p, p.ref_command, bank))
    return int(when)
