"""Requests of several cores that meet at a channel: which one it takes next.

Each core has injection ports; its requests go to them in turn, and each port keeps a queue for
each channel. A channel goes round the queues, one request of each that has any, and takes none
sooner than ``port_ps`` after the one before it. Where channels are hashed, a core's requests to a
channel come from all of its ports, and a round takes one of each: neighbouring bursts of a row of
DRAM change places, and may come a round apart. With one core, one port and no limit this is a
plain queue. Nothing is copied: a queue is a cursor that skips what belongs to other ports.

Works on the channel records of both controllers.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from pimsim.hardware.dram.layout import (
    HASH_ROWS,
    INFINITY,
    S_BLOCK,
    S_BLOCK_SHIFT,
    S_COUNT,
    S_FIRST,
    S_LANE,
    S_READY,
    S_STRIDE,
)

__all__ = ["front_segment", "next_queue", "port_opens", "queues_ready", "take_burst"]


@njit(cache=True, inline="always")
def front_segment(ch: Any, p: Any, queue: int) -> int:
    """Place in the table of the segment at the head of ``queue``."""
    source = queue // p.ports
    ring = ch.index * p.sources + source
    return int(ring * p.ring + ch.seg[queue] % p.ring)


@njit(cache=True, inline="always")
def _burst(ch: Any, p: Any, board: Any, queue: int, at: int) -> int:
    return int(board.segment[at, S_FIRST] + ch.seg_pos[queue] * board.segment[at, S_STRIDE])


@njit(cache=True)
def _skip(ch: Any, p: Any, board: Any, queue: int) -> None:
    """Move the cursor on to the next burst that came through this queue's port."""
    source, port = queue // p.ports, queue % p.ports
    while ch.seg[queue] < ch.seg_end[source]:
        at = front_segment(ch, p, queue)
        count = board.segment[at, S_COUNT]
        while ch.seg_pos[queue] < count:
            lane = ch.index ^ p.lane_hash[_burst(ch, p, board, queue, at) & (HASH_ROWS - 1)]
            if p.lane_of[lane] % p.ports == port:
                return
            ch.seg_pos[queue] += 1
        ch.seg[queue] += 1
        ch.seg_pos[queue] = 0


@njit(cache=True, inline="always")
def _arrival(ch: Any, p: Any, board: Any, queue: int) -> int:
    """Cycle from which the head of ``queue`` can be taken; INFINITY when it is empty."""
    source = queue // p.ports
    if p.ports > 1:
        _skip(ch, p, board, queue)
    if ch.seg[queue] >= ch.seg_end[source]:
        return INFINITY
    at = front_segment(ch, p, queue)
    when = board.segment[at, S_READY]
    if p.inject_ps > 0:
        when += ch.seg_pos[queue] * p.inject_ps // p.tck_ps
    return int(when)


@njit(cache=True, inline="always")
def next_queue(ch: Any, p: Any, board: Any, cycle: int) -> int:
    """The queue whose request is next at ``cycle``, -1 where none has one."""
    queue = ch.turn_queue
    total = p.sources * p.ports
    for _ in range(total):
        if _arrival(ch, p, board, queue) <= cycle:
            return int(queue)
        queue += 1
        if queue == total:
            queue = 0
    return -1


@njit(cache=True, inline="always")
def queues_ready(ch: Any, p: Any, board: Any) -> int:
    """First cycle at which any queue has a request."""
    soonest = INFINITY
    for queue in range(p.sources * p.ports):
        soonest = min(soonest, _arrival(ch, p, board, queue))
    return int(soonest)


@njit(cache=True, inline="always")
def port_opens(ch: Any, p: Any) -> int:
    """First cycle at which the channel's port takes a request."""
    return int(-(-ch.port_free // p.tck_ps))


@njit(cache=True)
def take_burst(ch: Any, p: Any, board: Any, cycle: int, queue: int) -> tuple[int, int]:
    """Take the next request of ``queue``: its burst, and its block's ticket or -1."""
    at = front_segment(ch, p, queue)
    position = ch.seg_pos[queue]
    burst = _burst(ch, p, board, queue, at)
    block = board.segment[at, S_BLOCK]
    if block >= 0:
        whole = (position << p.channel_width) + board.segment[at, S_LANE]
        block += whole >> board.segment[at, S_BLOCK_SHIFT]
    position += 1
    if position == board.segment[at, S_COUNT]:
        ch.seg[queue] += 1
        position = 0
    ch.seg_pos[queue] = position
    ch.turn_queue = queue + 1 if queue + 1 < p.sources * p.ports else 0
    if p.port_ps > 0:
        # a port that waited takes the next one a period later, a busy one keeps its pace
        start = ch.port_free
        if start <= (cycle - 1) * p.tck_ps:
            start = cycle * p.tck_ps
        ch.port_free = start + p.port_ps
    return burst, int(block)
