"""Replay of a DRAM trace at command level, as fast as the controller takes it.

In each cycle the front end offers, in the trace's order, up to as many requests as there are
channels; the first one whose queue is full ends the cycle's offers. A request's own cycle is the
earliest at which it is offered; the controller sees it in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.command_trace import TraceLine
from pimsim.hardware.dram.controller import controller_cycle, next_cycle
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.layout import (
    C_COMMANDS,
    C_READ_LATENCY,
    C_READS,
    C_ROW_HITS,
    INFINITY,
    Records,
    bounded,
    make_board,
    make_channels,
)
from pimsim.hardware.dram.parameters import auto_precharge, make_parameters, refreshes_overrun
from pimsim.hardware.dram.queues import admit
from pimsim.hardware.dram.rules import BOUND_AS, COMMANDS, Command, compile_rules
from pimsim.hardware.dram.standby import active_rank_ticks

__all__ = [
    "PAUSED", "ReplayResult", "column_commands", "in_pieces", "logged_commands", "replay",
    "sent_commands",
]  # fmt: skip


PAUSED = -2
_PIECE = 1 << 19
"""Requests after which a replay says how far it is, and hears signals."""
POSTPONED = 8
"""Refreshes of a bank that may wait (JEDEC), or come in a row while requests wait. As they go
first, more mean that tREFI leaves no time for anything else."""


@dataclass(frozen=True)
class ReplayResult:
    """What a replay did. ``cycles`` runs until the last read has returned and nothing more
    will be issued; up to ``write_drain_low`` writes may stay in the queue (``undrained_writes``).
    """

    cycles: int
    commands: dict[str, int]
    row_hits: int
    requests: int
    undrained_writes: int
    avg_read_latency_cycles: float
    active_rank_cycles: int
    """Of ``cycles``, summed over ranks, with any row open."""
    bytes_moved: int
    """Over the data buses: a burst for each RD and WR."""
    bytes_answered: int
    """A burst for each request, also for those that were merged, answered from a buffered write
    or left in the queue."""
    log: NDArray[np.int64]
    """(commands, 5): cycle, channel, command, bank, row; empty unless asked for."""
    log_columns: NDArray[np.int64]
    """(commands,): column of the request that each command served, -1 where there is none."""

    ticks_per_clock: int = 1
    """``cycles``, latency and log count clock edges where this is 2."""
    row_misses: int | None = None
    """Requests whose first command was an ACT; None where the controller does not count them."""
    row_conflicts: int | None = None
    """Requests whose first command was a PRE."""

    def time_ps(self, memory: MemoryConfig) -> int:
        """How long the replay took."""
        return self.cycles * memory.tCK // self.ticks_per_clock

    def trace_lines(self) -> list[TraceLine]:
        """The log as a command trace; raises ``InputError`` where the log was too short."""
        bounded(sum(self.commands.values()), len(self.log), "commands to trace")
        return [
            TraceLine(at, cycle, channel, Command(command), bank, row, column)
            for at, ((cycle, channel, command, bank, row), column) in enumerate(
                zip(self.log.tolist(), self.log_columns.tolist(), strict=True), 1
            )
        ]


@njit(cache=True)
def _replay(
    channels: Any, parameters: Any, boards: Any, channel: Any, bank: Any, row: Any, write: Any,
    key: Any, arrival: Any, state: Any, pause: int,
) -> int:  # fmt: skip
    """All channels in lockstep, since one full queue holds up the whole trace; the last cycle,
    -1 if refreshes fall due faster than they can be done, ``PAUSED`` where ``pause`` requests of
    more were offered. ``state``: the next request, and the cycle, from where it goes on."""
    p = parameters[0]
    board = boards[0]
    depth = (p.read_depth, p.write_depth)
    total = len(channel)
    at, cycle = int(state[0]), int(state[1])
    while True:
        if at >= pause and at < total:
            state[0], state[1] = at, cycle
            return PAUSED
        offered = 0
        while at < total and offered < len(channels) and arrival[at] <= cycle:
            ch = channels[channel[at]]
            if ch.queued[write[at]] >= depth[write[at]]:
                break
            admit(ch, p, cycle, write[at], bank[at], row[at], -1, -1, key[at])
            ch.now = min(ch.now, cycle)
            at += 1
            offered += 1
        soonest = INFINITY
        busy = False
        for c in range(len(channels)):
            ch = channels[c]
            if ch.now <= cycle:
                controller_cycle(ch, p, board, cycle)
                if max(ch.ref_pending, ch.ref_alone) > POSTPONED * p.ref_units:
                    return -1
                ch.now = next_cycle(ch, p, board, cycle)
            soonest = min(soonest, ch.now)
            busy = busy or ch.waiting > 0 or ch.queued[0] > 0 or ch.drain > 0
            if p.closed_page == 1:
                for rank in range(p.ranks):
                    busy = busy or ch.rank[rank, 0] > 0
        if at < total:
            if channels[channel[at]].queued[write[at]] < depth[write[at]]:
                soonest = min(soonest, max(cycle + 1, arrival[at]))
        elif not busy:
            return cycle
        cycle = soonest


def in_pieces(go_on: Callable[[int], int], on_requests: Callable[[int], None] | None) -> int:
    """Let a kernel go on until it has ended.

    Parameters
    ----------
    go_on
        Runs until so many requests were offered, or to the end; ``PAUSED``, or what it ended with.
    on_requests
        Hears how many were offered so far; None: nobody does.

    Returns
    -------
    int
        What the kernel ended with.
    """
    offered = 0
    while True:
        offered += _PIECE
        ended = go_on(offered)
        if ended != PAUSED:
            return ended
        if on_requests is not None:
            on_requests(offered)


def replay(
    memory: MemoryConfig,
    addresses: NDArray[np.int64],
    writes: NDArray[np.int64],
    arrivals: NDArray[np.int64] | None = None,
    log_entries: int = 0,
    on_requests: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay requests on ``memory``. Addresses above the capacity wrap, as DRAMsim3's do.

    Parameters
    ----------
    memory
        Under either controller.
    addresses
        Bytes, (requests,).
    writes
        1 for a write, 0 for a read, (requests,).
    arrivals
        Cycles of tCK, or ticks of a ``channel-queues`` memory's command bus, (requests,); None: all
        0. A request waits for those before it.
    log_entries
        Commands that the result's log has room for; 0: none is kept.
    on_requests
        Hears now and then how many requests were offered.

    Returns
    -------
    ReplayResult
        After the last read has returned.

    Raises
    ------
    InputError
        Refreshes fall due faster than they can be done, or the memory does not fit the kernel.
    """
    if arrivals is None:
        arrivals = np.zeros(len(addresses), dtype=np.int64)
    if memory.controller.model == "channel-queues":
        # each controller's kernel is loaded when a memory asks for it
        from pimsim.hardware.dram.channel_queues.replay import replay_ticks

        return replay_ticks(memory, addresses, writes, arrivals, log_entries, on_requests)
    memory = device_memory(memory)
    parameters = make_parameters(memory, None, compile_rules(memory, None), merge=True)
    channels = make_channels(memory, parameters)
    board = make_board(log_entries)
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    bursts = np.asarray(addresses, dtype=np.int64) // memory.organization.burst_bytes
    where = mapping.decode(bursts)
    given = (
        channels, parameters, board, where.channel, where.bank, where.row,
        np.asarray(writes, dtype=np.int64), bursts,
        np.maximum.accumulate(np.asarray(arrivals, dtype=np.int64)) + 1,
        np.array([0, 0], dtype=np.int64),
    )  # fmt: skip
    ended = in_pieces(lambda pause: _replay(*given, pause), on_requests)
    if ended < 0:
        raise refreshes_overrun(memory)
    return _summarise(memory, channels, board, len(bursts))


def sent_commands(memory: MemoryConfig, counter: NDArray[np.int64]) -> dict[str, int]:
    """Commands by name; the kernels count RDA and WRA as the RD and WR that they are.

    Parameters
    ----------
    memory
        Its page policy says which they were.
    counter
        Of the kernel, (counters,).

    Returns
    -------
    dict of str to int
        All of ``COMMANDS``.
    """
    counts = counter[C_COMMANDS : C_COMMANDS + len(COMMANDS)]
    named = dict(zip(COMMANDS, (int(n) for n in counts), strict=True))
    if auto_precharge(memory.controller):
        for closing, plain in BOUND_AS.items():
            named[closing.name] = named[plain.name]
            named[plain.name] = 0
    return named


def column_commands(commands: Mapping[str, int]) -> int:
    """Bursts that ``commands`` move: of reads and writes, with auto-precharge or without.

    Parameters
    ----------
    commands
        By name, all of ``COMMANDS``.

    Returns
    -------
    int
        A burst each.
    """
    return sum(commands[name] for name in ("RD", "WR", "RDA", "WRA"))


def logged_commands(
    board: Records, mapping: AddressMap, closing: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What a ``ReplayResult`` says of the log.

    Parameters
    ----------
    board
        Of ``BOARD``, (1,), after the run.
    mapping
        Address map, for columns.
    closing
        What is logged as RD and WR is RDA and WRA.

    Returns
    -------
    (Ints, Ints)
        ``log``, (commands, 5), and ``log_columns``, (commands,).
    """
    logged = min(int(board["logged"][0]), int(board["log_limit"][0]))
    bursts = board["log_burst"][0, :logged]
    columns = np.where(bursts >= 0, mapping.decode(bursts).column, -1)
    log = board["log"][0, :logged].copy()
    if closing:
        for access, plain in BOUND_AS.items():
            log[log[:, 2] == plain, 2] = access
    return log, columns


def _summarise(
    memory: MemoryConfig, channels: Records, board: Records, requests: int
) -> ReplayResult:
    counter = channels["counter"]
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    log, log_columns = logged_commands(board, mapping)
    cycles = int(max(channels["last_done"].max(), channels["last_cmd"].max())) + 1
    counts = sent_commands(memory, counter.sum(axis=0))
    reads = int(counter[:, C_READS].sum())
    latency = int(counter[:, C_READ_LATENCY].sum())
    return ReplayResult(
        cycles=cycles,
        commands=counts,
        row_hits=int(counter[:, C_ROW_HITS].sum()),
        requests=requests,
        undrained_writes=int(channels["queued"][:, 1].sum()),
        avg_read_latency_cycles=latency / reads if reads else 0.0,
        active_rank_cycles=active_rank_ticks(channels, memory, cycles),
        bytes_moved=column_commands(counts) * memory.organization.burst_bytes,
        bytes_answered=requests * memory.organization.burst_bytes,
        log=log,
        log_columns=log_columns,
    )
