"""One channel, event by event: refresh, PIM queue, bank queues, write drain, streams.

``run_channel`` jumps from cycle to cycle at which something can happen; within a cycle the order
is DRAMsim3's: requests come in, refresh falls due, commands go out, a request moves to its bank.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import column_bound, complete
from pimsim.hardware.dram.layout import (
    F_BANK,
    F_GROUP,
    F_RANK,
    F_ROW,
    INFINITY,
    MAX_PIM_WRITES,
    O_BLOCK,
    O_BURST,
    O_GROUP,
    O_WRITE,
)
from pimsim.hardware.dram.pim_program import instruction_after, ready_in_round
from pimsim.hardware.dram.pim_queue import GWRITE_BANK, on_column_pins, pim_issue, pim_poll
from pimsim.hardware.dram.queues import admit, drain_starts, move_to_bank, start_drain
from pimsim.hardware.dram.refresh import fall_due, refresh_next, try_refresh, unit_banks
from pimsim.hardware.dram.schedule import bank_work, fcfs_next, issue_next
from pimsim.hardware.dram.sources import next_offer, offer

__all__ = ["controller_cycle", "feed", "next_cycle", "run_channel"]

PIM_QUEUE = 128
"""Depth of the single-row-buffer design's PIM command queue (the artifact's)."""


@njit(cache=True)
def _banks_blocked(ch: Any, p: Any) -> bool:
    """PIM keeps normal commands off the command bus."""
    waiting = ch.pim_avail - ch.pim_head
    if ch.pim_skip == 1:
        return False
    if p.row_buffers == 2:
        return bool(waiting > 0 and ch.in_ref == 0 and ch.pim_slack < p.slack)
    return bool(ch.pim_mode == 1 or (waiting > 0 and ch.waiting == 0))


@njit(cache=True)
def _select(ch: Any, p: Any, board: Any, cycle: int) -> tuple[int, int]:
    """Issue this cycle's command: PIM first, then the bank queues. Answers as ``issue_next``."""
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
                    return int(on_column_pins(command)), p.banks
                alone = p.row_buffers == 1 or ch.pim_slack < p.slack
            if alone:
                return -1, 0
    if not bank_work(ch, p):
        return -1, 0
    return issue_next(ch, p, board, cycle, -1, p.banks)


@njit(cache=True, inline="always")
def _drain_holds(ch: Any, draining: bool) -> bool:
    """Draining writes keep PIM instructions out, unless they wait for the tile under way."""
    return draining and not (ch.pim_mode == 1 and ch.movable[1] == 0)


@njit(cache=True, inline="always")
def _offered_at(ch: Any, board: Any) -> int:
    """Cycle at which the front end offers the next PIM instruction."""
    return ready_in_round(board, ch.pim_avail_at, ch.pim_avail_round)


@njit(cache=True, inline="always")
def _take_offered(ch: Any, board: Any) -> None:
    """The next PIM instruction comes to the PIM command queue."""
    ch.pim_avail += 1
    at, number = instruction_after(board, ch.pim_avail_at, ch.pim_avail_round)
    ch.pim_avail_at, ch.pim_avail_round = at, number


@njit(cache=True)
def _transfer(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """Move one request to its bank, or one PIM instruction to the PIM command queue."""
    start_drain(ch, p)
    draining = ch.drain > 0
    if p.has_pim == 1:
        waiting = ch.pim_avail - ch.pim_head
        offered = ch.pim_avail < ch.pim_end and _offered_at(ch, board) <= cycle
        if p.row_buffers == 2:
            if offered and (
                not (draining and waiting >= 2)
                and (waiting < 2 or ch.queued[0] == 0)
                and waiting < PIM_QUEUE
            ):
                _take_offered(ch, board)
                if waiting == 0:
                    ch.pim_next = cycle + 1
                return
        elif offered and waiting < PIM_QUEUE and not _drain_holds(ch, draining):
            _take_offered(ch, board)
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
    """What the controller does in one cycle: refresh, commands, a request to its bank.

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

    References
    ----------
    DRAMsim3 controller.cc.
    """
    fall_due(ch, p, cycle)
    if ch.pim_gwriting == 1 and cycle >= ch.pim_gwrite_done:
        ch.pim_gwriting = 0
    if ch.ref_pending > 0 and try_refresh(ch, p, board, cycle):
        kind, unseen = 0, p.banks
    else:
        kind, unseen = _select(ch, p, board, cycle)
    if kind >= 0 and p.dual_command == 1 and bank_work(ch, p):
        # what was not ready before the first command is not ready after it
        issue_next(ch, p, board, cycle, kind, unseen)
    _transfer(ch, p, board, cycle)


@njit(cache=True)
def _banks_next(ch: Any, p: Any, held: int, frozen: int, thawed: int) -> int:
    """A cycle before which no bank can issue anything but for ``held`` and those from ``frozen``
    to ``thawed``; -1 where there are none."""
    columns = INFINITY
    for rank in range(p.ranks):
        columns = min(columns, column_bound(ch, p, rank))
    soonest, row_soonest = INFINITY, INFINITY
    if held < 0 and frozen < 0:
        for bank in range(p.banks):
            soonest = min(soonest, ch.wake[bank])
        for bank in range(p.banks):
            row_soonest = min(row_soonest, ch.row_wake[bank])
    else:
        for bank in range(p.banks):
            if bank != held and not frozen <= bank < thawed:
                soonest = min(soonest, ch.wake[bank])
                row_soonest = min(row_soonest, ch.row_wake[bank])
    return int(min(row_soonest, max(soonest, columns)))


@njit(cache=True)
def next_cycle(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """First cycle after ``cycle`` at which this channel can do anything by itself.

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
    int
        What comes from outside, ``feed``, left out; never later than something happens, but maybe
        earlier.
    """
    after = cycle + 1
    has_pim = p.has_pim == 1
    if ch.bank_next <= after and p.fcfs == 0 and bank_work(ch, p):
        ch.bank_next = _banks_next(ch, p, -1, -1, -1)
    draining = ch.drain > 0
    if not draining and drain_starts(ch, p):
        return after
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
    frozen, thawed = -1, -1
    if ch.in_ref == 1 or ch.ref_pending > 0:
        when = min(when, refresh_next(ch, p))
        frozen, thawed = unit_banks(p, ch.ref_first)
    if has_pim:
        if ch.pim_avail < ch.pim_end:
            room = waiting < 2 or (dual and ch.queued[0] == 0)
            held = not dual and _drain_holds(ch, draining)
            if (room or not dual) and waiting < PIM_QUEUE and not held:
                when = min(when, _offered_at(ch, board))
        blocked = _banks_blocked(ch, p)
        turn = dual or ch.waiting == 0 or ch.pim_mode == 1
        if turn and waiting > 0 and frozen < 0 and ch.pim_skip == 0:
            when = min(when, ch.pim_next)
        if ch.pim_gwriting == 1:
            when = min(when, ch.pim_gwrite_done)
    if blocked or not bank_work(ch, p):
        return int(max(when, after))
    if p.fcfs == 1:
        when = min(when, fcfs_next(ch, p, cycle))
    elif frozen < 0 and ch.pim_gwriting == 0:
        when = min(when, ch.bank_next)
    else:
        held_bank = GWRITE_BANK if ch.pim_gwriting == 1 else -1
        when = min(when, _banks_next(ch, p, held_bank, frozen, thawed))
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
def feed(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """Take this cycle's request from the streams, and one of PIM's writes.

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
    """
    if offer(ch, p, board, cycle):
        write = ch.offered[O_WRITE]
        if _has_room(ch, p, write):
            ch.has_offer = 0
            group = ch.offered[O_GROUP]
            _take(ch, p, cycle, write, ch.offered[O_BURST], group, ch.offered[O_BLOCK])
            if write == 1:
                complete(board, group, cycle + 1)
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
    if ch.has_offer == 1 and not _has_room(ch, p, ch.offered[O_WRITE]):
        return soonest
    return int(min(soonest, next_offer(ch, p, board, cycle)))


@njit(cache=True)
def run_channel(ch: Any, p: Any, board: Any, until: int) -> None:
    """Simulate channel ``ch`` up to, not including, cycle ``until``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``; changed.
    until
        Cycle; ``CHANNEL.now`` is there or behind it afterwards.
    """
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
