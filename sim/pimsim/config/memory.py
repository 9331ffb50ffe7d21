"""DRAM: a standard as data (levels, timings, rules, currents) and its controller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.delay import timing_names
from pimsim.config.errors import near_miss
from pimsim.config.memory_rules import Action, check_rules_of_requests, check_ties
from pimsim.config.rules import Rule, Vocabulary
from pimsim.config.units import Picoseconds

__all__ = [
    "CONTAINED",
    "LEVELS",
    "Action",
    "CommandBusConfig",
    "ControllerConfig",
    "CurrentsConfig",
    "MemoryConfig",
    "OrganizationConfig",
]

CONTAINED = (
    ("tRC", ("tRAS", "tRP")),
    ("tRAS", ("tRCDRD",)),
    ("tRRD_L", ("tRRD_S",)),
    ("tCCD_L", ("tCCD_S",)),
    ("tWTR_L", ("tWTR_S",)),
    ("tFAW", ("tRRD_S",)),
    ("t32AW", ("tFAW",)),
    ("tREFI", ("tRFC",)),
    ("tREFI", ("tRFCpb",)),
    ("tREFI", ("tREFIpb",)),
    ("tRFC", ("tRFCpb",)),
    ("tREFIpb", ("tRREFD",)),
)
"""JEDEC timings that contain others: the first is at least the sum of the rest."""


LEVELS = ("channel", "pseudo_channel", "rank", "bank_group", "bank")
"""Levels of an organisation, from the outermost to the innermost."""
_RULE_LEVELS = (*LEVELS, "row_buffer", "other_ranks")
"""What a memory's rules may hold at: levels of its organisation, a bank's row buffer, and what
does not share a rank."""

Cycles = Annotated[int, Field(ge=0, le=10**7)]

_READ_TIMINGS = {
    "nBL", "CL", "CWL", "tRCDRD", "tRCDWR", "tRP", "tRAS", "tRFC", "tREFI", "tRFCpb", "tREFIpb",
    "tCCD_S", "tCCD_L", "tRTRS", "tRTP", "tFAW", "tRRD_S", "tRRD_L", "tWTR_S", "tWTR_L",
}  # fmt: skip
"""Timings that something else than a memory's rules reads: the controller (refresh), the energy of
currents, and the rules of the PIM designs that sit on memories."""


class OrganizationConfig(ConfigModel):
    """What one device's memory is made of; ``channels`` to ``columns`` are powers of two."""

    channels: int = Field(ge=1, le=1024)
    """Each with a controller of its own."""
    pseudo_channels: int = Field(default=1, ge=1, le=4)
    """Halves of a channel with banks and data pins of their own (HBM); they share its command
    pins."""
    ranks: int = Field(default=1, ge=1, le=64)
    """In each pseudo channel: ranks, or what a stack calls them (HBM3's SIDs)."""
    bank_groups: int = Field(ge=1, le=64)
    """In each rank."""
    banks_per_group: int = Field(ge=1, le=64)
    """Banks of one bank group."""
    rows: int = Field(ge=1, le=2**24)
    """Rows of one bank."""
    columns: int = Field(ge=1, le=2**16)
    """Bursts in one row of one bank (JEDEC columns divided by the burst length)."""
    bus_width_bits: int = Field(ge=1, le=4096)
    """Data bus of one channel, or of one pseudo channel."""
    burst_length: int = Field(ge=1, le=64)
    """Beats of one RD or WR; a burst moves ``bus_width_bits / 8 * burst_length`` bytes."""
    channels_per_stack: int = Field(default=1, ge=1, le=1024)
    """Channels of one stack (or package, or module): what a PIM design's power cap is of."""
    devices_per_rank: int = Field(default=1, ge=1, le=256)
    """Dies that share a command; currents are per die."""

    @property
    def burst_bytes(self) -> int:
        """Bytes of one RD or WR."""
        return self.bus_width_bits // 8 * self.burst_length

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank (the page)."""
        return self.columns * self.burst_bytes

    @property
    def banks(self) -> int:
        """Banks of one rank."""
        return self.bank_groups * self.banks_per_group

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Pseudo channels, ranks, bank groups, banks: children of one node, outermost first."""
        return (self.pseudo_channels, self.ranks, self.bank_groups, self.banks_per_group)

    @property
    def channel_banks(self) -> int:
        """Banks of one channel."""
        return self.pseudo_channels * self.ranks * self.banks

    @property
    def stacks(self) -> int:
        """Stacks that hold all channels; the last one may not be full."""
        return -(-self.channels // self.channels_per_stack)

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all channels."""
        halves = self.channels * self.pseudo_channels
        return halves * self.ranks * self.banks * self.rows * self.row_bytes


class CommandBusConfig(ConfigModel):
    """How commands go over the command pins, where that is not one command a clock."""

    ticks_per_clock: Literal[1, 2] = 1
    """2: commands go at both clock edges (HBM3), and a controller that models this counts its
    cycles in half clocks. Delays stay in clocks."""
    duration: dict[str, Annotated[int, Field(ge=1, le=64)]] = Field(default={})
    """Ticks that a command occupies its pins; one clock where none is given. A rule's delay
    counts from the last tick of its first command to the last tick of the next."""
    either_edge: list[str] = Field(default=[])
    """Commands that may start at a falling edge too; the others start at a rising one."""

    def ticks(self, command: str) -> int:
        """Ticks that ``command`` occupies its pins."""
        given = (ticks for name, ticks in self.duration.items() if name == command)
        return next(given, self.ticks_per_clock)


class ControllerConfig(ConfigModel):
    """The channel's controller."""

    model: Literal["bank-queues", "channel-queues"] = "bank-queues"
    """``bank-queues``: requests move from a channel's queues to queues of their banks, served in
    turn (DRAMsim3). ``channel-queues``: one read and one write queue for the channel, a buffer
    of requests whose row was opened for them, maintenance first (Ramulator 2.1's HBM
    controllers); in trace replay and on a device without PIM. Only ``bank-queues`` sends PIM
    commands: beside PIM a memory that brings ``channel-queues`` runs under it, each pseudo channel
    a channel, and to ask for ``channel-queues`` there is refused."""
    scheduler: Literal["fr-fcfs", "fcfs"] = "fr-fcfs"
    """``fr-fcfs``: first ready, first come; banks in round robin, in a bank the first request
    that can go. ``fcfs``: of the requests at the banks the oldest alone, whatever it waits for."""
    page_policy: Literal["open", "closed", "auto-precharge"] = "open"
    """``open``: a row stays open until a request for another row, or a refresh, needs the bank.
    ``closed``: it is precharged, by a PRE, as soon as no request queued at its bank hits it.
    ``auto-precharge``: every access opens its row and closes it again by itself (RDA, WRA), so that
    none ever hits: the strict closed page (DRAMsim3's ``CLOSE_PAGE``)."""
    row_hit_cap: int = Field(default=4, ge=1, le=1_000_000)
    """After so many column accesses of an open row, a waiting conflict may close it."""
    bank_queue_depth: int = Field(default=8, ge=1, le=1024)
    """``bank-queues``: requests that the queue of one bank holds."""
    read_queue_depth: int = Field(default=32, ge=1, le=1024)
    """Reads that a channel's queue holds; ``bank-queues``: those that are not at their bank
    yet."""
    write_queue_depth: int = Field(default=32, ge=1, le=1024)
    """The same of writes."""
    write_drain_high: int | None = Field(default=None, ge=1, le=1024)
    """Writes start to drain when the queue holds so many; without it, when it is full."""
    write_drain_low: int = Field(default=8, ge=0, le=1024)
    """They also start when the queue holds more than this and no request waits at the banks.
    ``channel-queues``: the drain ends when it holds less than this."""
    requests_per_cycle: int = Field(default=1, ge=1, le=16)
    """Requests that the fabric hands to a channel in one cycle."""
    fabric_latency: int = Field(default=0, ge=0, le=100_000)
    """Cycles of tCK between a unit and a channel's controller, each way."""
    requests_in_flight: int | None = Field(default=None, ge=1, le=1_000_000)
    """A channel takes no read while so many requests wait for their command; None: its queues
    are the only limit."""
    commands_per_cycle: Literal[1, 2] = 1
    """2: one row and one column command in a cycle (HBM's separate C/A buses)."""
    refresh: Literal["all-bank", "per-bank", "none"] = "all-bank"
    """``all-bank``: REF of one rank after the other, each every tREFI (``channel-queues``: of all
    pseudo channels at once). ``per-bank``: REFpb of one bank after the other, each every tREFI,
    while the rank's other banks go on; a rank gets one every tREFIpb (default: tREFI over its
    banks)."""
    refresh_pseudo_channels: Literal["in-turn", "together"] = "in-turn"
    """``channel-queues``, per-bank refresh: round the banks of one pseudo channel after the
    other's, or, as HBM3 asks for, the same bank in all of them before the next."""

    @property
    def drain_at(self) -> int:
        """Writes in the queue at which they start to drain."""
        high = self.write_drain_high
        return self.write_queue_depth if high is None else high

    @model_validator(mode="after")
    def _drains(self) -> ControllerConfig:
        if self.drain_at > self.write_queue_depth:
            raise ValueError(
                f"write_drain_high is {self.write_drain_high}, but write_queue_depth is "
                f"{self.write_queue_depth}: writes would never drain"
            )
        if self.model == "channel-queues":
            # its devices get latency and rate from npu.network
            for key, usual in (
                ("requests_per_cycle", 1), ("fabric_latency", 0), ("requests_in_flight", None),
                ("scheduler", "fr-fcfs"), ("row_hit_cap", 4), ("bank_queue_depth", 8),
            ):  # fmt: skip
                if getattr(self, key) != usual:
                    raise ValueError(
                        f"{key} is of model bank-queues; channel-queues takes {usual}, "
                        f"found {getattr(self, key)}"
                    )
            if self.page_policy == "closed":
                raise ValueError(
                    "page_policy closed is of model bank-queues; channel-queues takes open or "
                    "auto-precharge"
                )
        return self


class CurrentsConfig(ConfigModel):
    """Supply and IDD currents (V, mA per die), JEDEC names; energy as DRAMsim3 and JESD79 use."""

    VDD: float = Field(gt=0, le=10)
    """Supply voltage, V."""
    IDD0: float = Field(ge=0, le=10_000)
    """One bank activated and precharged every tRC, mA."""
    IDD2N: float = Field(ge=0, le=10_000)
    """Precharge standby, mA: all banks of the rank are closed."""
    IDD3N: float = Field(ge=0, le=10_000)
    """Active standby, mA: any bank of the rank is open."""
    IDD4R: float = Field(ge=0, le=10_000)
    """Burst read, mA: during the nBL cycles of a RD."""
    IDD4W: float = Field(ge=0, le=10_000)
    """Burst write, mA: during the nBL cycles of a WR."""
    IDD5AB: float = Field(ge=0, le=10_000)
    """All-bank refresh, mA: during tRFC."""
    IDD5PB: float | None = Field(default=None, ge=0, le=10_000)
    """Per-bank refresh, mA: during tRFCpb; without it, REFpb takes a bank's share of REF's
    energy."""


class MemoryConfig(ConfigModel):
    """A memory: standard, speed grade, organisation, controller."""

    name: str
    """What messages and reports call it."""
    standard: str
    """Its name (``HBM2``), for messages; how it behaves is in ``timings`` and ``rules``."""
    source: str
    """Where the numbers come from."""
    organization: OrganizationConfig
    tCK: Picoseconds = Field(ge=50, le=20_000)
    """One clock of the command bus."""
    timings: dict[str, Cycles]
    """Cycles of tCK by JEDEC name; ``nBL`` is the cycles that a burst holds the data bus."""
    commands: dict[str, Action]
    """What the controller does with each command of the standard, by its name there."""
    rules: list[Rule]
    """When a command may follow another one. Above a ``window`` of 1, ``first`` and ``then`` are
    one command, the same."""
    address_map: str = "rorabgbachco"
    """Of a trace's addresses: fields from the most to the least significant bit, above the burst
    offset: ro row, ra rank, bg bank group, ba bank, ch channel, co column, pc pseudo channel. Of a
    device only a request order of ``npu.operand_layout`` reads it."""
    stream_map: str = "rorabgbacoch"
    """The same for a device's streams (weights, activations): channel lowest, so that a
    stream uses all channels at once."""
    command_bus: CommandBusConfig = CommandBusConfig()
    controller: ControllerConfig = ControllerConfig()
    currents: CurrentsConfig
    power_ceiling_pj_per_bit: float | None = Field(default=None, ge=0.001, le=1e6)
    """The most that it draws, as energy of each bit that its pins could move in that time, PIM
    apart; a run above it is refused. None: not known."""

    @property
    def unread_timings(self) -> set[str]:
        """Timings that nothing reads."""
        return self.timings.keys() - _READ_TIMINGS - timing_names(r.delay for r in self.rules)

    @model_validator(mode="after")
    def _consistent(self) -> MemoryConfig:
        for key in ("nBL", "CL", "CWL", "tRCDRD", "tRCDWR", "tRP", "tRAS", "tRFC", "tREFI"):
            if key not in self.timings:
                raise ValueError(f"timings lack {key}")
        for key, terms in CONTAINED:
            if key in self.timings and all(term in self.timings for term in terms):
                least = sum(self.timings[term] for term in terms)
                if self.timings[key] < least:
                    raise ValueError(
                        f"timings.{key} is {self.timings[key]}, less than "
                        f"{' + '.join(terms)} = {least}, which it contains"
                    )
        per_bank = self.controller.refresh == "per-bank"
        if per_bank and "tRFCpb" not in self.timings:
            raise ValueError(
                "controller.refresh is per-bank, but timings lack tRFCpb: "
                f"{self.standard} as described here has no refresh of one bank"
            )
        self._names_what_it_has()
        if per_bank:
            refresh = self.command("refresh-bank")
            if not any(refresh in rule.first for rule in self.rules):
                raise ValueError(
                    f"controller.refresh is per-bank, but no rule says what may follow {refresh}"
                )
        check_ties(self)
        org = self.organization
        for field in (
            "channels", "pseudo_channels", "ranks", "bank_groups", "banks_per_group", "rows",
            "columns",
        ):  # fmt: skip
            count = getattr(org, field)
            if count & (count - 1):
                raise ValueError(
                    f"organization.{field} is {count}, but the address map needs a power of two"
                )
        if org.bus_width_bits % 8 or org.burst_bytes & (org.burst_bytes - 1):
            raise ValueError(
                f"organization.burst_length is {org.burst_length} on {org.bus_width_bits} bits: "
                f"a burst of {org.bus_width_bits * org.burst_length / 8:g} bytes, but the address "
                "map needs a power of two"
            )
        for key in ("address_map", "stream_map"):
            text = getattr(self, key)
            fields = [text[i : i + 2] for i in range(0, len(text), 2)]
            needed = ["ro", "ra", "bg", "ba", "ch", "co"] + ["pc"] * (org.pseudo_channels > 1)
            if sorted(fields) != sorted(needed):
                raise ValueError(
                    f"{key} {text!r} must hold each of {', '.join(needed)} exactly once"
                )
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """What a rule may hold at."""
        return _RULE_LEVELS

    def command(self, action: Action) -> str:
        """What the standard calls the command that does ``action``; ``ValueError`` without one."""
        found = [name for name, does in self.commands.items() if does == action]
        if not found:
            raise ValueError(f"commands: none is for {action!r}")
        return found[0]

    def _names_what_it_has(self) -> None:
        """Raises ``ValueError`` where commands and levels are named that there are not, or where
        the controller has no command for what it does."""
        twice = [name for name, does in self.commands.items() if self.command(does) != name]
        if twice:
            does = self.commands[twice[0]]
            raise ValueError(
                f"commands.{twice[0]}: {self.command(does)} is for {does!r} already; a controller "
                "has one command for it"
            )
        for name, does in self.commands.items():
            if does == "refresh-bank" and "tRFCpb" not in self.timings:
                raise ValueError(
                    f"commands.{name}: refresh-bank takes tRFCpb, which timings lack: "
                    f"{self.standard} as described here has no refresh of one bank"
                )
        controller = self.controller
        needed: list[Action] = ["activate", "precharge", "read", "write"]
        if controller.refresh != "none":
            needed.append("refresh" if controller.refresh == "all-bank" else "refresh-bank")
        if controller.page_policy == "auto-precharge":
            needed += ["read-precharge", "write-precharge"]
        for action in needed:
            self.command(action)
        Vocabulary(self.levels, self.commands, self.timings).check(self.rules)
        for key, names in (
            ("duration", self.command_bus.duration), ("either_edge", self.command_bus.either_edge),
        ):  # fmt: skip
            for name in names:
                if name not in self.commands:
                    raise ValueError(
                        f"command_bus.{key}: unknown command {name!r}"
                        f"{near_miss(name, self.commands)}; known: {', '.join(self.commands)}"
                    )
        check_rules_of_requests(self, self.rules)
