"""A DRAM standard, and a PIM design on it, compiled to tables of the channels' kernels.

The channel kernel knows no standard: what its commands are called is the memory's, and what may
follow what is in the tables (``hardware/rule_tables.py``). What a command bus makes of delays,
auto-precharge and ``window`` rules (tFAW), which bind a command to the n-th before it, are put in
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pimsim.config.commands import PimAction
from pimsim.config.errors import InputError
from pimsim.config.memory import Action, MemoryConfig, OrganizationConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.rule_tables import NamedRule, PairTable, named_rules

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
    "command_numbers",
    "compile_rules",
    "pim_buffer_commands",
    "window_places",
]


class Command(IntEnum):
    """What the kernels do with what goes over the command bus; the order is theirs, and the names
    are those that results count commands by."""

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


_ACTIONS: dict[Action, Command] = {
    "activate": Command.ACT, "precharge": Command.PRE, "read": Command.RD, "write": Command.WR,
    "refresh": Command.REF, "refresh-bank": Command.REFpb, "precharge-all": Command.PREA,
    "read-precharge": Command.RDA, "write-precharge": Command.WRA,
}  # fmt: skip
_PIM_ACTIONS: dict[PimAction, Command] = {
    "activate": Command.G_ACT, "precharge": Command.PIM_PRE, "load-operand": Command.GWRITE,
    "announce": Command.HEADER, "multiply": Command.COMP, "read-result": Command.READRES,
    "multiply-and-read": Command.GEMV,
}  # fmt: skip
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


def command_numbers(memory: MemoryConfig, pim: PimConfig | None) -> dict[str, Command]:
    """The kernels' commands by the names that ``memory`` and ``pim`` have for them.

    Parameters
    ----------
    memory
        Its ``commands``: name to action.
    pim
        Its commands as well; one that is sent as a command of the memory has the number of that.
        None: there is none.

    Returns
    -------
    dict of str to Command
        A PIM command without an action that is none of the memory's has no number.
    """
    numbers = {name: _ACTIONS[action] for name, action in memory.commands.items()}
    if pim is not None:
        for name, command in pim.commands.items():
            if pim.sent_as(name) in numbers:
                numbers[name] = numbers[pim.sent_as(name)]
            elif command.action is not None:
                numbers[name] = _PIM_ACTIONS[command.action]
    return numbers


def window_places(
    first: Iterable[int], pim: PimConfig | None, organization: OrganizationConfig
) -> dict[Command, int]:
    """Places that commands take in a window over ``first``: one each.

    A window over ACT is one over activations: PIM's G_ACT, which opens a bank group at once, takes
    as many as there are banks in it. Where it opens more than a window holds, as many windows as it
    fills must pass before the next.

    Parameters
    ----------
    first
        ``Command`` numbers that the rule counts.
    pim
        Whether its activations count, ``windowed_activations``; None: there are none.
    organization
        Of the memory: banks of a bank group.

    Returns
    -------
    dict of Command to int
        All of ``first`` and, of a window over ACT, G_ACT.

    References
    ----------
    JEDEC tFAW; NeuPIMs section 5 on G_ACT.
    """
    places = {Command(number): 1 for number in first}
    counted = pim is not None and pim.windowed_activations
    if Command.ACT in places and counted:
        places[Command.G_ACT] = organization.banks_per_group
    return places


def _check_scope(named: NamedRule, first: Command) -> None:
    """A command that touches many banks can only bind from its own level upwards."""
    level = named.rule.level
    too_low = (
        (first in _CHANNEL_WIDE and level != "channel")
        or (first in _RANK_WIDE and level in ("bank_group", "bank", "row_buffer"))
        or (first in _GROUP_WIDE and level in ("bank", "row_buffer"))
    )
    if too_low:
        raise InputError(f"{named.where}: {first.name} acts on more than one {level}")


@dataclass(frozen=True)
class CommandBus:
    """What a memory's command bus makes of delays, in ticks of a kernel."""

    memory: MemoryConfig
    ticks_per_clock: int
    """Of the kernel: 1, or those of the memory's bus; coarser ticks round delays up."""

    def duration(self, command: Command) -> int:
        """Ticks of the memory's bus that ``command`` takes."""
        return self._durations.get(
            BOUND_AS.get(command, command), self.memory.command_bus.ticks_per_clock
        )

    @cached_property
    def _durations(self) -> dict[Command, int]:
        numbers = command_numbers(self.memory, None)
        return {numbers[name]: n for name, n in self.memory.command_bus.duration.items()}

    def delay(self, first: Command, then: Command, clocks: int) -> int:
        """A rule's delay from start to start: rules count from the ends of both commands."""
        ticks = clocks * self.memory.command_bus.ticks_per_clock
        return self._scaled(ticks + self.duration(first) - self.duration(then))

    def occupied(self, command: Command) -> int:
        """Ticks of the kernel for which ``command`` keeps others off its pins."""
        return self._scaled(self.duration(command))

    def occupancy(self) -> list[tuple[Command, Command, int]]:
        """``(first, then, ticks)``: while a command is sent, its pins take no other. RDA and WRA
        are sent as RD and WR."""
        split = self.memory.controller.commands_per_cycle == 2
        return [
            (first, then, self.occupied(first))
            for first in Command
            if self.occupied(first) > 1 and first not in BOUND_AS
            for then in Command
            if not split or (first in ROW_COMMANDS) == (then in ROW_COMMANDS)
        ]

    def _scaled(self, ticks: int) -> int:
        return -(-ticks * self.ticks_per_clock // self.memory.command_bus.ticks_per_clock)


def _closing_clocks(rules: Sequence[NamedRule]) -> dict[Command, int]:
    """Clocks from RD and WR until their bank may close, by the memory's own rules."""
    found = {Command.RD: 0, Command.WR: 0}
    for each in rules:
        if (
            each.rule.window == 1
            and Command.PRE in each.then
            and each.rule.level in ("row_buffer", "bank")
        ):
            for command in found:
                if command in each.first:
                    found[command] = max(found[command], each.base)
    return found


def _bind_closing(
    pairs: PairTable,
    bus: CommandBus,
    rules: Sequence[NamedRule],
    level: int,
    then: Command,
    base: int,
) -> None:
    """``then`` may go ``base`` clocks after the PRE of a bank that closes by itself.

    The rows of RDA and WRA hold what counts from that PRE on: a kernel applies them at the time at
    which it could be sent, and not before its bank closes. Where the memory has a rule of its own
    from RDA or WRA to ``then``, that is all that counts after it, and the other access counts
    without the ACT.
    """
    own = {first for each in rules if then in each.then for first in each.first} & set(BOUND_AS)
    for access in set(BOUND_AS) - own:
        if own:
            clocks = _closing_clocks(rules)[BOUND_AS[access]] + base
            pairs.bind(BOUND_AS[access], level, then, bus.delay(access, then, clocks))
        else:
            pairs.bind(access, level, then, bus.delay(Command.PRE, then, base))


def compile_rules(
    memory: MemoryConfig, pim: PimConfig | None, ticks_per_clock: int = 1
) -> RuleTables:
    """Tables of ``memory``'s rules, with those of ``pim`` on top, in ticks of the kernel.

    A rule at ``row_buffer`` binds only commands of the same buffer: with two row buffers the
    PIM commands live in the second, with one they share the first. That is all a dual row
    buffer is here. Where every access closes its row (``auto-precharge``), the tables of RD and WR
    are those of RDA and WRA, and the rows of RDA and WRA are what the PRE that nobody sends bars.

    Parameters
    ----------
    memory
        Its rules, delays and command bus; what its commands are called is its own.
    pim
        A design on it; None: none.
    ticks_per_clock
        Of the kernel: 1, or those of the memory's command bus.

    Returns
    -------
    RuleTables
        In ticks of the kernel.

    Raises
    ------
    InputError
        A rule's level is below what its command acts on.
    """
    closing = memory.controller.page_policy == "auto-precharge"
    numbers = command_numbers(memory, pim)
    own = tuple(named_rules(memory.rules, "memory.rules", numbers, memory.timings))
    listed = own
    if pim is not None:
        timings = {**memory.timings, **pim.timings}
        listed += tuple(named_rules(pim.rules, "pim.rules", numbers, timings))
    in_pim_buffer = pim_buffer_commands(memory, pim)
    bus = CommandBus(memory, ticks_per_clock)
    pairs = PairTable(len(Command), LEVELS)
    for first, then, ticks in bus.occupancy():
        pairs.bind(first, _LEVELS["channel"], then, ticks)
    windows: list[tuple[int, ...]] = []
    adds: list[dict[Command, int]] = []
    for named in listed:
        rule, base = named.rule, named.base
        if rule.window > 1:
            places = window_places(named.first, pim, memory.organization)
            at, level, size = len(windows), _LEVELS[rule.level], rule.window
            for then, room in places.items():
                # from the end of any of them to the end of this one
                delay = max(bus.delay(first, then, base) for first in places)
                windows.append((int(then), size, delay, level, at, min(room, size)))
                adds.append({command: min(count, size) for command, count in places.items()})
                for first, count in places.items():
                    if count > size:
                        pairs.bind(
                            first, level, then, bus.delay(first, then, -(-count // size) * base)
                        )
            continue
        for first in map(Command, named.first):
            if first in BOUND_AS:
                if not closing:
                    continue
                first = BOUND_AS[first]
            for then in map(Command, named.then):
                delay = bus.delay(first, then, base)
                if rule.level == "row_buffer":
                    if (first in in_pim_buffer) != (then in in_pim_buffer):
                        continue
                    level = _LEVELS["bank_group" if first in _GROUP_WIDE else "bank"]
                else:
                    _check_scope(named, first)
                    level = _LEVELS[rule.level]
                pairs.bind(first, level, then, delay, named.slope * ticks_per_clock)
                if closing and first == Command.PRE and then not in _SILENT:
                    _bind_closing(pairs, bus, own, level, then, base)
    rules, first_index = pairs.arrays()
    return RuleTables(
        rules=rules,
        first=first_index,
        windows=np.array(windows, dtype=np.int64).reshape(-1, 6),
        window_adds=np.array(
            [[places.get(command, 0) for command in Command] for places in adds], dtype=np.int64
        ).reshape(-1, len(Command)),
    )


def pim_buffer_commands(memory: MemoryConfig, pim: PimConfig | None) -> frozenset[Command]:
    """Commands on a row buffer that normal commands do not share.

    Parameters
    ----------
    memory
        Whose names of commands count.
    pim
        None: there are none.

    Returns
    -------
    frozenset of Command
        Empty of a design with one row buffer.
    """
    if pim is None:
        return frozenset()
    numbers = command_numbers(memory, pim)
    return frozenset(numbers[name] for name in pim.commands if pim.in_pim_buffer(name))
