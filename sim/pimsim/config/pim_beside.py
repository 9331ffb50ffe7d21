"""What a PIM design needs of the memory that it is on: words, commands and rules that tie them.

Each check raises ``ValueError`` with the key that it blames first; the loader adds file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pimsim.config.commands import (
    UNIT,
    CommandConfig,
    PimAction,
    banks_reached,
    memory_commands,
)
from pimsim.config.errors import near_miss
from pimsim.config.memory import LEVELS, MemoryConfig
from pimsim.config.memory_rules import check_rules_of_requests
from pimsim.config.pim_controller import PimControllerConfig
from pimsim.config.rules import DOT_PRODUCTS, OTHER_RANKS, Rule, Vocabulary

if TYPE_CHECKING:
    from pimsim.config.pim import PimConfig

__all__ = ["check_shared", "check_stream"]


# commands that go through the memory's controller -------------------------------------------------


def check_shared(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """Check a design whose commands go through the controller of a memory.

    Parameters
    ----------
    pim
        The design.
    memory
        The memory.
    at
        Key that the design stands at, with a dot.

    Raises
    ------
    ValueError
        Beginning with the key.
    """
    _check_actions(pim, at)
    timings = {**memory.timings, **pim.timings, DOT_PRODUCTS: 0}
    words = Vocabulary(memory.levels, {**memory.commands, **pim.commands}, timings)
    words.check(pim.rules, f"{at}rules")
    check_rules_of_requests(memory, pim.rules, f"{at}rules")
    for where, text in pim.delays():
        words.check_delay(text, at + where)
    _check_one_buffer(pim, memory, at)
    _check_shared_ties(pim, memory, at.replace(".", ": "))


def _check_actions(pim: PimConfig, at: str) -> None:
    """Raises ``ValueError`` where an action has no command, or two, or banks share a unit."""
    if pim.banks_per_unit != 1:
        raise ValueError(
            f"{at}banks_per_unit: {pim.banks_per_unit}; the memory's controller multiplies in all "
            "banks at once, so that each has a unit of its own"
        )
    seen: dict[str, str] = {}
    for name, command in pim.commands.items():
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
    needed += ["multiply-and-read"] if pim.composite_gemv else ["multiply", "read-result"]
    for action in needed:
        if action not in seen:
            raise ValueError(f"{at}commands: none has the action {action!r}")


def _check_one_buffer(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """What closes PIM's rows is the memory's precharge where both share a row buffer. The others
    reach more banks than any command of the memory does, so that none takes their place."""
    closes = memory.command("precharge")
    for name, command in pim.commands.items():
        where, instead = f"{at}commands.{name}.with_one_buffer", command.with_one_buffer
        if instead is None:
            if command.action == "precharge" and pim.row_buffers == 1:
                raise ValueError(
                    f"{where} is missing: with row_buffers 1 the memory's controller closes "
                    f"PIM's rows by {closes}"
                )
        elif instead not in memory.commands:
            raise ValueError(
                f"{where}: {memory.name} has no command {instead!r}; it has: "
                f"{', '.join(memory.commands)}"
            )
        elif command.action != "precharge":
            raise ValueError(
                f"{where}: found {instead!r}; {name} ({command.action!r}) has no command of the "
                "memory in its place, only what closes a bank's row has"
            )
        elif instead != closes:
            raise ValueError(
                f"{where}: found {instead!r}, which is for {memory.commands[instead]!r}; allowed: "
                f"{closes}, which closes the row of a bank"
            )


def _check_shared_ties(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """Raises ``ValueError`` where no rule binds two commands of which one needs the other."""
    # with a row buffer of its own PIM sends its own commands
    sent = pim.rules if pim.row_buffers == 2 else [_as_sent(pim, rule) for rule in pim.rules]
    for first, then, why in _shared_ties(pim, memory):
        apart = pim.in_pim_buffer(first) != pim.in_pim_buffer(then)
        rules = [
            rule
            for rule in sent
            if rule.ties(first, then) and not (apart and rule.level == "row_buffer")
        ]
        if not rules:
            raise ValueError(
                f"{at}with row_buffers {pim.row_buffers} and composite_gemv "
                f"{pim.composite_gemv} no rule says when {then} may follow {first}: {why}"
            )
        grows = any(re.search(rf"\b{DOT_PRODUCTS}\b", rule.delay) for rule in rules)
        composite = pim.composite_gemv and first == pim.command("multiply-and-read")
        if composite and then == pim.closer and pim.timed_comps and not grows:
            raise ValueError(
                f"{at}no rule lets {then} wait for the n dot products of a {first}: a delay "
                "with n is needed (timed_comps=false does without)"
            )


def _as_sent(pim: PimConfig, rule: Rule) -> Rule:
    """The rule over what goes over the bus."""
    first, then = (list(map(pim.sent_as, side)) for side in (rule.first, rule.then))
    return rule.model_copy(update={"first": first, "then": then})


def _shared_ties(pim: PimConfig, memory: MemoryConfig) -> Iterator[tuple[str, str, str]]:
    """Pairs of commands that a rule must bind: what the second needs of the first."""
    own: Mapping[str | None, str] = {each.action: name for name, each in pim.commands.items()}
    dot = own["multiply-and-read" if pim.composite_gemv else "multiply"]
    result = own["multiply-and-read" if pim.composite_gemv else "read-result"]
    load, opener, closer = own["load-operand"], own["activate"], pim.closer
    act, pre = memory.command("activate"), memory.command("precharge")
    yield act, load, "it reads an open row"
    yield load, pre, "the row is read until the buffer is full"
    yield load, load, "there is one global buffer"
    yield load, dot, "the dot products read the global buffer"
    yield dot, load, "the dot products read the global buffer"
    yield opener, dot, "the dot products read an open row"
    yield dot, dot, "a bank multiplies one column at a time"
    yield dot, closer, "the dot products read an open row"
    if not pim.composite_gemv:
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


# commands that go through a controller of the design's own ----------------------------------------


def check_stream(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """Check a design with a controller of its own.

    Parameters
    ----------
    pim
        The design.
    memory
        Whose banks it is in.
    at
        Key that the design stands at, with a dot.

    Raises
    ------
    ValueError
        Beginning with the key.
    """
    assert pim.controller is not None
    commands = {**memory_commands(memory), **pim.commands}
    words = Vocabulary(memory.levels, commands, {**memory.timings, **pim.timings})
    for where, name in _named_commands(pim, pim.controller):
        if name not in commands:
            raise ValueError(
                f"{at}{where}: unknown command {name!r}{near_miss(name, commands)}; "
                f"known: {', '.join(commands)}"
            )
    words.check(pim.rules, f"{at}rules")
    for where, text in pim.delays():
        words.check_delay(text, at + where)
    for index, rule in enumerate(pim.rules):
        if rule.other_place is not None and pim.controller.order != "window":
            raise ValueError(f"{at}rules.{index}.other_place needs controller.order window")
        if rule.window > 1 and rule.level == OTHER_RANKS:
            raise ValueError(
                f"{at}rules.{index}.level: {OTHER_RANKS} is of rules of two commands, found window "
                f"{rule.window}"
            )
    _check_controller(pim.controller, commands, memory, f"{at}controller")
    _check_units(pim, memory, at)
    for name, command in pim.commands.items():
        _check_command(f"{at}commands.{name}", command, commands, memory)
        if command.energy is not None and command.energy not in pim.energy_pj:
            raise ValueError(
                f"{at}commands.{name}.energy: no {command.energy!r} in energy_pj"
                f"{near_miss(command.energy, pim.energy_pj)}"
            )
    _check_openers(pim.commands, commands, at)
    _check_stream_ties(pim, memory, commands, at.replace(".", ": "))


def _named_commands(pim: PimConfig, controller: PimControllerConfig) -> Iterator[tuple[str, str]]:
    """Where a command is named, but for rules, and its name."""
    for name, command in pim.commands.items():
        for key, other in (("activate", command.activate), ("precharge", command.precharge)):
            if other is not None:
                yield f"commands.{name}.{key}", other
    for index, mode_row in enumerate(controller.mode_rows):
        yield f"controller.mode_rows.{index}.command", mode_row.command
    if pim.attention is not None:
        for key, name in pim.attention.commands.model_dump().items():
            yield f"attention.commands.{key}", name
    if pim.gemv is not None:
        for key, name in pim.gemv.model_dump().items():
            yield f"gemv.{key}", name
    if pim.peak is not None:
        yield "peak.command", pim.peak.command
    if controller.mode_switch is not None:
        yield "controller.mode_switch", controller.mode_switch
    if controller.refresh is not None:
        yield "controller.refresh.command", controller.refresh.command


def _check_controller(
    controller: PimControllerConfig, commands: Mapping[str, CommandConfig], memory: MemoryConfig,
    at: str,
) -> None:  # fmt: skip
    refresh = controller.refresh.command if controller.refresh else None
    for where, other, rows in (
        ("refresh.command", refresh, ("any", "closed")),
        ("mode_switch", controller.mode_switch, ("any",)),
    ):
        if other is not None and commands[other].row not in rows:
            raise ValueError(f"{at}.{where}: {other} needs row {' or '.join(map(repr, rows))}")
    org = memory.organization
    for index, mode_row in enumerate(controller.mode_rows):
        where = f"{at}.mode_rows.{index}"
        if mode_row.row >= org.rows:
            raise ValueError(f"{where}.row: {mode_row.row}; there are {org.rows} rows")
        for bank in mode_row.banks:
            if not 0 <= bank < min(org.channel_banks, 62):
                raise ValueError(f"{where}.banks: no bank {bank}")
        if commands[mode_row.command].effect == "none":
            raise ValueError(f"{where}.command: {mode_row.command} is no row command")


def _check_units(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """Units, elements and buffers must fit the memory's banks and columns."""
    org = memory.organization
    if org.banks_per_group % pim.banks_per_unit:
        raise ValueError(
            f"{at}banks_per_unit: {pim.banks_per_unit} banks a unit do not divide the "
            f"{org.banks_per_group} banks of a bank group of {memory.name}"
        )
    _check_shared_units(pim, memory, at)
    if pim.element_bytes > org.burst_bytes:
        raise ValueError(
            f"{at}element_bytes: {pim.element_bytes}; a column of {memory.name} has "
            f"{org.burst_bytes} bytes, less than an element"
        )
    for key, held in pim.capacities.items():
        if key.endswith("_buffer_bytes") and held < org.burst_bytes:
            raise ValueError(
                f"{at}capacities.{key}: {held} bytes hold less than one operand, a column of "
                f"{org.burst_bytes} bytes of {memory.name}"
            )


def _check_shared_units(pim: PimConfig, memory: MemoryConfig, at: str) -> None:
    """A command must not multiply in more banks of a rank at once than that has units."""
    if pim.peak is None or pim.peak.command not in pim.commands:
        return
    if pim.commands[pim.peak.command].bus == "none":
        raise ValueError(
            f"{at}commands.{pim.peak.command}.bus: found 'none', which costs no slot; what "
            "multiplies (peak.command) is sent over pins"
        )
    if pim.peak.macs is not None:
        return
    one_rank = memory.organization.model_copy(update={"pseudo_channels": 1, "ranks": 1})
    units = one_rank.channel_banks // pim.banks_per_unit
    reached = banks_reached(pim.commands[pim.peak.command], one_rank, pim.banks_per_unit)
    if reached > one_rank.channel_banks:
        raise ValueError(
            f"{at}commands.{pim.peak.command}.drives: {pim.commands[pim.peak.command].drives}; it "
            f"would go to {reached} banks of a rank, which has {one_rank.channel_banks}"
        )
    if reached > units:
        raise ValueError(
            f"{at}banks_per_unit: {pim.banks_per_unit}; {pim.peak.command} multiplies in {reached} "
            f"banks of a rank at once, which has {units} units then: its broadcast needs {UNIT!r} "
            "in place of 'bank'"
        )


def _check_command(
    at: str, command: CommandConfig, commands: Mapping[str, CommandConfig], memory: MemoryConfig
) -> None:
    """What opens or closes the rows for a command must do so in all its banks."""
    known = (*LEVELS[1:], UNIT)
    for index, level in enumerate(command.broadcast):
        if level not in known:
            raise ValueError(
                f"{at}.broadcast.{index}: unknown level {level!r}{near_miss(level, known)}; "
                f"known: {', '.join(known)}"
            )
    if UNIT in command.broadcast and "bank" in command.broadcast:
        raise ValueError(
            f"{at}.broadcast: bank and unit; a command goes to all banks or one a unit"
        )
    per_group = memory.organization.banks_per_group
    if command.bank_block is not None and (
        "bank" not in command.broadcast or per_group % command.bank_block
    ):
        raise ValueError(
            f"{at}.bank_block: {command.bank_block} banks of a bank group of {per_group}, "
            f"broadcast to {command.broadcast}"
        )
    needed = {
        "any": [],
        "open": [("activate", command.activate, "open"),
                 ("precharge", command.precharge, "close")],
        "closed": [("precharge", command.precharge, "close")],
    }  # fmt: skip
    for key, other, effect in needed[command.row]:
        where = f"{at}.{key}"
        if other is None:
            raise ValueError(f"{where} is missing; row {command.row!r} needs it")
        helper = commands[other]
        if helper.effect != effect or helper.row != "any":
            raise ValueError(f"{where}: {other} needs effect {effect!r} and row 'any'")
        reached = set(helper.broadcast) | ({UNIT} if "bank" in helper.broadcast else set())
        if not set(command.broadcast) <= reached or (
            helper.bank_block not in (None, command.bank_block)
        ):
            raise ValueError(f"{where}: {other} does not reach all banks of {at.split('.')[-1]}")


def _check_openers(
    own: Mapping[str, CommandConfig], commands: Mapping[str, CommandConfig], at: str
) -> None:
    """Rows that a command opens must be worked on, and closed by that."""
    served = {command.activate for command in commands.values() if command.row == "open"}
    for name, command in own.items():
        if command.effect == "open" and name not in served:
            raise ValueError(
                f"{at}commands.{name}: nothing closes the rows that it opens: no command with row "
                "'open' has it as activate, beside a precharge"
            )


def _check_stream_ties(
    pim: PimConfig, memory: MemoryConfig, commands: Mapping[str, CommandConfig], at: str
) -> None:
    """Raises ``ValueError`` where no rule binds two commands of which one needs the other."""
    rules = (*memory.rules, *pim.rules)
    for first, then, why in _stream_ties(pim, commands):
        if first is None or then is None:
            continue
        if not any(rule.ties(first, then) for rule in rules):
            raise ValueError(f"{at}no rule says when {then} may follow {first}: {why}")


def _stream_ties(
    pim: PimConfig, commands: Mapping[str, CommandConfig]
) -> Iterator[tuple[str | None, str | None, str]]:
    """Pairs of commands that a rule must bind: what the second needs of the first."""
    refresh = None if pim.controller is None else pim.controller.refresh
    used = dict(pim.commands)
    if refresh is not None:
        used[refresh.command] = commands[refresh.command]
    for name, command in used.items():
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
        if refresh is not None:
            yield refresh.command, opener, "a refresh takes its time"
            closing = commands[refresh.command].precharge
            yield opener, closing, "a refresh closes the rows that are open"
            if command.effect != "close":
                yield name, closing, "a refresh closes the rows that are open"
