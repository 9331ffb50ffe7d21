"""The controller of a PIM design that has one of its own, driven by a stream of commands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel

__all__ = ["ModeRowConfig", "PeakConfig", "PimControllerConfig", "RefreshConfig", "UnitsConfig"]


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


class PimControllerConfig(ConfigModel):
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
    refresh: RefreshConfig | None = None

    @model_validator(mode="after")
    def _fits_scheduler(self) -> PimControllerConfig:
        requests = self.order == "requests"
        wrong = {
            "commands_per_cycle": requests and self.commands_per_cycle != 1,
            "instructions_per_cycle": requests and self.instructions_per_cycle != 1,
            "row_lookahead": requests and self.row_lookahead,
            "mode_switch": requests and self.mode_switch is not None,
            "mode_rows": not requests and bool(self.mode_rows),
            "hits_hold_moves": self.order != "window" and self.hits_hold_moves,
        }
        if not requests and self.refresh is not None:
            for key in ("staggered", "postponed", "drops_late"):
                wrong[f"refresh.{key}"] = bool(getattr(self.refresh, key))
        for key, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{key} cannot be set with the order {self.order!r}")
        if self.order == "window" and (self.mode_switch or self.instructions_per_cycle):
            raise ValueError(
                "order window knows no mode_switch and feeds its queue without limit "
                "(instructions_per_cycle 0)"
            )
        return self


class PeakConfig(ConfigModel):
    """The most that one channel can compute: one ``command`` every ``interval`` cycles."""

    command: str
    """The multiply-accumulate command; its count over the most possible is the utilisation."""
    interval: str
    """Least cycles between two of them, over timing names."""
    macs: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """Multiply-accumulates of one such command in a channel; none: ``elements_per_comp`` in each
    bank that it reaches."""


class UnitsConfig(ConfigModel):
    """What a design's units are made of, where they are not one beside each bank (or banks that
    share one)."""

    source: str
    """Where the numbers come from, or that they are assumed."""
    die: Literal["dram", "logic"] = "dram"
    """Whose process the units are made in: that of the DRAM dies, or of the logic die below."""
    multipliers_per_channel: int | None = Field(default=None, ge=1, le=2**31 - 1)
    """All multipliers of a channel; none: ``elements_per_comp`` beside each of its banks, or beside
    each ``banks_per_unit`` of them."""
    mm2_per_channel: float | None = Field(default=None, ge=0, le=1e4)
    """What a channel's units take, with their buffers and wires; none: each multiplier's area by
    ``configs/area``, that of the die."""
