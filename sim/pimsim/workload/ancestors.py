"""What operators need, and what that needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

__all__ = ["DependentOperator", "ancestors"]


class DependentOperator(Protocol):
    """An operator of a block, symbolic or of a step."""

    @property
    def name(self) -> str:
        """Unique in its block."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of operators before it whose results it needs."""


def ancestors(operators: Iterable[DependentOperator]) -> dict[str, set[str]]:
    """By name, all that an operator needs.

    Parameters
    ----------
    operators
        Each after those that it needs.
    """
    found: dict[str, set[str]] = {}
    for operator in operators:
        needed = set(operator.depends_on)
        found[operator.name] = needed.union(*(found[name] for name in operator.depends_on))
    return found
