"""Whether a command trace is legal: every command against every rule, one after the other.

``check_commands`` reads the rules as the presets list them, not the tables that the kernel runs
on, so that a mistake in those tables shows. It is meant for tests and for traces of others:
plain Python, some ten thousand commands a second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.config.rules import Rule, delay_line
from pimsim.hardware.dram.rules import (
    BOUND_AS,
    ROW_COMMANDS,
    Command,
    CommandBus,
    command_numbers,
    pim_buffer_commands,
    window_places,
)
from pimsim.hardware.dram.traced_banks import CLOSING, TracedBanks, TracedCommand

__all__ = ["TracedCommand", "Violation", "check_commands"]


@dataclass(frozen=True)
class Violation:
    """The first command of a trace that may not be where it is, and why.

    ``kind``: ``rule`` (issued before ``required`` under rule ``rule``, which ``earlier`` set off),
    ``state`` (a row that is not open, a bank that is not closed) or ``bus`` (two commands at once,
    or a command at an edge that it may not start at).
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
    index: int = -1
    """Place of the command in the trace, from 0."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class _Law:
    """A rule with its delay evaluated: ``base`` clocks, ``slope`` more per dot product."""

    name: str
    rule: Rule
    first: frozenset[Command]
    then: frozenset[Command]
    base: int
    slope: int
    places: dict[Command, int]
    """Of a window: how many of its places each command takes."""
    apart: frozenset[Command]
    """Commands on a row buffer that normal ones do not share."""

    def binds(self, first: Command, then: Command) -> bool:
        """At ``row_buffer``, two commands meet only if they use the same buffer."""
        return self.rule.level != "row_buffer" or (first in self.apart) == (then in self.apart)


def _laws(memory: MemoryConfig, pim: PimConfig | None) -> list[_Law]:
    names, numbers = dict(memory.timings), command_numbers(memory, pim)
    listed = [(f"memory.rules[{i}]", rule) for i, rule in enumerate(memory.rules)]
    if pim is not None:
        names.update(pim.timings)
        listed += [(f"pim.rules[{i}]", rule) for i, rule in enumerate(pim.rules)]
    apart = pim_buffer_commands(memory, pim)
    laws = []
    for where, rule in listed:
        base, slope = delay_line(rule.delay, names, where)
        commands = [
            _alike(frozenset(numbers[name] for name in side)) for side in (rule.first, rule.then)
        ]
        places: dict[Command, int] = {}
        if rule.window > 1:
            counted = (numbers[name] for name in rule.first)
            places = window_places(counted, pim, memory.organization)
            commands = [_alike(frozenset(places))] * 2
            places |= {also: places[one] for also, one in BOUND_AS.items() if one in places}
        laws.append(_Law(where, rule, commands[0], commands[1], base, slope, places, apart))
    return laws


def _alike(commands: frozenset[Command]) -> frozenset[Command]:
    """With RD also RDA, with WR also WRA."""
    return commands | {also for also, one in BOUND_AS.items() if one in commands}


def _own_rules(memory: MemoryConfig) -> set[tuple[Command, Command]]:
    """Pairs of RDA or WRA and what has a rule of its own after them."""
    numbers = command_numbers(memory, None)
    return {
        (numbers[first], numbers[then])
        for rule in memory.rules
        for first in rule.first
        for then in rule.then
        if numbers[first] in BOUND_AS
    }


class _Channel:
    """One channel's trace so far."""

    def __init__(self, memory: MemoryConfig, laws: Sequence[_Law], pim: PimConfig | None) -> None:
        self.banks = TracedBanks(memory, pim)
        self.laws = laws
        self.bus = CommandBus(memory, _ticks_per_clock(memory))
        self.two_sets = memory.controller.commands_per_cycle == 2
        numbers = command_numbers(memory, None)
        self.either_edge = {numbers[name] for name in memory.command_bus.either_edge}
        self.last: TracedCommand | None = None
        self.on_pins: dict[bool, TracedCommand] = {}
        """The last command of each set of pins."""
        self.bars: dict[tuple[int, int, Command], tuple[int, TracedCommand]] = {}
        """By law, node and first command: the cycle from which its delay counts, and why."""
        self.own = _own_rules(memory)
        self.closing = {
            (first, law.base)
            for law in laws
            if law.rule.window == 1 and law.rule.level in ("row_buffer", "bank")
            if Command.PRE in law.then
            for first in law.first
        }
        """What a PRE waits for at its bank: so does a bank that closes by itself."""
        self.opened: dict[int, TracedCommand] = {}
        """The last ACT of each bank."""
        self.closed: dict[tuple[int, int, Command], tuple[int, TracedCommand]] = {}
        """As ``bars``, for the PREs that nobody sends: from which cycle a PRE's delay counts."""
        self.past: dict[tuple[int, int], deque[TracedCommand]] = {}
        """By window law and node: the last commands that count."""

    def check(self, item: TracedCommand) -> Violation | None:
        """Take ``item`` up, or say why it may not come now."""
        if self.last is not None and item.cycle < self.last.cycle:
            raise InputError(f"command trace: {item} comes after {self.last}")
        found = self._bus(item) or self._rules(item) or self._state(item)
        if found is None:
            self._note(item)
        return found

    def _bus(self, item: TracedCommand) -> Violation | None:
        falling = self.bus.ticks_per_clock == 2 and item.cycle % 2 == 0
        if falling and item.command not in self.either_edge:
            message = f"{item}: {item.command.name} does not start at a falling edge"
            return Violation("bus", message, item, required=item.cycle + 1)
        other = self.on_pins.get(self._pins(item))
        if other is not None:
            free = other.cycle + self.bus.occupied(other.command)
            if item.cycle < free:
                message = f"{item}: the bus is taken by {other}"
                return Violation("bus", message, item, earlier=other, required=free)
        return None

    def _pins(self, item: TracedCommand) -> bool:
        """Which of two sets of pins ``item`` goes over; always the first where there is one."""
        return self.two_sets and item.command in ROW_COMMANDS

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
            size = law.rule.window
            room = min(law.places[item.command], size)
            if past is not None and len(past) + room > size:
                earlier = past[len(past) + room - size - 1]
                windows = -(-law.places[earlier.command] // size)
                delay = self.bus.delay(earlier.command, item.command, windows * law.base)
                yield earlier.cycle + delay, earlier
            return
        for first in law.first:
            if law.binds(first, item.command):
                bar = self.bars.get((index, unit, first))
                if bar is not None:
                    start, earlier = bar
                    yield start + self.bus.delay(first, item.command, law.base), earlier
        waits = Command.PRE in law.first and law.binds(Command.PRE, item.command)
        if waits and item.command not in CLOSING:
            yield from self._required_of_closed(index, law, unit, item)

    def _required_of_closed(
        self, index: int, law: _Law, unit: int, item: TracedCommand
    ) -> Iterable[tuple[int, TracedCommand]]:
        """What a PRE that RDA or WRA brings asks for; rules of their own take its place."""
        given = {access for access, then in self.own if then == item.command}
        for first in (Command.RDA, Command.WRA, Command.ACT):
            bar = self.closed.get((index, unit, first))
            if bar is None or first in given or (first == Command.ACT and given):
                continue
            start, earlier = bar
            yield start + self.bus.delay(first, item.command, law.base), earlier

    def _close(self, item: TracedCommand) -> None:
        """RDA or WRA closes its bank when a PRE could."""
        for index, law in enumerate(self.laws):
            if Command.PRE not in law.first or law.rule.window > 1:
                continue
            for earlier in (item, self.opened.get(item.bank, item)):
                clocks = [base for first, base in self.closing if first == earlier.command]
                start = earlier.cycle + max(clocks, default=0) * self.bus.ticks_per_clock
                for unit in self.banks.units(range(item.bank, item.bank + 1), law.rule.level):
                    key = (index, unit, earlier.command)
                    if key not in self.closed or self.closed[key][0] <= start:
                        self.closed[key] = (start, earlier)

    def _note(self, item: TracedCommand) -> None:
        self.last = self.on_pins[self._pins(item)] = item
        self.banks.change(item)
        if item.command == Command.ACT:
            self.opened[item.bank] = item
        elif item.command in BOUND_AS:
            self._close(item)
        touched = self.banks.touched(item)
        for index, law in enumerate(self.laws):
            if item.command not in law.first:
                continue
            units = self.banks.units(touched, law.rule.level)
            if law.rule.level == "other_ranks":
                units = self.banks.other_ranks(units)
            for unit in units:
                if law.rule.window > 1:
                    past = self.past.setdefault((index, unit), deque(maxlen=law.rule.window))
                    past.extend([item] * law.places[item.command])
                    continue
                key = (index, unit, item.command)
                bar = item.cycle + law.slope * item.n * self.bus.ticks_per_clock
                if key not in self.bars or self.bars[key][0] <= bar:
                    self.bars[key] = (bar, item)


def _ticks_per_clock(memory: MemoryConfig) -> int:
    """Of the trace: the clock edges of a controller that uses both, else clocks."""
    edges = memory.controller.model == "channel-queues"
    return memory.command_bus.ticks_per_clock if edges else 1


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
    banks = org.pseudo_channels * org.ranks * org.banks
    if not 0 <= channel < org.channels or not 0 <= bank < banks:
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
    """The first command that breaks a rule of ``memory`` or ``pim``.

    Besides the rules: RD, WR (with auto-precharge or without) and GWRITE need their row open, ACT
    and G_ACT closed buffers, REF a rank closed in both buffers, COMP and GEMV the PIM row open in
    all banks of the channel; the bus takes one command a cycle, or one row and one column command.
    What waits for a PRE waits for the one that RDA and WRA bring, as soon as one could be sent.

    Parameters
    ----------
    commands
        ``(cycle, channel, command, bank, row)`` and, for a GEMV, its dot products: cycles of tCK
        (clock edges where a ``channel-queues`` memory has two ticks a clock), in the order of each
        channel, ``command`` a ``Command``, ``bank`` counted over the channel's ranks, ``row`` -1
        for "not checked". A replay's log is such a trace.
    memory
        Its ``rules`` and ``timings`` are read as listed.
    pim
        The same of a PIM design on it; None: there is none.

    Returns
    -------
    Violation or None
        None: every command is legal.

    Raises
    ------
    InputError
        On a trace that is none: unknown commands or banks, time running back.
    """
    laws = _laws(memory, pim)
    channels: dict[int, _Channel] = {}
    for index, entry in enumerate(commands):
        item = _read(entry, memory, pim)
        if item.channel not in channels:
            channels[item.channel] = _Channel(memory, laws, pim)
        found = channels[item.channel].check(item)
        if found is not None:
            return replace(found, index=index)
    return None
