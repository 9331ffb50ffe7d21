"""State and parameters of the ``channel-queues`` kernel: structured arrays, one record a channel.

Records have room for the largest memory, so that the kernel is compiled once for all of them.
Nodes are numbered from the channel (0) over pseudo channels, ranks and bank groups to banks, all
counted over the channel; each has ``STRIDE`` places, the first tick at which it allows a command.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.layout import (
    C_BUS_BUSY,
    C_COMMANDS,
    C_READ_LATENCY,
    C_READS,
    INFINITY,
    MAX_RULES,
    MAX_SEGMENTS,
    MAX_WINDOW,
    MAX_WINDOWS,
    PORT_FIELDS,
    SOURCE_FIELDS,
    bounded,
)
from pimsim.hardware.dram.layout import C_ROW_HITS as C_HITS
from pimsim.hardware.dram.layout import N_COUNTERS as N_DEVICE_COUNTERS
from pimsim.hardware.dram.parameters import auto_precharge, channel_fields, put_tables
from pimsim.hardware.dram.peak import burst_slot_ps, column_clocks
from pimsim.hardware.dram.rules import (
    BANK,
    BANK_GROUP,
    COMMANDS,
    LEVELS,
    PSEUDO_CHANNEL,
    RANK,
    Command,
    RuleTables,
    command_numbers,
)
from pimsim.hardware.dram.spare import clear, lend

__all__ = [
    "CHANNEL",
    "C_BUS_BUSY",
    "C_COMMANDS",
    "C_HITS",
    "C_READS",
    "C_READ_LATENCY",
    "INFINITY",
    "PARAMETERS",
    "make_channels",
    "make_parameters",
    "places",
]

MAX_BANKS = 512
"""Banks of one channel, over pseudo channels and ranks."""
MAX_RANKS = 64
MAX_QUEUE = 512
MAX_MAINTENANCE = 2048
"""Refreshes due and not issued; above Ramulator's 1568, where that tool stops."""
WINDOW_SLOT = MAX_WINDOW + 1
STRIDE = 16
MAX_NODES = 1 + 2 * MAX_RANKS + 2 * MAX_BANKS

# a request
# (place 0 is the pool's, ``Q_NEXT``)
R_ARRIVAL = 1  # tick before the one in which the controller sees it
R_WRITE = 2
R_COUNTED = 3  # its first command went out: it is a hit, a miss or a conflict
R_KEY = 4  # burst index, to find reads of buffered writes
R_GROUP = 5  # ticket that its answer counts towards, -1 if nobody's
R_BLOCK = 6  # ticket of its block of the stream, -1 if none
N_REQUEST = 8

# a place in a queue holds one word: row, entry of the pool, bank, from the highest bits down
BANK_BITS = 9
ENTRY_BITS = 11
ROW_SHIFT = BANK_BITS + ENTRY_BITS
MAX_REQUESTS = 2 * MAX_QUEUE + MAX_BANKS

# counters: those of the bank-queues kernel in their places, then this kernel's own
C_MISSES = N_DEVICE_COUNTERS
C_CONFLICTS = C_MISSES + 1
N_COUNTERS = C_MISSES + 2

# refresh policies
NO_REFRESH, ALL_BANK, PER_BANK, PER_BANK_TOGETHER = range(4)

Records = NDArray[Any]
_I = np.int64

CHANNEL = np.dtype(
    [
        ("index", _I),
        ("now", _I),  # next tick to process
        ("writing", _I),  # the write queue is served
        ("queued", _I, (2,)),
        ("active_len", _I),
        ("due", _I),  # next tick at which a refresh falls due
        ("turn", _I),  # bank whose turn that is, per-bank refresh
        ("handed", _I),  # pseudo channels that got the refresh of that bank; -1: none is under way
        ("upkeep_head", _I),
        ("upkeep_len", _I),
        ("overrun", _I),  # more refreshes due than the ring holds
        # ticks before which nothing goes: a request whose row was opened, a row hit, ACT or PRE
        ("active_next", _I),
        ("column_next", _I),
        ("row_next", _I),
        ("free", _I),  # entries of the pool given back, -1 if none
        ("pool_used", _I),  # entries of the pool ever used
        ("last_done", _I),  # tick at which the last request was answered
        ("bus_until", _I),  # ticks times pseudo channels at which their buses are done
        *SOURCE_FIELDS,
        ("set_free", _I, (MAX_RANKS,)),  # tick from which a rank's next round may start
        ("upkeep", _I, (MAX_MAINTENANCE, 2)),  # ring: REF or REFpb, first bank
        ("counter", _I, (N_COUNTERS,)),
        ("open_row", _I, (MAX_BANKS,)),  # -1: closed
        ("awaited", _I, (MAX_BANKS,)),  # requests for which the bank's row was opened
        ("rank", _I, (MAX_RANKS, 3)),  # open banks, since when any, ticks with any
        ("window", _I, (MAX_WINDOWS * MAX_RANKS * WINDOW_SLOT,)),
        ("request", _I, (MAX_REQUESTS, N_REQUEST)),  # pool
        ("queue", _I, (2, MAX_QUEUE)),  # words of reads and writes, oldest first
        ("bound", _I, (2, MAX_QUEUE)),  # tick before which nothing of that request can go
        ("gate", _I, (2, MAX_QUEUE)),  # node and command that its bound waits for; -1: not known
        ("active", _I, (MAX_BANKS,)),  # words; their rows were opened, in that order
        ("active_bound", _I, (MAX_BANKS,)),
        ("ready", _I, (MAX_NODES * STRIDE,)),
    ],
    align=True,
)
"""One channel."""

PARAMETERS = np.dtype(
    [
        ("banks", _I),  # of the channel
        ("halves", _I),  # pseudo channels
        ("ranks", _I),  # of the channel
        ("half_shift", _I),  # log2 of the banks of a pseudo channel
        ("rank_shift", _I),
        ("group_shift", _I),
        ("rank_node", _I),  # first node of the ranks; pseudo channels start at 1
        ("group_node", _I),
        ("bank_node", _I),
        ("level_node", _I, (LEVELS,)),  # first node of a rule's level, and log2 of banks of a node
        ("level_shift", _I, (LEVELS,)),
        ("gate_node", _I),  # first of the nodes whose banks wait for one another, and their size
        ("gate_shift", _I),
        ("read_delay", _I),
        ("nbl", _I),
        ("tccd_s", _I),
        ("bus_slot", _I),  # of one burst on a bus to the next, at the memory's peak
        ("read_depth", _I),
        ("write_depth", _I),
        ("drain_low", _I),
        ("drain_at", _I),
        ("refresh", _I),
        ("ref_interval", _I),
        ("set_gap", _I),  # tRFCpb: from the end of a rank's round of REFpb to its next
        ("rising_only", _I, (STRIDE,)),  # commands that start at rising edges, odd ticks
        ("auto_precharge", _I),  # every access closes its row: RD and WR are RDA and WRA
        ("single_slot", _I),  # one command a tick, whatever its pins
        *PORT_FIELDS,
        ("channel_width", _I),
        ("field", _I, (6, 2)),  # shift and width of each field of a channel's burst index
        ("n_windows", _I),
        ("windows", _I, (MAX_WINDOWS, 6)),
        ("window_adds", _I, (MAX_WINDOWS, len(COMMANDS))),
        ("first", _I, (len(COMMANDS), LEVELS + 1)),
        ("rules", _I, (MAX_RULES, 4)),
    ],
    align=True,
)
"""What a memory means to the kernel; times in ticks."""


def _refresh(memory: MemoryConfig) -> tuple[int, int]:
    """Policy and ticks from one refresh to the next."""
    controller, t = memory.controller, memory.timings
    if controller.refresh == "none":
        return NO_REFRESH, INFINITY
    if controller.refresh == "all-bank":
        return ALL_BANK, t["tREFI"]
    for name in ("tREFIpb", "tRFCpb"):
        if name not in t:
            raise InputError(f"{memory.name}: per-bank refresh needs timings.{name}")
    together = controller.refresh_pseudo_channels == "together"
    org = memory.organization
    turns = org.ranks * org.banks * (1 if together else org.pseudo_channels)
    needed = t["tRFCpb"] + t["tRAS"] + t["tRP"]
    if turns * t["tREFIpb"] < needed:
        raise InputError(
            f"{memory.name}: refreshes fall due faster than a bank has time for: one of its own "
            f"every {turns} x tREFIpb = {turns * t['tREFIpb']} cycles, and tRFCpb + tRAS + tRP "
            f"are {needed}"
        )
    return PER_BANK_TOGETHER if together else PER_BANK, t["tREFIpb"]


def make_parameters(memory: MemoryConfig, tables: RuleTables) -> Records:
    """What a memory means to the kernel.

    Parameters
    ----------
    memory
        Of any organisation that the kernel's records have room for.
    tables
        Its rules, in ticks of its command bus.

    Returns
    -------
    Records
        Of ``PARAMETERS``, (1,); times in ticks of the command bus.

    Raises
    ------
    InputError
        The memory is too large for the kernel's records, or lacks what this controller needs.
    """
    org, t, controller = memory.organization, memory.timings, memory.controller
    scale = memory.command_bus.ticks_per_clock
    ranks = bounded(org.pseudo_channels * org.ranks, MAX_RANKS, "ranks of a channel")
    banks = bounded(ranks * org.banks, MAX_BANKS, "banks of a channel")
    policy, interval = _refresh(memory)
    rank_node = 1 + org.pseudo_channels
    group_node = rank_node + ranks
    bank_node = group_node + ranks * org.bank_groups
    p = np.zeros(1, dtype=PARAMETERS)
    values = {
        "banks": banks,
        "halves": org.pseudo_channels,
        "ranks": ranks,
        "half_shift": (org.ranks * org.banks).bit_length() - 1,
        "rank_shift": org.banks.bit_length() - 1,
        "group_shift": org.banks_per_group.bit_length() - 1,
        "rank_node": rank_node,
        "group_node": group_node,
        "bank_node": bank_node,
        "read_delay": (t["CL"] + t["nBL"]) * scale,
        "nbl": t["nBL"] * scale,
        "tccd_s": column_clocks(memory) * scale,
        "bus_slot": int(burst_slot_ps(memory) * scale / memory.tCK),
        "read_depth": bounded(controller.read_queue_depth, MAX_QUEUE, "read_queue_depth"),
        "write_depth": bounded(controller.write_queue_depth, MAX_QUEUE, "write_queue_depth"),
        "drain_low": max(controller.write_drain_low, 1),  # an empty queue ends every drain
        "drain_at": controller.drain_at,
        "refresh": policy,
        "ref_interval": interval * scale if policy != NO_REFRESH else interval,
        "set_gap": t.get("tRFCpb", 0) * scale,
        "auto_precharge": int(auto_precharge(controller) > 0),
        "single_slot": int(controller.commands_per_cycle == 1),
        "sources": 1,
        "ports": 1,
        "room": MAX_SEGMENTS // org.channels,
        "channel_width": org.channels.bit_length() - 1,
    }
    for name, value in values.items():
        p[0][name] = value
    # where rules from one bank to another stand: pseudo channels, without them ranks
    shared = PSEUDO_CHANNEL if org.pseudo_channels > 1 else RANK
    p[0]["level_shift"] = 63  # one node, the channel
    for level, node, below in (
        (RANK, rank_node, org.banks),
        (BANK_GROUP, group_node, org.banks_per_group),
        (BANK, bank_node, 1),
        (PSEUDO_CHANNEL, 1, org.ranks * org.banks),
    ):
        p[0]["level_node"][level], p[0]["level_shift"][level] = node, below.bit_length() - 1
    p[0]["gate_node"], p[0]["gate_shift"] = p[0]["level_node"][shared], p[0]["level_shift"][shared]
    fields = channel_fields(memory, memory.stream_map)
    for at, name in enumerate(("ro", "ra", "bg", "ba", "co", "pc")):
        p[0]["field"][at] = fields.get(name, (0, 0))
    if scale == 2:
        numbers = command_numbers(memory, None)
        either = {numbers[name] for name in memory.command_bus.either_edge}
        for command in Command:
            p[0]["rising_only"][command] = int(command not in either)
    put_tables(p, tables)
    return p


def places(p: Records) -> dict[str, int]:
    """How many entries, along its first axis, a channel uses of each field that is larger.

    Of ``request`` those that can be under way: both queues are full, and each bank's row was
    opened for another one.

    Parameters
    ----------
    p
        Of ``make_parameters``, (1,).

    Returns
    -------
    dict of str to int
        By field of ``CHANNEL``; fields that are not named are used whole.
    """
    one = p[0]
    banks, ranks = int(one["banks"]), int(one["ranks"])
    return {
        "open_row": banks, "awaited": banks, "active": banks, "active_bound": banks,
        "window": int(one["n_windows"]) * ranks * WINDOW_SLOT,
        "request": int(one["read_depth"]) + int(one["write_depth"]) + banks,
        "ready": (int(one["bank_node"]) + banks) * STRIDE,
    }  # fmt: skip


def make_channels(memory: MemoryConfig, p: Records) -> Records:
    """All channels idle, all banks closed, tick 0.

    Parameters
    ----------
    memory
        Its ``organization.channels`` are counted.
    p
        Of ``make_parameters``, (1,).

    Returns
    -------
    Records
        Of ``CHANNEL``, (channels,).
    """
    channels, lent_before = lend(CHANNEL, memory.organization.channels)
    used = places(p)
    if lent_before:
        clear(channels, used)
    channels["index"] = np.arange(len(channels))
    channels["open_row"][:, : used["open_row"]] = -1
    channels["handed"] = -1
    channels["free"] = -1
    channels["due"] = p[0]["ref_interval"]
    rings = channels["window"].reshape(len(channels), -1, WINDOW_SLOT)
    rings[:, : used["window"] // WINDOW_SLOT, 1:] = -INFINITY
    return channels
