"""The KV cache of a device: which rows each request has, and which are free.

Rows of a channel are handed out lowest first, as pages of the layout of ``kv_layout.py`` ask for
them; a request's rows stay its own until it is freed. Equal blocks keep their caches alike, so one
of each kind is laid out and all are counted. Where the NPU reads the cache in order, the same
allocator hands out bursts of one linear region instead of rows of a channel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pimsim.config.errors import InputError
from pimsim.hardware.pim.kv_layout import KvRows, KvSections, RowRuns, ring_spans

__all__ = [
    "KEYS",
    "VALUES",
    "CacheFullError",
    "CacheKind",
    "KvCache",
    "RowUse",
]

KEYS = (0, 1)
"""Sections with keys, in the order of ``KvSections``."""
VALUES = (2,)
"""Sections with values."""


class CacheFullError(InputError):
    """A channel has too few free rows for the tokens that a request brings."""


@dataclass(frozen=True)
class CacheKind:
    """A kind of block's way of keeping keys and values."""

    sections: KvSections
    blocks: int = 1
    """Blocks of the kind, simulated or not."""
    window: int | None = None
    """A token sees so many last ones, itself among them; None: all."""

    def ring(self, new_tokens: int = 1) -> int | None:
        """Tokens of a request that are kept, in a ring; None: all.

        ``new_tokens``: most of a step. The last one's key is there before the first one has seen
        its window, so that the ring holds the window and the others (``SlidingWindowSpec`` of
        vLLM).
        """
        return None if self.window is None else self.window + new_tokens - 1

    def kept(self, tokens: int, new_tokens: int = 1) -> int:
        """Of so many tokens, those that are kept; ``new_tokens`` as in ``ring``."""
        ring = self.ring(new_tokens)
        return tokens if ring is None else min(tokens, ring)

    def rows(self, tokens: int, new_tokens: int = 1) -> int:
        """Rows of every bank that a request of so many tokens takes in all blocks of the kind."""
        return self.blocks * self.sections.rows(self.kept(tokens, new_tokens))

    def section_rows(self, tokens: int, new_tokens: int = 1) -> tuple[int, int, int]:
        """The same in one block, by section."""
        return self.sections.rows_by_section(self.kept(tokens, new_tokens))


@dataclass(frozen=True)
class RowUse:
    """How full the rows are that requests hold, all channels and blocks together."""

    rows: int
    """Rows of every bank that are handed out."""
    filled: float
    """Of these, as many as their tokens' elements would fill."""

    @property
    def share(self) -> float:
        """Elements in use of those that the rows hold; 1 where there are none."""
        return self.filled / self.rows if self.rows else 1.0

    @property
    def fragmentation(self) -> float:
        """Share of the rows that holds nothing: pages begun, rows that their keys do not fill."""
        return 1.0 - self.share


class _FreeRows:
    """Rows of one channel that one kind of block has free: runs in order, no two adjacent."""

    def __init__(self, first: int, count: int) -> None:
        self.runs = [(first, count)] if count else []

    def take(self, count: int, behind: int | None) -> list[tuple[int, int]]:
        """``count`` rows: those from row ``behind`` on, if they are free, then the lowest run that
        holds the rest, else the lowest there are."""
        if len(self.runs) == 1 and count < self.runs[0][1]:  # wherever they are to begin
            return [self._cut(0, count)]
        taken: list[tuple[int, int]] = []
        at = bisect_left(self.runs, behind, key=_first) if behind is not None else len(self.runs)
        if at < len(self.runs) and self.runs[at][0] == behind:
            taken.append(self._cut(at, count))
            count -= taken[-1][1]
        while count:
            whole = (at for at, (_, free) in enumerate(self.runs) if free >= count)
            taken.append(self._cut(next(whole, 0), count))
            count -= taken[-1][1]
        return taken

    def _cut(self, at: int, count: int) -> tuple[int, int]:
        """Up to ``count`` rows from the start of run ``at``."""
        first, free = self.runs[at]
        if count < free:
            self.runs[at] = (first + count, free - count)
            return first, count
        del self.runs[at]
        return first, free

    def give(self, runs: Iterable[tuple[int, int]]) -> None:
        """Take back rows that were handed out."""
        joined: list[tuple[int, int]] = []
        for first, count in sorted((*self.runs, *runs)):
            if joined and sum(joined[-1]) == first:
                joined[-1] = (joined[-1][0], joined[-1][1] + count)
            else:
                joined.append((first, count))
        self.runs = joined


def _first(run: tuple[int, int]) -> int:
    return run[0]


@dataclass
class _Request:
    """What one request holds."""

    channel: int
    tokens: int
    new_tokens: int
    """Most of a step."""
    rows: list[KvRows]
    """By kind of block."""


class KvCache:
    """Pages of keys and values of the requests on one device.

    Parameters
    ----------
    kinds : kinds of blocks, whose caches lie over the same rows in turn
    channels : channels, each with rows of its own
    rows : rows of every bank that each channel has for the caches of all blocks
    first_row : first of them
    unit : what a row is called in messages ("burst" where the cache is a linear region)
    """

    def __init__(
        self, kinds: Sequence[CacheKind], channels: int, rows: int, first_row: int = 0,
        unit: str = "row",
    ) -> None:  # fmt: skip
        self.kinds = tuple(kinds)
        self.rows = rows
        self.unit = unit
        self._free = [
            [_FreeRows(first_row, rows // kind.blocks) for _ in range(channels)]
            for kind in self.kinds
        ]
        self._used = [0] * channels
        # by kind, rows of one block: in each channel, in each section
        self._by_channel = [[0] * channels for _ in self.kinds]
        self._by_section = [[0] * len(kind.sections) for kind in self.kinds]
        self._held: dict[Hashable, _Request] = {}

    @property
    def channels(self) -> int:
        """Channels that have rows of their own."""
        return len(self._used)

    @property
    def requests(self) -> tuple[Hashable, ...]:
        """Requests that hold pages, in the order in which they came."""
        return tuple(self._held)

    def tokens(self, request: Hashable) -> int:
        """Tokens of ``request``, those that have left a window among them."""
        return self._held[request].tokens

    def channel(self, request: Hashable) -> int:
        """The channel of ``request``."""
        return self._held[request].channel

    def used_rows(self, channel: int) -> int:
        """Rows of every bank of ``channel`` that requests hold, all blocks counted."""
        return self._used[channel]

    def free_rows(self, channel: int) -> int:
        """Rows of every bank of ``channel`` that no request holds."""
        return self.rows - self._used[channel]

    def rows_needed(self, tokens: int, held: int = 0, new_tokens: int = 1) -> int:
        """Rows that a request needs to go from ``held`` tokens to ``tokens``, all blocks, at most
        ``new_tokens`` of them a step."""
        needed = 0
        for kind in self.kinds:
            needed += kind.rows(tokens, new_tokens)
            if held:
                needed -= kind.rows(held, new_tokens)
        return needed

    def allocate(
        self, request: Hashable, tokens: int, channel: int = 0, new_tokens: int = 1
    ) -> None:
        """Give ``request``, which holds nothing yet, pages for ``tokens`` in ``channel``;
        ``new_tokens``: most of a step.

        Raises ``CacheFullError``, and takes nothing, where the channel has too few free rows.
        """
        if request in self._held:
            raise ValueError(f"request {request} is in the cache already")
        wanted = [kind.section_rows(tokens, new_tokens) for kind in self.kinds]
        need = sum(
            kind.blocks * sum(rows) for kind, rows in zip(self.kinds, wanted, strict=True)
        )  # fmt: skip
        self._check(request, tokens, 0, channel, new_tokens, need)
        self._held[request] = _Request(channel, 0, new_tokens, [KvRows() for _ in self.kinds])
        self._grow(request, tokens, wanted)

    def append(self, request: Hashable, tokens: int = 1) -> None:
        """Let ``request`` grow by ``tokens``; what it holds stays where it is.

        Raises ``CacheFullError``, and takes nothing, where its channel has too few free rows.
        """
        one = self._held[request]
        held, tokens, most = one.tokens, one.tokens + tokens, one.new_tokens
        self._check(
            request, tokens, held, one.channel, most, self.rows_needed(tokens, held, most)
        )  # fmt: skip
        self._grow(request, tokens, [kind.section_rows(tokens, most) for kind in self.kinds])

    def free(self, request: Hashable) -> int:
        """Take the pages of ``request`` back; answers the tokens that it had, for who evicts it
        and will bring them again."""
        one = self._held.pop(request)
        for number, (free, rows) in enumerate(zip(self._free, one.rows, strict=True)):
            free[one.channel].give([run for part in rows.sections for run in part.runs])
            self._count(number, one.channel, [-part.count for part in rows.sections])
        return one.tokens

    def pages(self, request: Hashable, kind: int = 0) -> KvRows:
        """Where the cache of ``request`` lies in each block of a ``kind``."""
        return self._held[request].rows[kind]

    def ring(self, request: Hashable, kind: int = 0) -> int | None:
        """Tokens of ``request`` that blocks of a ``kind`` keep, in a ring; None: all."""
        return self.kinds[kind].ring(self._held[request].new_tokens)

    def keys(self, request: Hashable, first: int, end: int, kind: int = 0) -> RowRuns:
        """Rows with keys of the tokens from ``first`` to before ``end``, counted from the
        request's first, whole pages of them; of a cache in bursts, the bursts.

        Raises ``ValueError`` where the cache does not hold these tokens (any more).
        """
        parts = (self._rows_of(request, part, first, end, kind) for part in KEYS)
        return RowRuns.of(run for part in parts for run in part.runs)

    def values(self, request: Hashable, first: int, end: int, kind: int = 0) -> RowRuns:
        """The same of values."""
        return self._rows_of(request, VALUES[0], first, end, kind)

    def use(self, parts: Sequence[int] = (*KEYS, *VALUES)) -> RowUse:
        """How full the rows are that requests hold; of ``KEYS`` or ``VALUES`` alone."""
        held = self._held.values()
        if not held or not self.kinds:
            return RowUse(0, 0.0)
        rows = sum(
            kind.blocks * own[part]
            for kind, own in zip(self.kinds, self._by_section, strict=True) for part in parts
        )  # fmt: skip
        # rows of all blocks of a kind that a token would fill, by section
        fill = np.array([[kind.blocks * kind.sections[at].token_rows for at in parts]
                         for kind in self.kinds])  # fmt: skip
        tokens, most = np.array([(one.tokens, one.new_tokens) for one in held]).T
        rings = (kind.ring(most) for kind in self.kinds)
        kept = np.stack([tokens if ring is None else np.minimum(tokens, ring) for ring in rings], 1)
        # one after the other, request by request: pairwise sums of some length round otherwise
        filled = np.cumsum(kept[:, :, np.newaxis] * fill)[-1]
        return RowUse(rows, float(filled))

    def rows_by_channel(self, kind: int) -> tuple[int, ...]:
        """Rows of every bank that requests hold in one block of a ``kind``, shape (channels,)."""
        return tuple(self._by_channel[kind])

    def copy(self) -> KvCache:
        """One that grows by itself from here on."""
        other = KvCache(self.kinds, self.channels, self.rows, unit=self.unit)
        for mine, its in zip(self._free, other._free, strict=True):
            for free, copied in zip(mine, its, strict=True):
                copied.runs = list(free.runs)
        other._used = list(self._used)
        other._by_channel = [list(each) for each in self._by_channel]
        other._by_section = [list(each) for each in self._by_section]
        other._held = {
            request: _Request(one.channel, one.tokens, one.new_tokens, list(one.rows))
            for request, one in self._held.items()
        }
        return other

    @property
    def fragmentation(self) -> float:
        """Share of the rows that requests hold in which nothing lies."""
        return self.use().fragmentation

    def _check(
        self, request: Hashable, tokens: int, held: int, channel: int, new_tokens: int, need: int
    ) -> None:
        free = self.free_rows(channel)
        if need > free:
            blocks = sum(kind.blocks for kind in self.kinds)
            more = f"{tokens - held} more tokens" if held else f"{tokens} tokens"
            raise CacheFullError(
                f"the KV cache of {blocks} block{'s' * (blocks != 1)} is full: request {request} "
                f"needs {need} {self._needed(tokens, held, channel, new_tokens)} for {more}, "
                f"{free} of {self.rows} are free; end or evict a request, {self._way_out}"
            )

    def _needed(self, tokens: int, held: int, channel: int, new_tokens: int) -> str:
        """What ``_check`` counts: rows of a channel, or bursts and the pages that they make."""
        if self.unit == "row":
            return f"rows of channel {channel}"
        pages = sum(
            kind.blocks * (section.pages(kind.kept(tokens, new_tokens))
                           - section.pages(kind.kept(held, new_tokens)))
            for kind in self.kinds for section in kind.sections
        )  # fmt: skip
        sizes = sorted({kind.sections.keys.page_tokens for kind in self.kinds})
        return f"bursts ({pages} pages of {' or '.join(map(str, sizes))} tokens)"

    @property
    def _way_out(self) -> str:
        if self.unit == "row":
            return "place it in another channel, or take more channels or devices"
        return "shorten it, or take more memory or devices"

    def _grow(
        self, request: Hashable, tokens: int, wanted: Sequence[tuple[int, int, int]]
    ) -> None:  # fmt: skip
        """``wanted``: rows by kind, of one block, by section."""
        one = self._held[request]
        for number, free in enumerate(self._free):
            grown, more = [], []
            parts = one.rows[number].sections
            for rows, part in zip(wanted[number], parts, strict=True):
                own = rows - part.count if part.runs else rows
                if own:
                    taken = free[one.channel].take(own, part.end)
                    part = RowRuns.of((*part.runs, *taken)) if part.runs else RowRuns(tuple(taken))
                grown.append(part)
                more.append(own)
            one.rows[number] = KvRows(*grown)
            self._count(number, one.channel, more)
        one.tokens = tokens

    def _count(self, kind: int, channel: int, more: Sequence[int]) -> None:
        """Of one block of a ``kind``, by section: rows that a request has got or given back."""
        rows = sum(more)
        self._used[channel] += self.kinds[kind].blocks * rows
        self._by_channel[kind][channel] += rows
        for part, own in enumerate(more):
            self._by_section[kind][part] += own

    def _rows_of(
        self, request: Hashable, part: int, first: int, end: int, kind: int
    ) -> RowRuns:  # fmt: skip
        """Rows of one section with tokens ``first`` to before ``end``."""
        one, how = self._held[request], self.kinds[kind]
        oldest = one.tokens - how.kept(one.tokens, one.new_tokens)
        if not oldest <= first <= end <= one.tokens:
            raise ValueError(
                f"request {request} keeps tokens {oldest} to {one.tokens}, asked for {first} to "
                f"{end}"
            )
        section, rows = how.sections[part], one.rows[kind].sections[part]
        found: list[tuple[int, int]] = []
        for span in ring_spans(first, end, how.ring(one.new_tokens)):
            page = span.start // section.page_tokens * section.page_rows
            found += rows.between(page, section.rows(span.stop)).runs
        return RowRuns.of(found)
