"""The request queue's policy, cycle by cycle in plain Python: no tables, no jumps.

Sees one channel of requests ``(command, place, row, fence)``, all handed over in order, one a
cycle. Returns every command as ``(cycle, name, place, row)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oracle.stream_rules import depth_of, reached

from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig

Place = tuple[int, int, int, int]
Request = tuple[str, Place, int, bool]
Issued = tuple[int, str, Place, int]


@dataclass
class Channel:
    """A channel's state, and what has been issued."""

    design: PimDesignConfig
    mode: str = "bank"
    rows: dict[Place, tuple[int, str]] = field(default_factory=dict)
    """Open rows, and the access for which each was opened."""
    last: dict[tuple[int, tuple[int, ...], str], int] = field(default_factory=dict)
    had: dict[int, set[int]] = field(default_factory=dict)
    log: list[Issued] = field(default_factory=list)

    def may(self, name: str, place: Place, now: int) -> bool:
        """Whether all rules let ``name`` go in cycle ``now``."""
        for rule in self.design.all_rules:
            if name not in rule.then:
                continue
            depth = depth_of(rule.level)
            delay = evaluate_delay(rule.delay, self.design.all_timings, "oracle")
            for node in reached(self.design, name, place, depth):
                places = {node}
                if rule.level == "other_ranks":
                    places = {(node[0], rank) for rank in range(self.design.organization.ranks)}
                    places -= {node}
                for first in rule.first:
                    for at in places:
                        if now - self.last.get((depth, at, first), -(10**9)) < delay:
                            return False
        return True

    def issue(self, name: str, place: Place, row: int, now: int, access: str = "") -> None:
        """Issue ``name``; ``row`` is that of an activate or access, else of what is closed."""
        command = self.design.all_commands[name]
        for depth in range(len(LEVELS)):
            for node in reached(self.design, name, place, depth):
                self.last[depth, node, name] = now
        if command.effect == "open":
            self.rows[place] = (row, access)
        elif command.effect == "close":
            row, _ = self.rows.pop(place)
        org = self.design.organization
        bank = ((place[0] * org.ranks + place[1]) * org.bank_groups + place[2]) * (
            org.banks_per_group
        ) + place[3]
        for at, mode_row in enumerate(self.design.controller.mode_rows):
            wanted = (mode_row.command, mode_row.row) == (name, row)
            if wanted and bank in mode_row.banks and self.mode != mode_row.to:
                self.had.setdefault(at, set()).add(bank)
                if self.had[at] == set(mode_row.banks):
                    self.mode = mode_row.to
                    del self.had[at]
        shown = -1 if command.effect == "close" or (not access and command.row == "any") else row
        self.log.append((now, name, place, shown))


def run(design: PimDesignConfig, requests: list[Request]) -> list[Issued]:
    """All commands until the last request is issued."""
    org, refresh = design.organization, design.controller.refresh
    banks: list[Place] = [
        (p, r, g, b)
        for p in range(org.pseudo_channels)
        for r in range(org.ranks)
        for g in range(org.bank_groups)
        for b in range(org.banks_per_group)
    ]
    channel, queue, coming = Channel(design), [], list(requests)
    owed: list[int] = []
    fallen_due, turn, now, catching_up = 0, 0, 0, False
    interval = evaluate_delay(refresh.interval, design.all_timings, "oracle") if refresh else 0
    while queue or coming:
        if refresh is not None:
            step = interval // org.ranks
            if now > 0 and now % step == 0:
                if refresh.drops_late:
                    owed.clear()
                owed.append(fallen_due % org.ranks)
                fallen_due += 1
            catching_up = bool(owed) and (catching_up or len(owed) > refresh.postponed * org.ranks)
        turn = _cycle(channel, queue, owed, catching_up, banks, turn, now)
        if coming and len(queue) < design.controller.queue_depth:
            queue.append(coming.pop(0))
        now += 1
    return channel.log


def _cycle(
    channel: Channel, queue: list[Request], owed: list[int], catching_up: bool,
    banks: list[Place], turn: int, now: int,
) -> int:  # fmt: skip
    """One cycle: at most one command. Returns the bank at which to look for rows to close."""
    design, refresh = channel.design, channel.design.controller.refresh

    def close_of(bank: Place) -> str:
        return str(design.all_commands[channel.rows[bank][1]].precharge)

    if owed and refresh is not None:
        still_open = [bank for bank in banks if bank[1] == owed[0] and bank in channel.rows]
        for bank in still_open:
            if channel.may(close_of(bank), bank, now):
                channel.issue(close_of(bank), bank, -1, now)
                return turn
        place = (0, owed[0], 0, 0)
        if not still_open and channel.may(refresh.command, place, now):
            channel.issue(refresh.command, place, -1, now)
            owed.pop(0)
            return turn
        if catching_up:
            return turn
    fence = next((i for i, request in enumerate(queue) if request[3]), len(queue))
    # a fence goes alone; nothing behind it goes, but activates once it is the first
    for at in [*range(fence), *([0] if fence == 0 and queue else [])]:
        command, place, row, _ = queue[at]
        if channel.rows.get(place, (-1, ""))[0] == row and channel.may(command, place, now):
            channel.issue(command, place, row, now, command)
            queue.pop(at)
            return turn
    second = next((i for i, request in enumerate(queue) if request[3] and i > 0), len(queue))
    for command, place, row, _ in queue[:second]:
        activate = str(design.all_commands[command].activate)
        mode = design.all_commands[activate].mode
        reopens = any((m.row, m.to) == (row, channel.mode) for m in design.controller.mode_rows)
        if (
            place not in channel.rows
            and (mode in ("any", channel.mode) or reopens)
            and channel.may(activate, place, now)
        ):
            channel.issue(activate, place, row, now, command)
            return turn
    wanted = {(place, row) for _, place, row, _ in queue[:fence]}
    if fence < len(queue) and queue[fence][1] not in {place for place, _ in wanted}:
        wanted.add(queue[fence][1:3])
    for i in range(len(banks)):
        at = (turn + i) % len(banks)
        bank = banks[at]
        unwanted = bank in channel.rows and (bank, channel.rows[bank][0]) not in wanted
        if unwanted and channel.may(close_of(bank), bank, now):
            channel.issue(close_of(bank), bank, -1, now)
            return at
    return turn
