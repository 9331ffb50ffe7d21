"""PIM designs as data: what one adds to the memory that it is on.

One schema for all of them. A design's commands go through the memory's controller beside requests
(Newton, NeuPIMs), or it has a controller of its own that takes a stream of them (GDDR6-AiM,
HBM-PIM, AttAcc, Duplex).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pimsim.config.asked_once import checked_once, once_for_these
from pimsim.config.base import ConfigModel
from pimsim.config.commands import (
    IN_PIM_BUFFER,
    OF_REQUESTS,
    OF_STREAMS,
    CommandConfig,
    PimAction,
    banks_reached,
    memory_commands,
    stream_rules,
)
from pimsim.config.delay import timing_names
from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig, OrganizationConfig
from pimsim.config.pim_attention import AttentionMapConfig, GemvMapConfig
from pimsim.config.pim_controller import PeakConfig, PimControllerConfig, UnitsConfig
from pimsim.config.plugins import ModuleName
from pimsim.config.rules import Rule

__all__ = ["PimConfig", "PimDesignConfig", "own_design"]

Amount = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Cycles, or what a buffer holds."""

_SHARED = (
    "row_buffers", "composite_gemv", "keys_share_rows", "gwrite_cycles",
    "comp_pipeline", "refresh_avoidance", "read_write_slack", "softmax_overlap", "timed_comps",
    "front_end", "result_writes", "operand_rows", "windowed_activations", "pipeline_fill",
)  # fmt: skip
"""What is of designs whose commands go through the memory's controller."""
_OWN = (
    "design", "dtype", "element_bytes", "operations", "activations", "capacities", "attention",
    "gemv", "channels_per_head", "peak", "units", "static_w_per_channel", "energy_pj",
)  # fmt: skip
"""What is of designs with a controller of their own."""


@cache
def _default(model: type[ConfigModel], key: str) -> Any:
    """The value of a key that nobody gives, to compare with."""
    return model.model_fields[key].get_default(call_default_factory=True)


class PimConfig(ConfigModel):
    """A PIM design: what it adds to a memory."""

    name: str
    """What messages and reports call it."""
    source: str
    """Where the design and its numbers come from."""
    design: str = "newton"
    """How operations become commands: a module of ``pimsim.hardware.pim.designs``, or ``newton``
    for designs whose commands go through the memory's controller."""
    dtype: str = "fp16"
    """Number format of a kernel's operands (``bf16``, ``fp16``), of designs with a controller; a
    run has its own."""
    element_bytes: int = Field(default=2, ge=1, le=8)
    """Bytes of one of them."""
    elements_per_comp: int = Field(default=16, ge=1, le=4096)
    """Multipliers of one unit: elements of a row that it multiplies at a time."""
    banks_per_unit: int = Field(default=1, ge=1, le=64)
    """Neighbouring banks of a bank group that share a unit; 1: each bank has its own."""
    timings: dict[str, Amount] = Field(default_factory=dict)
    """Timings of the design in cycles of tCK, beside those of the memory."""
    commands: dict[str, CommandConfig]
    """Its commands, by name, beside those of the memory; one of the memory's name takes that one's
    place."""
    rules: list[Rule]
    """What binds its commands, each other's and the memory's. Rules of a command that is another
    one where PIM has no row buffer of its own (``with_one_buffer``) are that one's there."""
    power_cap_w: float | None = Field(default=None, ge=0.001, le=1e5)
    """The most that PIM's commands may draw in one stack (``organization.channels_per_stack`` of
    the memory); a run above it is refused. None: no cap."""
    controller: PimControllerConfig | None = None
    """The controller that takes its commands; none: the memory's, beside requests. What stands
    below up to ``pipeline_fill`` is of designs without one, the rest of those with one."""
    row_buffers: Literal[1, 2] = 1
    """2: the bank has a second row buffer for PIM, so normal reads go on (NeuPIMs section 5)."""
    composite_gemv: bool = False
    """COMPS_READRES: one command for n dot products and the read of their result."""
    keys_share_rows: bool = True
    """Keys of several tokens of a bank share a row where one token's do not fill it; else those of
    each token begin at a row of their own."""
    gwrite_cycles: str = "(tCCD_S + tCCD_L) * 32"
    """Cycles that GWRITE takes to fill the global buffer, over timing names."""
    comp_pipeline: int = Field(default=6, ge=1, le=10_000)
    """Least dot products' worth of time before a result can be read (adder tree depth)."""
    refresh_avoidance: bool = True
    """Before a header or GWRITE, hold PIM back if its estimate reaches into the next refresh."""
    read_write_slack: int = Field(default=10, ge=0, le=1_000_000)
    """Normal commands are let in beside waiting PIM commands only with this much slack left."""
    softmax_overlap: bool = True
    """Softmax of a head starts when its logits are read; else when all PIM work is done."""
    timed_comps: bool = True
    """The dot products of a GEMV take time: its result is read, and its row is closed, when they
    have ended. Off: as soon as the rules let it, whatever they say of ``n``."""
    front_end: Annotated[str, ModuleName("front_end", ("per-channel",))] = "per-channel"
    """How PIM instructions come to the channels. ``per-channel``: to each as fast as it takes them.
    Or as the module of that name has it."""
    result_writes: Annotated[str, ModuleName("result_writes", ("own-channel",))] = "own-channel"
    """Where attention writes what vector units make of PIM's results. ``own-channel``:
    probabilities to the request's channel, sums of values stay on chip. Or as the module of that
    name has it."""
    operand_rows: int = Field(default=64, ge=1, le=65536)
    """Rows that GWRITE's sources take in turn; one that is read again stays open."""
    windowed_activations: bool = True
    """G_ACT counts in the windows of activations of its rank (tFAW), once for each bank that it
    opens, and waits for room in them."""
    pipeline_fill: Literal["comp", "tCCD_S"] = "comp"
    """What a dot product adds while ``comp_pipeline`` of them fill the adder tree, with one row
    buffer: the time that a COMP takes, or tCCD_S."""

    operations: list[str] = Field(default_factory=list)
    """What it can do: ``gemv``, ``attention``, ``elementwise`` ...; all else is refused."""
    activations: list[str] = Field(default_factory=list)
    """Activation functions that it has."""
    capacities: dict[str, Amount] = Field(default_factory=dict)
    """Buffers and registers of the design (``global_buffer_bytes``), read by its module."""
    attention: AttentionMapConfig | None = None
    """How attention lies over the banks, for a design whose module reads it."""
    gemv: GemvMapConfig | None = None
    """Which command does which step of a matrix-vector product, for a design whose module reads
    it."""
    channels_per_head: int | None = Field(default=None, ge=1, le=4096)
    """Channels that hold the keys and values of one head, where attention is products (``gemv``
    without ``attention``): heads of all requests are dealt to groups of so many. None: each head
    lies in all channels, and one is multiplied after the other."""
    peak: PeakConfig | None = None
    units: UnitsConfig | None = None
    """Number, die and area of what multiplies; none: beside the banks, by ``configs/area``."""
    static_w_per_channel: float = Field(default=0.0, ge=0, le=1e4)
    """Standby of a channel's DRAM, its controller and PHY, and what its units draw at rest."""
    energy_pj: dict[str, Annotated[float, Field(ge=0, le=1e9)]] = Field(default_factory=dict)
    """pJ of one command in one of the banks that it reaches, by energy class."""

    @property
    def unread_timings(self) -> set[str]:
        """Timings that nothing reads."""
        delays = [*(rule.delay for rule in self.rules), *(text for _, text in self.delays())]
        return self.timings.keys() - timing_names(delays)

    def delays(self) -> Iterator[tuple[str, str]]:
        """Where arithmetic over timings stands, but for rules, and the text."""
        if self.controller is None:
            yield "gwrite_cycles", self.gwrite_cycles
            return
        for name, command in self.commands.items():
            yield f"commands.{name}.latency", command.latency
        if self.peak is not None:
            yield "peak.interval", self.peak.interval
        if self.controller.refresh is not None:
            yield "controller.refresh.interval", self.controller.refresh.interval

    @model_validator(mode="before")
    @classmethod
    def _no_family(cls, values: Any) -> Any:
        if isinstance(values, dict) and "family" in values:
            raise ValueError(
                "family: no longer a key; a design with a controller section has a controller of "
                "its own, and memory names the memory that it is on"
            )
        return values

    @model_validator(mode="after")
    def _of_one_kind(self) -> PimConfig:
        shared = self.controller is None
        kind = "has no controller" if shared else "has a controller"
        foreign: list[tuple[str, str, ConfigModel]] = [
            (key, key, self) for key in (_OWN if shared else _SHARED)
        ]
        for name, command in self.commands.items():
            keys = OF_STREAMS if shared else OF_REQUESTS
            foreign += [(f"commands.{name}.{key}", key, command) for key in keys]
        for where, key, of in foreign:
            if getattr(of, key) != _default(type(of), key):
                other = "with" if shared else "without"
                raise ValueError(
                    f"{where} is of designs {other} a controller of their own, and this one {kind}"
                )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> PimConfig:
        if not self.timed_comps and not self.composite_gemv:
            raise ValueError("timed_comps is of composite commands: false needs composite_gemv")
        if self.pipeline_fill != "comp" and self.row_buffers == 2:
            raise ValueError(
                f"pipeline_fill {self.pipeline_fill!r} is of designs with one row buffer, found "
                "row_buffers 2"
            )
        if self.elements_per_comp & (self.elements_per_comp - 1):
            raise ValueError(
                f"elements_per_comp is {self.elements_per_comp}; a row of a bank is a whole number "
                "of COMPs, so a power of two is needed"
            )
        return self

    @once_for_these
    def check_beside(self, memory: MemoryConfig, key: str = "") -> None:
        """Raise ``ValueError`` where the design cannot be on ``memory``: its rules name what
        neither has, or leave untied what one command needs of another. ``key``: where the design
        stands, for the message."""
        from pimsim.config.pim_beside import check_shared, check_stream

        check = check_shared if self.controller is None else check_stream
        check(self, memory, f"{key}." if key else "")
        each, channels = self.channels_per_head, memory.organization.channels
        if each is not None and channels % each:
            raise ValueError(
                f"{f'{key}.' if key else ''}channels_per_head is {each}; it must divide the "
                f"{channels} channels of {memory.name}"
            )

    def command(self, action: PimAction) -> str:
        """The name of the command that does ``action``; ``ValueError`` without one."""
        found = [name for name, each in self.commands.items() if each.action == action]
        if not found:
            raise ValueError(f"commands: none has the action {action!r}")
        return found[0]

    def sent_as(self, command: str) -> str:
        """What goes over the bus for ``command``: another one where PIM shares the row buffer."""
        own = self.commands.get(command)
        instead = None if own is None or self.row_buffers == 2 else own.with_one_buffer
        return instead or command

    @property
    def closer(self) -> str:
        """The command that closes the row of PIM's buffer."""
        return self.sent_as(self.command("precharge"))

    def in_pim_buffer(self, command: str) -> bool:
        """Whether ``command`` works on a row buffer that normal commands do not share."""
        own = self.commands.get(command)
        return self.row_buffers == 2 and own is not None and own.action in IN_PIM_BUFFER

    def multipliers(self, memory: MemoryConfig) -> int:
        """Multipliers of all channels: beside the banks, or as many as ``units`` has."""
        org = memory.organization
        if self.units is not None and self.units.multipliers_per_channel is not None:
            return org.channels * self.units.multipliers_per_channel
        return org.channels * org.channel_banks // self.banks_per_unit * self.elements_per_comp

    def capacity(self, key: str) -> int:
        """A capacity that the design's module needs, at least 1; ``InputError`` without it."""
        found = self.capacities.get(key, 0)
        if found < 1:
            raise InputError(
                f"{self.name}: capacities.{key}: found {self.capacities.get(key, 'nothing')}; "
                f"design {self.design!r} needs at least 1"
            )
        return found


class PimDesignConfig(PimConfig):
    """A PIM design on the memory that it brings, on no run's device."""

    memory: Annotated[MemoryConfig, checked_once()]
    """The memory that it is on. Of the design alone: a run has its own, which a run that takes the
    design by ``--set pim=...`` gets from here unless its memory is set too."""
    device: str = "neupims"
    """Hardware preset or YAML whose vector units ``pimsim kernel attention`` takes for it. Of the
    design alone: a run has its own and refuses the key."""

    @property
    def organization(self) -> OrganizationConfig:
        """Of its memory."""
        return self.memory.organization

    @property
    def tCK(self) -> int:
        """Picoseconds of one cycle of the timings."""
        return self.memory.tCK

    @property
    def own_controller(self) -> PimControllerConfig:
        """``InputError`` for a design whose commands go through the memory's controller."""
        if self.controller is None:
            raise InputError(
                f"{self.name} has no controller of its own: its commands go through the memory's, "
                "which pimsim run and kernel attention have"
            )
        return self.controller

    @property
    def all_timings(self) -> dict[str, int]:
        """Cycles by name, of the memory and of the design."""
        return {**self.memory.timings, **self.timings}

    @property
    def all_commands(self) -> dict[str, CommandConfig]:
        """Commands by name, the memory's first; their order is their number."""
        return {**memory_commands(self.memory), **self.commands}

    def banks_reached(self, command: str) -> int:
        """Banks of a channel to which one ``command`` goes, those that follow them included."""
        own = self.all_commands[command]
        return banks_reached(own, self.organization, self.banks_per_unit)

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates of one command of ``peak`` in a channel; ``InputError`` without."""
        if self.peak is None:
            raise InputError(f"{self.name}: peak is missing")
        if self.peak.macs is not None:
            return self.peak.macs
        return self.banks_reached(self.peak.command) * self.elements_per_comp

    @property
    def all_rules(self) -> list[Rule]:
        """Rules of the memory over the commands that a stream has, then those of the design."""
        return [*stream_rules(self.memory), *self.rules]

    @model_validator(mode="after")
    def _fits_its_memory(self) -> PimDesignConfig:
        self.check_beside(self.memory)
        return self


def own_design(pim: PimConfig | None, memory: MemoryConfig) -> PimDesignConfig | None:
    """``pim`` on ``memory``, where it has a controller of its own; else None.

    Parameters
    ----------
    pim
        Of the run; None: it has none.
    memory
        Of the run, which the design's channels and banks are those of.
    """
    if pim is None or pim.controller is None:
        return None
    values = {name: getattr(pim, name) for name in PimConfig.model_fields}
    return PimDesignConfig.model_construct(**values, memory=memory, device="")
