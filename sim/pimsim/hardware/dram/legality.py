"""Whether a command trace is legal: every command against every rule, one after the other.

``check_commands`` reads the rules as the presets list them, not the tables that the kernel runs
on, so that a mistake in those tables shows. It is meant for tests and for traces of others:
plain Python, some ten thousand commands a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig, Rule
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.rules import Command, evaluate_delay

__all__ = ["TracedCommand", "Violation", "check_commands"]

_PIM_BUFFER = {Command.G_ACT, Command.PIM_PRE, Command.COMP, Command.READRES, Command.GEMV}
"""Commands that work on the second row buffer, where there is one."""
_CHANNEL_WIDE = {Command.COMP, Command.READRES, Command.GEMV, Command.HEADER}
_ROW_BUS = {Command[name] for name in ("ACT", "PRE", "REF", "REFpb", "G_ACT", "PIM_PRE", "HEADER")}
"""Commands on the row pins of a bus with two sets; the others go over the column pins."""


@dataclass(frozen=True)
class TracedCommand:
    """One command of a trace; ``row`` -1 where it names none, ``n`` dot products of a GEMV."""

    cycle: int
    channel: int
    command: Command
    bank: int
    row: int = -1
    n: int = 0

    def __str__(self) -> str:
        row = f" row {self.row}" if self.row >= 0 else ""
        where = "" if self.command in _CHANNEL_WIDE else f" bank {self.bank}{row}"
        return f"{self.command.name} at {self.cycle} (channel {self.channel}{where})"


@dataclass(frozen=True)
class Violation:
    """The first command of a trace that may not be where it is, and why.

    ``kind``: ``rule`` (issued before ``required`` under rule ``rule``, which ``earlier`` set off),
    ``state`` (a row that is not open, a bank that is not closed) or ``bus`` (two commands at once).
    """

    kind: str
    message: str
    command: TracedCommand
    earlier: TracedCommand | None = None
    rule: str | None = None
    """``memory.rules[i]`` or ``pim.rules[i]``."""
    level: str | None = None
    delay: str | None = None
    """The delay as the rule writes it."""
    required: int | None = None
    """First cycle at which the rule allows the command."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class _Law:
    """A rule with its delay evaluated: ``base`` cycles, ``slope`` more per dot product."""

    name: str
    rule: Rule
    first: frozenset[Command]
    then: frozenset[Command]
    base: int
    slope: int

    def binds(self, first: Command, then: Command, buffers: int) -> bool:
        """At ``row_buffer``, two commands meet only if they use the same buffer."""
        if self.rule.level != "row_buffer" or buffers == 1:
            return True
        return (first in _PIM_BUFFER) == (then in _PIM_BUFFER)


def _laws(memory: MemoryConfig, pim: PimConfig | None) -> list[_Law]:
    names = dict(memory.timings)
    listed = [(f"memory.rules[{i}]", rule) for i, rule in enumerate(memory.rules)]
    if pim is not None:
        names.update(pim.timings)
        listed += [(f"pim.rules[{i}]", rule) for i, rule in enumerate(pim.rules)]
    laws = []
    for where, rule in listed:
        base = evaluate_delay(rule.delay, {**names, "n": 0}, where)
        slope = evaluate_delay(rule.delay, {**names, "n": 1}, where) - base
        commands = [frozenset(Command[name] for name in side) for side in (rule.first, rule.then)]
        laws.append(_Law(where, rule, commands[0], commands[1], base, slope))
    return laws


class _Banks:
    """Banks of a channel, over its ranks: which a command touches, what their buffers hold."""

    def __init__(self, memory: MemoryConfig, buffers: int) -> None:
        org = memory.organization
        self.rows = org.rows
        self.rank_size, self.group_size = org.banks, org.banks_per_group
        self.count, self.ranks, self.buffers = org.ranks * org.banks, org.ranks, buffers
        self.open_row: list[list[int | None]] = [[None] * self.count for _ in range(buffers)]

    def touched(self, item: TracedCommand) -> range:
        """A bank, its bank group (G_ACT), its rank (REF) or the channel (dot products)."""
        if item.command in _CHANNEL_WIDE:
            return range(self.count)
        size = {Command.REF: self.rank_size, Command.G_ACT: self.group_size}.get(item.command, 1)
        first = item.bank - item.bank % size
        return range(first, first + size)

    def units(self, banks: range, level: str) -> set[int]:
        """Numbers of the nodes of ``level`` that hold ``banks``."""
        size = {"channel": self.count, "rank": self.rank_size, "other_ranks": self.rank_size,
                "bank_group": self.group_size}.get(level, 1)  # fmt: skip
        return {bank // size for bank in banks}

    def refuse(self, item: TracedCommand) -> str | None:
        """What in the banks' state forbids ``item``, or None."""
        command, normal, pim = item.command, self.open_row[0], self.open_row[-1]
        banks = self.touched(item)
        if command in (Command.RD, Command.WR, Command.GWRITE):
            held = normal[item.bank]
            if held is None or (item.row >= 0 and held != item.row):
                return f"the bank has {_row(held)}"
        elif command == Command.ACT and normal[item.bank] is not None:
            return f"the bank has {_row(normal[item.bank])}"
        elif command in (Command.G_ACT, Command.REF, Command.REFpb):
            checked = [pim] if command == Command.G_ACT else self.open_row
            for bank in banks:
                for rows in checked:
                    if rows[bank] is not None:
                        return f"bank {bank} has {_row(rows[bank])}"
        elif command in (Command.COMP, Command.GEMV):
            for bank in banks:
                if pim[bank] is None or (item.row >= 0 and pim[bank] != item.row):
                    return f"bank {bank} has {_row(pim[bank])} for PIM, not row {item.row}"
        return None

    def change(self, item: TracedCommand) -> None:
        """Open and close what ``item`` opens and closes."""
        opens = item.command in (Command.ACT, Command.G_ACT)
        if not opens and item.command not in (Command.PRE, Command.PIM_PRE):
            return
        rows = self.open_row[-1 if item.command in _PIM_BUFFER else 0]
        for bank in self.touched(item):
            rows[bank] = item.row if opens else None


class _Channel:
    """One channel's trace so far."""

    def __init__(self, memory: MemoryConfig, laws: Sequence[_Law], buffers: int) -> None:
        self.banks = _Banks(memory, buffers)
        self.laws = laws
        self.per_cycle = memory.controller.commands_per_cycle
        self.this_cycle: list[TracedCommand] = []
        self.bars: dict[tuple[int, int, Command], tuple[int, TracedCommand]] = {}
        """By law, node and first command: the cycle before which nothing may follow, and why."""
        self.past: dict[tuple[int, int], deque[TracedCommand]] = {}
        """By window law and node: the last commands that count."""

    def check(self, item: TracedCommand) -> Violation | None:
        """Take ``item`` up, or say why it may not come now."""
        if self.this_cycle and item.cycle < self.this_cycle[-1].cycle:
            raise InputError(f"command trace: {item} comes after {self.this_cycle[-1]}")
        found = self._bus(item) or self._rules(item) or self._state(item)
        if found is None:
            self._note(item)
        return found

    def _bus(self, item: TracedCommand) -> Violation | None:
        self.this_cycle = [other for other in self.this_cycle if other.cycle == item.cycle]
        for other in self.this_cycle:
            same_pins = (other.command in _ROW_BUS) == (item.command in _ROW_BUS)
            if self.per_cycle == 1 or same_pins:
                message = f"{item}: the bus is taken by {other}"
                return Violation("bus", message, item, earlier=other, required=item.cycle + 1)
        return None

    def _state(self, item: TracedCommand) -> Violation | None:
        reason = self.banks.refuse(item)
        return None if reason is None else Violation("state", f"{item}: {reason}", item)

    def _rules(self, item: TracedCommand) -> Violation | None:
        """The rule that allows ``item`` last, if that is after its cycle; the first among equal."""
        worst: Violation | None = None
        touched = self.banks.touched(item)
        for index, law in enumerate(self.laws):
            if item.command not in law.then:
                continue
            for unit in self.banks.units(touched, law.rule.level):
                for required, earlier in self._required(index, law, unit, item):
                    late = worst is None or required > (worst.required or 0)
                    if required > item.cycle and late:
                        worst = _broken(law, item, earlier, required)
        return worst

    def _required(
        self, index: int, law: _Law, unit: int, item: TracedCommand
    ) -> Iterable[tuple[int, TracedCommand]]:
        if law.rule.window > 1:
            past = self.past.get((index, unit))
            if past is not None and len(past) == law.rule.window:
                yield past[0].cycle + law.base, past[0]
            return
        for first in law.first:
            if law.binds(first, item.command, self.banks.buffers):
                bar = self.bars.get((index, unit, first))
                if bar is not None:
                    yield bar

    def _note(self, item: TracedCommand) -> None:
        self.this_cycle.append(item)
        self.banks.change(item)
        touched = self.banks.touched(item)
        for index, law in enumerate(self.laws):
            if item.command not in law.first:
                continue
            units = self.banks.units(touched, law.rule.level)
            if law.rule.level == "other_ranks":
                units = set(range(self.banks.ranks)) - units
            for unit in units:
                if law.rule.window > 1:
                    past = self.past.setdefault((index, unit), deque(maxlen=law.rule.window))
                    past.append(item)
                    continue
                key = (index, unit, item.command)
                bar = item.cycle + law.base + law.slope * item.n
                if key not in self.bars or self.bars[key][0] <= bar:
                    self.bars[key] = (bar, item)


def _row(row: int | None) -> str:
    return "no open row" if row is None else f"row {row} open"


def _broken(law: _Law, item: TracedCommand, earlier: TracedCommand, required: int) -> Violation:
    rule = law.rule
    window = f" (window of {rule.window})" if rule.window > 1 else ""
    message = (
        f"{item}: too early by {required - item.cycle} cycles after {earlier}; {law.name} at "
        f"{rule.level}{window} asks for {rule.delay} = {required - earlier.cycle}"
    )
    return Violation("rule", message, item, earlier, law.name, rule.level, rule.delay, required)


def _read(entry: Sequence[int], memory: MemoryConfig, pim: PimConfig | None) -> TracedCommand:
    org = memory.organization
    fields = [int(field) for field in entry]
    if len(fields) not in (5, 6):
        raise InputError(f"command trace: {len(fields)} fields; 5, or 6 for a GEMV, are needed")
    cycle, channel, command, bank, row = fields[:5]
    if not 0 <= channel < org.channels or not 0 <= bank < org.ranks * org.banks:
        raise InputError(f"command trace: no channel {channel} with a bank {bank} in {memory.name}")
    if row >= org.rows:
        raise InputError(f"command trace: no row {row}; {memory.name} has {org.rows}")
    try:
        known = Command(command)
    except ValueError:
        raise InputError(f"command trace: no command {command}") from None
    # fewer dot products than the adder tree is deep take no less time (rules of the pim presets)
    least = 0 if pim is None or known != Command.GEMV else pim.comp_pipeline
    return TracedCommand(cycle, channel, known, bank, row, max(*fields[5:], least, 0))


def check_commands(
    commands: Iterable[Sequence[int]], memory: MemoryConfig, pim: PimConfig | None = None
) -> Violation | None:
    """The first command that breaks a rule of ``memory`` or ``pim``, or None.

    ``commands``: ``(cycle, channel, command, bank, row)`` and, for a GEMV, its dot products;
    cycles of tCK, in the order of each channel, ``command`` a ``Command``, ``bank`` counted over
    the channel's ranks, ``row`` -1 for "not checked". A replay's log is such a trace.

    Besides the rules: RD, WR and GWRITE need their row open, ACT and G_ACT closed buffers, REF a
    rank closed in both buffers, COMP and GEMV the PIM row open in all banks of the channel; the
    bus takes one command a cycle, or one row and one column command.

    Raises ``InputError`` on a trace that is none: unknown commands or banks, time running back.
    """
    laws = _laws(memory, pim)
    buffers = 1 if pim is None else pim.row_buffers
    channels: dict[int, _Channel] = {}
    for entry in commands:
        item = _read(entry, memory, pim)
        if item.channel not in channels:
            channels[item.channel] = _Channel(memory, laws, buffers)
        found = channels[item.channel].check(item)
        if found is not None:
            return found
    return None
