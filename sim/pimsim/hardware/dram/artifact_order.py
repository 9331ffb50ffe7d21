"""In which order the NeuPIMs artifact asks memory for an operand.

The artifact throws an operand's addresses away: ``MemoryAccess::from_instruction`` (main,
Common.cc:73-115) takes them from one counter that all operands share, in steps of an element, and
collects the bursts that they touch in a ``robin_hood::unordered_set`` (3.11.5). Requests go out in
the order in which that set is walked. The set is an open-addressed table that keeps its entries
ordered by home slot, then by the hash bits beside it, largest first; both come from the hash of
the address, so the order is a sort. It is the artifact's own and no property of hardware: streams
that name no operands go out in order of address.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap

__all__ = ["OperandCounter", "hash_set_order"]

Ints = NDArray[np.int64]
ELEMENT_BYTES = 2
"""The artifact's precision: the counter moves so far for each element."""
INFO_BITS = 5
"""Hash bits that the set keeps beside an entry; the home slot comes from those above."""
MIX_FIRST = np.uint64(0xFF51AFD7ED558CCD)
MIX_SECOND = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
LOAD_PERCENT = 80
SMALLEST_TABLE = 8


def _hash(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Murmur3's finaliser in the two halves of ``hash_int`` and ``keyToIdx``."""
    h = keys ^ (keys >> SHIFT)
    h = h * MIX_FIRST
    h = h ^ (h >> SHIFT)
    h = h * MIX_SECOND
    mixed: NDArray[np.uint64] = h ^ (h >> SHIFT)
    return mixed


def _table_slots(entries: Ints) -> Ints:
    """Slots of the tables that hold so many entries: doubled whenever 80 % are in use."""
    slots = np.full(len(entries), SMALLEST_TABLE, dtype=np.int64)
    while True:
        full = slots * LOAD_PERCENT // 100 < entries
        if not full.any():
            return slots
        slots[full] *= 2


def hash_set_order(keys: Ints, member: Ints) -> Ints:
    """Order in which sets are walked, one after the other: indices into ``keys``.

    ``keys``: byte addresses, in order of insertion, no two alike in a set; ``member``: the set of
    each, 0 and up, never decreasing.
    """
    if len(keys) == 0:
        return np.zeros(0, dtype=np.int64)
    hashed = _hash(keys.astype(np.uint64))
    info = (hashed & np.uint64((1 << INFO_BITS) - 1)).astype(np.int64)
    slots = _table_slots(np.bincount(member))[member].astype(np.uint64)
    home = ((hashed >> np.uint64(INFO_BITS)) & (slots - np.uint64(1))).astype(np.int64)
    order: Ints = np.lexsort((-info, home, member))
    return order


class OperandCounter:
    """The address counter of the artifact, and the requests that operands make of it."""

    def __init__(self, memory: MemoryConfig, wrap_bytes: int) -> None:
        self._burst_bytes = memory.organization.burst_bytes
        self._wrap_bytes = max(wrap_bytes, self._burst_bytes)
        self._stream = AddressMap.parse(memory.stream_map, memory.organization)
        self._address = AddressMap.parse(memory.address_map, memory.organization)
        self.active = wrap_bytes > 0
        self._bytes = 0
        self._asked, self._read = -1, False
        """Last burst that was asked for, and whether it was read."""

    @property
    def burst(self) -> int:
        """Burst at which the counter stands."""
        return self._bytes // self._burst_bytes

    def requests(self, operands: Sequence[int], write: bool) -> tuple[Ints, Ints]:
        """Bursts of the linear address space in order of request, and the operand of each.

        ``operands``: bytes of each, in order. A burst that two neighbours share is asked for with
        the first of them: the controller answers the second request with the one under way. But
        what was read must be written.
        """
        sizes = np.array(operands, dtype=np.int64)
        ends = self._bytes + np.cumsum(sizes)
        # the counter moves before it is used
        first = (ends - sizes + ELEMENT_BYTES) // self._burst_bytes
        last = ends // self._burst_bytes
        asked = self._asked if not (write and self._read) else -1
        first = np.maximum(first, np.concatenate([[asked], last[:-1]]) + 1)
        counts = np.maximum(last - first + 1, 0)
        self._bytes = int(ends[-1]) % self._wrap_bytes
        self._asked, self._read = self.burst, not write
        member = np.repeat(np.arange(len(sizes)), counts)
        begin = np.repeat(np.cumsum(counts) - counts, counts)
        burst = np.repeat(first, counts) + np.arange(len(member)) - begin
        burst %= self._wrap_bytes // self._burst_bytes
        order = hash_set_order(self._linear_to_address(burst) * self._burst_bytes, member)
        return burst[order], member[order]

    def skip(self, size: int) -> None:
        """Move on by ``size`` bytes that somebody else takes."""
        self._bytes = (self._bytes + size) % self._wrap_bytes

    def _linear_to_address(self, burst: Ints) -> Ints:
        """The burst index of the memory's address map for one of the stream map."""
        address = np.zeros_like(burst)
        for name, low in self._stream.position.items():
            field = (burst >> low) & ((1 << self._stream.width[name]) - 1)
            address |= field << self._address.position[name]
        return address
