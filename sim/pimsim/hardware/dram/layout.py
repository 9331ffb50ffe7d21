"""The channel kernel's state: structured arrays, one record a channel.

Records have addresses for the largest memory, so that the kernel is compiled once for all of them;
only the ``places`` that a memory uses are ever touched and take memory. Queued requests, tickets,
streams and PIM programs are plain two-dimensional arrays whose columns are named here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.rules import COMMANDS, LEVELS, Command
from pimsim.hardware.dram.spare import clear, lend

__all__ = [
    "INFINITY",
    "MAX_LOG",
    "bounded",
    "make_board",
    "make_channels",
    "places",
]

INFINITY = 1 << 60
"""Later than any cycle of any run."""
MAX_RANKS = 16
MAX_BANKS = 256
"""Banks of one channel, over its ranks."""
MAX_QUEUE = 256
MAX_RULES = 256
MAX_WINDOWS = 8
"""One for each command that counts in a rule's window."""
MAX_WINDOW = 32
WINDOW_SLOT = MAX_WINDOW + 2
ROW_SLOTS = 16
MAX_PIM_WRITES = 1024
"""Ring of writes that follow PIM results; beyond that the latest entry takes them in."""
SEQ_MASK = (1 << 31) - 1
FILTER = 4096
"""Slots of the filter that finds requests for one burst."""
MAX_REQUESTS = 8192
MAX_TICKETS = 1 << 21
MAX_SEGMENTS = 1 << 21
"""Of all cores and channels, which share them evenly."""
MAX_SOURCES = 64
"""Cores whose requests a channel takes in turn."""
MAX_QUEUES = 1024
"""Injection ports of all cores."""
MAX_PASSED = 64
"""Ring of requests that the network has passed on and a channel has not taken. ONNXim knows no
limit: what does not fit is passed on later at the time that it had, as what the network chooses at
a time depends on nothing that comes after it."""
HASH_ROWS = 4096
HASH_CHANNELS = 16
MAX_INSTRUCTIONS = 1 << 20
"""Of the programs of all channels, each loop written once."""
MAX_LISTED = 1 << 23
"""Requests of streams that do not go out in order of address."""
MAX_LOG = 1 << 22
STRIDE = 16
"""Places a node has for commands: a power of two above their number."""
MAX_NODES = 1 + MAX_RANKS + 2 * MAX_BANKS

# a bank ------------------------------------------------------------------------------------
B_ROW = 0  # open row of the normal row buffer, -1 if closed
B_PIM_ROW = 1  # the same of the PIM row buffer, if it has its own
B_HITS = 2  # column accesses since the row was opened
B_LEN = 3
B_HEAD = 4
B_TAIL = 5
B_HIT_RD = 6  # first queued read of the open row, -1 if none
B_HIT_WR = 7
B_RQ_WAIT = 8  # reads of this bank still in the read queue
B_WQ_WAIT = 9
N_BANK = 10

# a request ---------------------------------------------------------------------------------
Q_NEXT = 0
Q_ROW = 1
Q_WRITE = 2
Q_SEQ = 3  # order at the banks, modulo 2^31
Q_GROUP = 4  # ticket that its completion counts towards, -1 if nobody's
Q_BLOCK = 5  # ticket of its block of the stream, -1 if none
Q_BANK = 6
Q_KEY = 7  # burst within the channel
N_REQUEST = 8  # half a cache line

# what only trace replay needs of a request
D_KEY = 0  # burst index, to find requests for the same burst; -1 in free entries
D_ARRIVAL = 1
D_MERGED = 2  # reads of the same burst answered with it
N_DETAIL = 3

# a stream segment: consecutive bursts, or one burst in each of many rows -------------------
S_WRITE = 0
S_FIRST = 1  # first burst, counted within the channel
S_COUNT = 2
S_STRIDE = 3  # bursts from one request to the next
S_GROUP = 4  # ticket
S_BLOCK = 5  # ticket of the first block, -1 if blocks are not tracked
S_BLOCK_SHIFT = 6  # log2 of the bursts, of the whole stream, in one block
S_LANE = 7  # position of this channel's first burst in the stream
S_READY = 8  # cycle from which it may be taken
S_PORT = 9  # injection port of the burst in place 0 of a row of neighbours
S_LISTED = 10  # one above the first entry of its list of requests, 0 if they are consecutive
S_WAIT = 11  # one above the first ticket that it waits for, 0 if none
S_WAITS = 12  # how many in a row
S_COMMON = 13  # first ticket that all segments of the stream wait for, and how many
S_COMMONS = 14
S_LAG = 15  # cycles from the last of these tickets to its start
N_SEGMENT = 16

# a request on its way from a segment to a queue
O_BURST, O_WRITE, O_GROUP, O_BLOCK = range(4)
N_OFFER = 4

# a PIM instruction, which may stand in a loop (``pim_program``) --------------------------------
P_OP = 0
P_ROW = 1  # in the first round of its loop
P_COMPS = 2  # dot products of this instruction; of the whole tile in a header
P_READS = 3  # result reads that a header announces
P_READY = 4  # cycle at which the front end offers it, in the first round
P_MARK = 5  # ticket of its (request, head), -1 if none
P_LAST = 6  # last instruction of a tile
P_GROUP = 7  # ticket of the whole operation
P_ROUNDS = 8  # how often its loop runs; 1: it stands in none
P_LOOP = 9  # instructions of the loop that it ends, else 0
P_ROW_STEP = 10  # rows from one round to the next
P_RING = 11  # first of the rows that are used in turn,
P_RING_ROWS = 12  # and how many they are; 0: rows are not used in turn
P_READY_STEP = 13  # cycles from one round to the next
N_INSTRUCTION = 14

# counters ----------------------------------------------------------------------------------
C_COMMANDS = 0  # one for each command
C_RD, C_WR = C_COMMANDS + int(Command.RD), C_COMMANDS + int(Command.WR)
C_REFRESHES = (C_COMMANDS + int(Command.REF), C_COMMANDS + int(Command.REFpb))
C_ROW_HITS = len(COMMANDS)
C_READ_LATENCY = C_ROW_HITS + 1
C_READS = C_ROW_HITS + 2
C_BUS_BUSY = C_ROW_HITS + 3  # cycles that bursts take at the memory's peak
C_COMP_COLUMNS = C_ROW_HITS + 4  # dot product steps
C_MERGED_READS = C_ROW_HITS + 5
C_MERGED_WRITES = C_ROW_HITS + 6
C_STACK = C_ROW_HITS + 7  # PIM cycles by cause
N_CAUSES = 8
N_COUNTERS = C_STACK + N_CAUSES

# causes of PIM time, in the order of the cycle stack
X_COMPUTE, X_ACTIVATE, X_TFAW, X_PRECHARGE, X_GWRITE, X_HEADER, X_REFRESH, X_WAIT = range(8)

# fields of a channel's own burst index
F_ROW, F_RANK, F_GROUP, F_BANK, F_COLUMN = range(5)

Ints = NDArray[np.int64]
Records = NDArray[Any]
_I = np.int64

SOURCE_FIELDS: list[Any] = [
    ("seg", _I, (MAX_QUEUES,)),  # of each queue: stream segment under way, in its core's list
    ("seg_pos", _I, (MAX_QUEUES,)),  # requests already taken from it
    ("seg_end", _I, (MAX_SOURCES,)),  # of each core: length of its list
    ("turn_queue", _I),  # whose turn it is
    ("has_offer", _I),
    ("offered", _I, (N_OFFER,)),  # the request that the controller takes next
    ("passed_head", _I),
    ("passed_len", _I),
    ("passed", _I, (MAX_PASSED, N_OFFER)),  # ring: those that the network has passed on
    ("port_free", _I),  # network's time: the channel's port of the network takes none before
]
"""What a channel knows of the streams that wait for it."""
PORT_FIELDS: list[Any] = [
    ("sources", _I),  # cores
    ("ports", _I),  # of each core
    ("room", _I),  # segments of one core and channel that the table has room for
    # times of the network: in picoseconds, or in a part of one that makes the periods of its clock
    # and of the memory's whole
    ("inject_time", _I),  # from one request of a core to the channel to the next; 0: all at once
    ("port_time", _I),  # from one request passed on to the next; 0: there is no network
    ("lane_hash", _I, (HASH_ROWS,)),  # what the upper bits of a burst add to its channel
    ("lane_of", _I, (HASH_CHANNELS,)),  # place among its neighbours of the burst on a channel
    ("cycle_time", _I),
]
"""How it takes them in."""

CHANNEL = np.dtype(
    [
        ("index", _I),
        ("now", _I),  # next cycle to process
        ("turn", _I),  # bank queue that the round robin served last
        ("drain", _I),  # writes left of the drain under way
        ("queued", _I, (2,)),  # requests in the read and in the write queue
        ("movable", _I, (2,)),  # those whose bank queue has room
        ("waiting", _I),  # requests at the bank queues
        ("ref_due", _I),  # next cycle at which a refresh falls due
        ("ref_unit", _I),  # rank, or bank in its order, whose turn that is
        ("ref_pending", _I),  # refreshes due and not issued
        ("ref_first", _I),  # unit of the first of them
        ("ref_alone", _I),  # refreshes since the last RD or WR while requests waited
        ("in_ref", _I),  # that unit's queues are frozen for the refresh
        ("free", _I),  # first free request entry, -1 if none
        ("pool_used", _I),  # request entries ever used
        ("seq", _I),  # requests moved to the banks, for first come first served
        *SOURCE_FIELDS,
        ("pim_head", _I),  # PIM instructions issued
        ("pim_head_at", _I),  # the next one to issue: its place in the program,
        ("pim_head_round", _I),  # the round of its loop,
        ("pim_row", _I),  # and its row in that round
        ("pim_avail", _I),  # those that came to the PIM command queue
        ("pim_avail_at", _I),  # the next one to come
        ("pim_avail_round", _I),
        ("pim_end", _I),  # all of the operation
        ("pim_skip", _I),  # PIM waits for the next refresh
        ("pim_gwriting", _I),
        ("pim_gwrite_done", _I),
        ("pim_slack", _I),  # cycles to spare before the next refresh
        ("pim_mode", _I),  # a GEMV is under way
        ("pim_first_comp", _I),  # the next COMP is the first after a result was read
        ("pim_last", _I),  # cycle of the last PIM command, for the cycle stack
        ("pim_until", _I),  # end of what that command does, and its cause
        ("pim_doing", _I),
        ("pim_opened", _I),  # a bank group of the tile is open
        ("pim_refreshed", _I),  # a refresh came between
        ("pim_step", _I),  # dot products of the current COMP instruction already issued
        ("pim_next", _I),  # no PIM command can go before this cycle
        ("pim_estimate", _I),  # cycles that the head will take, -1 if not known
        ("pim_room", _I),  # cycles between the last refresh and the next one that was due
        ("pim_scan", _I),  # banks below hold nothing that the head must close
        ("pw_len", _I),  # PIM's writes that wait for the write queue
        ("pw_head", _I),  # first of their entries, and how many there are
        ("pw_used", _I),
        ("pw", _I, (MAX_PIM_WRITES, 2)),  # ring: cycle from which, how many bursts
        ("pw_burst", _I),  # next burst that they write
        ("last_cmd", _I),  # cycle of the last command
        ("last_done", _I),  # cycle at which the last data arrived
        ("bus_until", _I),  # cycle at which the data bus is done with all bursts so far
        ("columns_until", _I),  # the same of the banks and their dot products
        ("counter", _I, (N_COUNTERS,)),
        ("rank", _I, (MAX_RANKS, 3)),  # open row buffers, since when any, cycles with any
        ("wake", _I, (MAX_BANKS,)),  # no request of the bank can go before this cycle
        ("row_wake", _I, (MAX_BANKS,)),  # it can neither open nor close a row before
        ("closed", _I, (MAX_BANKS,)),  # 1: no row in the normal row buffer
        ("bank_next", _I),  # nor any of all banks; 0: not known
        ("bank", _I, (MAX_BANKS, N_BANK)),
        # requests at a bank by kind and row modulo ROW_SLOTS: none there, no need to search
        ("rows_queued", np.int32, (MAX_BANKS, 2, ROW_SLOTS)),
        # read and write queue in order of arrival: entry * MAX_BANKS + bank
        ("queue", _I, (2, MAX_QUEUE)),
        ("window", _I, (MAX_WINDOWS * MAX_RANKS * WINDOW_SLOT,)),
        ("request", np.int32, (MAX_REQUESTS, N_REQUEST)),  # under way
        ("detail", _I, (MAX_REQUESTS, N_DETAIL)),
        ("ready", _I, (MAX_NODES * STRIDE,)),  # first cycle a node allows a command
        ("seen", np.int32, (2 * FILTER,)),  # reads and writes under way by hash of their burst
    ],
    align=True,
)
"""One channel."""

PARAMETERS = np.dtype(
    [
        ("ranks", _I),
        ("rank_shift", _I),  # log2 of the banks of a rank
        ("group_shift", _I),  # log2 of the banks of a bank group
        ("banks", _I),  # of the channel
        ("group_node", _I),  # first node of the bank groups
        ("bank_node", _I),
        ("read_delay", _I),
        ("nbl", _I),
        ("hit_cap", _I),
        ("bank_depth", _I),
        ("read_depth", _I),
        ("write_depth", _I),
        ("drain_low", _I),
        ("drain_high", _I),
        ("fcfs", _I),
        ("closed_page", _I),
        ("auto_precharge", _I),  # 0, or what makes RD and WR RDA and WRA in the log
        ("feed", _I),  # requests that a cycle brings at most
        ("in_flight", _I),  # requests that wait for their command at most
        ("dual_command", _I),
        ("ref_interval", _I),  # cycles from one refresh of the channel to the next
        ("ref_units", _I),  # ranks, or banks, that take turns
        ("ref_per_bank", _I),
        ("ref_command", _I),
        ("merge", _I),  # 1: requests for one burst are merged, 2: only kept in order
        ("has_pim", _I),
        ("row_buffers", _I),
        ("trp", _I),
        ("trcd", _I),
        ("trcdwr", _I),
        ("tfaw", _I),
        ("trtp", _I),
        ("tccd_s", _I),  # of one burst on the bus to the next at the memory's peak
        ("tccd_l", _I),
        ("gwrite", _I),
        ("comp_pipeline", _I),
        ("holds_opening", _I),  # PIM's G_ACT needs room in windows of activations
        ("shared_window", _I),  # ranks share one
        ("comp_gap", _I),  # first COMP to READRES
        ("result_slope", _I),  # cycles that each dot product adds before GEMV's result is read
        ("avoid_refresh", _I),
        ("slack", _I),
        *PORT_FIELDS,
        ("channel_width", _I),
        ("field", _I, (5, 2)),  # shift and width of each field of a channel's burst index
        ("n_windows", _I),
        ("windows", _I, (MAX_WINDOWS, 6)),
        ("window_adds", _I, (MAX_WINDOWS, len(COMMANDS))),
        ("first", _I, (len(COMMANDS), LEVELS + 1)),
        ("rules", _I, (MAX_RULES, 4)),
    ],
    align=True,
)
"""What a memory and a PIM design mean to the kernel."""


BOARD = np.dtype(
    [
        ("log_limit", _I),  # commands that the log may hold; 0: none is kept
        ("logged", _I),
        ("ticket", _I, (MAX_TICKETS, 2)),  # what is still to come, cycle of the last that came
        ("segment", _I, (MAX_SEGMENTS, N_SEGMENT)),  # streams, each channel's in a row
        ("listed", np.int32, (MAX_LISTED, 2)),  # burst within the channel, block of the stream
        ("program", _I, (MAX_INSTRUCTIONS, N_INSTRUCTION)),  # PIM, each channel's in a row
        ("log", _I, (MAX_LOG, 5)),  # cycle, channel, command, bank, row
        ("log_burst", _I, (MAX_LOG,)),  # burst of the request behind it, -1: not known
    ],
    align=True,
)
"""What the channels are asked to do, and what became of it."""


def bounded(found: int, most: int, what: str) -> int:
    """``found`` again, if the kernel's tables have room for it.

    Parameters
    ----------
    found
        What a config or a run asks for.
    most
        What the tables have room for.
    what
        Its words for the message: a key, or what is counted.

    Returns
    -------
    int
        ``found``.

    Raises
    ------
    InputError
        It is more than ``most``.
    """
    if found > most:
        raise InputError(f"{what}: {found}; the kernel has room for {most}")
    return found


def places(p: Records) -> dict[str, int]:
    """How many entries, along its first axis, a channel uses of each field that is larger.

    Of ``request`` those that can be under way: the controller's queues and the banks' are full.

    Parameters
    ----------
    p
        Of ``parameters.make_parameters``, (1,).

    Returns
    -------
    dict of str to int
        By field of ``CHANNEL``; fields that are not named are used whole.
    """
    one = p[0]
    banks = int(one["banks"])
    under_way = banks * int(one["bank_depth"]) + int(one["read_depth"]) + int(one["write_depth"])
    merging = one["merge"] == 1
    return {
        "wake": banks, "row_wake": banks, "closed": banks, "bank": banks, "rows_queued": banks,
        "window": int(one["n_windows"]) * int(one["ranks"]) * WINDOW_SLOT,
        "request": under_way, "detail": under_way if merging else 0,
        "ready": (int(one["bank_node"]) + banks) * STRIDE,
        "seen": 2 * FILTER if merging else 0,
        "pw": MAX_PIM_WRITES if one["has_pim"] else 0,
    }  # fmt: skip


def make_channels(memory: MemoryConfig, p: Records) -> Records:
    """All channels idle, all banks closed, cycle 0.

    Parameters
    ----------
    memory
        Its ``organization.channels`` are counted.
    p
        Of ``parameters.make_parameters``, (1,).

    Returns
    -------
    Records
        Of ``CHANNEL``, (channels,).
    """
    channels, lent_before = lend(CHANNEL, memory.organization.channels)
    if lent_before:
        clear(channels, places(p))
    channels["index"] = np.arange(len(channels))
    channels["free"] = -1
    banks = int(p[0]["banks"])
    channels["wake"][:, :banks] = INFINITY
    channels["row_wake"][:, :banks] = INFINITY
    channels["closed"][:, :banks] = 1
    for column in (B_ROW, B_PIM_ROW, B_HEAD, B_TAIL, B_HIT_RD, B_HIT_WR):
        channels["bank"][:, :banks, column] = -1
    channels["ref_due"] = p[0]["ref_interval"]
    channels["pim_first_comp"] = 1
    channels["pim_estimate"] = -1
    channels["pim_room"] = INFINITY
    used = int(p[0]["n_windows"]) * memory.organization.ranks
    rings = channels["window"].reshape(len(channels), -1, WINDOW_SLOT)
    rings[:, :used, 1:] = -INFINITY
    return channels


def make_board(log_entries: int = 0) -> Records:
    """Nothing asked for yet. What it holds of an earlier simulation is written before it is read.

    Parameters
    ----------
    log_entries
        Commands that are logged at most; 0: none.

    Returns
    -------
    Records
        Of ``BOARD``, (1,).

    Raises
    ------
    InputError
        There is no room for so many.
    """
    board, _ = lend(BOARD, 1)
    board["logged"] = 0
    board["log_limit"] = bounded(log_entries, MAX_LOG, "commands to log")
    return board
