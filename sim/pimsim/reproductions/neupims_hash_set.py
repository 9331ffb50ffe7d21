"""In which order the NeuPIMs artifact asks memory for an operand.

The artifact throws an operand's addresses away: ``MemoryAccess::from_instruction`` (main,
Common.cc:73-115) takes them from one counter that all operands share, in steps of an element, and
collects the bursts that they touch in a ``robin_hood::unordered_set`` (3.11.5). Requests go out in
the order in which that set is walked. The set is an open-addressed table that keeps its entries
ordered by home slot, then by the hash bits beside it, largest first; both come from the hash of
the address, so the walk is a sort. It is the artifact's own and no property of hardware.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.address import AddressMap

__all__ = ["OperandCounter", "hash_set_order"]

Ints = NDArray[np.int64]
ELEMENT_BYTES = 2
"""The artifact's precision: the counter moves so far for each element."""
INFO_BITS = np.uint64(5)
"""Hash bits that the set keeps beside an entry; the home slot comes from those above."""
INFO_MASK = np.uint64(31)
MIX_FIRST = np.uint64(0xFF51AFD7ED558CCD)
MIX_SECOND = np.uint64(0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)
LOAD_PERCENT = 80
"""A table is doubled when so much of it is in use."""
SMALLEST_TABLE = 8


@njit(cache=True)
def hash_set_order(keys: Ints) -> Ints:
    """Order in which a set of ``keys`` is walked.

    Keys with one home and one hash keep that order, where the set's own history may have turned
    them round.

    Parameters
    ----------
    keys
        (keys,): byte addresses in order of insertion, no two alike.

    Returns
    -------
    Ints
        (keys,): indices into them.

    References
    ----------
    robin_hood::unordered_set 3.11.5.
    """
    slots = SMALLEST_TABLE
    while slots * LOAD_PERCENT // 100 < len(keys):
        slots *= 2
    first = np.full(slots, -1, dtype=np.int64)
    following = np.empty(len(keys), dtype=np.int64)
    info = np.empty(len(keys), dtype=np.int64)
    for i in range(len(keys)):
        # murmur3's finaliser in the two halves of hash_int and keyToIdx
        h = np.uint64(keys[i])
        h = (h ^ (h >> SHIFT)) * MIX_FIRST
        h = (h ^ (h >> SHIFT)) * MIX_SECOND
        h = h ^ (h >> SHIFT)
        info[i] = np.int64(h & INFO_MASK)
        home = np.int64(h >> INFO_BITS) & (slots - 1)
        before, after = -1, first[home]
        while after >= 0 and info[after] >= info[i]:
            before, after = after, following[after]
        following[i] = after
        if before < 0:
            first[home] = i
        else:
            following[before] = i
    order = np.empty(len(keys), dtype=np.int64)
    at = 0
    for slot in range(slots):
        entry = first[slot]
        while entry >= 0:
            order[at] = entry
            at += 1
            entry = following[entry]
    return order


@njit(cache=True)
def _requests(
    first: Ints, counts: Ints, wrap: int, fields: Ints, burst_bytes: int
) -> tuple[Ints, Ints]:
    """Bursts in order of request and the operand of each; ``fields``: (fields, 2), bits of a
    linear burst and how far left they move in the memory's."""
    total = counts.sum()
    bursts = np.empty(total, dtype=np.int64)
    operand = np.empty(total, dtype=np.int64)
    at = 0
    for o in range(len(first)):
        own = np.empty(counts[o], dtype=np.int64)
        keys = np.empty(counts[o], dtype=np.int64)
        burst = first[o] % wrap
        for i in range(counts[o]):
            own[i] = burst
            key = 0
            for f in range(len(fields)):
                bits, move = burst & fields[f, 0], fields[f, 1]
                key |= bits << move if move >= 0 else bits >> -move
            keys[i] = key * burst_bytes
            burst = burst + 1 if burst + 1 < wrap else 0
        order = hash_set_order(keys)
        for i in range(counts[o]):
            bursts[at + i] = own[order[i]]
            operand[at + i] = o
        at += counts[o]
    return bursts, operand


class OperandCounter:
    """The address counter of the artifact, and the requests that operands make of it.

    A ``RequestOrder``; the counter starts anew after ``wrap_bytes``.
    """

    def __init__(self, memory: MemoryConfig, wrap_bytes: int) -> None:
        self._burst_bytes = memory.organization.burst_bytes
        self._wrap_bytes = max(wrap_bytes, self._burst_bytes)
        stream = AddressMap.parse(memory.stream_map, memory.organization)
        address = AddressMap.parse(memory.address_map, memory.organization)
        moves: dict[int, int] = {}
        for name, low in stream.position.items():
            move = address.position[name] - low
            moves[move] = moves.get(move, 0) | (1 << stream.width[name]) - 1 << low
        self._fields = np.array([(bits, move) for move, bits in moves.items()], dtype=np.int64)
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
        wrap = self._wrap_bytes // self._burst_bytes
        return _requests(first, counts, wrap, self._fields, self._burst_bytes)

    def skip(self, size: int) -> None:
        """Move on by ``size`` bytes that somebody else takes."""
        self._bytes = (self._bytes + size) % self._wrap_bytes
