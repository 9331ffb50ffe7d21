"""New keys and values on their way to the KV cache.

With the PIM layout a new key fills its slice of a row. A new value is one element in each of many
rows, so values are kept on chip until a burst's worth of tokens has come: then one burst for each
element of the vector. With a latent cache (MLA) the latent is both: it is a row for the scores and,
once more, a column for the values, as a PIM that adds along rows cannot add over tokens otherwise.
With a sliding window, rows are a ring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from pimsim.config.memory import MemoryConfig, OrganizationConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.system import Scatter
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import KvRows, visible_tokens

__all__ = ["append_scatters", "channel_burst", "channel_bursts", "key_scatters", "value_scatters"]


def append_scatters(
    shape: AttentionShape, rows: Sequence[KvRows], channel: Sequence[int],
    contexts: Sequence[int], window: int | None, memory: MemoryConfig, element_bytes: int,
) -> list[Scatter]:  # fmt: skip
    """Bursts that the last token of each request writes; the arguments are by request."""
    found: list[Scatter] = []
    for own, c, context in zip(rows, channel, contexts, strict=True):
        kept = visible_tokens(context, window)
        position = context - 1 if window is None else (context - 1) % window
        found += key_scatters(shape, own, c, position, kept, memory, element_bytes)
        found += value_scatters(shape, own, c, position, kept, memory, element_bytes)
    return found


def key_scatters(
    shape: AttentionShape, rows: KvRows, channel: int, position: int, kept: int,
    memory: MemoryConfig, element_bytes: int,
) -> list[Scatter]:  # fmt: skip
    """Bursts of the key at ``position`` of a cache that keeps ``kept`` tokens, chunk by chunk."""
    per_burst = memory.organization.burst_bytes // element_bytes
    tile, bank = divmod(position, shape.banks)
    if shape.is_wide:
        return _append_wide_key(shape, rows, channel, tile, bank, kept, memory, per_burst)
    row = rows.keys + tile * shape.key_chunks
    slice_bursts = -(-shape.heads_per_row * shape.head_dim // per_burst)
    whole = -(-shape.kv_heads * shape.head_dim // per_burst)
    firsts = channel_bursts(memory, range(row, row + shape.key_chunks), bank, 0)
    return [
        Scatter(channel, first, min(slice_bursts, whole - chunk * slice_bursts))
        for chunk, first in enumerate(firsts)
    ]


def _append_wide_key(
    shape: AttentionShape, rows: KvRows, channel: int, tile: int, bank: int, kept: int,
    memory: MemoryConfig, per_burst: int,
) -> list[Scatter]:  # fmt: skip
    """A key that takes several rows: whole ones, and the rest beside those of other tiles."""
    keys = shape.wide_keys(kept)
    found = []
    for head in range(shape.kv_heads):
        first = rows.keys + head * keys.rows
        for chunk in range(keys.full_chunks):
            at = channel_burst(memory, first + chunk * keys.tiles + tile, bank, 0)
            found.append(Scatter(channel, at, memory.organization.columns))
        if keys.last_comps:
            row, place = divmod(tile, keys.tiles_per_row)
            bursts = -(-(shape.head_dim % shape.row_elements) // per_burst)
            column = place * keys.last_comps * shape.elements_per_comp // per_burst
            row += first + keys.full_chunks * keys.tiles
            found.append(Scatter(channel, channel_burst(memory, row, bank, column), bursts))
    return found


def value_scatters(
    shape: AttentionShape, rows: KvRows, channel: int, position: int, kept: int,
    memory: MemoryConfig, element_bytes: int,
) -> list[Scatter]:  # fmt: skip
    """Bursts of the last burst's worth of values up to ``position``, a run of banks for each tile
    of each head; none while a burst is not full."""
    per_burst = memory.organization.burst_bytes // element_bytes
    if (position + 1) % per_burst:
        return []
    chunks = -(-kept // shape.row_elements)
    chunk = position // shape.row_elements
    tiles = -(-shape.value_dim // shape.banks)
    column = position % shape.row_elements // per_burst
    stride = channel_burst(memory, 0, 1, 0) - channel_burst(memory, 0, 0, 0)
    count = min(shape.banks, shape.value_dim)
    first = rows.values + chunk
    slots = range(first, first + shape.kv_heads * tiles * chunks, chunks)
    return [
        Scatter(channel, at, count, stride) for at in channel_bursts(memory, slots, 0, column)
    ]  # fmt: skip


@lru_cache(maxsize=16)
def _fields(text: str, organization: OrganizationConfig) -> tuple[int, ...]:
    """Shifts of row, rank, bank group, bank and column, and the channel's shift and width."""
    mapping = AddressMap.parse(text, organization)
    shifts = (mapping.position[name] for name in ("ro", "ra", "bg", "ba", "co", "ch"))
    return (*shifts, mapping.width["ch"])


def channel_burst(memory: MemoryConfig, row: int, bank: int, column: int) -> int:
    """Index, within its channel, of a burst of the stream map."""
    return channel_bursts(memory, (row,), bank, column)[0]


def channel_bursts(
    memory: MemoryConfig, rows: Iterable[int], bank: int, column: int
) -> list[int]:  # fmt: skip
    """``channel_burst`` of several rows."""
    org = memory.organization
    ro, ra, bg, ba, co, channel_bit, channel_width = _fields(memory.stream_map, org)
    group, member = divmod(bank, org.banks_per_group)
    rank, group = divmod(group, org.bank_groups)
    rest = (rank << ra) + (group << bg) + (member << ba) + (column << co)
    low, high = (1 << channel_bit) - 1, channel_bit + channel_width
    found = []
    for row in rows:
        index = (row << ro) + rest
        found.append((index >> high) << channel_bit | (index & low))
    return found
