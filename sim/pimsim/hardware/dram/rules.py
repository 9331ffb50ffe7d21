"""A DRAM standard compiled to tables: commands, levels and delays, nothing else.

The channel kernel knows no standard. It reads, for each command that it issues, a list of
``(level, then, delay, slope)``: at the node of that level, ``then`` may follow after ``delay``
cycles, plus ``slope`` for each dot product of a composite PIM command. ``window`` rules (tFAW)
bind a command to the n-th before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError, near_miss
from pimsim.config.memory import MemoryConfig, OrganizationConfig, Rule
from pimsim.config.pim import PimConfig

__all__ = [
    "BANK",
    "BANK_GROUP",
    "BOUND_AS",
    "COMMANDS",
    "LEVELS",
    "OTHER_RANKS",
    "PSEUDO_CHANNEL",
    "RANK",
    "ROW_COMMANDS",
    "Command",
    "CommandBus",
    "RuleTables",
    "compile_rules",
    "window_places",
]


class Command(IntEnum):
    """What goes over the command bus; the order is the kernel's."""

    ACT = 0
    PRE = 1
    RD = 2
    WR = 3
    REF = 4
    G_ACT = 5
    """Opens one row in every bank of a bank group, in the PIM row buffer (NeuPIMs section 5)."""
    PIM_PRE = 6
    """Closes the PIM row buffer of one bank; a plain PRE where there is one row buffer."""
    GWRITE = 7
    """A row into the channel's global (operand) buffer."""
    HEADER = 8
    """Announces a GEMV: its row, dot products and result reads."""
    COMP = 9
    """One dot product step in all banks of the channel."""
    READRES = 10
    """Reads the banks' accumulators: one burst."""
    GEMV = 11
    """COMPS_READRES: n COMPs and a READRES under one command."""
    REFpb = 12
    """Refreshes one bank (HBM's REFSB)."""
    PREA = 13
    """Closes every bank of a rank or, where a controller refreshes whole pseudo channels, of a
    pseudo channel."""
    RDA = 14
    """RD with auto-precharge: the bank closes as soon as a PRE could go."""
    WRA = 15
    """WR with auto-precharge."""


BOUND_AS = {Command.RDA: Command.RD, Command.WRA: Command.WR}
"""Whose rules a command keeps, in addition to its own."""
_SILENT = {Command.PRE, Command.PREA, Command.PIM_PRE}
"""What a bank that closes by itself does not hold up: it takes no place on the bus (tPPD)."""
COMMANDS = tuple(command.name for command in Command)
_LEVELS = {
    "channel": 0, "rank": 1, "other_ranks": 2, "bank_group": 3, "bank": 4, "pseudo_channel": 5
}  # fmt: skip
LEVELS = len(_LEVELS)
RANK, OTHER_RANKS, BANK_GROUP, BANK, PSEUDO_CHANNEL = (
    _LEVELS[name] for name in ("rank", "other_ranks", "bank_group", "bank", "pseudo_channel")
)
ROW_COMMANDS = frozenset(
    Command[name] for name in ("ACT", "PRE", "PREA", "REF", "REFpb", "G_ACT", "PIM_PRE", "HEADER")
)
"""Commands on the row pins of a bus with two sets; the others go over the column pins."""
_RANK_WIDE = {Command.REF, Command.PREA}
_GROUP_WIDE = {Command.G_ACT}
_CHANNEL_WIDE = {Command.COMP, Command.READRES, Command.GEMV, Command.HEADER}


@dataclass(frozen=True)
class RuleTables:
    """Arrays that the kernel reads; ``rules[i] = (level, then, delay, slope)``."""

    rules: NDArray[np.int64]
    """(rules, 4), grouped by first command and level."""
    first: NDArray[np.int64]
    """(commands, levels + 1): those of command ``c`` at level ``l`` are
    ``rules[first[c, l]:first[c, l + 1]]``."""
    windows: NDArray[np.int64]
    """(windows, 6): command, how many before it, delay, level that it counts at, first window of
    the same rule, and how many places the command takes there."""
    window_adds: NDArray[np.int64]
    """(windows, commands): places that a command takes in the window's rule."""


def _command(name: str, where: str) -> Command:
    try:
        return Command[name]
    except KeyError:
        raise InputError(
            f"{where}: no command {name!r}{near_miss(name, COMMANDS)}; "
            f"known are {', '.join(COMMANDS)}"
        ) from None


def window_places(
    rule: Rule, pim: PimConfig | None, organization: OrganizationConfig
) -> dict[Command, int]:
    """Places that commands take in a window of ``rule``: one each.

    A window over ACT is one over activations: PIM's G_ACT, which opens a bank group at once, takes
    as many as there are banks in it. Where it opens more than a window holds, as many windows as it
    fills must pass before the next.
    """
    places = {Command[name]: 1 for name in rule.first}
    counted = pim is not None and pim.windowed_activations
    if Command.ACT in places and counted:
        places[Command.G_ACT] = organization.banks_per_group
    return places


def _check_scope(rule: Rule, first: Command, where: str) -> None:
    """A command that touches many banks can only bind from its own level upwards."""
    too_low = (
        (first in _CHANNEL_WIDE and rule.level != "channel")
        or (first in _RANK_WIDE and rule.level in ("bank_group", "bank", "row_buffer"))
        or (first in _GROUP_WIDE and rule.level in ("bank", "row_buffer"))
    )
    if too_low:
        raise InputError(f"{where}: {first.name} acts on more than one {rule.level}")


@dataclass(frozen=True)
class CommandBus:
    """What a memory's command bus makes of delays, in ticks of a kernel."""

    memory: MemoryConfig
    ticks_per_clock: int
    """Of the kernel: 1, or those of the memory's bus; coarser ticks round delays up."""

    def duration(self, command: Command) -> int:
        """Ticks of the memory's bus that ``command`` takes."""
        return self.memory.command_bus.ticks(BOUND_AS.get(command, command).name)

    def delay(self, first: Command, then: Command, clocks: int) -> int:
        """A rule's delay from start to start: rules count from the ends of both commands."""
        ticks = clocks * self.memory.command_bus.ticks_per_clock
        return self._scaled(ticks + self.duration(first) - self.duration(then))

    def occupied(self, command: Command) -> int:
        """Ticks of the kernel for which ``command`` keeps others off its pins."""
        return self._scaled(self.duration(command))

    def occupancy(self) -> list[tuple[Command, Command, int]]:
        """``(first, then, ticks)``: while a command is sent, its pins take no other."""
        split = self.memory.controller.commands_per_cycle == 2
        return [
            (first, then, self.occupied(first))
            for first in Command
            if self.occupied(first) > 1
            for then in Command
            if not split or (first in ROW_COMMANDS) == (then in ROW_COMMANDS)
        ]

    def _scaled(self, ticks: int) -> int:
        return -(-ticks * self.ticks_per_clock // self.memory.command_bus.ticks_per_clock)


def _bind(
    group: dict[tuple[int, int], tuple[int, int]], level: int, then: Command, delay: int,
    slope: int = 0,
) -> None:  # fmt: skip
    """Let ``then`` wait at ``level``, unless it does so for longer."""
    known = group.get((level, int(then)), (-(10**9), 0))
    group[level, int(then)] = max(known, (delay, slope))


def _closing_clocks(memory: MemoryConfig) -> dict[Command, int]:
    """Clocks from ACT, RD and WR until their bank may close."""
    found = {Command.ACT: 0, Command.RD: 0, Command.WR: 0}
    for index, rule in enumerate(memory.rules):
        if rule.window == 1 and "PRE" in rule.then and rule.level in ("row_buffer", "bank"):
            clocks = evaluate_delay(rule.delay, memory.timings, f"memory.rules[{index}]")
            for command in found:
                if command.name in rule.first:
                    found[command] = max(found[command], clocks)
    return found


def _closes_itself(memory: MemoryConfig, then: Command) -> list[tuple[Command, int]]:
    """``(first, clocks)`` before a PRE that nobody sends, for what ``then`` waits from a PRE on.

    Where the memory has rules of its own from RDA or WRA to ``then``, those are all that count.
    """
    own = {
        Command[name]
        for rule in memory.rules
        if then.name in rule.then
        for name in rule.first
        if name in ("RDA", "WRA")
    }
    given = {BOUND_AS[command] for command in own}
    clocks = _closing_clocks(memory)
    if given:
        del clocks[Command.ACT]
    return [(first, delay) for first, delay in clocks.items() if first not in given]


def compile_rules(
    memory: MemoryConfig, pim: PimConfig | None, ticks_per_clock: int = 1
) -> RuleTables:
    """Tables of ``memory``'s rules, with those of ``pim`` on top, in ticks of the kernel.

    A rule at ``row_buffer`` binds only commands of the same buffer: with two row buffers the
    PIM commands live in the second, with one they share the first. That is all a dual row
    buffer is here. Where every access closes its row (``auto-precharge``), the tables of RD and WR
    are those of RDA and WRA.
    """
    closing = memory.controller.page_policy == "auto-precharge"
    names = dict(memory.timings)
    listed = [(rule, f"memory.rules[{i}]") for i, rule in enumerate(memory.rules)]
    if pim is not None:
        names.update(pim.timings)
        listed += [(rule, f"pim.rules[{i}]") for i, rule in enumerate(pim.bound_rules)]
    bus = CommandBus(memory, ticks_per_clock)
    grouped: list[dict[tuple[int, int], tuple[int, int]]] = [{} for _ in Command]
    for first, then, ticks in bus.occupancy():
        grouped[first][_LEVELS["channel"], int(then)] = (ticks, 0)
    windows: list[tuple[int, ...]] = []
    adds: list[dict[Command, int]] = []
    for rule, where in listed:
        # n, the dot products of a composite command, enters linearly: two points give the line
        base = evaluate_delay(rule.delay, {**names, "n": 0}, where)
        slope = evaluate_delay(rule.delay, {**names, "n": 1}, where) - base
        if rule.window > 1:
            for name in (*rule.first, *rule.then):
                _command(name, where)
            places = window_places(rule, pim, memory.organization)
            at, level, size = len(windows), _LEVELS[rule.level], rule.window
            for then, room in places.items():
                # from the end of any of them to the end of this one
                delay = max(bus.delay(first, then, base) for first in places)
                windows.append((int(then), size, delay, level, at, min(room, size)))
                adds.append({command: min(count, size) for command, count in places.items()})
                for first, count in places.items():
                    if count > size:
                        delay = bus.delay(first, then, -(-count // size) * base)
                        _bind(grouped[first], level, then, delay)
            continue
        for first in (_command(name, where) for name in rule.first):
            if first in BOUND_AS:
                if not closing:
                    continue
                first = BOUND_AS[first]
            for then in (_command(name, where) for name in rule.then):
                delay = bus.delay(first, then, base)
                if rule.level == "row_buffer":
                    if pim is not None and (
                        pim.in_pim_buffer(first.name) != pim.in_pim_buffer(then.name)
                    ):
                        continue
                    level = _LEVELS["bank_group" if first in _GROUP_WIDE else "bank"]
                else:
                    _check_scope(rule, first, where)
                    level = _LEVELS[rule.level]
                _bind(grouped[first], level, then, delay, slope * ticks_per_clock)
                if closing and first == Command.PRE and then not in _SILENT:
                    for access, clocks in _closes_itself(memory, then):
                        after = bus.delay(access, then, clocks + base)
                        _bind(grouped[access], level, then, after)
    flat = [
        [(level, then, base, slope) for (level, then), (base, slope) in sorted(group.items())]
        for group in grouped
    ]
    first_index = np.zeros((len(Command), LEVELS + 1), dtype=np.int64)
    rows: list[tuple[int, int, int, int]] = []
    for command, group in enumerate(flat):
        for level in range(LEVELS):
            first_index[command, level] = len(rows)
            rows += [row for row in group if row[0] == level]
        first_index[command, LEVELS] = len(rows)
    return RuleTables(
        rules=np.array(rows, dtype=np.int64).reshape(-1, 4),
        first=first_index,
        windows=np.array(windows, dtype=np.int64).reshape(-1, 6),
        window_adds=np.array(
            [[places.get(command, 0) for command in Command] for places in adds], dtype=np.int64
        ).reshape(-1, len(Command)),
    )
