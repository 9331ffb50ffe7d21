"""Commands of PIM designs as data: what each reaches, opens, closes and costs."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.memory import LEVELS, Action, MemoryConfig, OrganizationConfig
from pimsim.config.rules import Rule

__all__ = [
    "IN_PIM_BUFFER", "OF_REQUESTS", "OF_STREAMS", "UNIT", "CommandConfig", "Mode", "PimAction",
    "banks_reached", "memory_commands", "stream_rules",
]  # fmt: skip

UNIT = "unit"
"""In place of ``bank`` among the levels of a broadcast: one bank of each unit."""

Mode = Literal["any", "bank", "register", "all_bank"]
"""What a channel can be set to; ``any``: the command is the same in all."""

PimAction = Literal[
    "activate", "precharge", "load-operand", "announce", "multiply", "read-result",
    "multiply-and-read",
]  # fmt: skip
"""What a memory's controller, which takes PIM commands beside requests, does with one."""

IN_PIM_BUFFER: frozenset[PimAction] = frozenset(
    {"activate", "precharge", "multiply", "read-result", "multiply-and-read"}
)
"""What is done on PIM's own row buffer where a bank has two. ``load-operand`` reads a row that the
memory's ACT opened; ``announce`` touches no row."""

OF_REQUESTS = ("action", "with_one_buffer")
"""Keys of a command that goes through the memory's controller: its action says all else."""
OF_STREAMS = (
    "broadcast", "bank_block", "bus", "row", "activate", "precharge", "effect", "latency", "queue",
    "mode", "drives", "energy",
)  # fmt: skip
"""Keys of a command that goes through a controller of the design's own."""


class CommandConfig(ConfigModel):
    """One command of a design; keys of the other kind of controller are refused."""

    action: PimAction | None = None
    """What the memory's controller does with it, for a design that shares that controller:
    ``activate`` opens rows for dot products and ``precharge`` closes them, ``load-operand`` reads a
    row into the global buffer, ``announce`` says what a product will do, ``multiply`` is one dot
    product in all banks, ``read-result`` reads their accumulators, and ``multiply-and-read`` is
    several dot products and a read under one command. Where a bank has two row buffers, all but
    ``load-operand`` and ``announce`` work on PIM's."""
    with_one_buffer: str | None = None
    """Command of the memory that takes its place where PIM has no row buffer of its own."""
    broadcast: list[str] = Field(default_factory=list)
    """Levels at which it goes to every node instead of the addressed one: an all-bank command
    has ``[bank_group, bank]``, one bank in each bank group ``[bank_group]``. ``unit`` in place of
    ``bank``: in each unit that banks share (``banks_per_unit``) the one in the addressed one's
    place."""
    bank_block: int | None = Field(default=None, ge=2, le=64)
    """Of the banks of a bank group only an aligned block of so many, with the addressed one
    (Duplex: two banks of each bank group are a bundle); needs ``bank`` in ``broadcast``."""
    bus: Literal["row", "column", "none", "both"] = "column"
    """C/A pins that it takes for a cycle; ``none``: it costs no slot (bookkeeping)."""
    row: Literal["any", "open", "closed"] = "any"
    """``open``: its row must be open in all its banks; ``closed``: all its banks must be closed.
    Where they are not, the controller issues ``precharge`` or ``activate`` first."""
    activate: str | None = None
    """Command that opens the row first; needed with ``row`` ``open``."""
    precharge: str | None = None
    """Command that closes the bank first; needed with ``row`` ``open`` or ``closed``."""
    effect: Literal["none", "open", "close"] = "none"
    """On its banks, after it was issued (``close``: precharge, or auto-precharge)."""
    latency: str = "1"
    """Cycles from issue until it counts as completed, over timing names."""
    queue: Literal["pim", "plain"] = "pim"
    """A channel holds commands of one kind at a time: the host waits with plain reads and writes
    until PIM commands have gone out, and the other way round."""
    mode: Mode = "bank"
    """Where ``controller.mode_switch`` is given, a channel is switched to the mode of what it
    does next (AiM: TMOD between commands on banks and on registers). Where
    ``controller.mode_rows`` are given, the command waits until its channel is in the mode."""
    drives: int = Field(default=1, ge=1, le=64)
    """Banks that follow one addressed bank (HBM-PIM's all-bank mode: those of its parity); they
    are always in the same state, so that only the addressed one is kept."""
    energy: str | None = None
    """Key in ``energy_pj``."""


def banks_reached(command: CommandConfig, org: OrganizationConfig, banks_per_unit: int) -> int:
    """Banks of a channel to which one command goes, those that follow them included.

    Parameters
    ----------
    command
        Its ``broadcast``, ``bank_block`` and ``drives``.
    org
        Of the memory.
    banks_per_unit
        Banks that share a unit.

    Returns
    -------
    int
        Banks.
    """
    reached = command.drives
    for level, count in zip(LEVELS[1:], org.counts, strict=True):
        if level == "bank" and UNIT in command.broadcast:
            reached *= count // banks_per_unit
        elif level in command.broadcast:
            block = command.bank_block if level == "bank" else None
            reached *= count if block is None else block
    return reached


def memory_commands(memory: MemoryConfig) -> dict[str, CommandConfig]:
    """The memory's commands as a command stream has them: by what its controller does with each.

    Those with auto-precharge are not among them: a stream's rows are closed by its controller.

    Parameters
    ----------
    memory
        With what its controller does with each command.

    Returns
    -------
    dict
        By the standard's name of the command.
    """
    return dict(_derived(tuple(memory.commands.items())))


@cache
def _derived(commands: tuple[tuple[str, Action], ...]) -> tuple[tuple[str, CommandConfig], ...]:
    does = {action: name for name, action in commands}
    act, pre = does["activate"], does["precharge"]
    rank = ["bank_group", "bank"]
    opened = {"row": "open", "activate": act, "precharge": pre, "queue": "plain"}
    known: dict[Action, dict[str, object]] = {
        "activate": {"bus": "row", "effect": "open"},
        "precharge": {"bus": "row", "effect": "close"},
        "precharge-all": {"bus": "row", "effect": "close", "broadcast": rank},
        "read": {"latency": "CL + nBL", **opened},
        "write": {"latency": "CWL + nBL", **opened},
        "refresh": {
            "bus": "row", "row": "closed", "precharge": does.get("precharge-all", pre),
            "broadcast": rank,
        },
        "refresh-bank": {"bus": "row", "row": "closed", "precharge": pre},
    }  # fmt: skip
    return tuple(
        (name, CommandConfig.model_validate(known[action]))
        for name, action in commands
        if action in known
    )


def stream_rules(memory: MemoryConfig) -> list[Rule]:
    """The memory's rules over the commands that a stream has.

    Parameters
    ----------
    memory
        With rules over all its commands.
    """
    known = memory_commands(memory)
    found = []
    for rule in memory.rules:
        first = [name for name in rule.first if name in known]
        then = [name for name in rule.then if name in known]
        if first and then:
            found.append(rule.model_copy(update={"first": first, "then": then}))
    return found
