"""The ``channel-queues`` controller, tick by tick, in plain Python: slow, and written to be read.

The policy is that of Ramulator 2.1's HBM controllers (hbm_controller_base.cpp, frfcfs.cpp,
hbm34_controller.cpp, all_bank.cpp, per_bank.cpp, hbm34_per_bank_refresh.cpp: read, not copied).
Nothing here jumps over a tick or remembers when a command may go: each command that was issued
bars others bank by bank. It shares the commands' names, the delay arithmetic and the address map
with the kernel, nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from oracle.dram_controller import PLAIN, silent_precharge

from pimsim.config.delay import evaluate_delay
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.rules import Command

__all__ = ["OracleResult", "simulate"]

ROW = {Command.ACT, Command.PRE, Command.PREA, Command.REF, Command.REFpb}
COLUMN = {Command.RD, Command.WR}
PATIENCE = 20_000


@dataclass(eq=False)
class Request:
    """A burst, or (``wanted`` a refresh) maintenance of ``banks``."""

    wanted: Command
    banks: list[int]
    row: int = -1
    arrival: int = -1
    burst: int = -1
    counted: bool = False


@dataclass
class OracleResult:
    """What a run did; log entries are (tick, channel, command, bank, row)."""

    cycles: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    row_hits: int = 0
    row_misses: int = 0
    row_conflicts: int = 0
    latencies: list[int] = field(default_factory=list)
    log: list[tuple[int, int, int, int, int]] = field(default_factory=list)


class Bars:
    """Ticks before which a command may not go to a bank."""

    def __init__(self, memory: MemoryConfig) -> None:
        org, bus = memory.organization, memory.command_bus
        self.half = org.ranks * org.banks
        self.count = org.pseudo_channels * self.half
        self.org = org
        self.until: dict[tuple[Command, int], int] = {}
        tick = bus.ticks_per_clock

        def takes(command: Command) -> int:
            return bus.duration.get(command.name, tick)

        self.rules: list[tuple[str, Command, Command, int, int]] = []
        for rule in memory.rules:
            clocks = evaluate_delay(rule.delay, memory.timings, "oracle")
            for first in (Command[name] for name in rule.first):
                for then in (Command[name] for name in rule.then):
                    delay = clocks * tick + takes(first) - takes(then)
                    self.rules.append((rule.level, first, then, delay, rule.window))
        for pins in (ROW, COLUMN):
            self.rules += [("channel", a, b, takes(a), 1) for a in pins for b in pins]
        self.unsent = silent_precharge(memory)
        self.takes = takes
        self.tick = tick
        self.acts: dict[int, int] = {}
        self.history: dict[tuple[int, str, int], deque[int]] = {}

    def unit(self, level: str, bank: int) -> int:
        """Number of the node of ``level`` that ``bank`` belongs to."""
        size = {"channel": self.count, "pseudo_channel": self.half, "rank": self.org.banks,
                "bank_group": self.org.banks_per_group}.get(level, 1)  # fmt: skip
        return bank // size

    def bound(self, level: str, bank: int) -> list[int]:
        """Banks that a rule at ``level`` binds after a command to ``bank``."""
        everyone = range(self.count)
        if level == "other_ranks":
            return [
                b for b in everyone
                if self.unit("pseudo_channel", b) == self.unit("pseudo_channel", bank)
                and self.unit("rank", b) != self.unit("rank", bank)
            ]  # fmt: skip
        return [b for b in everyone if self.unit(level, b) == self.unit(level, bank)]

    def allow(self, command: Command, banks: Sequence[int], tick: int) -> bool:
        return all(self.until.get((command, bank), 0) <= tick for bank in banks)

    def close_silently(self, access: Command, bank: int, tick: int) -> None:
        """``access`` (RDA, WRA) closes its bank as soon as a PRE could."""
        for level, then, clocks in self.unsent.after:
            own = {first for first, later in self.unsent.own if later == then}
            starts = [] if access in own else [(access, tick, self.unsent.until[access])]
            if not own:
                starts.append((Command.ACT, self.acts[bank], self.unsent.until[Command.ACT]))
            for first, start, wait in starts:
                plain = PLAIN.get(first, first)
                free = start + (wait + clocks) * self.tick + self.takes(plain) - self.takes(then)
                for other in self.bound(level, bank):
                    self.until[then, other] = max(self.until.get((then, other), 0), free)

    def note(self, command: Command, banks: Sequence[int], tick: int) -> None:
        if command == Command.ACT:
            self.acts[banks[0]] = tick
        if command in PLAIN:
            self.close_silently(command, banks[0], tick)
            assert not self.unsent.own  # no memory of this controller has such rules
            command = PLAIN[command]
        for index, (level, first, then, delay, window) in enumerate(self.rules):
            if first != command:
                continue
            start = tick
            if window > 1:
                key = (index, level, self.unit(level, banks[0]))
                past = self.history.setdefault(key, deque(maxlen=window))
                past.append(tick)
                if len(past) < window:
                    continue
                start = past[0]
            for bank in {b for touched in banks for b in self.bound(level, touched)}:
                key2 = (then, bank)
                self.until[key2] = max(self.until.get(key2, 0), start + delay)


class Channel:
    """One channel's controller."""

    def __init__(self, memory: MemoryConfig, index: int) -> None:
        self.memory, self.control, self.index = memory, memory.controller, index
        self.bus = memory.command_bus
        self.bars = Bars(memory)
        scale = self.bus.ticks_per_clock
        self.times = {name: clocks * scale for name, clocks in memory.timings.items()}
        self.rows: list[int | None] = [None] * self.bars.count
        self.reads: list[Request] = []
        self.writes: list[Request] = []
        self.active: list[Request] = []
        self.maintenance: list[Request] = []
        self.writing = False
        self.result = OracleResult()
        self.due = self.times["tREFIpb" if self.control.refresh == "per-bank" else "tREFI"]
        self.turn = 0
        self.seeded: deque[int] = deque()
        self.refreshed: set[int] = set()
        self.set_free: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self.reads or self.writes or self.active)

    def takes(self, burst: int, is_write: bool) -> bool:
        """A request that a buffered write of its burst answers, or that replaces it, needs no
        room (request_buffer: forwarding and merging come before the queue)."""
        if any(write.burst == burst for write in self.writes):
            return True
        if is_write:
            return len(self.writes) < self.control.write_queue_depth
        return len(self.reads) < self.control.read_queue_depth

    def admit(self, tick: int, burst: int, bank: int, row: int, is_write: bool) -> None:
        """A read of a buffered write is answered from it, a write to its burst takes its place."""
        if any(write.burst == burst for write in self.writes):
            self.result.cycles = max(self.result.cycles, tick - is_write)
            if not is_write:
                self.result.latencies.append(1)
            return
        request = Request(Command.WR if is_write else Command.RD, [bank], row, tick - 1, burst)
        (self.writes if is_write else self.reads).append(request)

    # refresh

    def refresh(self, tick: int) -> None:
        if self.control.refresh == "all-bank":
            if tick == self.due:
                self.due += self.times["tREFI"]
                for half in range(self.memory.organization.pseudo_channels):
                    first = half * self.bars.half
                    banks = list(range(first, first + self.bars.half))
                    self.maintenance.append(Request(Command.REF, banks))
        elif self.control.refresh == "per-bank":
            if self.control.refresh_pseudo_channels == "together":
                self.refresh_together(tick)
            elif tick == self.due:
                self.due += self.times["tREFIpb"]
                self.maintenance.append(Request(Command.REFpb, [self.turn]))
                self.turn = (self.turn + 1) % self.bars.count

    def refresh_together(self, tick: int) -> None:
        """The same bank of all pseudo channels, one handed over a tick; a set of a rank's banks
        starts no sooner than tRFCpb after the last of its round before."""
        halves = self.memory.organization.pseudo_channels
        banks = self.memory.organization.banks
        if not self.seeded:
            if tick < self.due:
                return
            rank = self.turn // banks
            sets = [half * (self.bars.half // banks) + rank for half in range(halves)]
            if any(tick < self.set_free.get(one, 0) for one in sets):
                self.due = tick + 1
                return
            self.seeded += [half * self.bars.half + self.turn for half in range(halves)]
            self.turn = (self.turn + 1) % self.bars.half
            self.due += self.times["tREFIpb"]
        bank = self.seeded.popleft()
        self.maintenance.append(Request(Command.REFpb, [bank]))
        self.refreshed.add(bank)
        mine = set(range(bank // banks * banks, (bank // banks + 1) * banks))
        if mine <= self.refreshed:
            self.refreshed -= mine
            self.set_free[bank // banks] = tick + self.times["tRFCpb"]

    # scheduling

    def needed(self, request: Request) -> Command:
        """The command that brings ``request`` on."""
        if request.wanted in (Command.REF, Command.REFpb):
            if any(self.rows[bank] is not None for bank in request.banks):
                return Command.PREA if request.wanted == Command.REF else Command.PRE
            return request.wanted
        held = self.rows[request.banks[0]]
        if held is None:
            return Command.ACT
        return request.wanted if held == request.row else Command.PRE

    def may(self, request: Request, pins: set[Command], tick: int) -> bool:
        """Whether its command belongs to these pins, to this edge, and is ready."""
        command = self.needed(request)
        rising = self.bus.ticks_per_clock == 1 or tick % 2 == 1
        if command not in pins or not (rising or command.name in self.bus.either_edge):
            return False
        return self.bars.allow(command, request.banks, tick)

    def closes_active(self, request: Request) -> bool:
        """Whether its PRE would close a row that an earlier ACT opened for another request."""
        if self.needed(request) not in (Command.PRE, Command.PREA):
            return False
        return any(other.banks[0] in request.banks for other in self.active)

    def waits_for_another(self, request: Request) -> bool:
        """Where every access closes its row, a row that is open is for one request alone."""
        held = self.rows[request.banks[0]] is not None
        return held and self.control.page_policy == "auto-precharge"

    def oldest(self, queue: list[Request]) -> Request | None:
        return min(queue, key=lambda request: request.arrival, default=None)

    def choose(self, pins: set[Command], tick: int) -> tuple[Request, list[Request]] | None:
        if pins is COLUMN:
            found = self.oldest([r for r in self.active if self.may(r, pins, tick)])
            if found is not None:
                return found, self.active
        if self.maintenance:
            first = self.maintenance[0]
            if self.may(first, pins, tick) and not self.closes_active(first):
                return first, self.maintenance
            return None
        self.turn_around()
        queue = self.writes if self.writing else self.reads
        found = self.oldest(
            [r for r in queue if self.may(r, pins, tick) and not self.closes_active(r)
             and not self.waits_for_another(r)]
        )  # fmt: skip
        return None if found is None else (found, queue)

    def turn_around(self) -> None:
        if not self.writing:
            self.writing = len(self.writes) >= self.control.drain_at or not self.reads
        elif len(self.writes) < max(self.control.write_drain_low, 1) and self.reads:
            self.writing = False

    def issue(self, pins: set[Command], tick: int) -> None:
        chosen = self.choose(pins, tick)
        if chosen is None:
            return
        request, queue = chosen
        command, bank = self.needed(request), request.banks[0]
        if request.wanted in COLUMN and not request.counted:
            request.counted = True
            self.result.row_hits += command == request.wanted
            self.result.row_misses += command == Command.ACT
            self.result.row_conflicts += command == Command.PRE
        row = request.row if command in (Command.ACT, Command.RD, Command.WR) else -1
        if self.control.page_policy == "auto-precharge" and command in COLUMN:
            command = {Command.RD: Command.RDA, Command.WR: Command.WRA}[command]
            self.rows[bank] = None
        self.result.log.append((tick, self.index, int(command), bank, row))
        self.result.commands[command.name] += 1
        self.bars.note(command, request.banks, tick)
        if command in (Command.PRE, Command.PREA):
            for closed in request.banks:
                self.rows[closed] = None
        elif command == Command.ACT:
            self.rows[bank] = request.row
            queue.remove(request)
            self.active.append(request)
        if PLAIN.get(command, command) == request.wanted:
            queue.remove(request)
            done = tick
            if request.wanted == Command.RD:
                done += self.times["CL"] + self.times["nBL"]
                self.result.latencies.append(done - request.arrival)
            if request.wanted in COLUMN:
                self.result.cycles = max(self.result.cycles, done)

    def tick(self, tick: int) -> None:
        self.refresh(tick)
        self.issue(COLUMN, tick)
        self.issue(ROW, tick)


def simulate(
    memory: MemoryConfig,
    addresses: Sequence[int],
    writes: Sequence[int],
    arrivals: Sequence[int] | None = None,
) -> OracleResult:
    """Run requests in order: in a tick as many are offered as there are channels."""
    org = memory.organization
    channels = [Channel(memory, index) for index in range(org.channels)]
    bursts = np.asarray(addresses, dtype=np.int64) // org.burst_bytes
    where = AddressMap.parse(memory.address_map, org).decode(bursts)
    earliest = np.maximum.accumulate(
        np.zeros(len(bursts), dtype=np.int64) if arrivals is None else np.asarray(arrivals)
    )
    at, tick, moved = 0, 0, 0
    while (
        at < len(bursts)
        or any(channel.busy for channel in channels)
        or tick < max(channel.result.cycles for channel in channels)
    ):
        tick += 1
        before = sum(sum(channel.result.commands.values()) for channel in channels)
        for _ in range(org.channels):
            if at == len(bursts) or earliest[at] + 1 > tick:
                break
            channel = channels[where.channel[at]]
            if not channel.takes(int(bursts[at]), bool(writes[at])):
                break
            channel.admit(
                tick, int(bursts[at]), int(where.bank[at]), int(where.row[at]), bool(writes[at])
            )
            at += 1
        for channel in channels:
            channel.tick(tick)
        if sum(sum(channel.result.commands.values()) for channel in channels) > before:
            moved = tick
        assert tick - moved < PATIENCE or earliest[min(at, len(bursts) - 1)] > tick, "stuck"
    results = [channel.result for channel in channels]
    return OracleResult(
        cycles=max(result.cycles for result in results),
        commands=sum((result.commands for result in results), Counter()),
        row_hits=sum(result.row_hits for result in results),
        row_misses=sum(result.row_misses for result in results),
        row_conflicts=sum(result.row_conflicts for result in results),
        latencies=[latency for result in results for latency in result.latencies],
        log=sorted(entry for result in results for entry in result.log),
    )
