"""Timing rules compiled to tables: the one way from a config's rules to a kernel's delays.

Every kernel reads, for each command that it issues, lists of ``(level, then, delay, slope)``: at
the node of that level, ``then`` may follow after ``delay`` cycles, plus ``slope`` for each dot
product. Of several rules for the same pair and level the longest binds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.rules import Rule, delay_line

__all__ = ["NamedRule", "PairTable", "named_rules"]

_NEVER_BINDS = (-(10**9), 0)


@dataclass(frozen=True)
class NamedRule:
    """A rule whose words are numbers."""

    where: str
    """Place in its config, for messages."""
    rule: Rule
    first: tuple[int, ...]
    then: tuple[int, ...]
    base: int
    """Cycles of the delay, without dot products."""
    slope: int
    """What each dot product adds."""


def named_rules(
    rules: Sequence[Rule], key: str, commands: Mapping[str, int], timings: Mapping[str, int]
) -> Iterator[NamedRule]:
    """``rules`` with commands as numbers and delays evaluated.

    Parameters
    ----------
    rules
        Of a memory or a PIM design.
    key
        What messages call the list.
    commands
        Number of each command, by name.
    timings
        Cycles of each timing, by name.

    Raises
    ------
    InputError
        On a command or timing that there is not, which a config that was loaded with its memory has
        been checked for.
    """

    def number(name: str, where: str) -> int:
        if name not in commands:
            raise InputError(
                f"{where}: no command {name!r}{near_miss(name, commands)}; "
                f"known are {', '.join(commands)}"
            )
        return commands[name]

    for index, rule in enumerate(rules):
        where = f"{key}[{index}]"
        base, slope = delay_line(rule.delay, timings, where)
        first = tuple(dict.fromkeys(number(name, where) for name in rule.first))
        then = tuple(dict.fromkeys(number(name, where) for name in rule.then))
        yield NamedRule(where, rule, first, then, base, slope)


class PairTable:
    """What pairs of commands wait for, at each level."""

    def __init__(self, commands: int, levels: int) -> None:
        self._levels = levels
        self._of: list[dict[tuple[int, int], tuple[int, int]]] = [{} for _ in range(commands)]

    def bind(self, first: int, level: int, then: int, delay: int, slope: int = 0) -> None:
        """Let ``then`` wait after ``first`` at ``level``, unless it does so for longer."""
        known = self._of[first].get((level, then), _NEVER_BINDS)
        self._of[first][level, then] = max(known, (delay, slope))

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``rules`` (rules, 4) of level, then, delay and slope, and ``first`` (commands, levels +
        1): those of command ``c`` at level ``l`` are ``rules[first[c, l]:first[c, l + 1]]``."""
        first = np.zeros((len(self._of), self._levels + 1), dtype=np.int64)
        rows: list[tuple[int, int, int, int]] = []
        for command, pairs in enumerate(self._of):
            listed = [(*key, *delay) for key, delay in sorted(pairs.items())]
            for level in range(self._levels):
                first[command, level] = len(rows)
                rows += [row for row in listed if row[0] == level]
            first[command, self._levels] = len(rows)
        return np.array(rows, dtype=np.int64).reshape(-1, 4), first
