"""What the timing rules of a memory must say, and what its controllers can keep to.

Beyond what any rule is checked for (``rules``): every standard ties certain commands, and the
controllers of requests know windows and commands that close a row in one form only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pimsim.config.rules import Rule

if TYPE_CHECKING:
    from pimsim.config.memory import MemoryConfig

__all__ = ["Action", "check_rules_of_requests", "check_ties"]

Action = Literal[
    "activate", "precharge", "read", "write", "refresh", "refresh-bank", "precharge-all",
    "read-precharge", "write-precharge",
]  # fmt: skip
"""What a controller can do with a command; what it is called is the standard's own.

``refresh`` and ``precharge-all`` are of a rank (a controller that refreshes whole pseudo channels:
of one), ``refresh-bank`` of one bank; ``read-precharge`` and ``write-precharge`` close their row
by themselves."""

_OF_BANK = ("row_buffer", "bank", "bank_group", "rank", "pseudo_channel", "channel")
_OF_BUS = ("rank", "pseudo_channel", "channel")
_REQUIRED: tuple[tuple[tuple[str, ...], Action, Action, str], ...] = (
    (_OF_BANK, "activate", "read", "a row takes tRCD to open"),
    (_OF_BANK, "activate", "write", "a row takes tRCD to open"),
    (_OF_BANK, "activate", "precharge", "a row stays open for tRAS"),
    (_OF_BANK, "precharge", "activate", "a row takes tRP to close"),
    (_OF_BANK, "read", "precharge", "a read takes tRTP before its row may close"),
    (_OF_BANK, "write", "precharge", "a write takes its data and tWR before its row may close"),
    (_OF_BUS, "read", "read", "bursts share the data bus"),
    (_OF_BUS, "write", "write", "bursts share the data bus"),
    (_OF_BUS, "read", "write", "the data bus turns round"),
    (_OF_BUS, "write", "read", "the data bus turns round"),
)
"""What every standard ties, at one of the levels: first and second command by what they do, and
why."""


def check_rules_of_requests(
    memory: MemoryConfig, rules: Sequence[Rule], key: str = "rules"
) -> None:
    """Raise for what the controllers of requests cannot keep to.

    Parameters
    ----------
    memory
        Whose controller it is.
    rules
        Its own, or those of a PIM design whose commands it takes.
    key
        Where they stand.

    Raises
    ------
    ValueError
        With the number of the rule.
    """
    for index, rule in enumerate(rules):
        try:
            _fits_requests(memory, rule)
        except ValueError as error:
            raise ValueError(f"{key}.{index}: {error}") from None


def _fits_requests(memory: MemoryConfig, rule: Rule) -> None:
    closing = {
        name for name, does in memory.commands.items()
        if does in ("read-precharge", "write-precharge")
    }  # fmt: skip
    if rule.other_place is not None:
        raise ValueError("other_place is of the rules of a PIM design's command stream")
    for name in rule.then:
        if name in closing:
            plain = memory.command("read" if memory.commands[name][0] == "r" else "write")
            raise ValueError(f"then: {name} waits for what {plain} waits for; name that")
    if rule.window == 1:
        return
    if closing & set(rule.first):
        raise ValueError(
            f"window {rule.window}: {', '.join(sorted(closing))} count as what they close "
            "after; name that"
        )
    if rule.level not in ("rank", "pseudo_channel", "channel") or rule.first != rule.then:
        raise ValueError(
            f"window {rule.window}: it binds commands to earlier ones of their own kind in a "
            f"rank, found {', '.join(rule.first)} then {', '.join(rule.then)} at {rule.level}"
        )
    if len(rule.first) > 1:
        raise ValueError(f"window {rule.window}: one command, found {', '.join(rule.first)}")


def check_ties(memory: MemoryConfig) -> None:
    """Raise where commands that no memory sends at will are left untied.

    Parameters
    ----------
    memory
        Its rules, for as many ranks as it has and the refresh that it does.

    Raises
    ------
    ValueError
        With the two commands, and why every standard ties them.
    """
    needed = list(_REQUIRED)
    if memory.organization.ranks > 1:
        between = ("other_ranks", "pseudo_channel", "channel")
        needed += [(between, first, then, why) for _, first, then, why in _REQUIRED[-4:]]
    if memory.controller.refresh != "none":
        refresh: Action = "refresh" if memory.controller.refresh == "all-bank" else "refresh-bank"
        needed.append((_OF_BANK, refresh, "activate", "a refresh takes its time"))
    for levels, action, next_action, why in needed:
        first, then = memory.command(action), memory.command(next_action)
        if not any(rule.ties(first, then, levels) for rule in memory.rules):
            raise ValueError(f"rules: none from {first} to {then} at {' or '.join(levels)} ({why})")
