"""The KV cache in blocks of a size: which are free, who holds which, and which can be shared.

Free blocks stand in one queue: taken from its front, given back at its end, the last of a request
first, so that what was used longest ago is lost first, and of one prompt its end (vLLM's order). A
block of a prompt keeps what it holds until it is taken anew; until then a request that begins with
the same blocks finds it and holds it too. Blocks of prompts are known by numbers: the same
number is the same content behind the same content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.serving.lists import append, remove
from pimsim.serving.records import LIST, NONE, Records

__all__ = [
    "BlockCache", "blocks_of", "find_shared", "grow", "hold_shared", "idle_among", "offer",
    "release", "release_slot",
]  # fmt: skip

_BLOCK = np.dtype(
    [
        ("next", np.int32),  # in the list of free blocks
        ("previous", np.int32),
        ("holders", np.int32),
        ("content", np.int32),  # number of what it holds, where that can be shared
        ("twin", np.int32),  # another block with the same content
    ]
)
_POOL = np.dtype(
    [
        ("tokens", np.int64),  # of a block
        ("free", LIST),  # of blocks
        ("slots", np.int64),  # rows of the table that nobody has, on a stack
    ]
)


@dataclass(frozen=True)
class BlockCache:
    """The blocks of one replica."""

    pool: Records
    blocks: Records
    table: NDArray[np.int32]
    """Blocks of each request that holds any, in the order of its tokens; shape (slots, most)."""
    slots: NDArray[np.int64]
    """Stack of rows of ``table`` that are free."""
    found: NDArray[np.int32]
    """One more than the number of a block with the content of that number, or 0. Of contents that
    nobody asks for no page is ever touched."""

    @classmethod
    def of(cls, count: int, size: int, slots: int, most: int, contents: int) -> BlockCache:
        """All free.

        Parameters
        ----------
        count, size
            Blocks, and tokens of each.
        slots, most
            Requests that hold blocks at once, and blocks that one of them holds, at most.
        contents
            Numbers of what blocks may share.
        """
        blocks = np.zeros(count, dtype=_BLOCK)
        blocks["next"] = np.arange(1, count + 1)
        blocks["previous"] = np.arange(-1, count - 1)
        blocks["next"][-1:] = NONE
        blocks["content"] = blocks["twin"] = NONE
        free = (0 if count else NONE, count - 1, count)
        pool = np.array([(size, free, slots)], dtype=_POOL)
        return cls(
            pool, blocks,
            # pages that no request reaches are never touched, and take no memory
            np.empty((slots, most), dtype=np.int32), np.arange(slots)[::-1].copy(),
            np.zeros(contents, dtype=np.int32),
        )  # fmt: skip

    @property
    def count(self) -> int:
        """Blocks, free or not."""
        return len(self.blocks)

    @property
    def free(self) -> int:
        """Blocks that no request holds."""
        return int(self.pool["free"]["count"][0])

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return self.count - self.free

    @property
    def holders(self) -> int:
        """Requests that hold blocks."""
        return len(self.slots) - int(self.pool["slots"][0])

    @property
    def size(self) -> int:
        """Tokens of a block."""
        return int(self.pool["tokens"][0])


@njit(cache=True)
def blocks_of(tokens: int, size: int) -> int:
    """Blocks that hold so many tokens.

    Parameters
    ----------
    tokens
        0 or more.
    size
        Tokens of a block.
    """
    return -(-tokens // size)


@njit(cache=True)
def _forget(blocks: Any, found: Any, block: int) -> None:
    """What ``block`` holds is written over: it can be shared no longer."""
    content = blocks[block].content
    if content == NONE:
        return
    at = found[content] - 1
    if at == block:
        found[content] = blocks[block].twin + 1
    else:
        while blocks[at].twin != block:
            at = blocks[at].twin
        blocks[at].twin = blocks[block].twin
    blocks[block].content = NONE
    blocks[block].twin = NONE


@njit(cache=True)
def grow(
    pool: Any, blocks: Any, table: Any, slots: Any, found: Any, request: Any, held: int
) -> None:
    """Let ``request`` hold so many blocks, which must be free; what it holds stays.

    Parameters
    ----------
    pool, blocks, table, slots, found
        Of a ``BlockCache``; written.
    request
        ``REQUEST`` record; written.
    held
        Blocks that it is to hold, those that it has among them.
    """
    if request.slot == NONE:
        pool.slots -= 1
        request.slot = slots[pool.slots]
    for at in range(request.blocks, held):
        block = pool.free.head
        remove(blocks, pool.free, block)
        _forget(blocks, found, block)
        blocks[block].holders = 1
        table[request.slot, at] = block
    request.blocks = max(request.blocks, held)


@njit(cache=True)
def release_slot(pool: Any, blocks: Any, table: Any, slots: Any, slot: int, count: int) -> None:
    """Take blocks of a row of the table back, the last one first, and the row.

    Parameters
    ----------
    pool, blocks, table, slots
        Of a ``BlockCache``.
    slot
        The row; ``NONE``: there is none.
    count
        Blocks that it has.
    """
    for at in range(count - 1, -1, -1):
        block = table[slot, at]
        blocks[block].holders -= 1
        if blocks[block].holders == 0:
            append(blocks, pool.free, block)
    if slot != NONE:
        slots[pool.slots] = slot
        pool.slots += 1


@njit(cache=True)
def release(pool: Any, blocks: Any, table: Any, slots: Any, request: Any) -> None:
    """Take all blocks of ``request`` back, the last one first; their content stays to be found.

    Parameters
    ----------
    pool, blocks, table, slots
        Of a ``BlockCache``; written, but for ``table``.
    request
        ``REQUEST`` record; written.
    """
    release_slot(pool, blocks, table, slots, request.slot, request.blocks)
    request.slot = NONE
    request.blocks = 0
    request.offered = 0


@njit(cache=True)
def find_shared(found: Any, prefix: Any, request: Any, most: int) -> int:
    """Blocks at the start of ``request`` that are in the cache, at most ``most``.

    Parameters
    ----------
    found
        (contents,): block of each content plus 1; 0: there is none.
    prefix
        Contents that prompts begin with, of all requests one behind the other.
    request
        ``REQUEST`` record.
    most
        Blocks.
    """
    most = min(most, request.prefix_blocks)
    at = 0
    while at < most and found[prefix[request.prefix_first + at]] > 0:
        at += 1
    return at


@njit(cache=True)
def idle_among(blocks: Any, found: Any, prefix: Any, request: Any, hits: int) -> int:
    """Of so many blocks at the start of ``request``, those that nobody holds: they are among the
    free ones until they are held again.

    Parameters
    ----------
    blocks, found
        Of a ``BlockCache``.
    prefix
        Contents that prompts begin with, of all requests one behind the other.
    request
        ``REQUEST`` record.
    hits
        Of ``find_shared``.
    """
    idle = 0
    for at in range(hits):
        idle += blocks[found[prefix[request.prefix_first + at]] - 1].holders == 0
    return idle


@njit(cache=True)
def hold_shared(
    pool: Any, blocks: Any, table: Any, slots: Any, found: Any, prefix: Any, request: Any, hits: int
) -> None:
    """Let ``request``, which holds none, hold the ``hits`` blocks that it begins with.

    Parameters
    ----------
    pool, blocks, table, slots
        Of a ``BlockCache``; written.
    found
        (contents,): block of each content plus 1.
    prefix
        Contents that prompts begin with, of all requests one behind the other.
    request
        ``REQUEST`` record; written.
    hits
        Of ``find_shared``.
    """
    if hits == 0:
        return
    pool.slots -= 1
    request.slot = slots[pool.slots]
    for at in range(hits):
        block = found[prefix[request.prefix_first + at]] - 1
        if blocks[block].holders == 0:
            remove(blocks, pool.free, block)
        blocks[block].holders += 1
        table[request.slot, at] = block
    request.blocks = hits
    request.offered = hits


@njit(cache=True)
def offer(
    blocks: Any, table: Any, found: Any, prefix: Any, request: Any, tokens: int, size: int
) -> None:
    """Let others find the blocks that the first ``tokens`` of ``request`` fill.

    Parameters
    ----------
    blocks, table, found
        Of a ``BlockCache``; ``blocks`` and ``found`` are written.
    prefix
        Contents that prompts begin with, of all requests one behind the other.
    request
        ``REQUEST`` record; written.
    tokens
        That are in the cache.
    size
        Tokens of a block.
    """
    full = min(tokens // size, request.prefix_blocks)
    for at in range(request.offered, full):
        block = table[request.slot, at]
        content = prefix[request.prefix_first + at]
        blocks[block].content = content
        if found[content] == 0:
            found[content] = block + 1
        else:
            last = found[content] - 1
            while blocks[last].twin != NONE:
                last = blocks[last].twin
            blocks[last].twin = block
    request.offered = max(request.offered, full)
