"""Requests of a channel: a pool of entries, and queues of words that say where each belongs.

Beside each word of a queue stands its ``bound``, a tick before which nothing of it can go. Rules
only ever put commands off, so a bound holds until the request's bank changes (``rebound``).
``gate`` says which place of ``ready`` it waits for if that is one that many banks share: when a
command goes there, all that wait for it are put off at once. That leaves the scheduler few
requests to look at. Loops over whole queues have no branches: they become vector instructions.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.bank import complete
from pimsim.hardware.dram.channel_queues.layout import (
    BANK_BITS,
    C_BUS_BUSY,
    C_READ_LATENCY,
    C_READS,
    ENTRY_BITS,
    INFINITY,
    MAX_BANKS,
    R_ARRIVAL,
    R_BLOCK,
    R_COUNTED,
    R_GROUP,
    R_KEY,
    R_WRITE,
    ROW_SHIFT,
)
from pimsim.hardware.dram.pool import give_back, take_entry

__all__ = [
    "answer", "bank_of", "close_gap", "count_once", "dequeue", "enqueue", "entry_of", "find_write",
    "forget_bounds", "least_bound", "put_off", "rebound", "row_of", "waits_at",
]  # fmt: skip


@njit(cache=True, inline="always")
def bank_of(word: int) -> int:
    """Bank of a queued request, counted over the channel.

    Parameters
    ----------
    word
        Of a queue: row, entry, bank.

    Returns
    -------
    int
        Below ``MAX_BANKS``.
    """
    return word & (MAX_BANKS - 1)


@njit(cache=True, inline="always")
def entry_of(word: int) -> int:
    """Its entry in the pool.

    Parameters
    ----------
    word
        Of a queue: row, entry, bank.

    Returns
    -------
    int
        Row of ``CHANNEL.request``.
    """
    return (word >> BANK_BITS) & ((1 << ENTRY_BITS) - 1)


@njit(cache=True, inline="always")
def row_of(word: int) -> int:
    """The row that it is for.

    Parameters
    ----------
    word
        Of a queue: row, entry, bank.

    Returns
    -------
    int
        In the request's bank.
    """
    return word >> ROW_SHIFT


@njit(cache=True)
def find_write(ch: Any, key: int) -> bool:
    """Whether a write of burst ``key`` is buffered.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    key
        Burst, as ``enqueue`` was given it.

    Returns
    -------
    bool
        False where no write waits.
    """
    found = 0
    for at in range(ch.queued[1]):
        found |= int(ch.request[entry_of(ch.queue[1, at]), R_KEY] == key)
    return found == 1


@njit(cache=True)
def enqueue(
    ch: Any, tick: int, arrival: int, write: int, bank: int, row: int, key: int, group: int,
    block: int,
) -> None:  # fmt: skip
    """Put a request into its queue, which has room; it may be served from ``tick`` on.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    tick
        From which it may be served.
    arrival
        Tick from which its latency counts.
    write
        1 for a write, 0 for a read.
    bank
        Counted over the pseudo channels and ranks of the channel.
    row
        In that bank.
    key
        Burst, to find reads of buffered writes.
    group, block
        Tickets that its answer counts towards, of its transfer and of its block; -1: nobody's.
    """
    entry = take_entry(ch)
    ch.request[entry, R_ARRIVAL] = arrival
    ch.request[entry, R_WRITE] = write
    ch.request[entry, R_COUNTED] = 0
    ch.request[entry, R_KEY] = key
    ch.request[entry, R_GROUP] = group
    ch.request[entry, R_BLOCK] = block
    at = ch.queued[write]
    ch.queue[write, at] = (row << ROW_SHIFT) | (entry << BANK_BITS) | bank
    ch.bound[write, at] = 0
    ch.gate[write, at] = -1
    ch.queued[write] = at + 1
    if write == ch.writing:
        if ch.open_row[bank] == row:
            ch.column_next = min(ch.column_next, tick)
        else:
            ch.row_next = min(ch.row_next, tick)


@njit(cache=True, inline="always")
def close_gap(values: Any, at: int, last: int) -> None:
    """Move what stands behind ``at``, up to ``last``, one place forward.

    Parameters
    ----------
    values
        A queue's words, bounds or gates, (places,); changed.
    at
        Place that became free.
    last
        The last place in use.
    """
    part = values[at : last + 1]  # counted from 0, this becomes vector instructions
    for i in range(last - at):
        part[i] = part[i + 1]


@njit(cache=True)
def dequeue(ch: Any, at: int) -> None:
    """Take request ``at`` out of the queue in turn.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    at
        Its place, 0 is the oldest.
    """
    kind = ch.writing
    last = ch.queued[kind] - 1
    close_gap(ch.queue[kind], at, last)
    close_gap(ch.bound[kind], at, last)
    close_gap(ch.gate[kind], at, last)
    ch.queued[kind] = last


@njit(cache=True)
def waits_at(ch: Any, bank: int) -> bool:
    """Whether the queue in turn has requests for ``bank``.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    bank
        Counted over the pseudo channels and ranks of the channel.

    Returns
    -------
    bool
        Of reads or of writes, whichever are served.
    """
    found = 0
    for i in range(ch.queued[ch.writing]):
        found |= int(bank_of(ch.queue[ch.writing, i]) == bank)
    return found == 1


@njit(cache=True)
def rebound(
    ch: Any, bank: int, column_at: int, row_at: int, column_gate: int, row_gate: int
) -> None:  # fmt: skip
    """The bank changed: its requests in the queue in turn get new bounds and gates.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    bank
        Counted over the pseudo channels and ranks of the channel.
    column_at, row_at
        Ticks from which those that hit the open row, and the others, can go by the rules of the
        bank.
    column_gate, row_gate
        Places in ``CHANNEL.ready`` that must be open for them as well.
    """
    kind, held = ch.writing, ch.open_row[bank]
    for i in range(ch.queued[kind]):
        word = ch.queue[kind, i]
        at = column_at if row_of(word) == held else row_at
        ch.bound[kind, i] = at if bank_of(word) == bank else ch.bound[kind, i]
    for i in range(ch.queued[kind]):
        word = ch.queue[kind, i]
        waits = column_gate if row_of(word) == held else row_gate
        ch.gate[kind, i] = waits if bank_of(word) == bank else ch.gate[kind, i]


@njit(cache=True)
def forget_bounds(ch: Any) -> None:
    """The other queue's turn came: its bounds are of a time when banks were different.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    """
    kind = ch.writing
    ch.column_next = ch.row_next = 0
    for i in range(ch.queued[kind]):
        ch.bound[kind, i] = 0
    for i in range(ch.queued[kind]):
        ch.gate[kind, i] = -1


@njit(cache=True)
def put_off(ch: Any, gate: int) -> None:
    """A command went out: what waits at its ``gate`` in the queue in turn, a slot of ``ready``,
    waits until that opens again.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    gate
        Place in ``CHANNEL.ready``, as ``timing.gate_of`` counts.
    """
    kind = ch.writing
    when = ch.ready[gate]
    for i in range(ch.queued[kind]):
        later = max(ch.bound[kind, i], when)
        ch.bound[kind, i] = later if ch.gate[kind, i] == gate else ch.bound[kind, i]


@njit(cache=True)
def least_bound(ch: Any, length: int) -> int:
    """Tick before which none of the oldest ``length`` requests of the queue in turn can go.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    length
        Requests that are looked at, at most those in the queue.

    Returns
    -------
    int
        Tick; ``INFINITY`` of none.
    """
    kind = ch.writing
    when = INFINITY
    for i in range(length):
        when = min(when, ch.bound[kind, i])
    return int(when)


@njit(cache=True, inline="always")
def count_once(ch: Any, entry: int, counter: int) -> None:
    """A request's first command tells whether it hit, missed or met another row.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    entry
        Of the request in the pool.
    counter
        ``C_HITS``, ``C_MISSES`` or ``C_CONFLICTS``.
    """
    if ch.request[entry, R_COUNTED] == 0:
        ch.request[entry, R_COUNTED] = 1
        ch.counter[counter] += 1


@njit(cache=True)
def answer(ch: Any, p: Any, board: Any, tick: int, entry: int) -> None:
    """A column command went out: a write is done, a read when its data came.

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
    entry
        Of the request in the pool, given back here.
    """
    done = tick
    ch.counter[C_BUS_BUSY] += p.tccd_s
    ch.bus_until = max(ch.bus_until, tick * p.halves) + p.bus_slot
    if ch.request[entry, R_WRITE] == 0:
        done += p.read_delay
        ch.counter[C_READS] += 1
        ch.counter[C_READ_LATENCY] += done - ch.request[entry, R_ARRIVAL]
    ch.last_done = max(ch.last_done, done)
    group = ch.request[entry, R_GROUP]
    if group >= 0:
        complete(board, group, done)
        if ch.request[entry, R_BLOCK] >= 0:
            complete(board, ch.request[entry, R_BLOCK], done)
    give_back(ch, entry)
