"""Where the keys and values of one request come from when the NPU attends to it.

What was cached before the step comes from the cache; the keys and values of the new tokens come
from the product that made them: they are on chip while they fit, else among the activations in
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Protocol

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.system import Rows, Scatter, Stream
from pimsim.hardware.pim.kv_layout import KvRows, ring_spans
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.kv import StreamMap
from pimsim.mapping.kv_cache import KEYS, VALUES
from pimsim.mapping.linear_kv import LinearLayout

__all__ = ["BankedKv", "CachedKv", "KvReads", "LinearKv", "PagedKv"]


class CachedKv(Protocol):
    """Keys and values of one request in memory."""

    @property
    def token_bytes(self) -> Fraction:
        """Of one token of one head, key and value."""

    def loads(self, head: int, tokens: range) -> list[Stream | Rows]:
        """What reads those of ``tokens`` of one head, in the order of the tokens."""

    def scatters(self, head: int, tokens: range) -> list[Scatter]:
        """The same where they lie in one channel."""


@dataclass(frozen=True)
class LinearKv:
    """Among the activations: head after head, each the tokens' keys and values in their order."""

    first_burst: int
    tokens: int
    """Of one head."""
    token_bytes: Fraction
    burst_bytes: int

    def loads(self, head: int, tokens: range) -> list[Stream | Rows]:
        """One stream."""
        begin = (head * self.tokens + tokens.start) * self.token_bytes
        end = begin + len(tokens) * self.token_bytes
        first = int(begin // self.burst_bytes)
        bursts = ceil(end / self.burst_bytes) - first
        return [Stream(self.first_burst + first, bursts, track_blocks=True)]

    def scatters(self, head: int, tokens: range) -> list[Scatter]:
        """None."""
        del head, tokens
        return []


@dataclass(frozen=True)
class PagedKv:
    """Pages over all channels, which the NPU reads in order."""

    layout: LinearLayout
    rows: KvRows
    """The bursts of the request's pages."""
    ring: int | None = None
    """Tokens that are kept, in a ring; None: all."""

    @property
    def token_bytes(self) -> Fraction:
        """Of one token of one head, key and value."""
        return Fraction(self.layout.key_bytes + self.layout.value_bytes)

    def loads(self, head: int, tokens: range) -> list[Stream | Rows]:
        """Keys page after page, then values."""
        heads = range(head, head + 1)
        own, parts, rings = [tokens], (KEYS[0], VALUES[0]), [self.ring]
        return [
            stream
            for part in parts
            for stream in self.layout.reads(part, own, [self.rows], rings, heads=heads)
        ]

    def scatters(self, head: int, tokens: range) -> list[Scatter]:
        """None."""
        del head, tokens
        return []


@dataclass(frozen=True)
class BankedKv:
    """Rows of PIM's layout in the request's channel."""

    shape: AttentionShape
    rows: KvRows
    channel: int
    token_bytes: Fraction
    memory: MemoryConfig
    element_bytes: int
    ring: int | None = None
    """Tokens that are kept, in a ring; None: all."""

    def loads(self, head: int, tokens: range) -> list[Stream | Rows]:
        """None."""
        del head, tokens
        return []

    def scatters(self, head: int, tokens: range) -> list[Scatter]:
        """Keys tile after tile, a burst of all banks at a time, then values."""
        values = self._reads(self._value_bursts, head, tokens)
        return self.key_scatters(head, tokens) + values

    def key_scatters(self, head: int, tokens: range) -> list[Scatter]:
        """Of keys alone."""
        return self._reads(self._key_bursts, head, tokens)

    def _reads(
        self, bursts_of: Callable[[int, range, int], Iterator[tuple[int, range, int]]], head: int,
        tokens: range,
    ) -> list[Scatter]:  # fmt: skip
        per_burst = self.memory.organization.burst_bytes // self.element_bytes
        spans = ring_spans(tokens.start, tokens.stop, self.ring)
        rows = [each for span in spans for each in bursts_of(head, span, per_burst)]
        # fields of an index have bits of their own, so that rows and columns add up
        places = StreamMap.of(self.memory)
        first = places.bursts([row for row, _, _ in rows], 0, 0)
        most = max((columns.stop for _, columns, _ in rows), default=0)
        column = [places.bursts((0,), 0, at)[0] for at in range(most)]
        stride = places.bursts((0,), 1, 0)[0]
        return [
            Scatter(self.channel, at + each, banks, stride, False)
            for at, (_, columns, banks) in zip(first, rows, strict=True)
            for each in column[columns.start : columns.stop]
        ]

    def _value_bursts(
        self, head: int, tokens: range, per_burst: int
    ) -> Iterator[tuple[int, range, int]]:  # fmt: skip
        """Rows of values with their columns, in bursts, and banks."""
        shape, page = self.shape, self.shape.kv_sections.values.page_rows
        each = shape.row_elements
        for chunk in range(tokens.start // each, -(-tokens.stop // each)):
            base = chunk * each
            begin = max(tokens.start - base, 0) // per_burst
            end = -(-min(tokens.stop - base, each) // per_burst)
            for tile in range(shape.value_tiles):
                row = self.rows.values.row(chunk * page + head * shape.value_tiles + tile)
                banks = min(shape.banks, shape.value_dim - tile * shape.banks)
                yield row, range(begin, end), banks

    def _key_bursts(
        self, head: int, tokens: range, per_burst: int
    ) -> Iterator[tuple[int, range, int]]:  # fmt: skip
        """Rows of keys with their columns, in bursts, and banks."""
        shape, sections = self.shape, self.shape.kv_sections
        for tile in range(tokens.start // shape.banks, -(-tokens.stop // shape.banks)):
            banks = min(tokens.stop - tile * shape.banks, shape.banks)
            for piece in shape.key_pieces:
                if head not in piece.heads:
                    continue
                if piece.is_shared:
                    page, place = divmod(tile, piece.tiles)
                    row = self.rows.shared_keys.row(
                        page * sections.shared_keys.page_rows + piece.row
                    )
                else:
                    place = 0
                    row = self.rows.keys.row(tile * sections.keys.page_rows + piece.row)
                before = place * len(piece.heads) + piece.heads.index(head)
                first = before * piece.comps * shape.elements_per_comp
                begin, end = first // per_burst, -(-(first + piece.elements) // per_burst)
                yield row, range(begin, end), banks


@dataclass(frozen=True)
class KvReads:
    """Of one request in one step; ``None`` where nothing crosses the bus."""

    cached_tokens: int
    """Tokens before the new ones."""
    cached: CachedKv | None
    new: CachedKv | None

    def _parts(self, keys: range) -> list[tuple[range, CachedKv]]:
        """Runs of ``keys`` that come from memory, and from where; positions within each."""
        split = min(max(self.cached_tokens, keys.start), keys.stop)
        found: list[tuple[range, CachedKv]] = []
        if self.cached is not None and keys.start < split:
            found.append((range(keys.start, split), self.cached))
        if self.new is not None and split < keys.stop:
            found.append((range(split, keys.stop), self.new))
        return found

    def stored(self, keys: range) -> tuple[tuple[int, int, Fraction], ...]:
        """Runs of positions that come from memory, and bytes of each key with its value."""
        return tuple((run.start, run.stop, kv.token_bytes) for run, kv in self._parts(keys))

    def stored_bytes(self, keys: range) -> int:
        """Bytes of one head that come from memory for ``keys``."""
        return ceil(sum(((e - s) * each for s, e, each in self.stored(keys)), Fraction(0)))

    def loads(self, head: int, keys: range) -> list[Stream | Rows]:
        """What reads one head's ``keys``."""
        found: list[Stream | Rows] = []
        for run, kv in self._own(keys):
            found += kv.loads(head, run)
        if self.scatters(head, keys) or any(isinstance(part, Rows) for part in found):
            # arrival of the streams says nothing of the rest
            found = [replace(s, track_blocks=False) if isinstance(s, Stream) else s for s in found]
        return found

    def scatters(self, head: int, keys: range) -> list[Scatter]:
        """The same in the request's channel."""
        return [each for run, kv in self._own(keys) for each in kv.scatters(head, run)]

    def _own(self, keys: range) -> list[tuple[range, CachedKv]]:
        """``_parts`` with tokens counted from the first of each."""
        cached = self.cached_tokens
        return [
            (range(run.start - cached, run.stop - cached) if kv is self.new else run, kv)
            for run, kv in self._parts(keys)
        ]
