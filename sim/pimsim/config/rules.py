"""The language of timing rules, of memories and of PIM designs alike.

A rule is data: at a level, a command of some may follow a command of others after a delay. Levels,
commands and timings are those that the file itself, and the memory that it sits on, name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.delay import evaluate_delay, timing_names
from pimsim.config.errors import InputError, near_miss

__all__ = ["DOT_PRODUCTS", "OTHER_RANKS", "Rule", "Vocabulary", "delay_line"]

OTHER_RANKS = "other_ranks"
"""The level of a rule that binds what goes to another rank than the first command."""

DOT_PRODUCTS = "n"
"""What a delay of a PIM design calls the dot products of a composite command."""


class Rule(ConfigModel):
    """At ``level``, any command of ``first`` then any of ``then``: at least ``delay`` cycles.

    A command that reaches many nodes of a level concerns all of them.
    """

    level: str
    """What both commands must share to be bound: a level of the organisation (``channel``,
    ``pseudo_channel``, ``rank``, ``bank_group``, ``bank``). Of the requests of a memory also
    ``other_ranks``, the second one goes to a rank that did not get the first, and ``row_buffer``,
    the bank and, of two, its row buffer."""
    first: list[str]
    """Commands that start the delay."""
    then: list[str]
    """Commands that wait for it."""
    delay: str
    """Cycles of tCK as arithmetic (+ - * //, max, min) over timing names: ``CL + nBL - CWL +
    tRTRS``, ``max(nBL, tCCD_L)``. In the rules of a PIM design ``n`` is the dot products of a
    composite command.

    A read or write with auto-precharge (``RDA``, ``WRA``) is bound by what binds the plain one, and
    binds what that binds. The bank closes by itself as soon as a precharge could, so what waits for
    a precharge waits for both delays. A rule with one of them as ``first`` takes the place of that
    sum."""
    window: int = Field(default=1, ge=1, le=64)
    """The delay separates a command of ``then`` from the ``window``-th one of ``first`` before it
    (tFAW: 4)."""
    other_place: list[str] | None = None
    """Binds another bank than the first command's: its pseudo channel, rank, bank group and bank
    are the first command's coordinates at these four levels. At level ``bank``, with controller
    order ``window``."""

    def ties(self, first: str, then: str, levels: Collection[str] | None = None) -> bool:
        """Whether it says when ``then`` may follow the last ``first``.

        Parameters
        ----------
        first, then
            Commands by name.
        levels
            Levels at which it must; None: where both go to one place, of which a rule of other
            ranks or of another bank says nothing.

        Returns
        -------
        bool
            False for a rule over the ``window``-th command before: the last one is not that.
        """
        at_level = self.level != OTHER_RANKS if levels is None else self.level in levels
        return (
            at_level
            and self.window == 1
            and self.other_place is None
            and first in self.first
            and then in self.then
        )


def delay_line(text: str, timings: Mapping[str, int], where: str) -> tuple[int, int]:
    """Cycles of a rule's delay without dot products, and how many each of them adds. Dot products
    enter linearly: two points give the line.

    Parameters
    ----------
    text
        The delay as the rule writes it.
    timings
        Cycles by name.
    where
        Key of the rule, for messages.

    Returns
    -------
    tuple
        Cycles without any, and cycles for each.

    Raises
    ------
    InputError
        For unknown names or syntax.
    """
    base = evaluate_delay(text, {**timings, DOT_PRODUCTS: 0}, where)
    if DOT_PRODUCTS not in timing_names([text]):
        return base, 0
    return base, evaluate_delay(text, {**timings, DOT_PRODUCTS: 1}, where) - base


@dataclass(frozen=True)
class Vocabulary:
    """What the rules of one config may name."""

    levels: Sequence[str]
    commands: Collection[str]
    timings: Mapping[str, int]
    """Cycles by name, ``n`` among them where dot products may be named."""

    def check(self, rules: Sequence[Rule], key: str = "rules") -> None:
        """Raise ``ValueError`` at the first word that is none, by its key and with its near miss;
        the loader adds file and line."""
        for index, rule in enumerate(rules):
            where = f"{key}.{index}"
            _known(rule.level, self.levels, "level", f"{where}.level")
            for side, names in (("first", rule.first), ("then", rule.then)):
                for at, name in enumerate(names):
                    _known(name, self.commands, "command", f"{where}.{side}.{at}")
            for at, level in enumerate(rule.other_place or ()):
                _known(level, self.levels, "level", f"{where}.other_place.{at}")
            self.check_delay(rule.delay, f"{where}.delay")

    def check_delay(self, text: str, where: str) -> None:
        """Raise ``ValueError`` where ``text`` is no arithmetic over the timings."""
        try:
            evaluate_delay(text, self.timings, where)
        except InputError as error:
            raise ValueError(str(error)) from None


def _known(name: str, known: Collection[str], what: str, where: str) -> None:
    if name not in known:
        raise ValueError(
            f"{where}: unknown {what} {name!r}{near_miss(name, known)}; known: {', '.join(known)}"
        )
