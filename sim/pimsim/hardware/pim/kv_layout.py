"""Rows of a channel's banks that hold keys and values, in pages that never move.

A cache only grows: a page is a fixed number of rows for a fixed number of tokens, and the next
page comes behind the ones that are there, so where a token's key and value lie does not depend on
how many tokens follow. Keys that fill rows of their own, what is left of keys where several tokens
share a row, and values grow by pages of unlike sizes: each is a section.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["KvRows", "KvSection", "KvSections", "RowRuns", "ring_spans"]

Ints = NDArray[np.int64]


def ring_spans(first: int, end: int, ring: int | None) -> list[range]:
    """Places of the tokens from ``first`` to before ``end`` in a cache that keeps the last
    ``ring`` tokens, each in the place of the one that many before it; None: it keeps all.

    Of no more tokens than it keeps; in order, none of them empty.

    Parameters
    ----------
    first
        Token that they begin with.
    end
        Token behind the last.
    ring
        Tokens that the cache keeps; None: all.

    Returns
    -------
    list[range]
        One or two, or none where there are no tokens.
    """
    if ring is None:
        return [range(first, end)] if first < end else []
    at, size = first % ring, end - first
    spans = (range(at, min(at + size, ring)), range(max(at + size - ring, 0)))
    return [span for span in spans if span]


@dataclass(frozen=True)
class RowRuns:
    """Rows of every bank of a channel, in the order in which a section fills them."""

    runs: tuple[tuple[int, int], ...] = ()
    """First row of each run, and how many rows follow one another."""

    @classmethod
    def of(cls, runs: Iterable[tuple[int, int]]) -> RowRuns:
        """``runs`` with neighbours joined and empty ones left out."""
        joined: list[tuple[int, int]] = []
        for first, count in runs:
            if joined and sum(joined[-1]) == first:
                joined[-1] = (joined[-1][0], joined[-1][1] + count)
            elif count:
                joined.append((first, count))
        return cls(tuple(joined))

    @property
    def count(self) -> int:
        """Rows in all runs."""
        runs = self.runs
        return runs[0][1] if len(runs) == 1 else sum(count for _, count in runs)

    def row(self, number: int) -> int:
        """The row of this ``number``, counted from 0. Raises ``IndexError`` past the last one."""
        left = number
        for first, count in self.runs:
            if left < count:
                return first + left
            left -= count
        raise IndexError(f"row {number} of {self.count}")

    def at(self, numbers: Ints) -> Ints:
        """The rows of these ``numbers``, counted from 0, of the same shape; all are below
        ``count``."""
        if not self.runs:
            return numbers
        first, count = np.array(self.runs, dtype=np.int64).T
        before = np.cumsum(count) - count
        run = np.searchsorted(before, numbers, side="right") - 1
        found: Ints = numbers + (first - before)[run]
        return found

    @property
    def end(self) -> int | None:
        """The row behind the last one; None: there is none."""
        return sum(self.runs[-1]) if self.runs else None

    def between(self, first: int, end: int) -> RowRuns:
        """The rows of numbers ``first`` to before ``end``."""
        if first <= 0 and end >= self.count:
            return self
        found, at = [], 0
        for start, count in self.runs:
            low, high = max(first - at, 0), min(end - at, count)
            if low < high:
                found.append((start + low, high - low))
            at += count
        return RowRuns(tuple(found))

    def rows(self) -> Ints:
        """All rows, shape (count,)."""
        if len(self.runs) == 1:
            first, count = self.runs[0]
            return np.arange(first, first + count)
        return np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(first, first + n) for first, n in self.runs)]
        )


@dataclass(frozen=True)
class KvSection:
    """A part of a cache that grows a page at a time."""

    page_tokens: int
    """Tokens that a page holds."""
    page_rows: int
    """Rows of every bank that it takes; 0: there is no such part."""
    token_rows: float = 0.0
    """Rows of every bank that the elements of one token would fill, one beside the other."""

    def pages(self, tokens: int) -> int:
        """Pages that ``tokens`` have begun; none where there is no such part."""
        return -(-tokens // self.page_tokens) if self.page_rows else 0

    def rows(self, tokens: int) -> int:
        """Rows of the pages that ``tokens`` have begun."""
        return self.pages(tokens) * self.page_rows


@dataclass(frozen=True)
class KvSections:
    """The sections of one block's cache of one request."""

    keys: KvSection
    """Rows that hold keys of one token a bank."""
    shared_keys: KvSection
    """Rows that hold, in each bank, what is left of the keys of several tokens."""
    values: KvSection

    def __iter__(self) -> Iterator[KvSection]:
        return iter((self.keys, self.shared_keys, self.values))

    def __getitem__(self, part: int) -> KvSection:
        return (self.keys, self.shared_keys, self.values)[part]

    def __len__(self) -> int:
        return 3

    def rows(self, tokens: int) -> int:
        """Rows of every bank that ``tokens`` take."""
        return sum(self.rows_by_section(tokens))

    def rows_by_section(self, tokens: int) -> tuple[int, int, int]:
        """The same, of each section."""
        return self.keys.rows(tokens), self.shared_keys.rows(tokens), self.values.rows(tokens)


@dataclass(frozen=True)
class KvRows:
    """Where the sections of one block's cache of one request lie, in its channel."""

    keys: RowRuns = RowRuns()
    shared_keys: RowRuns = RowRuns()
    values: RowRuns = RowRuns()

    @classmethod
    def from_row(cls, first: int, sections: KvSections, tokens: int) -> KvRows:
        """The rows of ``tokens``, one section behind the other from row ``first`` on."""
        found = []
        for section in sections:
            found.append(RowRuns.of([(first, section.rows(tokens))]))
            first += found[-1].count
        return cls(*found)

    @property
    def sections(self) -> tuple[RowRuns, RowRuns, RowRuns]:
        """In the order of ``KvSections``."""
        return self.keys, self.shared_keys, self.values

    @property
    def count(self) -> int:
        """Rows of every bank that it takes."""
        return self.keys.count + self.shared_keys.count + self.values.count
