"""Channels that are lent to another controller for a while, all at once.

Before the turn the memory's controller closes every open row, as early as the rules let it; behind
it all banks are closed again and no command goes before the turn's end. Requests that wait in the
queues meanwhile stay there. Refreshes that fall due in the turn are the other controller's as far
as it does them; the rest are owed, and the memory's controller makes up for them behind the turn.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import apply_rules, close_row, earliest, log_command, reset_wake
from pimsim.hardware.dram.layout import B_ROW, C_COMMANDS, STRIDE
from pimsim.hardware.dram.rules import Command

__all__ = ["end_turn", "hand_over"]

_ACT, _PRE = int(Command.ACT), int(Command.PRE)


@njit(cache=True)
def hand_over(channels: Any, parameters: Any, boards: Any, start: int) -> int:
    """Close all rows. Nothing was issued at or after ``start``; PREs go one a cycle, bank after
    bank.

    Parameters
    ----------
    channels
        Records of ``CHANNEL``, (channels,); changed.
    parameters
        Record of ``PARAMETERS``, (1,).
    boards
        Record of ``BOARD``, (1,); changed.
    start
        Cycle of the first PRE.

    Returns
    -------
    int
        First cycle at which every bank of every channel may be opened.
    """
    p, board = parameters[0], boards[0]
    ready = start
    for c in range(len(channels)):
        ch = channels[c]
        free = start
        for bank in range(p.banks):
            row = ch.bank[bank, B_ROW]
            if row >= 0:
                at = max(free, earliest(ch, p, _PRE, bank))
                apply_rules(ch, p, at, _PRE, bank, 0)
                ch.counter[C_COMMANDS + _PRE] += 1
                log_command(ch, board, at, _PRE, bank, row)
                close_row(ch, p, at, bank, 0)
                free = at + 1
        for bank in range(p.banks):
            ready = max(ready, earliest(ch, p, _ACT, bank))
    return ready


@njit(cache=True)
def end_turn(channels: Any, parameters: Any, begin: int, end: int, refreshed: Any) -> None:
    """The channels were another controller's, rows open in them.

    Parameters
    ----------
    channels
        Records of ``CHANNEL``, (channels,); changed.
    parameters
        Record of ``PARAMETERS``, (1,).
    begin, end
        Cycles of the turn; no command goes before ``end``.
    refreshed
        By channel, refreshes of one rank (or bank) that it has done, (channels,).
    """
    p = parameters[0]
    for c in range(len(channels)):
        ch = channels[c]
        # commands have places for all of a node
        for command in range(STRIDE):
            ch.ready[command] = max(ch.ready[command], end)
        for rank in range(p.ranks):
            ch.rank[rank, 2] += end - begin
        left = refreshed[c]
        while left > 0 and ch.ref_due < end:
            ch.ref_due += p.ref_interval
            ch.ref_unit = (ch.ref_unit + 1) % p.ref_units
            left -= 1
        ch.now = end
        for bank in range(p.banks):
            reset_wake(ch, p, bank, end - 1)
        ch.bank_next = 0
