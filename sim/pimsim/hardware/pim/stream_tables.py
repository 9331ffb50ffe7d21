"""A stream design compiled to the arrays that the kernel reads: it knows no command by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim_stream import LEVELS, StreamPimConfig, StreamRule
from pimsim.hardware.dram.rules import evaluate_delay

__all__ = ["StreamTables", "compile_stream_tables"]

_BUSES = ("row", "column", "none")
_ROWS = ("any", "open", "closed")
_EFFECTS = ("none", "open", "close")
_MODES = ("any", "bank", "register")

Ints = NDArray[np.int64]


class StreamTables(NamedTuple):
    """Arrays by command number (the order of ``commands`` in the YAML) and level."""

    counts: Ints
    """(4,): pseudo channels, ranks, bank groups, banks a group."""
    offsets: Ints
    """(6,): number of the first node of each level among all nodes of a channel, and the total."""
    broadcast: NDArray[np.bool_]
    """(commands, 4): whether it goes to all pseudo channels, ranks, bank groups, banks."""
    bus: Ints
    row: Ints
    activate: Ints
    precharge: Ints
    effect: Ints
    latency: Ints
    mode: Ints
    rules: Ints
    """(rules, 2): then, delay; those of first command ``c`` at level ``l`` are
    ``rules[first[c, l]:first[c, l + 1]]``."""
    first: Ints
    """(commands, levels + 1)."""
    bound: NDArray[np.bool_]
    """(commands, levels): whether some rule at the level holds the command back."""
    windows: Ints
    """(windows, 3): level, how many commands before, delay."""
    window_first: NDArray[np.bool_]
    """(windows, commands)."""
    window_then: NDArray[np.bool_]
    controller: Ints
    """(6,): queue depth, commands a cycle, instructions a cycle, row lookahead, mode switch
    command (-1 none), refresh command (-1 none)."""
    refresh_interval: int
    hits_hold_moves: int
    """Whether commands that need no row wait for row hits at their address."""


def compile_stream_tables(design: StreamPimConfig) -> StreamTables:
    """Tables of ``design``. Raises ``InputError`` for a delay that is no arithmetic."""
    names = list(design.commands)
    number = {name: index for index, name in enumerate(names)}
    commands = list(design.commands.values())
    counts = np.array(design.organization.counts, dtype=np.int64)
    nodes = np.concatenate(([1], np.cumprod(counts)))
    controller = design.controller
    refresh = controller.refresh

    def cycles(text: str, where: str) -> int:
        return evaluate_delay(text, design.timings, f"{design.name}: {where}")

    def optional(name: str | None) -> int:
        return -1 if name is None else number[name]

    def column(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    latency = [cycles(c.latency, f"commands.{n}.latency") for n, c in design.commands.items()]
    if min(latency, default=1) < 1:
        raise InputError(f"{design.name}: commands: a latency below one cycle")
    interval = 0
    if refresh is not None:
        interval = cycles(refresh.interval, "controller.refresh.interval")
        if interval < 1:
            raise InputError(f"{design.name}: controller.refresh.interval is {interval} cycles")
    rules, first, bound = _pairs(design, number)
    windows, window_first, window_then = _windows(design, number)
    return StreamTables(
        counts=counts,
        offsets=np.concatenate(([0], np.cumsum(nodes))).astype(np.int64),
        broadcast=np.array([[lv in c.broadcast for lv in LEVELS[1:]] for c in commands]),
        bus=column([_BUSES.index(c.bus) for c in commands]),
        row=column([_ROWS.index(c.row) for c in commands]),
        activate=column([optional(c.activate) for c in commands]),
        precharge=column([optional(c.precharge) for c in commands]),
        effect=column([_EFFECTS.index(c.effect) for c in commands]),
        latency=column(latency),
        mode=column([_MODES.index(c.mode) for c in commands]),
        rules=rules,
        first=first,
        bound=bound,
        windows=windows,
        window_first=window_first,
        window_then=window_then,
        controller=column(
            [
                controller.queue_depth,
                controller.commands_per_cycle,
                controller.instructions_per_cycle,
                int(controller.row_lookahead),
                optional(controller.mode_switch),
                optional(refresh.command if refresh else None),
            ]
        ),
        refresh_interval=interval,
        hits_hold_moves=int(controller.artifact_hits_hold_moves),
    )


def _delay(design: StreamPimConfig, index: int, rule: StreamRule) -> int:
    return evaluate_delay(rule.delay, design.timings, f"{design.name}: rules.{index}.delay")


def _pairs(design: StreamPimConfig, number: dict[str, int]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Rules of two commands; of several for the same pair and level the longest binds."""
    grouped: dict[tuple[int, int, int], int] = {}
    for index, rule in enumerate(design.rules):
        if rule.window > 1:
            continue
        delay = _delay(design, index, rule)
        for first in rule.first:
            for then in rule.then:
                key = (number[first], LEVELS.index(rule.level), number[then])
                grouped[key] = max(delay, grouped.get(key, delay))
    rows: list[tuple[int, int]] = []
    starts = np.zeros((len(number), len(LEVELS) + 1), dtype=np.int64)
    bound = np.zeros((len(number), len(LEVELS)), dtype=np.bool_)
    for command in range(len(number)):
        for level in range(len(LEVELS)):
            starts[command, level] = len(rows)
            for (before, at, after), delay in grouped.items():
                if before == command and at == level:
                    rows.append((after, delay))
                    bound[after, level] = True
        starts[command, len(LEVELS)] = len(rows)
    return np.array(rows, dtype=np.int64).reshape(-1, 2), starts, bound


def _windows(
    design: StreamPimConfig, number: dict[str, int]
) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Rules that bind a command to the n-th before it."""
    found = [(i, rule) for i, rule in enumerate(design.rules) if rule.window > 1]
    table = np.zeros((len(found), 3), dtype=np.int64)
    first = np.zeros((len(found), len(number)), dtype=np.bool_)
    then = np.zeros((len(found), len(number)), dtype=np.bool_)
    for at, (index, rule) in enumerate(found):
        table[at] = (LEVELS.index(rule.level), rule.window, _delay(design, index, rule))
        first[at, [number[name] for name in rule.first]] = True
        then[at, [number[name] for name in rule.then]] = True
    return table, first, then
