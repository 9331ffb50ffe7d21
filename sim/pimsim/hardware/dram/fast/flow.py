"""Work that drains at known rates: one channel's streams in order, beside its PIM operation.

Time and work count ticks, 4096 to a cycle. Work is measured in the time that it takes alone; where
streams and PIM run at once each drains at a share of that, which depends on the part of the PIM
program that is under way. Everything is piecewise linear: the kernels go from one change of rates
to the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit

__all__ = [
    "FLOW", "NEVER", "ONE", "PARTS", "PART_BEGIN", "PART_END", "PART_LOOP", "PART_NEED",
    "PART_PIM", "PART_ROUNDS", "PART_STEP", "PART_STREAM", "REFRESH", "STOPS", "STRETCH",
    "STRETCH_BEGIN", "STRETCH_END", "STRETCH_PLACE", "STRETCH_RUN", "TICKS", "TRAIL", "next_begin",
    "next_completion", "pim_end", "settle", "step",
]  # fmt: skip

TICKS = 4096
"""Of a cycle."""
ONE = 4096
"""A share of 1."""
NEVER = 1 << 60
"""Ticks that no run lasts."""
_I = np.int64

FLOW = np.dtype(
    [
        ("queued", _I),  # stream work ever asked for
        ("done", _I),  # of it drained
        ("begin", _I),  # no data comes before this tick
        ("pim_total", _I),  # work of the PIM operation under way
        ("pim_done", _I),
        ("pim_begin", _I),  # it starts not before this tick
        ("pim_end", _I),  # tick at which it was done, -1 before
        ("end_done", _I),  # stream work drained by then
        ("pim_waited", _I),  # ticks that it waited for a refresh
        ("pim_beside", _I),  # ticks that it worked while the channel had stream work, too
        ("part", _I),  # part of the program under way, and the round of its loop, see ``_PLACE``
        ("writes_from", _I),  # stream work that is writes, from here on
        ("writes_to", _I),  # and up to here
        ("write_stream", _I),  # both rates beside each other there, of 4096
        ("write_pim", _I),
        ("stretch", _I),  # of its stream work that is under way, see ``STRETCH``
        ("stops", _I),  # how often a refresh has stopped its streams, see ``TRAIL``
    ],
    align=True,
)
"""One channel."""

PARTS = 8
# a part of a channel's program: work before it and up to its end, both rates beside each other, of
# 4096, and the ticks that must be left before the next refresh for it to start; parts that follow
# one another may be a loop: how often it runs, of how many parts it is, at its last one, and the
# work of one round
PART_BEGIN, PART_END, PART_STREAM, PART_PIM, PART_NEED, PART_ROUNDS, PART_LOOP, PART_STEP = range(
    PARTS
)
_PLACE = (1 << 32) - 1
"""Bits of ``FLOW.part`` that say which part is under way; those above say in which round."""


STRETCH = 4
# of a channel's stream work: from where to where it is one stream, how far from the first rank's
# first burst that begins, and for how long it stays in a rank; 0: it lies anywhere
STRETCH_BEGIN, STRETCH_END, STRETCH_PLACE, STRETCH_RUN = range(STRETCH)
TRAIL = 32
"""Stops of each channel's streams that are remembered: when each began and ended, and the work that
was done by then."""
STOPS = np.dtype(
    [
        ("interval", _I),  # ticks from one refresh to the next; 0: none stops streams here
        ("ranks", _I),  # that are refreshed in turn
        ("stall", _I),  # ticks for which a stream in the rank that is refreshed stands still
        ("mean", _I),  # and on average, wherever it is
        ("run", _I),  # bursts of a stream in a rank
        ("ahead", _I),  # so few of them at the end are passed by what comes behind
        ("taken", _I),  # ticks from one request to the next that the channel takes in
    ],
    align=True,
)
"""Refreshes of single ranks as streams see them."""


REFRESH = np.dtype([("first", _I), ("interval", _I), ("stall", _I), ("share", _I)], align=True)
"""Ticks of the refreshes that stop PIM, for how long each does, and the rate of a stream while PIM
stands still for one; interval 0: there are none."""


@njit(cache=True, inline="always")
def _pim_waits(now: int, started: bool, need: int, refresh: Any) -> int:
    """Tick up to which PIM stands still for a refresh, behind it or ahead of it; ``now``: it does
    not."""
    interval = refresh.interval
    if interval == 0:
        return now
    since = (now - refresh.first) % interval if now >= refresh.first else interval
    if since < refresh.stall:
        return int(now - since + refresh.stall)
    left = interval - since if now >= refresh.first else refresh.first - now
    if not started and left < need <= interval - refresh.stall:
        return int(now + left)
    return now


@njit(cache=True)
def _stopped(
    now: int, done: int, left: int, idle: int, channel: int, stretch: int, stretches: Any,
    stops: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """``(until, changes, work)``: the tick up to which a refresh stops a stream, ``now`` where none
    does; and, of one that goes on, how far that is known: a tick, and work from here.

    ``left``: work up to the end of what is looked at; ``idle``: the tick up to which the channel
    had none.
    """
    number = now // stops.interval
    begin = number * stops.interval
    over = begin + stops.stall
    if number == 0 or now >= max(over, begin + stops.mean):
        return now, begin + stops.interval, left
    while stretch + 1 < len(stretches) and done >= stretches[stretch, channel, STRETCH_END]:
        stretch += 1
    own = stretches[stretch, channel]
    run = own[STRETCH_RUN]
    if run == 0:
        return max(now, begin + stops.mean), begin + stops.interval, left
    if now >= over:
        return now, begin + stops.interval, left
    place = own[STRETCH_PLACE] + done - own[STRETCH_BEGIN]
    rest = run - place % run
    if place // run % stops.ranks == (number - 1) % stops.ranks:
        # no more than the channel has taken in since it began, faster than it is done with them
        ahead = run * stops.ahead
        if stops.taken > 0:
            lead = max(begin - idle, 0) * (run - stops.taken * stops.run) // stops.taken
            ahead = min(ahead, max(lead, 0))
        if rest * stops.run > ahead:
            return over, over, left
        # the few that are left wait at their banks; so does the end, if it comes before the refresh
        # is over
        behind = max(left - rest, 0)
        if behind < over - now:
            return over - behind, over, left
    return now, over, max(min(rest, own[STRETCH_END] - done), 1)


@njit(cache=True, inline="always")
def _part_after(parts: Any, part: int) -> int:
    """The part that follows ``part``."""
    size = parts[part & _PLACE, PART_LOOP]
    if size == 0:
        return part + 1
    number = (part >> 32) + 1
    if number < parts[part & _PLACE, PART_ROUNDS]:
        return int((part & _PLACE) + 1 - size + (number << 32))
    return (part & _PLACE) + 1


@njit(cache=True)
def _next(
    now: int, until: int, left: int, begin: int, pim_done: int, pim_total: int, pim_begin: int,
    part: int, parts: Any, refresh: Any, done: int, ch: Any,
    channel: int, stretches: Any, stops: Any,
) -> tuple[int, int, int, int, int, int]:  # fmt: skip
    """``(tick, stream work, PIM work, part, waited, beside)``: the next change of rates, at most
    ``until``; what is drained by then, the part that is under way from then on, how long PIM
    stood still for a refresh, and how long it worked beside stream work."""
    after, waiting = until, False
    streaming = left > 0 and now >= begin
    known = left
    # beside PIM, its rates say what streams get while a refresh stops it
    if streaming and stops.interval > 0 and (pim_done >= pim_total or now < pim_begin):
        stop, changes, known = _stopped(
            now, done, left, begin, channel, ch.stretch, stretches, stops
        )
        streaming = stop <= now
        after = min(after, changes if streaming else stop)
    computing = pim_done < pim_total and now >= pim_begin
    own, before = 0, 0
    if computing:
        own = part & _PLACE
        before = (part >> 32) * parts[own, PART_STEP]  # work of rounds that are over
        started = pim_done > before + parts[own, PART_BEGIN]
        wait = _pim_waits(now, started, parts[own, PART_NEED], refresh)
        if wait > now:
            computing, waiting = False, True
            after = min(after, wait)
    stream_rate, pim_rate, pim_left = ONE, ONE, 0
    if waiting:
        stream_rate = refresh.share
    if computing:
        pim_left = before + parts[own, PART_END] - pim_done
        if streaming and ch.writes_from <= done < ch.writes_to:
            stream_rate, pim_rate = ch.write_stream, ch.write_pim
        elif streaming:
            stream_rate, pim_rate = parts[own, PART_STREAM], parts[own, PART_PIM]
    if left > 0 and now < begin:
        after = min(after, begin)
    if pim_done < pim_total and now < pim_begin:
        after = min(after, pim_begin)
    if streaming:
        # what it drains until it is done, or its writes begin or end
        drained = min(left, known)
        if done < ch.writes_from:
            drained = min(drained, ch.writes_from - done)
        elif done < ch.writes_to:
            drained = min(drained, ch.writes_to - done)
        after = min(after, now - (-drained * ONE // stream_rate))
    if computing:
        after = min(after, now - (-pim_left * ONE // pim_rate))
        if refresh.interval > 0:
            # a part that did not keep clear of it, or a slow one, is stopped
            passed = (now - refresh.first) % refresh.interval
            after = min(after, now + refresh.interval - passed)
    passed = after - now
    stream = min(left, passed * stream_rate // ONE) if streaming else 0
    pim = min(pim_left, passed * pim_rate // ONE) if computing else 0
    if computing and pim == pim_left:
        part = _part_after(parts, part)
    beside = passed if computing and streaming else 0
    return after, stream, pim, part, passed if waiting else 0, beside


@njit(cache=True)
def step(
    flow: Any, parts: Any, now: int, until: int, refresh: Any, stretches: Any, stops: Any,
    trail: Any,
) -> None:  # fmt: skip
    """Drain all channels from tick ``now`` to ``until``.

    Parameters
    ----------
    flow
        Records of ``FLOW``, (channels,); changed.
    parts
        (parts, PARTS).
    now, until
        Ticks.
    refresh
        A ``REFRESH``.
    stretches
        (stretches, channels, STRETCH), at least one.
    stops
        A ``STOPS``.
    trail
        (channels, TRAIL, 3), where stops are noted.
    """
    for c in range(len(flow)):
        ch = flow[c]
        at = now
        while at < until:
            before, left = at, ch.queued - ch.done
            at, stream, pim, ch.part, waited, beside = _next(
                at, until, left, ch.begin, ch.pim_done, ch.pim_total, ch.pim_begin,
                ch.part, parts, refresh, ch.done, ch, c, stretches, stops,
            )  # fmt: skip
            if stops.interval > 0 and stream == 0 and pim == 0 and left > 0 and before >= ch.begin:
                trail[c, ch.stops % TRAIL] = before, at, ch.done
                ch.stops += 1
            ch.done += stream
            ch.pim_done += pim
            ch.pim_waited += waited
            ch.pim_beside += beside
            while (
                ch.stretch + 1 < len(stretches) and ch.done >= stretches[ch.stretch, c, STRETCH_END]
            ):
                ch.stretch += 1
            if ch.pim_end < 0 and ch.pim_done >= ch.pim_total:
                ch.pim_end, ch.end_done = at, ch.done


@njit(cache=True)
def _reach(
    ch: Any, parts: Any, now: int, target: int, before: int, refresh: Any, channel: int,
    stretches: Any, stops: Any,
) -> int:  # fmt: skip
    """Tick at which the channel's drained stream work reaches ``target``; or, where that is later,
    one that is not earlier than ``before``."""
    done, pim_done, part, at = ch.done, ch.pim_done, ch.part, now
    while done < target and at < before:
        # what lies behind the target does not change when it is reached
        at, stream, pim, part, _, _ = _next(
            at, NEVER, target - done, ch.begin, pim_done, ch.pim_total, ch.pim_begin, part, parts,
            refresh, done, ch, channel, stretches, stops,
        )  # fmt: skip
        done += stream
        pim_done += pim
    return int(at)


@njit(cache=True)
def pim_end(
    flow: Any, parts: Any, now: int, before: int, refresh: Any, stretches: Any, stops: Any
) -> int:
    """Tick at which the last channel has done its PIM work, if nothing more is asked for; or,
    where that is later, one that is not earlier than ``before``.

    Parameters
    ----------
    flow
        Records of ``FLOW``, (channels,).
    parts
        (parts, PARTS).
    now
        Tick at which the channels stand.
    before
        Tick; what comes later need not be exact.
    refresh
        A ``REFRESH``.
    stretches
        (stretches, channels, STRETCH), at least one.
    stops
        A ``STOPS``.

    Returns
    -------
    int
        At least ``now``.
    """
    last = now
    for c in range(len(flow)):
        ch = flow[c]
        done, pim_done, part, at = ch.done, ch.pim_done, ch.part, now
        while pim_done < ch.pim_total and at < before:
            at, stream, pim, part, _, _ = _next(
                at, NEVER, ch.queued - done, ch.begin, pim_done, ch.pim_total, ch.pim_begin, part,
                parts, refresh, done, ch, c, stretches, stops,
            )  # fmt: skip
            done += stream
            pim_done += pim
        last = max(last, at)
        if last >= before:
            break
    return int(last)


@njit(cache=True)
def next_begin(flow: Any, tick: int, until: int) -> int:
    """The first tick at which any channel sets out.

    Parameters
    ----------
    flow
        Records of ``FLOW``, (channels,).
    tick
        Where the channels stand; what begins there has set out.
    until
        Tick; the answer where none sets out before.

    Returns
    -------
    int
        Tick at which streams or PIM work begin.
    """
    for c in range(len(flow)):
        for begin in (flow[c].begin, flow[c].pim_begin):
            if tick < begin < until:
                until = begin
    return int(until)


@njit(cache=True)
def next_completion(
    flow: Any, parts: Any, now: int, before: int, targets: Any, refresh: Any, stretches: Any,
    stops: Any,
) -> tuple[int, int]:  # fmt: skip
    """The first of the transfers that all channels are done with.

    Parameters
    ----------
    flow
        Records of ``FLOW``, (channels,).
    parts
        (parts, PARTS).
    now
        Tick at which the channels stand.
    before
        Tick; what comes later is not looked for.
    targets
        Stream work of each channel at which a transfer is done, (groups, channels), ticks.
    refresh
        A ``REFRESH``.
    stretches
        (stretches, channels, STRETCH), at least one.
    stops
        A ``STOPS``.

    Returns
    -------
    (int, int)
        Tick and row of ``targets``; row -1 where there is none, at ``before``.
    """
    best, row = before, -1
    for g in range(len(targets)):
        last = now
        for c in range(len(flow)):
            at = _reach(flow[c], parts, now, targets[g, c], best, refresh, c, stretches, stops)
            last = max(last, at)
            if last >= best:
                break
        if last < best:
            best, row = last, g
    return best, row


@njit(cache=True)
def settle(
    ready: Any, duration: Any, last: int, free: Any, not_before: int, finish: Any
) -> tuple[int, int]:
    """Vector work behind PIM results, in order: one starts a cycle, when its result is ready and a
    unit is free.

    Parameters
    ----------
    ready
        Cycles at which results are read, (results,).
    duration
        Cycles of vector work behind each, (results,); below 0: nothing follows.
    last
        Cycle in which the last one before these started; the first starts behind it.
    free
        By unit, the cycle from which it is, (units,); at last as this work leaves it. None: they
        never queue.
    not_before
        Cycle before which none starts.
    finish
        (results,), out: cycle in which each ends.

    Returns
    -------
    (int, int)
        Cycle in which the last one starts, and cycles of the units.
    """
    used = 0
    for mark in range(len(ready)):
        if duration[mark] < 0:
            finish[mark] = ready[mark]
            continue
        begin = max(ready[mark], last + 1, not_before)
        if len(free) > 0:
            unit = np.argmin(free)
            begin = max(begin, free[unit])
            free[unit] = begin + duration[mark]
        last = begin
        used += duration[mark]
        finish[mark] = begin + duration[mark]
    return last, used
