"""Replay of a DRAM trace on the ``channel-queues`` controller.

In each tick the front end offers, in the trace's order, up to as many requests as there are
channels; the first one that finds its queue full, and no buffered write to answer or replace it,
ends the tick's offers. The run ends when the last
request was answered: a read when its data came, a write when it was issued.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.channel_queues.kernel import admit
from pimsim.hardware.dram.channel_queues.layout import (
    C_CONFLICTS,
    C_HITS,
    C_MISSES,
    C_READ_LATENCY,
    C_READS,
    INFINITY,
    MAX_MAINTENANCE,
    Records,
    make_channels,
    make_parameters,
)
from pimsim.hardware.dram.channel_queues.requests import find_write
from pimsim.hardware.dram.channel_queues.single_slot import step_as_configured
from pimsim.hardware.dram.layout import make_board
from pimsim.hardware.dram.parameters import auto_precharge
from pimsim.hardware.dram.replay import (
    PAUSED,
    ReplayResult,
    column_commands,
    in_pieces,
    logged_commands,
    sent_commands,
)
from pimsim.hardware.dram.rules import compile_rules
from pimsim.hardware.dram.standby import active_rank_ticks

__all__ = ["replay_ticks"]


@njit(cache=True, inline="always")
def _needs_room(ch: Any, key: int) -> bool:
    """Whether no buffered write of the same burst answers or replaces the request, which it
    does without a place in the queue."""
    return ch.queued[1] == 0 or not find_write(ch, key)


@njit(cache=True)
def _replay(
    channels: Any, parameters: Any, boards: Any, channel: Any, bank: Any, row: Any,
    write: Any, key: Any, arrival: Any, state: Any, pause: int,
) -> int:  # fmt: skip
    """All channels in lockstep, since one full queue holds up the whole trace; -1 when more
    refreshes fall due than are issued, ``PAUSED`` where ``pause`` requests of more were offered.
    ``state``: the next request, and the tick, from where it goes on."""
    p, board = parameters[0], boards[0]
    depth = (p.read_depth, p.write_depth)
    total = len(channel)
    at, tick = int(state[0]), int(state[1])
    while True:
        if at >= pause and at < total:
            state[0], state[1] = at, tick
            return PAUSED
        offered, blocked = 0, False
        while at < total and offered < len(channels) and arrival[at] < tick:
            ch = channels[channel[at]]
            if ch.queued[write[at]] >= depth[write[at]] and _needs_room(ch, key[at]):
                blocked = True
                break
            admit(ch, tick, write[at], bank[at], row[at], key[at])
            ch.now = min(ch.now, tick)
            at += 1
            offered += 1
        soonest, done = INFINITY, 0
        busy = at < total
        for c in range(len(channels)):
            ch = channels[c]
            if ch.now <= tick:
                ch.now = step_as_configured(ch, p, board, tick)
                if ch.overrun == 1:
                    return -1
            soonest = min(soonest, ch.now)
            done = max(done, ch.last_done)
            busy = busy or ch.queued[0] + ch.queued[1] + ch.active_len > 0
        if at < total:
            ch = channels[channel[at]]
            room = ch.queued[write[at]] < depth[write[at]]
            if room or not (blocked or _needs_room(ch, key[at])):
                soonest = min(soonest, max(tick, arrival[at]) + 1)
        elif not busy and soonest > done:
            return done
        tick = soonest


def replay_ticks(
    memory: MemoryConfig,
    addresses: NDArray[np.int64],
    writes: NDArray[np.int64],
    arrivals: NDArray[np.int64],
    log_entries: int,
    on_requests: Callable[[int], None] | None = None,
) -> ReplayResult:
    """``replay`` for this controller.

    Parameters
    ----------
    memory
        Of ``controller.model`` ``channel-queues``.
    addresses
        Bytes, (requests,).
    writes
        1 for a write, 0 for a read, (requests,).
    arrivals
        Ticks of the command bus, (requests,); a request waits for those before it.
    log_entries
        Commands that the result's log has room for; 0: none is kept.
    on_requests
        Hears now and then how many requests were offered.

    Returns
    -------
    ReplayResult
        All times in ticks of the command bus.

    Raises
    ------
    InputError
        Refreshes fall due faster than they can be issued, or the memory does not fit the kernel.
    """
    tables = compile_rules(memory, None, memory.command_bus.ticks_per_clock)
    parameters = make_parameters(memory, tables)
    channels = make_channels(memory, parameters)
    bursts = np.asarray(addresses, dtype=np.int64) // memory.organization.burst_bytes
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    where = mapping.decode(bursts)
    board = make_board(log_entries)
    given = (
        channels, parameters, board, where.channel, where.bank, where.row,
        np.asarray(writes, dtype=np.int64), bursts,
        np.maximum.accumulate(np.asarray(arrivals, dtype=np.int64)),
        np.array([0, 1], dtype=np.int64),
    )  # fmt: skip
    ticks = in_pieces(lambda pause: _replay(*given, pause), on_requests)
    if ticks < 0:
        raise InputError(
            f"{memory.name}: refreshes fall due faster than they can be issued: more than "
            f"{MAX_MAINTENANCE} wait"
        )
    closing = auto_precharge(memory.controller) > 0
    return _summarise(
        memory, channels, int(ticks), len(bursts), *logged_commands(board, mapping, closing)
    )


def _summarise(
    memory: MemoryConfig, channels: Records, ticks: int, requests: int, log: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> ReplayResult:  # fmt: skip
    counter = channels["counter"].sum(axis=0)
    scale = memory.command_bus.ticks_per_clock
    reads = int(counter[C_READS])
    counts = sent_commands(memory, counter)
    return ReplayResult(
        cycles=ticks,
        commands=counts,
        row_hits=int(counter[C_HITS]),
        requests=requests,
        undrained_writes=0,
        avg_read_latency_cycles=int(counter[C_READ_LATENCY]) / reads if reads else 0.0,
        active_rank_cycles=active_rank_ticks(channels, memory, ticks),
        bytes_moved=column_commands(counts) * memory.organization.burst_bytes,
        bytes_answered=requests * memory.organization.burst_bytes,
        log=log,
        log_columns=columns,
        ticks_per_clock=scale,
        row_misses=int(counter[C_MISSES]),
        row_conflicts=int(counter[C_CONFLICTS]),
    )
