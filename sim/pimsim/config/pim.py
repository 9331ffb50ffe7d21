"""Processing in memory: what the banks can do and how the controller drives them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.delay import timing_names
from pimsim.config.memory import CommandName, Cycles, Rule
from pimsim.config.plugins import ModuleName

__all__ = ["PIM_BUFFER", "PimConfig", "PimDesignConfig"]

PIM_BUFFER: frozenset[CommandName] = frozenset({"G_ACT", "PIM_PRE", "COMP", "READRES", "GEMV"})
"""Commands on the row buffer of PIM: a second one of each bank, or the one that there is."""


class PimConfig(ConfigModel):
    """A PIM design on top of a memory (Newton, NeuPIMs)."""

    name: str
    """What messages and reports call it."""
    source: str
    """Where the design and its numbers come from."""
    row_buffers: Literal[1, 2]
    """2: the bank has a second row buffer for PIM, so normal reads go on (NeuPIMs section 5)."""
    composite_gemv: bool
    """COMPS_READRES: one command for n dot products and the read of their result."""
    elements_per_comp: int = Field(ge=1, le=4096)
    """Multipliers beside each bank: elements of a row that one COMP multiplies."""
    keys_share_rows: bool = True
    """Keys of several tokens of a bank share a row where one token's do not fill it; else those of
    each token begin at a row of their own."""
    activation_group: Literal["bank_group"] = "bank_group"
    """Banks that one G_ACT opens."""
    gwrite_cycles: str = "(tCCD_S + tCCD_L) * 32"
    """Cycles that GWRITE takes to fill the global buffer, over timing names."""
    comp_pipeline: int = Field(default=6, ge=1, le=10_000)
    """Least dot products' worth of time before a result can be read (adder tree depth)."""
    timings: dict[str, Cycles] = Field(default_factory=dict)
    """Timings of the design, beside those of the memory."""
    power_cap_w: float | None = Field(default=None, ge=0.001, le=1e5)
    """The most that PIM's commands may draw in one stack (``organization.channels_per_stack`` of
    the memory); a run above it is refused. None: no cap."""
    rules: list[Rule]
    """What binds its commands, each other's and the memory's. PIM_PRE closes the row of PIM's
    buffer; with one row buffer that is a PRE, and the rules of PIM_PRE are rules of PRE."""
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

    @property
    def unread_timings(self) -> set[str]:
        """Timings that nothing reads."""
        delays = [self.gwrite_cycles, *(rule.delay for rule in self.rules)]
        return self.timings.keys() - timing_names(delays)

    @model_validator(mode="before")
    @classmethod
    def _newton_family(cls, values: Any) -> Any:
        if isinstance(values, dict) and "family" in values:
            raise ValueError(
                f"family {values['family']!r}: {values.get('name')} brings a memory and commands "
                "of its own, and a run takes a PIM of the Newton family (see pimsim list pim); "
                "pimsim kernel gemv, attention and pim-trace take this one (--pim)"
            )
        return values

    @model_validator(mode="after")
    def _tied(self) -> PimConfig:
        bound = self.bound_rules
        for first, then, why in self._ties():
            rules = [rule for rule in bound if self._binds(rule, first, then)]
            if not rules:
                raise ValueError(
                    f"with row_buffers {self.row_buffers} and composite_gemv {self.composite_gemv} "
                    f"no rule says when {then} may follow {first}: {why}"
                )
            grows = any(re.search(r"\bn\b", rule.delay) for rule in rules)
            if first == "GEMV" and then == self.closer and self.timed_comps and not grows:
                raise ValueError(
                    f"no rule lets {then} wait for the n dot products of a GEMV: a delay with n is "
                    "needed (timed_comps=false does without)"
                )
        if not self.timed_comps and not self.composite_gemv:
            raise ValueError("timed_comps is of GEMV commands: false needs composite_gemv")
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

    @property
    def closer(self) -> CommandName:
        """The command that closes the row of PIM's buffer."""
        return "PIM_PRE" if self.row_buffers == 2 else "PRE"

    @property
    def bound_rules(self) -> tuple[Rule, ...]:
        """``rules``, in their order, over the commands that there are: see ``closer``."""
        if self.row_buffers == 2:
            return tuple(self.rules)
        return tuple(
            rule.model_copy(update={"first": _closing(rule.first), "then": _closing(rule.then)})
            for rule in self.rules
        )

    def in_pim_buffer(self, command: str) -> bool:
        """Whether ``command`` works on a row buffer that normal commands do not share."""
        return self.row_buffers == 2 and command in PIM_BUFFER

    def _binds(self, rule: Rule, first: CommandName, then: CommandName) -> bool:
        if first not in rule.first or then not in rule.then:
            return False
        apart = self.in_pim_buffer(first) != self.in_pim_buffer(then)
        return rule.level != "row_buffer" or not apart

    def _ties(self) -> Iterator[tuple[CommandName, CommandName, str]]:
        """Pairs of commands that a rule must bind: what the second needs of the first."""
        dot: CommandName = "GEMV" if self.composite_gemv else "COMP"
        result: CommandName = "GEMV" if self.composite_gemv else "READRES"
        closer = self.closer
        yield "ACT", "GWRITE", "it reads an open row"
        yield "GWRITE", "PRE", "the row is read until the buffer is full"
        yield "GWRITE", "GWRITE", "there is one global buffer"
        yield "GWRITE", dot, "the dot products read the global buffer"
        yield dot, "GWRITE", "the dot products read the global buffer"
        yield "G_ACT", dot, "the dot products read an open row"
        yield dot, dot, "a bank multiplies one column at a time"
        yield dot, closer, "the dot products read an open row"
        if not self.composite_gemv:
            yield "COMP", "READRES", "the result is read when the dot products have ended"
            yield "READRES", "COMP", "the accumulator is free when it has been read"
            yield "READRES", closer, "the row closes when the result has been read"
        yield "G_ACT", closer, "a row stays open for tRAS"
        yield closer, "G_ACT", "a bank is precharged first"
        yield closer, "REF", "a bank is precharged first"
        yield "REF", "G_ACT", "a refresh takes its time"
        yield "G_ACT", "G_ACT", "activations draw on one supply"
        yield "ACT", "G_ACT", "activations draw on one supply"
        yield "G_ACT", "ACT", "activations draw on one supply"
        columns: tuple[CommandName, ...] = ("RD", "WR")
        for column in columns:
            yield column, result, "results go over the data bus"
            yield result, column, "results go over the data bus"
            yield column, "GWRITE", "a bank reads one row at a time"
            yield "GWRITE", column, "a bank reads one row at a time"


def _closing(commands: list[CommandName]) -> list[CommandName]:
    """``commands`` where PIM's row is closed by a PRE."""
    return list(dict.fromkeys("PRE" if name == "PIM_PRE" else name for name in commands))


class PimDesignConfig(PimConfig):
    """A PIM design by itself, on no run's device."""

    device: str = "neupims"
    """Hardware preset or YAML whose memory and vector units ``pimsim kernel attention`` takes for
    it. Of the design alone: a run has its own and refuses the key."""
