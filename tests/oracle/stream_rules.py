"""An independent check of a stream's log: every pair of commands against every rule, no tables."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig


def reached(
    design: PimDesignConfig, name: str, place: tuple[int, ...], depth: int
) -> set[tuple[int, ...]]:
    """Nodes ``depth`` levels below the channel that a command at ``place`` concerns."""
    command = design.all_commands[name]
    nodes: set[tuple[int, ...]] = {()}
    for level, count, at in zip(
        LEVELS[1 : depth + 1], design.organization.counts, place, strict=False
    ):
        width = count if level in command.broadcast else 1
        if level == "bank" and command.bank_block is not None:
            width = command.bank_block
        first = at // width * width
        children = range(first, first + width)
        if level == "bank" and "unit" in command.broadcast:
            share = design.banks_per_unit
            children = range(at % share, count, share)
        nodes = {(*node, child) for node in nodes for child in children}
    return nodes


def depth_of(level: str) -> int:
    """Levels below the channel at which a rule counts: a bank has one row buffer here."""
    return LEVELS.index({"row_buffer": "bank", "other_ranks": "rank"}.get(level, level))


def started(
    design: PimDesignConfig, name: str, place: tuple[int, ...], level: str
) -> set[tuple[int, ...]]:
    """Nodes at which a rule of ``level`` counts from a command at ``place`` on."""
    nodes = reached(design, name, place, depth_of(level))
    if level != "other_ranks":
        return nodes
    return {
        (pseudo, rank) for pseudo, _ in nodes for rank in range(design.organization.ranks)
    } - nodes


def broken_rules(design: PimDesignConfig, log: NDArray[np.int64]) -> Iterator[str]:
    """A line for every rule that a channel's log breaks, and for every access to a wrong row."""
    names = list(design.all_commands)
    lines = [(int(c), names[n], tuple(map(int, place)), int(row))
             for c, n, *place, row in log.tolist()]  # fmt: skip
    lines = [(c, n, tuple(p), r) for c, n, p, r in lines]
    open_rows: dict[tuple[int, ...], int] = {}
    for cycle, name, place, row in lines:
        command = design.all_commands[name]
        banks = reached(design, name, place, 4)
        if command.row == "open" and any(open_rows.get(bank) != row for bank in banks):
            yield f"{cycle}: {name} in {place}: row {row} is not open"
        if command.effect == "open":
            if any(bank in open_rows for bank in banks):
                yield f"{cycle}: {name} in {place}: a bank is open"
            open_rows.update(dict.fromkeys(banks, row))
        if command.effect == "close":
            for bank in banks:
                open_rows.pop(bank, None)
        if design.controller.refresh and name == design.controller.refresh.command:
            for bank in banks & set(open_rows):
                yield f"{cycle}: {name}: {bank} is open"
    for rule in design.all_rules:
        delay = evaluate_delay(rule.delay, design.all_timings, "oracle")
        depth = depth_of(rule.level)
        history: dict[tuple[int, ...], list[int]] = {}
        for cycle, name, place, _ in lines:
            nodes = reached(design, name, place, depth)
            for node in nodes if name in rule.then else ():
                # delays are the same for all first commands: the latest binds most
                past = history.get(node, [])[-rule.window :]
                if len(past) == rule.window and cycle - past[0] < delay:
                    yield f"{cycle}: {name} at {node}: {rule.first} {rule.delay} broken"
            if name in rule.first:
                for node in started(design, name, place, rule.level):
                    history.setdefault(node, []).append(cycle)
