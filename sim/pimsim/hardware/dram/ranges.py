"""Ranges of a fixed table, each with an owner: what is taken is nobody else's until given back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from pimsim.config.errors import InputError

__all__ = ["Ranges"]


class Ranges:
    """Gives out runs of neighbouring entries, in turn, so that an entry rests long between two
    owners; over those that somebody holds it steps."""

    def __init__(self, size: int, what: str) -> None:
        """``size``: entries of the table; ``what``: what they stand for, for messages."""
        self.size = size
        self._what = what
        self._next = 0
        self._starts: list[int] = []
        self._length: dict[int, int] = {}
        self._fresh: list[int] = []

    @property
    def held(self) -> int:
        """Entries that are somebody's."""
        return sum(self._length.values())

    def take(self, count: int) -> int:
        """First of ``count`` free entries in a row. Raises ``InputError`` where there are none."""
        if count <= 0:
            return self._next
        first = self._gap(self._next, count)
        if first < 0:
            first = self._gap(0, count)
        if first < 0:
            raise InputError(
                f"{self._what}: {self.held} of {self.size} entries are taken, {count} more in a "
                "row are needed; the kernel has no room for them"
            )
        insort(self._starts, first)
        self._length[first] = count
        self._fresh.append(first)
        self._next = first + count
        return first

    def collect(self) -> tuple[int, ...]:
        """What was taken since the last call, for its owner to keep."""
        fresh, self._fresh = tuple(self._fresh), []
        return fresh

    def give_back(self, firsts: Sequence[int]) -> None:
        """The ranges that begin at ``firsts`` are free again."""
        for first in firsts:
            del self._length[first]
            del self._starts[bisect_left(self._starts, first)]

    def _gap(self, start: int, count: int) -> int:
        """The first place from ``start`` on with ``count`` free entries, -1 if there is none."""
        at = bisect_right(self._starts, start)
        if at > 0:
            before = self._starts[at - 1]
            start = max(start, before + self._length[before])
        while start + count <= self.size:
            if at == len(self._starts) or start + count <= self._starts[at]:
                return start
            start = self._starts[at] + self._length[self._starts[at]]
            at += 1
        return -1
