"""The DRAM controller, cycle by cycle, in plain Python: slow, and written to be read.

The policy is DRAMsim3's (controller.cc, command_queue.cc, channel_state.cc, refresh.cc, read, not
copied). In each cycle of a channel: requests come in, a refresh may fall due, a command or two go
out, one request moves from its queue to its bank. Nothing here jumps over a cycle or remembers
when a bank may wake; it shares the commands' names, the delay arithmetic and the address map
with the kernel, nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.rules import Command

__all__ = ["OracleResult", "Stuck", "simulate"]

PATIENCE = 5_000
"""Cycles without any progress of a waiting request after which the policy is at fault."""


class Stuck(Exception):
    """Requests wait and none of them moves."""


@dataclass
class Request:
    """A burst on its way; ``arrivals`` has one entry for each request merged into it."""

    burst: int
    bank: int
    row: int
    is_write: bool
    arrivals: list[int]
    order: int = -1
    """When it came to its bank, among all of the channel."""


@dataclass
class Bank:
    """One bank and the requests that wait for it, oldest first."""

    queue: list[Request] = field(default_factory=list)
    row: int | None = None
    accesses: int = 0
    """Column commands since the row was opened."""


@dataclass
class Entry:
    """A command on the bus."""

    cycle: int
    channel: int
    command: Command
    bank: int
    row: int

    @property
    def fields(self) -> tuple[int, int, int, int, int | None]:
        """For comparison: the row only where the command carries one."""
        carries = self.command in (Command.ACT, Command.RD, Command.WR, Command.RDA, Command.WRA)
        row = self.row if carries else None
        return self.cycle, self.channel, int(self.command), self.bank, row


@dataclass
class OracleResult:
    """What a run did."""

    cycles: int
    commands: Counter[str]
    row_hits: int
    undrained_writes: int
    avg_read_latency_cycles: float
    active_rank_cycles: int
    merged_reads: int
    merged_writes: int
    log: list[Entry]


PLAIN = {Command.RDA: Command.RD, Command.WRA: Command.WR}
"""RDA and WRA go when RD and WR may, and bind what those bind."""


@dataclass
class SilentPrecharge:
    """A PRE that nobody sends, after RDA or WRA."""

    until: dict[Command, int]
    """Clocks from ACT, RDA and WRA until it may be."""
    after: list[tuple[str, Command, int]]
    """Level, command, clocks: what waits for it."""
    own: set[tuple[Command, Command]]
    """Pairs with a rule of the memory's own instead."""


def silent_precharge(memory: MemoryConfig) -> SilentPrecharge:
    """What the memory's rules about PRE mean for accesses that close their bank."""
    found = SilentPrecharge(dict.fromkeys((Command.ACT, *PLAIN), 0), [], set())
    for rule in (rule for rule in memory.rules if rule.window == 1):
        clocks = evaluate_delay(rule.delay, memory.timings, "oracle")
        for command in found.until:
            plain = PLAIN.get(command, command)
            if plain.name in rule.first and "PRE" in rule.then:
                found.until[command] = max(found.until[command], clocks)
            if command.name in rule.first and command in PLAIN:
                found.own |= {(command, Command[name]) for name in rule.then}
        if "PRE" in rule.first:
            found.after += [(rule.level, Command[name], clocks) for name in rule.then
                            if name not in ("PRE", "PREA")]  # fmt: skip
    return found


class Timing:
    """When each bank allows each command: every rule spread over the banks that it binds."""

    def __init__(self, memory: MemoryConfig) -> None:
        org = memory.organization
        self.banks = org.ranks * org.banks
        self.rank_of = [bank // org.banks for bank in range(self.banks)]
        self.group_of = [bank // org.banks_per_group for bank in range(self.banks)]
        self.allowed = {(command, bank): 0 for command in Command for bank in range(self.banks)}
        takes = {
            command: memory.command_bus.ticks(PLAIN.get(command, command).name)
            for command in Command
        }
        self.rules = [
            (rule.level, {Command[first]}, Command[then],
             evaluate_delay(rule.delay, memory.timings, "oracle")
             + takes[Command[first]] - takes[Command[then]])
            for rule in memory.rules if rule.window == 1
            for first in rule.first for then in rule.then
        ]  # fmt: skip
        self.takes = takes
        self.unsent = silent_precharge(memory)
        self.acts = [0] * self.banks
        columns = (Command.RD, Command.WR)
        one_bus = memory.controller.commands_per_cycle == 1
        self.rules += [
            ("channel", {first}, then, ticks)
            for first, ticks in takes.items() if ticks > 1 and first not in PLAIN
            for then in Command if one_bus or (first in columns) == (then in columns)
        ]  # fmt: skip
        levels = {rule[0] for rule in self.rules}
        self.bound = {
            (level, bank): self.bound_banks(level, bank)
            for level in levels
            for bank in range(self.banks)
        }
        self.windows = [
            (Command[name], evaluate_delay(rule.delay, memory.timings, "oracle"),
             [deque[int](maxlen=rule.window) for _ in range(org.ranks)],
             [0 if rule.level == "channel" else rank for rank in self.rank_of])
            for rule in memory.rules if rule.window > 1 for name in rule.then
        ]  # fmt: skip

    def bound_banks(self, level: str, bank: int) -> list[int]:
        """Banks that a rule at ``level`` binds after a command to ``bank``."""
        rank, group = self.rank_of[bank], self.group_of[bank]
        return [
            other
            for other in range(self.banks)
            if level == "channel"
            or (level == "rank" and self.rank_of[other] == rank)
            or (level == "other_ranks" and self.rank_of[other] != rank)
            or (level == "bank_group" and self.group_of[other] == group)
            or (level in ("bank", "row_buffer") and other == bank)
        ]

    def ready(self, command: Command, bank: int, cycle: int) -> bool:
        """Whether ``command`` may go to ``bank`` at ``cycle``."""
        if cycle < self.allowed[command, bank]:
            return False
        for limited, delay, issued, ring_of in self.windows:
            past = issued[ring_of[bank]]
            if limited == command and len(past) == past.maxlen and cycle < past[0] + delay:
                return False
        return True

    def close_silently(self, access: Command, bank: int, cycle: int) -> None:
        """``access`` (RDA, WRA) closes its bank: what waits for a PRE waits for the one that is
        not sent, as soon as one could be; rules of the memory's own take its place."""
        for level, then, clocks in self.unsent.after:
            own = {first for first, later in self.unsent.own if later == then}
            starts = [] if access in own else [(access, cycle, self.unsent.until[access])]
            if not own:
                starts.append((Command.ACT, self.acts[bank], self.unsent.until[Command.ACT]))
            for first, start, wait in starts:
                free = start + wait + clocks + self.takes[first] - self.takes[then]
                for other in self.bound_banks(level, bank):
                    self.allowed[then, other] = max(self.allowed[then, other], free)

    def note(self, command: Command, bank: int, cycle: int) -> None:
        """``command`` went to ``bank`` (REF: to its rank) at ``cycle``."""
        if command == Command.ACT:
            self.acts[bank] = cycle
        if command in PLAIN:
            self.close_silently(command, bank, cycle)
            for level, first, then, delay in self.rules:
                if command in first:
                    for other in self.bound_banks(level, bank):
                        free = max(self.allowed[then, other], cycle + delay)
                        self.allowed[then, other] = free
            command = PLAIN[command]
        for level, first, then, delay in self.rules:
            if command in first:
                for other in self.bound[level, bank]:
                    at = max(self.allowed[then, other], cycle + delay)
                    self.allowed[then, other] = at
        for limited, _, issued, ring_of in self.windows:
            if limited == command:
                issued[ring_of[bank]].append(cycle)


class Channel:
    """One channel's controller."""

    def __init__(self, memory: MemoryConfig, index: int) -> None:
        org, self.control = memory.organization, memory.controller
        self.index = index
        self.timing = Timing(memory)
        self.closing = self.control.page_policy == "auto-precharge"
        self.ranks, self.rank_banks = org.ranks, org.banks
        self.banks = [Bank() for _ in range(org.ranks * org.banks)]
        self.read_delay = memory.timings["CL"] + memory.timings["nBL"]
        self.groups, self.group_banks = org.bank_groups, org.banks_per_group
        of_rank = memory.timings["tREFI"]
        if self.control.refresh == "per-bank":
            of_rank = memory.timings.get("tREFIpb", of_rank // org.banks)
        self.interval = max(of_rank // org.ranks, 1)
        self.order = 0
        self.reads: list[Request] = []
        self.writes: list[Request] = []
        self.under_way: dict[tuple[int, bool], Request] = {}
        self.draining = 0
        self.turn = 0
        self.refreshes: deque[list[int]] = deque()
        self.refresh_turns = self.turns_of_refresh()
        self.frozen: list[int] = []
        self.log: list[Entry] = []
        self.commands: Counter[str] = Counter()
        self.row_hits = 0
        self.latencies: list[int] = []
        self.merged = {False: 0, True: 0}
        self.last_event = 0
        self.last_progress = 0
        self.open_since: dict[int, int] = {}
        self.open_cycles = 0

    # requests

    def has_room(self, is_write: bool) -> bool:
        """Whether the queue takes another request."""
        if is_write:
            return len(self.writes) < self.control.write_queue_depth
        return len(self.reads) < self.control.read_queue_depth

    def admit(self, cycle: int, burst: int, bank: int, row: int, is_write: bool) -> None:
        """Take a request in, or merge it with one under way to the same burst."""
        self.last_progress = cycle
        merges = (burst, True) in self.under_way  # a write replaces that one, a read gets its data
        if is_write or merges:  # acknowledged, or answered, in the next cycle
            self.last_event = max(self.last_event, cycle + 1)
        if merges:
            self.merged[is_write] += 1
            if not is_write:
                self.latencies.append(1)
            return
        if not is_write and (burst, False) in self.under_way:
            self.merged[False] += 1
            self.under_way[burst, False].arrivals.append(cycle)
            return
        request = Request(burst, bank, row, is_write, [cycle])
        self.under_way[burst, is_write] = request
        (self.writes if is_write else self.reads).append(request)

    @property
    def queued(self) -> int:
        """Requests that wait at the banks."""
        return sum(len(bank.queue) for bank in self.banks)

    @property
    def busy(self) -> bool:
        """Whether anything will still be issued for requests."""
        closing = self.control.page_policy == "closed" and bool(self.open_since)
        return self.queued > 0 or bool(self.reads) or self.draining > 0 or closing

    def transfer(self, cycle: int) -> None:
        """Move the oldest request that its bank has room for, a write only while draining.

        A write whose burst still has a read under way ends the drain. If that read is not at its
        bank yet and the drain would start anew at once, nothing would ever move: DRAMsim3 hangs
        there for good. Here a read moves instead; it is the one departure from that tool.
        """
        if self.draining == 0 and self.drain_starts:
            self.draining = len(self.writes)
        if self.draining > 0:
            if not self.move_from(self.writes, cycle):
                return
            if self.queued > 0 or not self.drain_starts:
                return
        self.move_from(self.reads, cycle)

    @property
    def drain_starts(self) -> bool:
        """The write queue is full enough, or worth draining while no request waits at the banks."""
        waiting = len(self.writes)
        return waiting >= self.control.drain_at or (
            waiting > self.control.write_drain_low and self.queued == 0
        )

    def move_from(self, source: list[Request], cycle: int) -> bool:
        """Move the oldest of ``source`` that can; True if a write had to yield to a read."""
        for request in source:
            queue = self.banks[request.bank].queue
            if len(queue) >= self.control.bank_queue_depth:
                continue
            if request.is_write:
                if (request.burst, False) in self.under_way:
                    self.draining = 0
                    return True
                self.draining -= 1
            source.remove(request)
            request.order = self.order
            self.order += 1
            queue.append(request)
            self.last_progress = cycle
            return False
        return False

    # commands

    def turns_of_refresh(self) -> Iterator[list[int]]:
        """Banks that each refresh takes, in order and for ever: ranks alternate, REFpb takes one
        bank of them, of each bank group in turn."""
        places = [0] if self.control.refresh != "per-bank" else range(self.rank_banks)
        while True:
            for place in places:
                for rank in range(self.ranks):
                    first = rank * self.rank_banks
                    if self.control.refresh == "per-bank":
                        bank, group = divmod(place, self.groups)
                        yield [first + group * self.group_banks + bank]
                    else:
                        yield list(range(first, first + self.rank_banks))

    def refresh_due(self, cycle: int) -> None:
        """In every interval the next rank, or the next bank, needs a refresh."""
        if self.control.refresh == "none" or cycle == 0 or cycle % self.interval:
            return
        self.refreshes.append(next(self.refresh_turns))

    def refresh_command(self, cycle: int) -> tuple[Command, int] | None:
        """What the oldest due refresh can do now: close a bank, or REF; its banks freeze."""
        if not self.refreshes:
            return None
        members = self.frozen = self.refreshes[0]
        command = Command.REFpb if self.control.refresh == "per-bank" else Command.REF
        for index in members:
            if self.banks[index].row is not None and self.timing.ready(Command.PRE, index, cycle):
                return Command.PRE, index
        for index in members:
            if self.banks[index].row is not None:
                return None
            if not self.timing.ready(command, index, cycle):
                return None
        return command, members[0]

    def candidate(self, index: int, cycle: int) -> tuple[Command, Request] | None:
        """The first request in the bank's queue for which a command is ready."""
        bank = self.banks[index]
        queue = bank.queue
        if self.control.scheduler == "fcfs":
            oldest = min((b.queue[0] for b in self.banks if b.queue), key=lambda r: r.order)
            queue = [oldest] if queue and queue[0] is oldest else []
        for place, request in enumerate(queue):
            if bank.row is None:
                needed = Command.ACT
            elif bank.row != request.row:
                needed = Command.PRE
            else:
                needed = Command.WR if request.is_write else Command.RD
            if not self.timing.ready(needed, index, cycle):
                continue
            if needed == Command.PRE:
                hits = any(other.row == bank.row for other in bank.queue)
                if self.control.scheduler == "fcfs":
                    hits = False
                if place > 0 or (hits and bank.accesses < self.control.row_hit_cap):
                    continue
            return needed, request
        return None

    def closable(self, index: int, cycle: int) -> bool:
        """Whether the closed page policy precharges the bank now."""
        bank = self.banks[index]
        return (
            self.control.page_policy == "closed"
            and bank.row is not None
            and all(request.row != bank.row for request in bank.queue)
            and self.timing.ready(Command.PRE, index, cycle)
        )

    def choose(self, cycle: int) -> tuple[Command, int, Request | None] | None:
        """The next bank in turn, after the one served last, that has a command ready.

        FCFS looks for the oldest request first, then for a row that may be closed.
        """
        places = [(self.turn + step) % len(self.banks) for step in range(1, len(self.banks) + 1)]
        fcfs = self.control.scheduler == "fcfs"
        places = [index for index in (sorted(places) if fcfs else places)
                  if index not in self.frozen]  # fmt: skip
        for index in places:
            found = self.candidate(index, cycle) if self.banks[index].queue else None
            if found is None and not fcfs and self.closable(index, cycle):
                found = Command.PRE, None
            if found is not None:
                self.turn = index
                return found[0], index, found[1]
        if fcfs:
            for index in places:
                if self.closable(index, cycle):
                    return Command.PRE, index, None
        return None

    def issue(self, cycle: int, command: Command, index: int, request: Request | None) -> None:
        """Put ``command`` on the bus and change the bank's (REF: the rank's) state."""
        bank = self.banks[index]
        row = -1 if request is None else request.row
        if self.closing:
            command = {Command.RD: Command.RDA, Command.WR: Command.WRA}.get(command, command)
        self.log.append(Entry(cycle, self.index, command, index, row))
        self.commands[command.name] += 1
        self.timing.note(command, index, cycle)
        rank = index // self.rank_banks
        if command in (Command.REF, Command.REFpb):
            self.refreshes.popleft()
            self.frozen = []
            return
        if command == Command.ACT:
            bank.row, bank.accesses = row, 0
            self.open_since.setdefault(rank, cycle)
        elif command == Command.PRE or command in PLAIN:
            bank.row, bank.accesses = None, 0
            first = rank * self.rank_banks
            if all(b.row is None for b in self.banks[first : first + self.rank_banks]):
                self.open_cycles += cycle - self.open_since.pop(rank)
        if request is None:
            if not self.frozen or index not in self.frozen:
                self.last_event = max(self.last_event, cycle)
            return
        self.last_event = max(self.last_event, cycle)
        self.last_progress = cycle
        if command in (Command.RD, Command.WR, *PLAIN):
            self.row_hits += bank.accesses > 0
            bank.accesses += command not in PLAIN
            bank.queue.remove(request)
            del self.under_way[request.burst, request.is_write]
        if command in (Command.RD, Command.RDA):
            done = cycle + self.read_delay
            self.latencies += [done - arrival for arrival in request.arrivals]
            self.last_event = max(self.last_event, done)

    def tick(self, cycle: int) -> None:
        """One cycle: refresh before requests, then perhaps a command of the other kind."""
        self.refresh_due(cycle)
        refresh = self.refresh_command(cycle)
        if refresh is not None:
            self.issue(cycle, *refresh, None)
            first: Command | None = refresh[0]
        else:
            chosen = self.choose(cycle)
            first = None if chosen is None else chosen[0]
            if chosen is not None:
                self.issue(cycle, *chosen)
        if first is not None and self.control.commands_per_cycle == 2:
            chosen = self.choose(cycle)
            column = (Command.RD, Command.WR)
            if chosen is not None and (chosen[0] in column) != (first in column):
                self.issue(cycle, *chosen)
        self.transfer(cycle)


def simulate(
    memory: MemoryConfig,
    addresses: Sequence[int],
    writes: Sequence[int],
    arrivals: Sequence[int] | None = None,
) -> OracleResult:
    """Run requests in order; one offered in a cycle reaches its controller in the next."""
    org = memory.organization
    channels = [Channel(memory, index) for index in range(org.channels)]
    bursts = np.asarray(addresses, dtype=np.int64) // org.burst_bytes
    where = AddressMap.parse(memory.address_map, org).decode(bursts)
    earliest = np.maximum.accumulate(
        np.zeros(len(bursts), dtype=np.int64) if arrivals is None else np.asarray(arrivals)
    )
    at, cycle = 0, 0
    while at < len(bursts) or any(channel.busy for channel in channels):
        for _ in range(org.channels):
            if at == len(bursts) or earliest[at] + 1 > cycle:
                break
            channel = channels[where.channel[at]]
            if not channel.has_room(bool(writes[at])):
                break
            channel.admit(
                cycle, int(bursts[at]), int(where.bank[at]), int(where.row[at]), bool(writes[at])
            )
            at += 1
        for channel in channels:
            channel.tick(cycle)
        progress = max(channel.last_progress for channel in channels)
        waiting = any(channel.busy for channel in channels)
        waiting = waiting or (at < len(bursts) and earliest[at] + 1 <= cycle)
        if waiting and cycle - progress > PATIENCE:
            raise Stuck(f"no request moved since cycle {progress}")
        cycle += 1
    return _summary(channels)


def _summary(channels: list[Channel]) -> OracleResult:
    cycles = max(channel.last_event for channel in channels) + 1
    latencies = [latency for channel in channels for latency in channel.latencies]
    still_open = [since for channel in channels for since in channel.open_since.values()]
    log = [entry for channel in channels for entry in channel.log]
    return OracleResult(
        cycles=cycles,
        commands=sum((channel.commands for channel in channels), Counter()),
        row_hits=sum(channel.row_hits for channel in channels),
        undrained_writes=sum(len(channel.writes) for channel in channels),
        avg_read_latency_cycles=sum(latencies) / len(latencies) if latencies else 0.0,
        active_rank_cycles=sum(channel.open_cycles for channel in channels)
        + sum(cycles - since for since in still_open),
        merged_reads=sum(channel.merged[False] for channel in channels),
        merged_writes=sum(channel.merged[True] for channel in channels),
        log=sorted(log, key=lambda entry: (entry.cycle, entry.channel)),
    )
