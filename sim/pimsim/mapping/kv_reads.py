"""Where the keys and values of one request come from when the NPU attends to it.

What was cached before the step comes from the cache; the keys and values of the new tokens come
from the product that made them: they are on chip while they fit, else among the activations in
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Protocol

from pimsim.hardware.dram.system import Rows, Stream

__all__ = ["CachedKv", "KvReads", "LinearKv"]


class CachedKv(Protocol):
    """Keys and values of one request in memory."""

    @property
    def token_bytes(self) -> Fraction:
        """Of one token of one head, key and value."""

    def loads(self, head: int, tokens: range) -> list[Stream | Rows]:
        """What reads those of ``tokens`` of one head, in the order of the tokens."""


@dataclass(frozen=True)
class LinearKv:
    """Head after head, each the tokens' keys and values in their order."""

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
        for run, kv in self._parts(keys):
            if kv is self.new:
                run = range(run.start - self.cached_tokens, run.stop - self.cached_tokens)
            found += kv.loads(head, run)
        return found
