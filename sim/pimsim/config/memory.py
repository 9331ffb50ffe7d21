"""DRAM: a standard as data (levels, timings, rules, currents) and its controller."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.units import Picoseconds

__all__ = [
    "ControllerConfig",
    "CurrentsConfig",
    "MemoryConfig",
    "OrganizationConfig",
    "Rule",
]

Level = Literal["channel", "rank", "other_ranks", "bank_group", "bank", "row_buffer"]


class OrganizationConfig(ConfigModel):
    """What one device's memory is made of."""

    channels: int = Field(ge=1, le=1024)
    ranks: int = Field(default=1, ge=1, le=64)
    bank_groups: int = Field(ge=1, le=64)
    banks_per_group: int = Field(ge=1, le=64)
    rows: int = Field(ge=1, le=2**24)
    columns: int = Field(ge=1, le=2**16)
    """Bursts in one row of one bank (JEDEC columns divided by the burst length)."""
    bus_width_bits: int = Field(ge=1, le=4096)
    """Data bus of one channel."""
    burst_length: int = Field(ge=1, le=64)
    """Beats of one RD or WR; a burst moves ``bus_width_bits / 8 * burst_length`` bytes."""
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
    def capacity_bytes(self) -> int:
        """Bytes of all channels."""
        return self.channels * self.ranks * self.banks * self.rows * self.row_bytes


class Rule(ConfigModel):
    """At ``level``, any command of ``first`` then any of ``then``: at least ``delay`` cycles.

    ``delay`` is arithmetic over timing names (``CL + nBL - CWL + tRTRS``, ``max(nBL, tCCD_L)``).
    Level ``other_ranks`` binds the ranks that did not get the first command. ``window``: the
    delay separates a command from the ``window``-th one before it (tFAW: 4).
    """

    level: Level
    first: list[str]
    then: list[str]
    delay: str
    window: int = Field(default=1, ge=1, le=64)


class ControllerConfig(ConfigModel):
    """The channel's controller."""

    scheduler: Literal["fr-fcfs"] = "fr-fcfs"
    """First ready, first come: banks in round robin, in a bank the first request that can go."""
    page_policy: Literal["open"] = "open"
    row_hit_cap: int = Field(default=4, ge=1)
    """After so many column accesses of an open row, a waiting conflict may close it."""
    bank_queue_depth: int = Field(default=8, ge=1, le=1024)
    read_queue_depth: int = Field(default=32, ge=1, le=1024)
    write_queue_depth: int = Field(default=32, ge=1, le=1024)
    write_drain_low: int = Field(default=8, ge=0)
    """Writes start to drain when the queue is full, or holds more than this and no request
    waits at the banks."""
    requests_per_cycle: int = Field(default=1, ge=1, le=16)
    """Requests that the fabric hands to a channel in one cycle."""
    fabric_latency: int = Field(default=0, ge=0, le=100_000)
    """Cycles of tCK between a unit and a channel's controller, each way."""
    requests_in_flight: int | None = Field(default=None, ge=1)
    """A channel takes no read while so many requests wait for their command; None: its queues
    are the only limit."""
    commands_per_cycle: Literal[1, 2] = 1
    """2: one row and one column command in a cycle (HBM's separate C/A buses)."""
    refresh: Literal["all-bank", "none"] = "all-bank"
    """``all-bank``: REF of one rank after the other, each every tREFI."""


class CurrentsConfig(ConfigModel):
    """Supply and IDD currents (V, mA per die), JEDEC names; energy as DRAMsim3 and JESD79 use."""

    VDD: float = Field(gt=0)
    IDD0: float = Field(ge=0)
    IDD2N: float = Field(ge=0)
    IDD3N: float = Field(ge=0)
    IDD4R: float = Field(ge=0)
    IDD4W: float = Field(ge=0)
    IDD5AB: float = Field(ge=0)


class MemoryConfig(ConfigModel):
    """A memory: standard, speed grade, organisation, controller."""

    name: str
    standard: str
    source: str
    """Where the numbers come from."""
    organization: OrganizationConfig
    tCK: Picoseconds
    """One clock of the command bus."""
    timings: dict[str, int]
    """Cycles of tCK by JEDEC name; ``nBL`` is the cycles that a burst holds the data bus."""
    rules: list[Rule]
    address_map: str = "rorabgbachco"
    """Fields from the most to the least significant bit, above the burst offset:
    ro row, ra rank, bg bank group, ba bank, ch channel, co column."""
    stream_map: str = "rorabgbacoch"
    """The same for the NPU's streams (weights, activations): channel lowest, so that a
    stream uses all channels at once."""
    controller: ControllerConfig = ControllerConfig()
    currents: CurrentsConfig

    @model_validator(mode="after")
    def _consistent(self) -> MemoryConfig:
        for key in ("nBL", "CL", "CWL", "tRCDRD", "tRCDWR", "tRP", "tRAS", "tRFC", "tREFI"):
            if key not in self.timings:
                raise ValueError(f"timings lack {key}")
        for key, cycles in self.timings.items():
            if cycles < 0:
                raise ValueError(f"timings.{key} is negative: {cycles}")
        org = self.organization
        for field in ("channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns"):
            count = getattr(org, field)
            if count & (count - 1):
                raise ValueError(
                    f"organization.{field} is {count}, but the address map needs a power of two"
                )
        for key in ("address_map", "stream_map"):
            text = getattr(self, key)
            fields = [text[i : i + 2] for i in range(0, len(text), 2)]
            if sorted(fields) != ["ba", "bg", "ch", "co", "ra", "ro"]:
                raise ValueError(
                    f"{key} {text!r} must hold each of ro, ra, bg, ba, ch, co exactly once"
                )
        return self
