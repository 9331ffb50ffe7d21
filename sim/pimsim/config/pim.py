"""Processing in memory: what the banks can do and how the controller drives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.commands import CommandConfig, PimAction
from pimsim.config.delay import timing_names
from pimsim.config.memory import Cycles, MemoryConfig
from pimsim.config.plugins import ModuleName
from pimsim.config.rules import DOT_PRODUCTS, Rule, Vocabulary

__all__ = ["PimConfig", "PimDesignConfig"]


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
    gwrite_cycles: str = "(tCCD_S + tCCD_L) * 32"
    """Cycles that GWRITE takes to fill the global buffer, over timing names."""
    comp_pipeline: int = Field(default=6, ge=1, le=10_000)
    """Least dot products' worth of time before a result can be read (adder tree depth)."""
    timings: dict[str, Cycles] = Field(default_factory=dict)
    """Timings of the design, beside those of the memory."""
    power_cap_w: float | None = Field(default=None, ge=0.001, le=1e5)
    """The most that PIM's commands may draw in one stack (``organization.channels_per_stack`` of
    the memory); a run above it is refused. None: no cap."""
    commands: dict[str, CommandConfig]
    """Its commands, by name, beside those of the memory."""
    rules: list[Rule]
    """What binds its commands, each other's and the memory's. Rules of a command that is another
    one where PIM has no row buffer of its own (``with_one_buffer``) are that one's there."""
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

    def check_beside(self, memory: MemoryConfig, key: str = "") -> None:
        """Raise ``ValueError`` where the design cannot be on ``memory``: its rules name what
        neither has, or leave untied what one command needs of another. ``key``: where the design
        stands, for the message."""
        at = f"{key}." if key else ""
        self._check_actions(at)
        timings = {**memory.timings, **self.timings, DOT_PRODUCTS: 0}
        words = Vocabulary(memory.levels, {**memory.commands, **self.commands}, timings)
        words.check(self.rules, f"{at}rules")
        words.check_delay(self.gwrite_cycles, f"{at}gwrite_cycles")
        for name, command in self.commands.items():
            if command.with_one_buffer not in (None, *memory.commands):
                raise ValueError(
                    f"{at}commands.{name}.with_one_buffer: {memory.name} has no command "
                    f"{command.with_one_buffer!r}; it has: {', '.join(memory.commands)}"
                )
        self._check_ties(memory, f"{key}: " if key else "")

    def _check_actions(self, at: str) -> None:
        """Raises ``ValueError`` where an action has no command, or two."""
        seen: dict[str, str] = {}
        for name, command in self.commands.items():
            if command.action is None:
                raise ValueError(
                    f"{at}commands.{name}: its action is missing; the memory's controller, which "
                    "takes this design's commands, does nothing with it"
                )
            if command.action in seen:
                raise ValueError(
                    f"{at}commands.{name}: {seen[command.action]} is for {command.action!r} already"
                )
            seen[command.action] = name
        needed: list[PimAction] = ["activate", "precharge", "load-operand", "announce"]
        needed += ["multiply-and-read"] if self.composite_gemv else ["multiply", "read-result"]
        for action in needed:
            if action not in seen:
                raise ValueError(f"{at}commands: none has the action {action!r}")

    def _check_ties(self, memory: MemoryConfig, at: str) -> None:
        """Raises ``ValueError`` where no rule binds two commands of which one needs the other."""
        for first, then, why in self._ties(memory):
            rules = [rule for rule in self.rules if self._binds(rule, first, then)]
            if not rules:
                raise ValueError(
                    f"{at}with row_buffers {self.row_buffers} and composite_gemv "
                    f"{self.composite_gemv} no rule says when {then} may follow {first}: {why}"
                )
            grows = any(re.search(rf"\b{DOT_PRODUCTS}\b", rule.delay) for rule in rules)
            composite = self.composite_gemv and first == self.command("multiply-and-read")
            if composite and then == self.closer and self.timed_comps and not grows:
                raise ValueError(
                    f"{at}no rule lets {then} wait for the n dot products of a {first}: a delay "
                    "with n is needed (timed_comps=false does without)"
                )

    def command(self, action: PimAction) -> str:
        """The name of the command that does ``action``."""
        return next(name for name, each in self.commands.items() if each.action == action)

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
        return self.row_buffers == 2 and own is not None and own.row_buffer == "own"

    def _binds(self, rule: Rule, first: str, then: str) -> bool:
        if first not in map(self.sent_as, rule.first) or then not in map(self.sent_as, rule.then):
            return False
        apart = self.in_pim_buffer(first) != self.in_pim_buffer(then)
        return rule.level != "row_buffer" or not apart

    def _ties(self, memory: MemoryConfig) -> Iterator[tuple[str, str, str]]:
        """Pairs of commands that a rule must bind: what the second needs of the first."""
        own: Mapping[str | None, str] = {each.action: name for name, each in self.commands.items()}
        dot = own["multiply-and-read" if self.composite_gemv else "multiply"]
        result = own["multiply-and-read" if self.composite_gemv else "read-result"]
        load, opener, closer = own["load-operand"], own["activate"], self.closer
        act, pre = memory.command("activate"), memory.command("precharge")
        yield act, load, "it reads an open row"
        yield load, pre, "the row is read until the buffer is full"
        yield load, load, "there is one global buffer"
        yield load, dot, "the dot products read the global buffer"
        yield dot, load, "the dot products read the global buffer"
        yield opener, dot, "the dot products read an open row"
        yield dot, dot, "a bank multiplies one column at a time"
        yield dot, closer, "the dot products read an open row"
        if not self.composite_gemv:
            yield dot, result, "the result is read when the dot products have ended"
            yield result, dot, "the accumulator is free when it has been read"
            yield result, closer, "the row closes when the result has been read"
        yield opener, closer, "a row stays open for tRAS"
        yield closer, opener, "a bank is precharged first"
        if "refresh" in memory.commands.values():
            refresh = memory.command("refresh")
            yield closer, refresh, "a bank is precharged first"
            yield refresh, opener, "a refresh takes its time"
        yield opener, opener, "activations draw on one supply"
        yield act, opener, "activations draw on one supply"
        yield opener, act, "activations draw on one supply"
        for column in (memory.command("read"), memory.command("write")):
            yield column, result, "results go over the data bus"
            yield result, column, "results go over the data bus"
            yield column, load, "a bank reads one row at a time"
            yield load, column, "a bank reads one row at a time"


class PimDesignConfig(PimConfig):
    """A PIM design by itself, on no run's device."""

    memory: MemoryConfig
    """The memory that it is on. Of the design alone: a run has its own, which a run that takes the
    design by ``--set pim=...`` gets from here unless its memory is set too."""
    device: str = "neupims"
    """Hardware preset or YAML whose vector units ``pimsim kernel attention`` takes for it. Of the
    design alone: a run has its own and refuses the key."""

    @model_validator(mode="after")
    def _fits_its_memory(self) -> PimDesignConfig:
        self.check_beside(self.memory)
        return self
