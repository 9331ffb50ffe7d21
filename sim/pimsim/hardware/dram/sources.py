"""Requests of several cores that meet at a channel: which one it takes next.

Each core has injection ports; its requests go to them in turn, and each port keeps a queue for
each channel. The network goes round the queues of a channel, one request of each that has any
and one every ``port_time``, and puts them in a buffer before the channel's controller. Where
channels are hashed, a core's requests to a channel come from all of its ports, and a round takes
one of each: neighbouring bursts of a row of DRAM change places, and may come a round apart. With
one core and no network this is a plain queue. Nothing is copied: a queue is a cursor that skips
what belongs to other ports.

Works on the channel records of both controllers.
"""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import (
    HASH_ROWS,
    INFINITY,
    MAX_PASSED,
    N_OFFER,
    O_BLOCK,
    O_BURST,
    O_GROUP,
    O_WRITE,
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
    S_PORT,
    S_READY,
    S_STRIDE,
    S_WAIT,
    S_WAITS,
    S_WRITE,
)

__all__ = ["next_offer", "offer"]


@njit(cache=True, inline="always")
def _front(ch: Any, p: Any, queue: int) -> int:
    """Place in the table of the segment at the head of ``queue``."""
    source = queue // p.ports
    return int((ch.index * p.sources + source) * p.room + ch.seg[queue])


@njit(cache=True, inline="always")
def _burst(ch: Any, p: Any, board: Any, queue: int, at: int) -> int:
    return int(board.segment[at, S_FIRST] + ch.seg_pos[queue] * board.segment[at, S_STRIDE])


@njit(cache=True)
def _skip(ch: Any, p: Any, board: Any, queue: int) -> None:
    """Move the cursor on to the next burst that came through this queue's port."""
    source, port = queue // p.ports, queue % p.ports
    while ch.seg[queue] < ch.seg_end[source]:
        at = _front(ch, p, queue)
        count = board.segment[at, S_COUNT]
        while ch.seg_pos[queue] < count:
            lane = ch.index ^ p.lane_hash[_burst(ch, p, board, queue, at) & (HASH_ROWS - 1)]
            if (p.lane_of[lane] + board.segment[at, S_PORT]) % p.ports == port:
                return
            ch.seg_pos[queue] += 1
        ch.seg[queue] += 1
        ch.seg_pos[queue] = 0


@njit(cache=True, inline="always")
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


@njit(cache=True, inline="always")
def _arrival(ch: Any, p: Any, board: Any, queue: int) -> int:
    """When the head of ``queue`` can be taken: a cycle, with a network its time; INFINITY when
    it is empty."""
    source = queue // p.ports
    if p.ports > 1:
        _skip(ch, p, board, queue)
    if ch.seg[queue] >= ch.seg_end[source]:
        return INFINITY
    when = segment_ready(board, _front(ch, p, queue))
    return int(when + ch.seg_pos[queue] * p.inject_time)


@njit(cache=True, inline="always")
def _next_queue(ch: Any, p: Any, board: Any, now: int) -> int:
    """The queue whose request is next ``now``, -1 where none has one."""
    queue = ch.turn_queue
    total = p.sources * p.ports
    for _ in range(total):
        if _arrival(ch, p, board, queue) <= now:
            return int(queue)
        queue += 1
        if queue == total:
            queue = 0
    return -1


@njit(cache=True, inline="always")
def _first_arrival(ch: Any, p: Any, board: Any) -> int:
    """When the first queue has a request, in the unit of ``_arrival``."""
    soonest = INFINITY
    for queue in range(p.sources * p.ports):
        soonest = min(soonest, _arrival(ch, p, board, queue))
    return int(soonest)


@njit(cache=True)
def _take(ch: Any, p: Any, board: Any, queue: int, into: Any) -> None:
    """Take the next request of ``queue``; the next queue's turn comes."""
    at = _front(ch, p, queue)
    position = ch.seg_pos[queue]
    block = board.segment[at, S_BLOCK]
    listed = board.segment[at, S_LISTED]
    if listed > 0:
        into[O_BURST] = board.listed[listed - 1 + position, 0]
        if block >= 0:
            block += board.listed[listed - 1 + position, 1]
    else:
        into[O_BURST] = _burst(ch, p, board, queue, at)
    if block >= 0 and listed == 0:
        whole = (position << p.channel_width) + board.segment[at, S_LANE]
        block += whole >> board.segment[at, S_BLOCK_SHIFT]
    into[O_WRITE] = board.segment[at, S_WRITE]
    into[O_GROUP] = board.segment[at, S_GROUP]
    into[O_BLOCK] = block
    position += 1
    if position == board.segment[at, S_COUNT]:
        ch.seg[queue] += 1
        position = 0
    ch.seg_pos[queue] = position
    ch.turn_queue = queue + 1 if queue + 1 < p.sources * p.ports else 0


@njit(cache=True)
def _pass_through(ch: Any, p: Any, board: Any, cycle: int) -> None:
    """Let the network pass on what it does up to ``cycle``, one request a period."""
    now_time = cycle * p.cycle_time
    while ch.passed_len < MAX_PASSED and ch.port_free <= now_time:
        queue = _next_queue(ch, p, board, ch.port_free)
        if queue < 0:
            soonest = _first_arrival(ch, p, board)
            if soonest > now_time:
                return
            # the port works at edges of the network's clock
            ch.port_free = -(-soonest // p.port_time) * p.port_time
            continue
        at = (ch.passed_head + ch.passed_len) & (MAX_PASSED - 1)
        _take(ch, p, board, queue, ch.passed[at])
        ch.passed_len += 1
        ch.port_free += p.port_time


@njit(cache=True, inline="always")
def offer(ch: Any, p: Any, board: Any, cycle: int) -> bool:
    """Whether a request stands before the channel's queues; ``ch.offered`` is it then.

    Which one it is stays so until it is accepted.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``.
    cycle
        Now, cycles (ticks of ``channel-queues``) of the controller.

    Returns
    -------
    bool
        False while the queues are empty, or their requests are in the network or not due.
    """
    if ch.has_offer == 1:
        return True
    if p.port_time > 0:
        _pass_through(ch, p, board, cycle)
        if ch.passed_len == 0:
            return False
        for i in range(N_OFFER):
            ch.offered[i] = ch.passed[ch.passed_head, i]
        ch.passed_head = (ch.passed_head + 1) & (MAX_PASSED - 1)
        ch.passed_len -= 1
    else:
        queue = _next_queue(ch, p, board, cycle)
        if queue < 0:
            return False
        _take(ch, p, board, queue, ch.offered)
    ch.has_offer = 1
    return True


@njit(cache=True, inline="always")
def next_offer(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """First cycle after ``cycle`` at which a request stands before the channel's queues.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``.
    p
        Parameters, a record of ``PARAMETERS``.
    board
        A record of ``BOARD``.
    cycle
        Of the controller; a tick of ``channel-queues``.

    Returns
    -------
    int
        ``INFINITY`` where nothing waits and nothing is on its way.
    """
    if ch.has_offer == 1 or ch.passed_len > 0:
        return cycle + 1
    soonest = _first_arrival(ch, p, board)
    if p.port_time > 0 and soonest < INFINITY:
        soonest = -(-max(soonest, ch.port_free) // p.cycle_time)
    return int(max(soonest, cycle + 1))
