"""The controller's queues: admission, merging, and the way to the banks.

One request a cycle moves from the read or the write queue to its bank (DRAMsim3's
ScheduleTransaction). Writes collect until their queue holds ``write_drain_high`` (there: is full),
or more than ``write_drain_low`` while no request waits at the banks; then all it holds are drained.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import reset_wake
from pimsim.hardware.dram.layout import (
    B_HEAD,
    B_HIT_RD,
    B_LEN,
    B_ROW,
    B_RQ_WAIT,
    B_TAIL,
    C_MERGED_READS,
    C_MERGED_WRITES,
    C_READ_LATENCY,
    C_READS,
    D_ARRIVAL,
    D_KEY,
    D_MERGED,
    FILTER,
    MAX_BANKS,
    Q_BANK,
    Q_BLOCK,
    Q_GROUP,
    Q_KEY,
    Q_NEXT,
    Q_ROW,
    Q_SEQ,
    Q_WRITE,
    ROW_SLOTS,
    SEQ_MASK,
)
from pimsim.hardware.dram.pool import give_back, take_entry

__all__ = ["admit", "drain_starts", "free_request", "move_to_bank", "start_drain"]


@njit(cache=True, inline="always")
def _slot(key: int, write: int) -> int:
    """Slot of burst ``key`` in the filter of requests under way."""
    return ((key ^ (key >> 13)) & (FILTER - 1)) + write * FILTER


@njit(cache=True)
def _find(ch: Any, key: int, write: int) -> int:
    """Entry under way for burst ``key``, -1 if none."""
    for entry in range(ch.pool_used):
        if ch.detail[entry, D_KEY] == key and ch.request[entry, Q_WRITE] == write:
            return entry
    return -1


@njit(cache=True)
def _merge(ch: Any, p: Any, cycle: int, write: int, key: int) -> bool:
    """Answer a request from one under way: a write over a write, a read of either."""
    if ch.seen[_slot(key, 1)] > 0 and _find(ch, key, 1) >= 0:
        if write == 1:
            ch.counter[C_MERGED_WRITES] += 1
        else:
            ch.counter[C_MERGED_READS] += 1
            ch.counter[C_READS] += 1
            ch.counter[C_READ_LATENCY] += 1
        ch.last_done = max(ch.last_done, cycle + 1)
        return True
    if write == 0 and ch.seen[_slot(key, 0)] > 0:
        entry = _find(ch, key, 0)
        if entry >= 0:
            ch.counter[C_MERGED_READS] += 1
            ch.detail[entry, D_MERGED] += 1
            # its latency runs from its own arrival; RD closes the sum of both
            ch.detail[entry, D_ARRIVAL] += cycle
            return True
    return False


@njit(cache=True)
def admit(
    ch: Any, p: Any, cycle: int, write: int, bank: int, row: int,
    group: int, block: int, key: int,
) -> None:  # fmt: skip
    """Put a request into its queue; the caller has seen that there is room.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        Now, cycles of the memory's tCK.
    write
        1 for a write, 0 for a read.
    bank
        Counted over the ranks of the channel.
    row
        In that bank.
    group, block
        Tickets that its data counts towards, of its transfer and of its block; -1: nobody's.
    key
        Burst, to find requests for the same one.
    """
    if write == 1:
        ch.last_done = max(ch.last_done, cycle + 1)  # a write is acknowledged when taken in
    if p.merge == 1:
        if _merge(ch, p, cycle, write, key):
            return
        ch.seen[_slot(key, write)] += 1
    entry = take_entry(ch)
    if p.merge == 1:
        ch.detail[entry, D_KEY] = key
        ch.detail[entry, D_ARRIVAL] = cycle
        ch.detail[entry, D_MERGED] = 0
    ch.request[entry, Q_NEXT] = -1
    ch.request[entry, Q_ROW] = row
    ch.request[entry, Q_WRITE] = write
    ch.request[entry, Q_GROUP] = group
    ch.request[entry, Q_BLOCK] = block
    ch.request[entry, Q_BANK] = bank
    ch.request[entry, Q_KEY] = key
    ch.queue[write, ch.queued[write]] = entry * MAX_BANKS + bank
    ch.queued[write] += 1
    ch.bank[bank, B_RQ_WAIT + write] += 1
    if ch.bank[bank, B_LEN] < p.bank_depth:
        ch.movable[write] += 1


@njit(cache=True, inline="always")
def free_request(ch: Any, p: Any, entry: int) -> None:
    """Return a finished request's entry to the pool; its bank's queue has room again.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    entry
        Row of ``CHANNEL.request``.
    """
    if p.merge == 1:
        key, write = ch.detail[entry, D_KEY], ch.request[entry, Q_WRITE]
        ch.seen[_slot(key, write)] -= 1
        ch.detail[entry, D_KEY] = -1
    give_back(ch, entry)
    ch.waiting -= 1
    bank = ch.request[entry, Q_BANK]
    if ch.bank[bank, B_LEN] == p.bank_depth - 1:
        ch.movable[0] += ch.bank[bank, B_RQ_WAIT]
        ch.movable[1] += ch.bank[bank, B_RQ_WAIT + 1]


@njit(cache=True, inline="always")
def drain_starts(ch: Any, p: Any) -> bool:
    """The write queue is full enough, or worth draining while no request waits at the banks.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.

    Returns
    -------
    bool
        Whatever drain is under way.

    References
    ----------
    DRAMsim3 controller.cc.
    """
    writes = ch.queued[1]
    return bool(writes >= p.drain_high or (writes > p.drain_low and ch.waiting == 0))


@njit(cache=True, inline="always")
def start_drain(ch: Any, p: Any) -> None:
    """Decide whether the write queue starts to drain.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    """
    if ch.drain == 0 and drain_starts(ch, p):
        ch.drain = ch.queued[1]


@njit(cache=True)
def _read_waits(ch: Any, p: Any, entry: int, bank: int) -> bool:
    """Whether a read of the burst that ``entry`` writes still waits for its command."""
    if p.merge == 1:
        key = ch.detail[entry, D_KEY]
        return bool(ch.seen[_slot(key, 0)] > 0 and _find(ch, key, 0) >= 0)
    if p.merge == 2:
        key = ch.request[entry, Q_KEY]
        for at in range(ch.queued[0]):
            if ch.request[ch.queue[0, at] // MAX_BANKS, Q_KEY] == key:
                return True
        other = ch.bank[bank, B_HEAD]
        while other >= 0:
            if ch.request[other, Q_KEY] == key and ch.request[other, Q_WRITE] == 0:
                return True
            other = ch.request[other, Q_NEXT]
    return False


@njit(cache=True)
def move_to_bank(ch: Any, p: Any, cycle: int, write: int) -> bool:
    """Move the oldest request whose bank queue has room to its bank.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    cycle
        Now, cycles of the memory's tCK.
    write
        1: of the write queue, 0: of the read queue.

    Returns
    -------
    bool
        True if a read must move instead: it is of the burst that the write is for, and the drain
        would start anew before it could.
    """
    depth = p.bank_depth
    length = ch.queued[write]
    at = 0
    while at < length:
        bank = ch.queue[write, at] & (MAX_BANKS - 1)
        if ch.bank[bank, B_LEN] < depth:
            break
        at += 1
    if at == length:
        return False
    entry = ch.queue[write, at] // MAX_BANKS
    if write == 1:
        if _read_waits(ch, p, entry, bank):
            ch.drain = 0  # the older read goes first
            # at once, if the drain would start anew before that read could move, for ever
            return bool(ch.waiting == 0 and drain_starts(ch, p))
        ch.drain -= 1
    for i in range(at, length - 1):
        ch.queue[write, i] = ch.queue[write, i + 1]
    ch.queued[write] = length - 1
    ch.request[entry, Q_SEQ] = ch.seq
    ch.seq = (ch.seq + 1) & SEQ_MASK
    tail = ch.bank[bank, B_TAIL]
    if tail < 0:
        ch.bank[bank, B_HEAD] = entry
    else:
        ch.request[tail, Q_NEXT] = entry
    ch.bank[bank, B_TAIL] = entry
    ch.bank[bank, B_LEN] += 1
    ch.bank[bank, B_RQ_WAIT + write] -= 1
    ch.waiting += 1
    ch.rows_queued[bank, write, ch.request[entry, Q_ROW] & (ROW_SLOTS - 1)] += 1
    ch.movable[write] -= 1
    if ch.bank[bank, B_LEN] == depth:
        ch.movable[0] -= ch.bank[bank, B_RQ_WAIT]
        ch.movable[1] -= ch.bank[bank, B_RQ_WAIT + 1]
    row = ch.bank[bank, B_ROW]
    if row >= 0 and ch.request[entry, Q_ROW] == row and ch.bank[bank, B_HIT_RD + write] < 0:
        ch.bank[bank, B_HIT_RD + write] = entry
        ch.wake[bank] = min(ch.wake[bank], cycle + 1)
        ch.bank_next = min(ch.bank_next, cycle + 1)
    if ch.bank[bank, B_LEN] == 1:
        reset_wake(ch, p, bank, cycle)
    return False
