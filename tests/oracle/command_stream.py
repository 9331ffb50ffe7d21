"""Command streams in plain Python, cycle by cycle: slow, and written to be read.

``check_log`` says whether a log of a channel is legal. ``simulate`` schedules a stream by looking
at every cycle. Both read the design's YAML model; they share the delay arithmetic with the
kernel, nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from oracle.stream_rules import depth_of

from pimsim.config.commands import CommandConfig
from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream

__all__ = ["check_log", "simulate"]

PATIENCE = 50_000
"""Cycles without a command after which a stream is stuck."""

Place = tuple[int, ...]


class Device:
    """A channel under its rules: what may go when, and what banks hold."""

    def __init__(self, design: PimDesignConfig) -> None:
        self.design = design
        self.counts = design.organization.counts
        self.delays = [
            evaluate_delay(rule.delay, design.all_timings, "oracle") for rule in design.all_rules
        ]
        self.past: dict[tuple[int, Place], deque[int]] = {}
        """By rule and node: cycles of the last first-commands, as many as its window."""
        self.rows: dict[Place, int] = {}
        """Open rows by bank."""

    def nodes(self, level: str, command: CommandConfig, place: Place) -> list[Place]:
        """Nodes of ``level`` that the command goes to."""
        choices = []
        for name, count, at in zip(LEVELS[1:], self.counts, place, strict=True):
            width = count if name in command.broadcast else 1
            if name == "bank" and command.bank_block is not None:
                width = command.bank_block
            choices.append(range(at - at % width, at - at % width + width))
        if "unit" in command.broadcast:
            share = self.design.banks_per_unit
            choices[-1] = range(place[-1] % share, self.counts[-1], share)
        return list(product(*choices[: depth_of(level)]))

    def started(self, level: str, command: CommandConfig, place: Place) -> list[Place]:
        """Nodes at which a rule of ``level`` counts from the command on."""
        nodes = self.nodes(level, command, place)
        if level != "other_ranks":
            return nodes
        ranks = {(pseudo, rank) for pseudo, _ in nodes for rank in range(self.counts[1])}
        return sorted(ranks - set(nodes))

    def banks(self, name: str, place: Place) -> list[Place]:
        return self.nodes("bank", self.design.all_commands[name], place)

    def earliest(self, name: str, place: Place) -> int:
        at = 0
        for index, rule in enumerate(self.design.all_rules):
            if name not in rule.then:
                continue
            for node in self.nodes(rule.level, self.design.all_commands[name], place):
                past = self.past.get((index, node), ())
                if len(past) == rule.window:
                    at = max(at, past[0] + self.delays[index])
        return at

    def step(self, name: str, place: Place, row: int) -> str:
        """``name``, or what has to come before it."""
        command = self.design.all_commands[name]
        if command.row == "any":
            return name
        held = [self.rows.get(bank) for bank in self.banks(name, place)]
        others = [r for r in held if r is not None and (command.row == "closed" or r != row)]
        if others:
            assert command.precharge is not None
            return command.precharge
        if command.row == "open" and None in held:
            assert command.activate is not None
            return command.activate
        return name

    def issue(self, name: str, place: Place, row: int, now: int) -> None:
        command = self.design.all_commands[name]
        for index, rule in enumerate(self.design.all_rules):
            if name in rule.first:
                at = place
                if rule.other_place is not None:
                    at = tuple(place[LEVELS.index(level) - 1] for level in rule.other_place)
                for node in self.started(rule.level, command, at):
                    past = self.past.setdefault((index, node), deque(maxlen=rule.window))
                    past.append(now)
        if command.effect == "open":
            self.rows.update(dict.fromkeys(self.banks(name, place), row))
        elif command.effect == "close":
            for bank in self.banks(name, place):
                self.rows.pop(bank, None)


def check_log(design: PimDesignConfig, log: Sequence[Sequence[int]]) -> str | None:
    """The first thing wrong in a channel's log (``StreamResult.log``), or None."""
    names = list(design.all_commands)
    device = Device(design)
    buses: dict[int, list[str]] = {}
    before = 0
    for line in log:
        now, name, place, row = int(line[0]), names[line[1]], tuple(map(int, line[2:6])), line[6]
        said = f"{name} at {now} {place} row {row}"
        if now < before:
            return f"{said}: after {before}"
        before = now
        command = design.all_commands[name]
        if device.earliest(name, place) > now:
            return f"{said}: allowed from {device.earliest(name, place)}"
        if device.step(name, place, int(row)) != name:
            return f"{said}: needs {device.step(name, place, int(row))} first"
        if command.bus != "none":
            taken = buses.setdefault(now, [])
            taken.append(command.bus)
            alone = len(taken) > 1 and "both" in taken
            more = len(taken) > design.controller.commands_per_cycle
            if more or alone or len(set(taken)) < len(taken):
                return f"{said}: the bus is taken by {taken}"
        device.issue(name, place, int(row), now)
    return None


@dataclass
class Entry:
    """A command of the stream."""

    name: str
    place: Place
    row: int
    lane: int
    wait: int
    instruction: int


@dataclass
class Channel:
    """A channel and its queue."""

    device: Device
    entries: list[Entry]
    sent: int = 0
    gone: set[int] = field(default_factory=set)
    done: int = 0
    done_of: dict[int, int] = field(default_factory=dict)
    """By entry."""
    passed: int = 0
    """Waits of entries before this one are over."""
    mode: str = "bank"
    due: int = 0
    """The last refresh that came."""
    refreshes: list[Place] = field(default_factory=list)
    log: list[tuple[int, str]] = field(default_factory=list)

    def put(self, name: str, place: Place, row: int, now: int) -> None:
        design = self.device.design
        self.device.issue(name, place, row, now)
        self.log.append((now, name))
        latency = evaluate_delay(design.all_commands[name].latency, design.all_timings, "oracle")
        self.done = max(self.done, now + latency)

    def held_back(self, at: int, now: int) -> bool:
        """Whether a wait at or before entry ``at`` is not over; one that is over stays so."""
        while self.passed < len(self.entries):
            wait = self.entries[self.passed].wait
            if wait and not all(i in self.gone for i in range(self.passed)):
                break
            if wait == 2 and self.done > now:
                break
            self.passed += 1
        return at >= self.passed

    def answer(self, instruction: int) -> int | None:
        """When all entries of the instruction are completed; None while some have not gone."""
        own = [i for i, entry in enumerate(self.entries) if entry.instruction == instruction]
        if any(i not in self.gone for i in own):
            return None
        return max((self.done_of[i] for i in own), default=0)

    def heads(self) -> list[int]:
        """The oldest entry of each lane that is in the queue and has not gone, oldest first."""
        found: dict[int, int] = {}
        for i in range(self.sent):
            if i not in self.gone:
                found.setdefault(self.entries[i].lane, i)
        return sorted(found.values())


def simulate(
    design: PimDesignConfig, stream: CommandStream
) -> tuple[int, list[Counter[str]], list[list[tuple[int, str]]]]:
    """Cycles, commands by channel, and (cycle, command) as each channel issued them."""
    names = list(design.all_commands)
    channels = [Channel(Device(design), []) for _ in stream.copies]
    for line in stream.entries:
        place = tuple(map(int, line[2:6]))
        entry = Entry(names[line[0]], place, int(line[6]), int(line[7]), int(line[8]), int(line[9]))
        channels[line[1]].entries.append(entry)
    instruction, host_wake, blocked = 0, 0, False
    now, idle = 0, 0
    while instruction < len(stream.blocking) or any(len(c.gone) < len(c.entries) for c in channels):
        handed = 0
        while instruction < len(stream.blocking) and host_wake <= now:
            if blocked:
                answers = [c.answer(instruction) for c in channels]
                if None in answers:
                    break
                blocked, host_wake = False, max(a for a in answers if a is not None) + 1
                instruction += 1
                continue
            if not _send(channels, instruction, design.controller.queue_depth):
                break
            blocked = bool(stream.blocking[instruction])
            if blocked:
                break
            instruction += 1
            handed += 1
            if handed == design.controller.instructions_per_cycle:
                host_wake = now + 1
        before = sum(len(c.log) for c in channels)
        for channel in channels:
            _serve(channel, now)
        idle = idle + 1 if before == sum(len(c.log) for c in channels) else 0
        assert idle < PATIENCE, "the stream is stuck"
        now += 1
    counts = [Counter(name for _, name in c.log) for c in channels]
    return max((c.done for c in channels), default=0), counts, [c.log for c in channels]


def _send(channels: list[Channel], instruction: int, depth: int) -> bool:
    for channel in channels:
        while (
            channel.sent < len(channel.entries)
            and channel.entries[channel.sent].instruction == instruction
        ):
            waiting = [i for i in range(channel.sent) if i not in channel.gone]
            queues = channel.device.design.all_commands
            kind = queues[channel.entries[channel.sent].name].queue
            if len(waiting) >= depth:
                break
            if any(queues[channel.entries[i].name].queue != kind for i in waiting):
                break
            channel.sent += 1
    return not any(
        c.sent < len(c.entries) and c.entries[c.sent].instruction == instruction for c in channels
    )


def _serve(channel: Channel, now: int) -> None:
    """What one channel issues in this cycle."""
    device, design = channel.device, channel.device.design
    controller, refresh = design.controller, design.controller.refresh
    if refresh is not None:
        interval = evaluate_delay(refresh.interval, design.all_timings, "oracle")
        if now >= channel.due + interval and not channel.refreshes:
            channel.due += interval
            command = design.all_commands[refresh.command]
            choices = [
                (0,) if level in command.broadcast else range(count)
                for level, count in zip(LEVELS[1:], device.counts, strict=True)
            ]
            channel.refreshes = list(product(*choices))  # type: ignore[arg-type]
    taken: list[str] = []
    while len(taken) < controller.commands_per_cycle:
        if channel.refreshes:
            assert refresh is not None
            place = channel.refreshes[0]
            name = device.step(refresh.command, place, -1)
            if device.earliest(name, place) > now or design.all_commands[name].bus in taken:
                return
            channel.put(name, place, -1, now)
            taken.append(design.all_commands[name].bus)
            if name == refresh.command:
                channel.refreshes.pop(0)
            continue
        found = _choose(channel, now, taken)
        if found is None:
            return
        at, name = found
        entry = channel.entries[at]
        if name == controller.mode_switch and name != entry.name:
            channel.mode = design.all_commands[entry.name].mode
        channel.put(name, entry.place, entry.row, now)
        if name == entry.name:
            channel.gone.add(at)
            latency = evaluate_delay(
                design.all_commands[name].latency, design.all_timings, "oracle"
            )
            channel.done_of[at] = now + latency
        if design.all_commands[name].bus != "none":
            taken.append(design.all_commands[name].bus)


def _choose(channel: Channel, now: int, taken: list[str]) -> tuple[int, str] | None:
    """The oldest head that may go, and what is issued for it."""
    device, design = channel.device, channel.device.design
    heads = channel.heads()
    channel.held_back(0, now)
    for at in heads:
        entry = channel.entries[at]
        name = device.step(entry.name, entry.place, entry.row)
        behind = channel.held_back(at, now)
        if behind and (name == entry.name or not design.controller.row_lookahead):
            continue
        if name != entry.name and design.all_commands[name].effect == "close":
            closing = set(device.banks(name, entry.place))
            older = [channel.entries[i] for i in heads if i < at]
            if any(
                device.rows.get(bank) == other.row
                for other in older
                if design.all_commands[other.name].row == "open"
                for bank in closing.intersection(device.banks(other.name, other.place))
            ):
                continue
        ready = device.earliest(name, entry.place) <= now
        switch, mode = design.controller.mode_switch, design.all_commands[entry.name].mode
        if switch is not None and mode not in ("any", channel.mode):
            name = switch
        if (
            ready
            and device.earliest(name, entry.place) <= now
            and design.all_commands[name].bus not in taken
        ):
            return at, name
    return None
