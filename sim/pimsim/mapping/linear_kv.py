"""Keys and values in pages that the NPU reads: bursts of one linear region over all channels.

A request has pages of keys and pages of values, a few tokens each. In a page lies head after head,
and of a head token after token, so that a head's part of a page is one run of bursts ("HND" of
FlashInfer's layouts, Ye et al., arXiv 2501.01005). Where a token goes depends on its position
alone. New tokens that do not fill a burst of their head wait on chip for those that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.system import Rows
from pimsim.hardware.pim.kv_layout import KvRows, KvSection, KvSections, RowRuns, ring_spans
from pimsim.mapping.kv_cache import KEYS, VALUES

__all__ = ["BurstRuns", "LinearLayout", "stream_of"]

Ints = NDArray[np.int64]
PAGE_TOKENS = 16
"""The block size of vLLM by default (Kwon et al., SOSP 2023, section 7.2)."""
MOST_RUNS = 2048
"""Of a core's part of a cache; the memory system takes a few times as many at once."""


@dataclass(frozen=True)
class BurstRuns:
    """Runs of bursts of a part of one request's cache, in order."""

    first: Ints
    """First burst of each, counted from the part's first."""
    end: Ints
    """The burst behind each; the same shape."""

    @classmethod
    def of(cls, runs: Iterable[tuple[Ints, Ints]]) -> BurstRuns:
        """Runs that follow one another, neighbours joined and empty ones left out."""
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64)), *runs]
        first, end = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        first, end = first[first < end], end[first < end]
        if not len(first):
            return cls(first, end)
        begins = np.concatenate(([True], first[1:] != end[:-1]))
        return cls(first[begins], end[np.concatenate((begins[1:], [True]))])

    @property
    def total(self) -> int:
        """Bursts of all."""
        return int((self.end - self.first).sum())

    def dealt(self, piece: int, owners: int) -> list[BurstRuns]:
        """Each owner's part, where pieces of so many bursts are dealt in turn."""
        counts = -(-self.end // piece) - self.first // piece
        run = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
        number += (self.first // piece)[run]
        first = np.maximum(self.first[run], number * piece)
        end = np.minimum(self.end[run], (number + 1) * piece)
        return [
            BurstRuns.of([(first[number % owners == own], end[number % owners == own])])
            for own in range(owners)
        ]

    def placed(self, rows: RowRuns) -> tuple[Ints, Ints]:
        """First burst and bursts of each run where the part lies in ``rows``."""
        found, at = [], 0
        for start, count in rows.runs:
            first, end = np.maximum(self.first, at), np.minimum(self.end, at + count)
            kept = first < end
            found.append((first[kept] - at + start, (end - first)[kept]))
            at += count
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64)), *found]
        first, bursts = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
        return first, bursts


def stream_of(parts: Sequence[tuple[Ints, Ints]], write: bool = False) -> Rows | None:
    """Placed runs as one transfer, in their order; None: there are none.

    Parameters
    ----------
    parts
        First bursts (runs,) and bursts of each run (runs,), of each part.
    write
        Whether they are written.
    """
    if not any(len(first) for first, _ in parts):
        return None
    first, bursts = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    return Rows(first, bursts, write)


@dataclass(frozen=True)
class LinearLayout:
    """How a block's cache keeps the tokens of a request."""

    kv_heads: int
    key_bytes: int
    """Of one token of one head."""
    value_bytes: int
    """The same; 0: values are a part of the keys (MLA's latent)."""
    burst_bytes: int

    @cached_property
    def page_tokens(self) -> int:
        """Tokens of a page: ``PAGE_TOKENS``, or the next number whose keys and values of each head
        fill whole bursts."""
        whole = lcm(*(self.burst_bytes // gcd(self.burst_bytes, s) for s in self._sizes if s))
        return -(-PAGE_TOKENS // whole) * whole

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.key_bytes, self.value_bytes

    @cached_property
    def sections(self) -> KvSections:
        """Pages in which it grows: bursts in place of rows."""
        tokens = self.page_tokens
        keys, values = (
            KvSection(
                tokens, self.kv_heads * tokens * size // self.burst_bytes,
                self.kv_heads * size / self.burst_bytes,
            )
            for size in self._sizes
        )  # fmt: skip
        return KvSections(keys, KvSection(1, 0), values)

    def read(self, part: int, tokens: range, ring: int | None, heads: range | None = None) -> (
        BurstRuns
    ):  # fmt: skip
        """Bursts with keys (``part`` is ``KEYS[0]``) or values (``VALUES[0]``) of some ``tokens``,
        counted from the request's first, of some ``heads``; None: of all.

        ``ring``: tokens that the cache keeps, in a ring; None: all.
        """
        spans = ring_spans(tokens.start, tokens.stop, ring)
        return BurstRuns.of(
            runs for span in spans for runs in self._runs(part, span, heads, round_up=True)
        )

    def written(self, part: int, tokens: range, ring: int | None) -> BurstRuns:
        """Bursts of all heads that fill when ``tokens`` come; what begins one is held. The end of
        a ring may not fill one: the ring goes on at its start, so that it is written as it is."""
        spans = ring_spans(tokens.start, tokens.stop, ring)
        return BurstRuns.of(
            runs
            for span in spans
            for runs in self._runs(part, span, None, round_up=span.stop == ring)
        )

    def _runs(
        self, part: int, span: range, heads: range | None, round_up: bool
    ) -> list[tuple[Ints, Ints]]:
        """First bursts and ends for the places ``span``, page after page and head after head."""
        size = dict(zip((KEYS[0], VALUES[0]), self._sizes, strict=True))[part]
        each = self.page_tokens
        first, last = -(-span.start // each), span.stop // each  # pages that are there as a whole
        if not size or not span:
            return []
        if heads is not None or first >= last:
            return [self._by_head(size, span, range(self.kv_heads) if heads is None else heads,
                                  round_up)]  # fmt: skip
        page = self.sections[part].page_rows
        whole = (np.array([first * page]), np.array([last * page]))
        every = range(self.kv_heads)
        return [
            self._by_head(size, range(span.start, first * each), every, round_up),
            whole,
            self._by_head(size, range(last * each, span.stop), every, round_up),
        ]

    def _by_head(self, size: int, span: range, heads: range, round_up: bool) -> tuple[Ints, Ints]:
        """The same where each head of each page is a run of its own."""
        each = self.page_tokens
        page = np.arange(span.start // each, -(-span.stop // each) if span else span.start // each)
        begin = np.maximum(span.start - page * each, 0)
        end = np.minimum(span.stop - page * each, each)
        head = (page[:, None] * self.kv_heads + np.array(heads)) * each
        first = (head + begin[:, None]) * size // self.burst_bytes
        last = (head + end[:, None]) * size
        last = -(-last // self.burst_bytes) if round_up else last // self.burst_bytes
        return first.reshape(-1), last.reshape(-1)

    def reads(
        self, part: int, tokens: Sequence[range], rows: Sequence[KvRows],
        rings: Sequence[int | None], heads: range | None = None,
    ) -> tuple[Rows, ...]:  # fmt: skip
        """Reads of keys or values of several requests, of some ``heads`` or of all: one transfer.

        ``tokens``, ``rows`` and ``rings`` are by request.
        """
        return tuple(self.reads_by_core(part, tokens, rows, rings, 1, heads).values())

    def reads_by_core(
        self, part: int, tokens: Sequence[range], rows: Sequence[KvRows],
        rings: Sequence[int | None], cores: int, heads: range | None = None,
    ) -> dict[int, Rows]:  # fmt: skip
        """The same as a transfer of each of ``cores``, which load the heads that they work on, by
        the number of the core; one that has nothing to load has none.

        A core loads several pages at a time where it would have more than ``MOST_RUNS`` runs.
        """
        found = [self.read(part, own, ring, heads) for own, ring in zip(tokens, rings, strict=True)]
        return self._by_core(part, found, rows, cores)

    def chosen_by_core(
        self, part: int, tokens: Sequence[Sequence[range]], rows: Sequence[KvRows], cores: int
    ) -> dict[int, Rows]:
        """The same of tokens that lie apart, in order, of all heads of caches that keep all.

        ``tokens`` are by request.
        """
        found = [self._apart(part, own) for own in tokens]
        return self._by_core(part, found, rows, cores)

    def _apart(self, part: int, spans: Sequence[range]) -> BurstRuns:
        """Bursts with any of the tokens, each once."""
        size = dict(zip((KEYS[0], VALUES[0]), self._sizes, strict=True))[part]
        if not size:
            return BurstRuns.of([])
        each = self.page_tokens
        token = np.concatenate([np.arange(span.start, span.stop) for span in spans])
        lane = (token // each)[:, None] * self.kv_heads + np.arange(self.kv_heads)
        at = np.sort((lane * each + (token % each)[:, None]).reshape(-1)) * size
        first, end = at // self.burst_bytes, -(-(at + size) // self.burst_bytes)
        # tokens of less than a burst share one
        first[1:] = np.maximum(first[1:], end[:-1])
        return BurstRuns.of([(first, end)])

    def _by_core(
        self, part: int, found: Sequence[BurstRuns], rows: Sequence[KvRows], cores: int
    ) -> dict[int, Rows]:
        """Each core's part of what is read."""
        total = sum(each.total for each in found)
        if not total:
            return {}
        if cores == 1:
            parts = [[each] for each in found]
        else:
            page = self.sections[part].page_rows
            piece = max(-(-page // cores), -(-total // (MOST_RUNS * cores)))
            parts = [each.dealt(piece, cores) for each in found]
        made = {
            core: stream_of(
                [own[core].placed(at.sections[part]) for own, at in zip(parts, rows, strict=True)]
            )
            for core in range(cores)
        }
        return {core: each for core, each in made.items() if each is not None}

    def appends(
        self, tokens: Sequence[range], rows: Sequence[KvRows], rings: Sequence[int | None]
    ) -> tuple[Rows, ...]:
        """Writes of the bursts that fill when new ``tokens`` of several requests come, request
        after request, keys before values."""
        runs = [
            self.written(part, own, ring).placed(at.sections[part])
            for own, at, ring in zip(tokens, rows, rings, strict=True)
            for part in (KEYS[0], VALUES[0])
        ]
        found = stream_of(runs, write=True)
        return () if found is None else (found,)
