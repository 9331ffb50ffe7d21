"""The window scheduler (``controller.order: window``) in plain Python, cycle by cycle."""

from __future__ import annotations

from itertools import product

from oracle.command_stream import Channel, Device, Entry

from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream

__all__ = ["simulate_window"]


def simulate_window(
    design: PimDesignConfig, stream: CommandStream
) -> tuple[int, list[list[tuple[int, str]]]]:
    """Cycles, and (cycle, command) as each channel issued them."""
    names = list(design.all_commands)
    channels = [Channel(Device(design), []) for _ in stream.copies]
    for line in stream.entries:
        place = tuple(map(int, line[2:6]))
        entry = Entry(names[line[0]], place, int(line[6]), 0, int(line[8]), int(line[9]))
        channels[line[1]].entries.append(entry)
    for channel in channels:
        now, queue = 0, list[int]()
        while len(channel.gone) < len(channel.entries) or channel.refreshes:
            while len(queue) < design.controller.queue_depth and channel.sent < len(
                channel.entries
            ):
                queue.append(channel.sent)
                channel.sent += 1
            _cycle(channel, queue, now)
            now += 1
            assert now < 1_000_000, "the stream is stuck"
    return max((c.done for c in channels), default=0), [c.log for c in channels]


def _cycle(channel: Channel, queue: list[int], now: int) -> None:
    device, design = channel.device, channel.device.design
    refresh = design.controller.refresh
    if refresh is not None:
        interval = evaluate_delay(refresh.interval, design.all_timings, "oracle")
        if now >= channel.due + interval and not channel.refreshes:
            channel.due += interval
            wide = design.all_commands[refresh.command].broadcast
            counts = zip(LEVELS[1:], device.counts, strict=True)
            choices = [(0,) if level in wide else tuple(range(count)) for level, count in counts]
            channel.refreshes = list(product(*choices))
    taken = ""
    for slot in range(design.controller.commands_per_cycle):
        if slot == 0 and channel.refreshes:
            assert refresh is not None
            name = device.step(refresh.command, channel.refreshes[0], -1)
            if device.earliest(name, channel.refreshes[0]) <= now:
                channel.put(name, channel.refreshes[0], -1, now)
                if name == refresh.command:
                    channel.refreshes.pop(0)
            taken = "row"
            continue
        while queue and _bus(channel, queue[0]) == "none" and not _waits(channel, queue[0], now):
            _go(channel, queue, 0, channel.entries[queue[0]].name, now)
        found = _choose(channel, queue, now)
        if found is None:
            return
        bus = design.all_commands[found[1]].bus
        if taken and (bus == taken or "both" in (bus, taken)):
            return
        _go(channel, queue, *found, now)
        taken = bus


def _bus(channel: Channel, at: int) -> str:
    return channel.device.design.all_commands[channel.entries[at].name].bus


def _waits(channel: Channel, at: int, now: int) -> bool:
    """Whether the oldest command still waits for completion of those before it."""
    return channel.entries[at].wait == 2 and channel.done > now


def _go(channel: Channel, queue: list[int], at: int, name: str, now: int) -> None:
    entry = channel.entries[queue[at]]
    done = channel.done
    channel.put(name, entry.place, entry.row, now)
    if name != entry.name:
        channel.done = done
    else:
        channel.gone.add(queue.pop(at))


def _choose(channel: Channel, queue: list[int], now: int) -> tuple[int, str] | None:
    """The oldest command of the queue that may go, and what is issued for it."""
    device, design = channel.device, channel.device.design
    waiting = {i: channel.entries[i] for i in queue}
    steps = {i: device.step(e.name, e.place, e.row) for i, e in waiting.items()}
    hits = [
        entry
        for i, entry in waiting.items()
        if steps[i] == entry.name and design.all_commands[steps[i]].row == "open"
    ]
    behind = False
    for at, i in enumerate(queue):
        entry, name = waiting[i], steps[i]
        behind = behind or (entry.wait != 0 if at else _waits(channel, i, now))
        if behind and (name == entry.name or not design.controller.row_lookahead):
            continue
        if (
            design.all_commands[entry.name].bus == "none"
            or device.earliest(name, entry.place) > now
        ):
            continue
        if at and name != entry.name:
            older = [waiting[k] for k in queue[:at]]
            others = [e for e in older if design.all_commands[e.name].row == "open"]
            others += hits if design.all_commands[name].effect == "close" else []
            banks = set(device.banks(name, entry.place))
            if any(banks.intersection(device.banks(e.name, e.place)) for e in others):
                continue
        moves = name == entry.name and design.all_commands[name].row == "any"
        holds = design.controller.hits_hold_moves
        if at and moves and holds and any(hit.place == entry.place for hit in hits):
            continue
        return at, name
    return None
