"""New keys and values on their way to the KV cache.

With the PIM layout a new key fills its slice of a row. A new value is one element in each of many
rows, so values are kept on chip until a burst's worth of tokens has come: then one burst for each
element of the vector. With a latent cache (MLA) the latent is both: it is a row for the scores and,
once more, a column for the values, as a PIM that adds along rows cannot add over tokens otherwise.
With a sliding window, rows are a ring. Where a token goes depends on its position alone, so that
what is written stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pimsim.config.memory import MemoryConfig, OrganizationConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.system import Scatter
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape

__all__ = [
    "StreamMap", "append_scatters", "channel_burst", "channel_bursts", "key_scatters",
    "value_scatters",
]  # fmt: skip


@dataclass(frozen=True)
class StreamMap:
    """Where a memory's ``stream_map`` has the bursts of a channel."""

    row: int
    """Shift, as what follows."""
    rank: int
    bank_group: int
    bank: int
    column: int
    channel: int
    channel_width: int
    """Bits."""
    banks_per_group: int
    bank_groups: int

    @classmethod
    def of(cls, memory: MemoryConfig) -> StreamMap:
        """That of ``memory``."""
        return _stream_map(memory.stream_map, memory.organization)

    def bursts(self, rows: Iterable[int], bank: int, column: int) -> list[int]:
        """Index, within its channel, of a burst at this ``column`` of each of ``rows``."""
        group, member = divmod(bank, self.banks_per_group)
        rank, group = divmod(group, self.bank_groups)
        rest = (rank << self.rank) + (group << self.bank_group) + (member << self.bank)
        rest += column << self.column
        shift, channel = self.row, self.channel
        low, high = (1 << channel) - 1, channel + self.channel_width
        indices = [(row << shift) + rest for row in rows]
        return [(index >> high) << channel | (index & low) for index in indices]


@lru_cache(maxsize=16)
def _stream_map(text: str, organization: OrganizationConfig) -> StreamMap:
    mapping = AddressMap.parse(text, organization)
    at = mapping.position
    return StreamMap(
        at["ro"], at["ra"], at["bg"], at["ba"], at["co"], at["ch"], mapping.width["ch"],
        organization.banks_per_group, organization.bank_groups,
    )  # fmt: skip


def append_scatters(
    shape: AttentionShape, rows: Sequence[KvRows], channel: Sequence[int],
    contexts: Sequence[int], new_tokens: Sequence[int], rings: Sequence[int | None],
    memory: MemoryConfig, element_bytes: int,
) -> list[Scatter]:  # fmt: skip
    """Bursts that the new tokens of each request write; sequences are by request.

    Parameters
    ----------
    shape
        Of heads and tiles, of one block.
    rows, channel
        Where each cache lies, (requests,).
    contexts
        Tokens of each request, the new ones among them, (requests,).
    new_tokens
        How many of these, the last ones, are new; 1 in a decode step, (requests,).
    rings
        Tokens that the cache of each keeps, in a ring; None: all, (requests,).
    memory
        Of the device.
    element_bytes
        Of the cache.

    Returns
    -------
    list
        Request after request and token after token: the key's bursts, then those of the values that
        fill with this token.
    """
    found: list[Scatter] = []
    places = StreamMap.of(memory)
    # fields of an index have bits of their own: the keys of a tile differ in their banks alone
    bank_bursts = [places.bursts((0,), bank, 0)[0] for bank in range(shape.banks)]
    each = zip(rows, channel, contexts, new_tokens, rings, strict=True)
    for own, c, context, new, ring in each:
        keys: dict[int, list[Scatter]] = {}  # of the first key of each tile
        for token in range(context - new, context):
            at = token if ring is None else token % ring
            tile, bank = divmod(at, shape.banks)
            if new == 1:
                found += key_scatters(shape, own, c, at, memory, element_bytes, places)
            else:
                if tile not in keys:
                    first = tile * shape.banks
                    keys[tile] = key_scatters(shape, own, c, first, memory, element_bytes, places)
                beyond = bank_bursts[bank]
                found += [Scatter(c, key.first + beyond, key.count) for key in keys[tile]]
            found += value_scatters(shape, own, c, at, memory, element_bytes, ring, places)
    return found


def key_scatters(
    shape: AttentionShape, rows: KvRows, channel: int, position: int, memory: MemoryConfig,
    element_bytes: int, places: StreamMap | None = None,
) -> list[Scatter]:  # fmt: skip
    """Bursts of the key at ``position`` of a cache, piece by piece.

    Parameters
    ----------
    shape
        Of attention on a channel.
    rows
        Where the cache lies.
    channel
        Of the request.
    position
        Of the token in the cache.
    memory
        Of the device.
    element_bytes
        Of a key.
    places
        The memory's stream map, where it was found before.
    """
    places = StreamMap.of(memory) if places is None else places
    per_burst = memory.organization.burst_bytes // element_bytes
    tile, bank = divmod(position, shape.banks)
    sections, found = shape.kv_sections, []
    for piece in shape.key_pieces:
        if piece.is_shared:
            page, place = divmod(tile, piece.tiles)
            row = rows.shared_keys.row(page * sections.shared_keys.page_rows + piece.row)
        else:
            place = 0
            row = rows.keys.row(tile * sections.keys.page_rows + piece.row)
        # dot products begin at a column, bursts may hold more: the first of this key's is the
        # one in which it begins
        first = place * len(piece.heads) * piece.comps * shape.elements_per_comp
        bursts = -(-len(piece.heads) * piece.elements // per_burst)
        (at,) = places.bursts((row,), bank, first // per_burst)
        found.append(Scatter(channel, at, bursts))
    return found


def value_scatters(
    shape: AttentionShape, rows: KvRows, channel: int, position: int, memory: MemoryConfig,
    element_bytes: int, ring: int | None = None, places: StreamMap | None = None,
) -> list[Scatter]:  # fmt: skip
    """Bursts of the last burst's worth of values up to ``position``, a run of banks for each tile
    of each head; none while a burst is not full. The end of a ring may not fill one: it goes on at
    its start, so that they are written as they are.

    Parameters
    ----------
    shape
        Of attention on a channel.
    rows
        Where the cache lies.
    channel
        Of the request.
    position
        Of the token in the cache.
    memory
        Of the device.
    element_bytes
        Of a value.
    ring
        Tokens that the cache keeps; None: all.
    places
        The memory's stream map, where it was found before.
    """
    per_burst = memory.organization.burst_bytes // element_bytes
    if (position + 1) % per_burst and position + 1 != ring:
        return []
    places = StreamMap.of(memory) if places is None else places
    chunk, token = divmod(position, shape.row_elements)
    stride = places.bursts((0,), 1, 0)[0] - places.bursts((0,), 0, 0)[0]
    page, tiles = shape.kv_sections.values.page_rows, shape.value_tiles
    slots = [rows.values.row(chunk * page + slot) for slot in range(page)]
    # a head's last tile may have fewer elements than there are banks
    counts = [
        min(shape.banks, shape.value_dim - slot % tiles * shape.banks) for slot in range(page)
    ]
    bursts = places.bursts(slots, 0, token // per_burst)
    return [Scatter(channel, at, count, stride) for at, count in zip(bursts, counts, strict=True)]


def channel_burst(memory: MemoryConfig, row: int, bank: int, column: int) -> int:
    """Index, within its channel, of a burst of the stream map.

    Parameters
    ----------
    memory
        Its ``stream_map``.
    row
        Of the bank.
    bank
        Of the channel, over all ranks and bank groups.
    column
        In bursts.
    """
    return channel_bursts(memory, (row,), bank, column)[0]


def channel_bursts(
    memory: MemoryConfig, rows: Iterable[int], bank: int, column: int
) -> list[int]:  # fmt: skip
    """``channel_burst`` of several rows.

    Parameters
    ----------
    memory
        Its ``stream_map``.
    rows
        Of the bank.
    bank
        Of the channel, over all ranks and bank groups.
    column
        In bursts.
    """
    return StreamMap.of(memory).bursts(rows, bank, column)
