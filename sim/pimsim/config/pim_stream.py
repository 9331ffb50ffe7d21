"""PIM designs that are driven by a stream of commands: organisation, commands and rules as data.

Newton and NeuPIMs sit on a memory preset and share its controller (``config/pim.py``). The
designs here (GDDR6-AiM, HBM-PIM, AttAcc ...) bring a memory and commands of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.commands import CommandConfig
from pimsim.config.delay import timing_names
from pimsim.config.errors import InputError, near_miss
from pimsim.config.pim_attention import AttentionMapConfig
from pimsim.config.rules import Rule, Vocabulary
from pimsim.config.units import Picoseconds

__all__ = [
    "LEVELS",
    "ModeRowConfig",
    "PeakConfig",
    "RefreshConfig",
    "StreamControllerConfig",
    "StreamOrganizationConfig",
    "StreamPimConfig",
]

LEVELS = ("channel", "pseudo_channel", "rank", "bank_group", "bank")
"""From the outermost level to the innermost."""


Amount = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Cycles, or what a buffer holds."""


class StreamOrganizationConfig(ConfigModel):
    """What the memory is made of; each count is per node of the level above."""

    channels: int = Field(ge=1, le=4096)
    """Each with a controller of its own; in a system, of one stack."""
    channels_per_stack: int = Field(default=1, ge=1, le=4096)
    """Channels of one stack or package: what the power cap is of."""
    pseudo_channels: int = Field(default=1, ge=1, le=64)
    """In each channel; 1: no such level."""
    ranks: int = Field(default=1, ge=1, le=64)
    """In each pseudo channel."""
    bank_groups: int = Field(ge=1, le=64)
    """In each rank."""
    banks_per_group: int = Field(ge=1, le=64)
    """Banks of one bank group."""
    rows: int = Field(ge=1, le=2**24)
    """Rows of one bank."""
    columns: int = Field(ge=1, le=2**16)
    """Column accesses in a row of one bank."""
    column_bytes: int = Field(ge=1, le=4096)
    """Bytes that one column command takes from one bank."""

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Pseudo channels, ranks, bank groups, banks: children of one node, outermost first."""
        return (self.pseudo_channels, self.ranks, self.bank_groups, self.banks_per_group)

    @property
    def stacks(self) -> int:
        """Stacks or packages that hold all channels; the last one may not be full."""
        return -(-self.channels // self.channels_per_stack)

    @property
    def banks(self) -> int:
        """Banks of one channel."""
        return self.pseudo_channels * self.ranks * self.bank_groups * self.banks_per_group

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank."""
        return self.columns * self.column_bytes

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all channels."""
        return self.channels * self.banks * self.rows * self.row_bytes


class RefreshConfig(ConfigModel):
    """Periodic refresh: while one is due, its channel issues nothing else (but ``postponed``)."""

    command: str
    """One is due at each node of the levels that it is not broadcast to."""
    interval: str
    """Cycles between two rounds over all its nodes, over timing names."""
    staggered: bool = False
    """Nodes one after the other, evenly over the interval, instead of all when it is over
    (order ``requests``)."""
    postponed: int = Field(default=0, ge=0, le=64)
    """Refreshes of a node that may be owed while requests go on; beyond, nothing else is issued
    until all have gone out (order ``requests``)."""
    drops_late: bool = False
    """A refresh that has not gone out when the next one falls due is lost (order ``requests``);
    under a stream of reads nearly all of a rank's are."""


class ModeRowConfig(ConfigModel):
    """A row that acts as a mode register: row commands on it in all of ``banks`` set the mode."""

    to: Literal["bank", "all_bank"]
    """Mode that the channel is in once all ``banks`` have had the command."""
    command: str
    """Command that opens or closes the row."""
    row: int = Field(ge=0, le=2**24)
    """Its number in each of the banks."""
    banks: list[Annotated[int, Field(ge=0, le=2**20)]] = Field(min_length=1)
    """Numbers within the channel: bank group times banks per group plus bank."""


class StreamControllerConfig(ConfigModel):
    """The channel's controller and how the host feeds it."""

    order: Literal["lanes", "window", "requests"] = "lanes"
    """``lanes``: a stream's commands belong to lanes that issue in order; of the lanes' heads
    the oldest that may go is issued. ``window``: the oldest command of the whole queue that may
    go, row hits before the precharge of their row (FR-FCFS); the host feeds every channel as
    fast as its queue takes commands. In both a barrier holds back all that is behind it.
    ``requests``: an ordinary controller's queue; of its requests up to the next fence, column
    accesses to open rows go first, then activates, then rows that no request wants are closed."""

    queue_depth: int = Field(ge=1, le=2**20)
    """Commands that the channel holds; the host waits for room."""
    commands_per_cycle: Literal[1, 2] = 1
    """2: one row and one column command in a cycle."""
    instructions_per_cycle: int = Field(default=1, ge=0, le=2**20)
    """Host instructions (each of one or more commands) handed out per cycle; 0: no limit."""
    row_lookahead: bool = False
    """Activates and precharges of commands that wait behind a barrier may go ahead."""
    hits_hold_moves: bool = False
    """With ``window``: a command that needs no row (a move between buffers) is held too while a
    row hit waits at the bank that its address names, until it is the oldest."""
    mode_switch: str | None = None
    """Command that takes the place of one that is due but belongs to another mode."""
    mode_rows: list[ModeRowConfig] = Field(default_factory=list)
    """How a ``requests`` controller's channel changes its mode."""
    address_map: str | None = None
    """Fields of a host's address, as ``memory.address_map``; for traffic without PIM."""
    refresh: RefreshConfig | None = None

    @model_validator(mode="after")
    def _fits_scheduler(self) -> StreamControllerConfig:
        requests = self.order == "requests"
        wrong = {
            "commands_per_cycle": requests and self.commands_per_cycle != 1,
            "instructions_per_cycle": requests and self.instructions_per_cycle != 1,
            "row_lookahead": requests and self.row_lookahead,
            "mode_switch": requests and self.mode_switch is not None,
            "mode_rows": not requests and bool(self.mode_rows),
            "address_map": not requests and self.address_map is not None,
        }
        if not requests and self.refresh is not None:
            for key in ("staggered", "postponed", "drops_late"):
                wrong[f"refresh.{key}"] = bool(getattr(self.refresh, key))
        for key, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{key} cannot be set with the order {self.order!r}")
        if self.address_map is not None:
            text = self.address_map
            fields = sorted(text[at : at + 2] for at in range(0, len(text), 2))
            if fields != ["ba", "bg", "ch", "co", "ra", "ro"]:
                raise ValueError(
                    f"address_map {text!r} must hold each of ro, ra, bg, ba, ch, co exactly once"
                )
        return self


class PeakConfig(ConfigModel):
    """The most that one channel can compute: one ``command`` every ``interval`` cycles."""

    command: str
    """The multiply-accumulate command; its count over the most possible is the utilisation."""
    interval: str
    """Least cycles between two of them, over timing names."""
    macs: int = Field(ge=1, le=2**31 - 1)
    """Multiply-accumulates of one such command in a channel."""


class StreamPimConfig(ConfigModel):
    """A PIM design as data: what its memory is, what its commands do, what it can hold."""

    family: Literal["stream"]
    """Tells these designs from the Newton family."""
    name: str
    """What messages and reports call it."""
    source: str
    """Where the design and its numbers come from."""
    design: str
    """Module of ``pimsim.hardware.pim.designs`` that maps operations to commands."""
    dtype: str
    """Number format of operands (``bf16``, ``fp16``)."""
    element_bytes: int = Field(ge=1, le=8)
    """Bytes of one operand."""
    operations: list[str]
    """What it can do: ``gemv``, ``attention``, ``multiply`` ...; all else is refused."""
    activations: list[str] = Field(default_factory=list)
    """Activation functions that it has."""
    organization: StreamOrganizationConfig
    tCK: Picoseconds = Field(ge=50, le=20_000)
    """One cycle of the timings."""
    timings: dict[str, Amount]
    """Cycles of tCK by name; rules, latencies and intervals are written in these."""
    commands: dict[str, CommandConfig]
    rules: list[Rule]
    controller: StreamControllerConfig
    capacities: dict[str, Amount] = Field(default_factory=dict)
    """Buffers and registers of the design (``global_buffer_bytes``), read by its module."""
    attention: AttentionMapConfig | None = None
    """How attention lies over the banks, for a design whose module reads it."""
    peak: PeakConfig | None = None
    power_cap_w: float | None = Field(default=None, ge=0.001, le=1e5)
    """The most that its commands may draw in one stack (``organization.channels_per_stack``); a
    run above it is refused. None: no cap."""
    static_w_per_channel: float = Field(default=0.0, ge=0, le=1e4)
    """Standby of a channel's DRAM, its controller and PHY, and what its units draw at rest."""
    energy_pj: dict[str, Annotated[float, Field(ge=0, le=1e9)]] = Field(default_factory=dict)
    """pJ of one command in one of the banks that it reaches, by energy class."""

    @model_validator(mode="after")
    def _scheduler_has_it(self) -> StreamPimConfig:
        """What only one of the two schedulers does is not asked of the other."""
        controller = self.controller
        if controller.order == "window":
            if controller.mode_switch is not None or controller.instructions_per_cycle != 0:
                raise ValueError(
                    "controller.order window knows no mode_switch and feeds its queue without "
                    "limit (instructions_per_cycle 0)"
                )
            return self
        if controller.hits_hold_moves:
            raise ValueError("controller.hits_hold_moves needs controller.order window")
        for index, rule in enumerate(self.rules):
            if rule.other_place is not None:
                raise ValueError(f"rules.{index}.other_place needs controller.order window")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> StreamPimConfig:
        for where, name in self._named_commands():
            if name not in self.commands:
                raise ValueError(
                    f"{where}: unknown command {name!r}{near_miss(name, self.commands)}; "
                    f"known: {', '.join(self.commands)}"
                )
        words = Vocabulary(LEVELS, self.commands, self.timings)
        words.check(self.rules)
        for where, text in self._delays():
            words.check_delay(text, where)
        controller = self.controller
        refresh = controller.refresh.command if controller.refresh else None
        for where, other, rows in (
            ("controller.refresh.command", refresh, ("any", "closed")),
            ("controller.mode_switch", controller.mode_switch, ("any",)),
        ):
            if other is not None and self.commands[other].row not in rows:
                raise ValueError(f"{where}: {other} needs row {' or '.join(map(repr, rows))}")
        for name, command in self.commands.items():
            self._check_command(name, command)
            if command.energy is not None and command.energy not in self.energy_pj:
                raise ValueError(
                    f"commands.{name}.energy: no {command.energy!r} in energy_pj"
                    f"{near_miss(command.energy, self.energy_pj)}"
                )
        self._check_mode_rows()
        return self

    @model_validator(mode="after")
    def _tied(self) -> StreamPimConfig:
        bound = {(one, two) for rule in self.rules for one in rule.first for two in rule.then}
        for first, then, why in self._ties():
            if first in self.commands and then in self.commands and (first, then) not in bound:
                raise ValueError(f"no rule says when {then} may follow {first}: {why}")
        return self

    def _ties(self) -> Iterator[tuple[str | None, str | None, str]]:
        """Pairs of commands that a rule must bind: what the second needs of the first."""
        for name, command in self.commands.items():
            opener, closer = command.activate, command.precharge
            if command.row == "closed":
                yield closer, name, "a bank is precharged first"
            if command.row != "open":
                continue
            yield opener, name, "it works on an open row"
            yield opener, closer, "a row stays open until its cells are restored"
            yield closer, opener, "a bank is precharged first"
            if command.effect == "close":
                yield name, opener, "it closes the row itself"
            else:
                yield name, closer, "it works on an open row"
            if self.controller.refresh is not None:
                yield self.controller.refresh.command, opener, "a refresh takes its time"

    @property
    def unread_timings(self) -> set[str]:
        """Timings that nothing reads."""
        delays = [*(rule.delay for rule in self.rules), *(text for _, text in self._delays())]
        return self.timings.keys() - timing_names(delays)

    def capacity(self, key: str) -> int:
        """A capacity that the design's module needs, at least 1; ``InputError`` without it."""
        found = self.capacities.get(key, 0)
        if found < 1:
            raise InputError(
                f"{self.name}: capacities.{key}: found {self.capacities.get(key, 'nothing')}; "
                f"design {self.design!r} needs at least 1"
            )
        return found

    def _check_mode_rows(self) -> None:
        org = self.organization
        for index, mode_row in enumerate(self.controller.mode_rows):
            where = f"controller.mode_rows.{index}"
            if mode_row.row >= org.rows:
                raise ValueError(f"{where}.row: {mode_row.row}; there are {org.rows} rows")
            for bank in mode_row.banks:
                if not 0 <= bank < min(org.banks, 62):
                    raise ValueError(f"{where}.banks: no bank {bank}")
            if self.commands[mode_row.command].effect == "none":
                raise ValueError(f"{where}.command: {mode_row.command} is no row command")

    def _check_command(self, name: str, command: CommandConfig) -> None:
        """What opens or closes the rows for a command must do so in all its banks."""
        if command.bank_block is not None and (
            "bank" not in command.broadcast
            or self.organization.banks_per_group % command.bank_block
        ):
            raise ValueError(
                f"commands.{name}.bank_block: {command.bank_block} banks of a bank group of "
                f"{self.organization.banks_per_group}, broadcast to {command.broadcast}"
            )
        needed = {
            "any": [],
            "open": [("activate", command.activate, "open"),
                     ("precharge", command.precharge, "close")],
            "closed": [("precharge", command.precharge, "close")],
        }  # fmt: skip
        for key, other, effect in needed[command.row]:
            where = f"commands.{name}.{key}"
            if other is None:
                raise ValueError(f"{where} is missing; row {command.row!r} needs it")
            helper = self.commands[other]
            if helper.effect != effect or helper.row != "any":
                raise ValueError(f"{where}: {other} needs effect {effect!r} and row 'any'")
            if not set(command.broadcast) <= set(helper.broadcast) or (
                helper.bank_block not in (None, command.bank_block)
            ):
                raise ValueError(f"{where}: {other} does not reach all banks of {name}")

    def _named_commands(self) -> Iterator[tuple[str, str]]:
        """Where a command is named, and its name."""
        for name, command in self.commands.items():
            for key, other in (("activate", command.activate), ("precharge", command.precharge)):
                if other is not None:
                    yield f"commands.{name}.{key}", other
        for index, mode_row in enumerate(self.controller.mode_rows):
            yield f"controller.mode_rows.{index}.command", mode_row.command
        if self.attention is not None:
            for key, name in self.attention.commands.model_dump().items():
                yield f"attention.commands.{key}", name
        if self.peak is not None:
            yield "peak.command", self.peak.command
        if self.controller.mode_switch is not None:
            yield "controller.mode_switch", self.controller.mode_switch
        if self.controller.refresh is not None:
            yield "controller.refresh.command", self.controller.refresh.command

    def _delays(self) -> Iterator[tuple[str, str]]:
        """Where arithmetic over timings stands, and the text."""
        for name, command in self.commands.items():
            yield f"commands.{name}.latency", command.latency
        if self.peak is not None:
            yield "peak.interval", self.peak.interval
        if self.controller.refresh is not None:
            yield "controller.refresh.interval", self.controller.refresh.interval
