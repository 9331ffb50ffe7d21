"""A stream design compiled to what the kernel reads and writes: records of plain numbers.

The kernel knows no command and no standard by name. Records have room for the largest design,
so that it is compiled once for all of them; what is not used is never touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from pimsim.config.commands import UNIT, stream_rules
from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig
from pimsim.config.pim_controller import RefreshConfig
from pimsim.hardware.rule_tables import NamedRule, PairTable, named_rules

__all__ = [
    "BUSES",
    "EFFECTS",
    "ENTRY",
    "MODES",
    "NEVER",
    "ROWS",
    "WAITS",
    "make_channels",
    "make_parameters",
]

PLACES = (*LEVELS, "other_ranks")
"""Where a rule of two commands may hold, as the kernel counts it; a bank has one row buffer."""
NEVER = 1 << 60
"""Later than any cycle of any run."""
MAX_COMMANDS = 64
MAX_BANKS = 1024
"""Banks of one channel."""
MAX_NODES = 2 * MAX_BANKS
MAX_LANES = 256
MAX_RULES = 4096
"""Pairs of commands at a level."""
MAX_ELSEWHERE = 16
"""Pairs of commands whose rule has ``other_place``."""
MAX_WINDOWS = 8
MAX_WINDOW = 16

# the numbers of words in YAML ------------------------------------------------------------------
BUSES = ("row", "column", "none", "both")
ROWS = ("any", "open", "closed")
EFFECTS = ("none", "open", "close")
MODES = ("any", "bank", "register", "all_bank")
QUEUES = ("pim", "plain")
WAITS = ("none", "issued", "completed")

_INT = np.int64

PARAMETERS = np.dtype(
    [
        ("counts", _INT, 4),  # pseudo channels, ranks, bank groups, banks: children of a node
        ("offsets", _INT, 6),  # first node of each level among a channel's nodes; their total
        ("lanes", _INT),
        ("queue_depth", _INT),
        ("commands_per_cycle", _INT),
        ("instructions_per_cycle", _INT),
        ("row_lookahead", _INT),
        ("hits_hold_moves", _INT),
        ("mode_switch", _INT),  # command, -1 none
        ("refresh", _INT),  # command, -1 none
        ("refresh_interval", _INT),
        ("refresh_nodes", _INT),  # nodes of a channel, each refreshed by a command of its own
        ("refresh_step", _INT),  # between the refreshes of two nodes; 0: all at once
        ("refresh_postponed", _INT),  # owed by a channel while requests go on
        ("refresh_drops", _INT),  # whether one that is late is lost when the next falls due
        ("broadcast", _INT, (MAX_COMMANDS, 4)),  # at each level below the channel:
        # 0 to the addressed node, 1 to all, more: to an aligned block of so many with it, less than
        # 0: to every so many-th, in step with it
        ("bus", _INT, MAX_COMMANDS),
        ("row", _INT, MAX_COMMANDS),
        ("activate", _INT, MAX_COMMANDS),
        ("precharge", _INT, MAX_COMMANDS),
        ("effect", _INT, MAX_COMMANDS),
        ("latency", _INT, MAX_COMMANDS),
        ("mode", _INT, MAX_COMMANDS),
        ("queue", _INT, MAX_COMMANDS),
        ("first", _INT, (MAX_COMMANDS, len(PLACES) + 1)),
        # rules of first command c at level l: first[c, l] to first[c, l + 1] - 1
        ("rules", _INT, (MAX_RULES, 2)),  # then, delay
        ("bound", _INT, (MAX_COMMANDS, len(LEVELS))),  # whether a rule there holds it back
        ("n_elsewhere", _INT),
        ("elsewhere", _INT, (MAX_ELSEWHERE, 7)),  # first, then, delay, level of each coordinate
        ("n_windows", _INT),
        ("windows", _INT, (MAX_WINDOWS, 3)),  # level, commands before, delay
        ("window_first", _INT, (MAX_WINDOWS, MAX_COMMANDS)),
        ("window_then", _INT, (MAX_WINDOWS, MAX_COMMANDS)),
    ]
)
"""A design, by command number (the order of ``commands`` in the YAML)."""

CHANNEL = np.dtype(
    [
        ("start", _INT),  # entries of this channel: start to end - 1
        ("end", _INT),
        ("sent", _INT),  # entries that the host has sent
        ("issued", _INT),
        ("asked", _INT),  # the last instruction sent; how many of its entries have not gone ...
        ("asked_left", _INT),
        ("asked_done", _INT),  # ... and when those that have gone are completed
        ("fence", _INT),  # the next entry with a wait that is not over
        ("done", _INT),  # when everything issued so far is completed
        ("mode", _INT),
        ("due", _INT),  # next refresh
        ("refreshes", _INT),  # since an entry was last issued
        ("refreshing", _INT),  # next node to refresh, -1 when none is due
        ("wake", _INT),  # nothing can happen before
        ("version", _INT),  # counts changes of open rows
        ("logged", _INT),
        ("ready", _INT, (MAX_NODES, MAX_COMMANDS)),  # first cycle that the node allows
        ("ring", _INT, (MAX_WINDOWS, MAX_NODES, MAX_WINDOW)),  # what past commands allow
        ("ring_at", _INT, (MAX_WINDOWS, MAX_NODES)),
        ("open_row", _INT, MAX_BANKS),  # -1 closed
        ("head", _INT, MAX_LANES),  # the oldest entry not issued, -1 none
        ("checked", _INT, MAX_LANES),  # entry whose row was last found open, -1 none
        ("checked_at", _INT, MAX_LANES),  # ... at which version
        ("counts", _INT, MAX_COMMANDS),
        ("place", _INT, 4),  # of the refresh
        ("nodes", _INT, MAX_BANKS),  # scratch
        ("marks", _INT, MAX_BANKS),  # scratch
    ]
)
"""What a run changes in a channel."""

ENTRY = np.dtype(
    [
        ("command", np.int32),
        ("place", np.int32, 4),  # pseudo channel, rank, bank group, bank
        ("row", np.int32),
        ("lane", np.int32),
        ("wait", np.int32),
        ("instruction", np.int32),
        ("following", np.int32),  # the next entry of the same lane and channel, -1 for the last
    ]
)
"""A command of a stream, as the kernel reads it."""


def make_parameters(design: PimDesignConfig, lanes: int) -> Any:
    """The design's record.

    Parameters
    ----------
    design
        With a controller of its own.
    lanes
        Of the stream, for each channel.

    Returns
    -------
    PARAMETERS
        Times in cycles of the design's clock.

    Raises
    ------
    InputError
        For what no record has room for, or a time that is too short.
    """
    names = list(design.all_commands)
    number = {name: index for index, name in enumerate(names)}
    controller = design.own_controller
    refresh = controller.refresh
    for what, found, most in (
        ("commands", len(names), MAX_COMMANDS),
        ("memory.organization: banks of a channel", design.organization.channel_banks, MAX_BANKS),
        ("lanes", lanes, MAX_LANES),
    ):
        if found > most:
            raise InputError(f"{design.name}: {what}: found {found}; allowed: at most {most}")

    def cycles(text: str, where: str, least: int) -> int:
        value = evaluate_delay(text, design.all_timings, f"{design.name}: {where}")
        if value < least:
            raise InputError(
                f"{design.name}: {where}: {text} is {value} cycles; allowed: at least {least}"
            )
        return value

    def optional(name: str | None) -> int:
        return -1 if name is None else number[name]

    p = np.zeros(1, dtype=PARAMETERS).view(np.recarray)[0]
    counts = design.organization.counts
    p.counts = counts
    p.offsets = np.concatenate(([0], np.cumsum(np.concatenate(([1], np.cumprod(counts))))))
    p.lanes = lanes
    p.queue_depth = controller.queue_depth
    p.commands_per_cycle = controller.commands_per_cycle
    p.instructions_per_cycle = controller.instructions_per_cycle
    p.row_lookahead = controller.row_lookahead
    p.hits_hold_moves = controller.hits_hold_moves
    p.mode_switch = optional(controller.mode_switch)
    p.refresh = optional(refresh.command if refresh else None)
    if refresh is not None:
        p.refresh_interval = cycles(refresh.interval, "controller.refresh.interval", 1)
        p.refresh_nodes = _refresh_nodes(design, refresh)
        p.refresh_step = p.refresh_interval // p.refresh_nodes if refresh.staggered else 0
        p.refresh_postponed = refresh.postponed * p.refresh_nodes
        p.refresh_drops = refresh.drops_late
    for at, (name, command) in enumerate(design.all_commands.items()):
        p.broadcast[at] = [level in command.broadcast for level in LEVELS[1:]]
        if command.bank_block is not None:
            p.broadcast[at, -1] = command.bank_block
        elif UNIT in command.broadcast:
            p.broadcast[at, -1] = -design.banks_per_unit if design.banks_per_unit > 1 else 1
        p.bus[at] = BUSES.index(command.bus)
        p.row[at] = ROWS.index(command.row)
        p.activate[at] = optional(command.activate)
        p.precharge[at] = optional(command.precharge)
        p.effect[at] = EFFECTS.index(command.effect)
        p.latency[at] = cycles(command.latency, f"commands.{name}.latency", 1)
        p.mode[at] = MODES.index(command.mode)
        p.queue[at] = QUEUES.index(command.queue)
    timings = design.all_timings
    rules = (
        *named_rules(stream_rules(design.memory), f"{design.name}: memory.rules", number, timings),
        *named_rules(design.rules, f"{design.name}: rules", number, timings),
    )
    windows = [named for named in rules if named.rule.window > 1]
    elsewhere = [named for named in rules if named.rule.other_place is not None]
    pairs = [n for n in rules if n.rule.window == 1 and n.rule.other_place is None]
    _fill_pairs(p, design, pairs)
    _fill_elsewhere(p, design, elsewhere)
    _fill_windows(p, design, windows)
    return p


def _refresh_nodes(design: PimDesignConfig, refresh: RefreshConfig) -> int:
    """Nodes of a channel that take a refresh command each."""
    wide = design.all_commands[refresh.command].broadcast
    levels = zip(LEVELS[1:], design.organization.counts, strict=True)
    return math.prod(count for level, count in levels if level not in wide)


class _Bus:
    """What the memory's command bus makes of delays: commands of several ticks hold their pins, and
    rules count from the ends of both."""

    def __init__(self, design: PimDesignConfig) -> None:
        bus = design.memory.command_bus
        self._per_clock = bus.ticks_per_clock
        self._ticks = [bus.ticks(name) for name in design.all_commands]
        self._pins = [command.bus for command in design.all_commands.values()]
        self._apart = design.own_controller.commands_per_cycle == 2

    def delay(self, first: int, then: int, clocks: int) -> int:
        """Clocks from start to start."""
        ticks = clocks * self._per_clock + self._ticks[first] - self._ticks[then]
        return -(-ticks // self._per_clock)

    def occupied(self) -> Iterator[tuple[int, int, int]]:
        """``(first, then, clocks)``: while a command is sent, its pins take no other."""
        for first, ticks in enumerate(self._ticks):
            clocks = -(-ticks // self._per_clock)
            for then, pins in enumerate(self._pins):
                if clocks > 1 and (not self._apart or pins in (self._pins[first], "both")):
                    yield first, then, clocks


def _fill_pairs(p: Any, design: PimDesignConfig, rules: Sequence[NamedRule]) -> None:
    """Rules of two commands."""
    names = list(design.all_commands)
    pairs = PairTable(len(names), len(PLACES))
    bus = _Bus(design)
    for first, then, clocks in bus.occupied():
        pairs.bind(first, 0, then, clocks)
        p.bound[then, 0] = 1
    for named in rules:
        level = "bank" if named.rule.level == "row_buffer" else named.rule.level
        place = PLACES.index(level)
        for first, then in product(named.first, named.then):
            pairs.bind(first, place, then, bus.delay(first, then, named.base))
            p.bound[then, LEVELS.index("rank" if level == "other_ranks" else level)] = 1
    rows, firsts = pairs.arrays()
    if len(rows) > MAX_RULES:
        raise InputError(f"{design.name}: rules: more than {MAX_RULES} pairs of commands")
    p.rules[: len(rows)] = rows[:, 1:3]
    p.first[: len(firsts)] = firsts


def _fill_elsewhere(p: Any, design: PimDesignConfig, rules: Sequence[NamedRule]) -> None:
    """Rules that bind another bank than the first command's."""
    inner, counts = LEVELS[1:], design.organization.counts
    for named in rules:
        rule, where = named.rule, f"{named.where}.other_place"
        if rule.level != "bank" or rule.window > 1:
            raise InputError(f"{where}: found level {rule.level}; allowed: bank, without window")
        places = rule.other_place or []
        if len(places) != len(inner) or "channel" in places:
            raise InputError(f"{where}: found {places}; allowed: four of {inner}")
        sources = [inner.index(level) for level in places]
        for target, source in enumerate(sources):
            if counts[source] > counts[target]:
                raise InputError(
                    f"{where}: a {inner[source]} (of {counts[source]}) as {inner[target]} "
                    f"(of {counts[target]})"
                )
        for first, then in product(named.first, named.then):
            if p.n_elsewhere == MAX_ELSEWHERE:
                raise InputError(f"{where}: more than {MAX_ELSEWHERE} pairs of commands")
            p.elsewhere[p.n_elsewhere] = (first, then, named.base, *sources)
            p.bound[then, LEVELS.index("bank")] = 1
            p.n_elsewhere += 1


def _fill_windows(p: Any, design: PimDesignConfig, rules: Sequence[NamedRule]) -> None:
    """Rules that bind a command to the n-th before it."""
    if len(rules) > MAX_WINDOWS:
        raise InputError(f"{design.name}: rules: more than {MAX_WINDOWS} with a window")
    p.n_windows = len(rules)
    for slot, named in enumerate(rules):
        window = named.rule.window
        if window > MAX_WINDOW:
            raise InputError(f"{named.where}.window: found {window}; allowed: at most {MAX_WINDOW}")
        level = LEVELS.index("bank" if named.rule.level == "row_buffer" else named.rule.level)
        p.windows[slot] = (level, window, named.base)
        for first in named.first:
            p.window_first[slot, first] = 1
        for then in named.then:
            p.window_then[slot, then] = 1


def make_channels(p: Any, bounds: Sequence[tuple[int, int]]) -> Any:
    """Channels (``CHANNEL`` records) before a stream: all closed, nothing sent.

    Parameters
    ----------
    p
        ``PARAMETERS`` record of the design.
    bounds
        First entry of each channel, and the one behind its last.
    """
    channels = np.zeros(len(bounds), dtype=CHANNEL).view(np.recarray)
    for channel, (start, end) in zip(channels, bounds, strict=True):
        channel.start, channel.end = start, end
        channel.fence = start
        channel.asked = -1
        channel.mode = MODES.index("bank")
        channel.due = p.refresh_interval if p.refresh >= 0 else NEVER
        channel.refreshing = -1
        channel.wake = channel.due
        channel.open_row[:] = -1
        channel.head[:] = -1
        channel.checked[:] = -1
    return channels
