"""How many bytes of new tokens reach a cache at once, and how many wait on chip for a full burst.

What a cache keeps of a token goes to lanes: of a cache that the NPU reads each head's keys and
values, of PIM's layout each row's slice of the key and each element of the value. A lane takes its
tokens one behind the other, in bursts of its own: what does not fill one waits for the tokens that
follow. These are sums over tokens, for the law that every run is held to; ``kv.py`` and
``linear_kv.py`` say where each burst goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.mapping.addresses import BlockKv

__all__ = ["KvLanes", "kv_lanes"]

Tokens = TypeVar("Tokens", int, NDArray[np.int64])


@dataclass(frozen=True)
class KvLanes:
    """Lanes that are alike, of one request in one block."""

    count: int
    token_bytes: int
    """That each takes of a token."""
    burst_bytes: int
    waits: bool = True
    """A token that does not fill a burst waits; else it is written with what it leaves empty."""

    def brought_bytes(self, tokens: int) -> int:
        """Of so many tokens."""
        return self.count * self.token_bytes * tokens

    def held_bytes(self, tokens: Tokens, ring: int | None) -> Tokens | int:
        """What waits on chip once the request has ``tokens``, or each of several that many.

        ``ring``: tokens that the cache keeps; at its end nothing waits, as the next token goes to
        its start. None: it keeps all.
        """
        if not self.waits:
            return 0
        behind = tokens if ring is None else tokens % ring
        return self.count * (behind * self.token_bytes % self.burst_bytes)

    def empty_bytes(self, before: Tokens, tokens: Tokens, ring: int | None) -> Tokens | int:
        """Of the bursts written from ``before`` tokens on to ``tokens``, what no token fills."""
        if not self.waits:
            return self.count * (-self.token_bytes % self.burst_bytes) * (tokens - before)
        if ring is None:
            return 0
        turns = tokens // ring - before // ring
        return self.count * (-ring * self.token_bytes % self.burst_bytes) * turns


def kv_lanes(kv: BlockKv, memory: MemoryConfig, element_bytes: int) -> Iterator[KvLanes]:
    """The lanes of one request in a block that keeps its cache so.

    Parameters
    ----------
    kv
        How the block keeps its cache.
    memory
        Its bursts.
    element_bytes
        In PIM's layout.
    """
    burst_bytes = memory.organization.burst_bytes
    if kv.linear is not None:
        for size in (kv.linear.key_bytes, kv.linear.value_bytes):
            yield KvLanes(kv.linear.kv_heads, size, burst_bytes)
    if kv.shape is not None:
        for piece in kv.shape.key_pieces:
            size = len(piece.heads) * piece.elements * element_bytes
            yield KvLanes(1, size, burst_bytes, waits=False)
        yield KvLanes(kv.shape.kv_heads * kv.shape.value_dim, element_bytes, burst_bytes)
