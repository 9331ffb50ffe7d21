"""Where things lie in the device's memory: weights, activations, KV rows.

Weights and activations are linear and spread over all channels, weights of each block after
those of the block before. Matrices that PIM multiplies begin at a row of all banks of all channels,
so that the same bytes serve a stream to the NPU and the multipliers in the banks. The KV cache
begins at the first row that no linear data touches: with the PIM layout a request's rows lie in
its own channel, in every bank alike; else its keys and values are bursts over all channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.pim.kv_layout import KvRows, KvSections
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.hardware.remembered import remembered
from pimsim.mapping.kv_cache import CacheFullError, CacheKind, KvCache
from pimsim.mapping.linear_kv import LinearLayout

__all__ = [
    "AddressPlan", "BlockKv", "LayoutError", "WeightRegion", "plan_addresses", "row_bursts",
    "visible_tokens",
]  # fmt: skip


class LayoutError(InputError):
    """The banks have too few rows for what is to lie in them."""


@dataclass(frozen=True)
class WeightRegion:
    """The weights of one operator: ``parts`` matrices of equal size, one after the other."""

    part_bytes: int
    parts: int = 1
    """Experts or heads with a matrix each."""
    in_rows: bool = False
    """Each begins at a row of all banks, for PIM to multiply."""


@dataclass(frozen=True)
class BlockKv:
    """How a block keeps keys and values."""

    shape: AttentionShape | None
    """Rows of the PIM layout; None: it is read by the NPU, in order."""
    window: int | None = None
    """A token sees so many last ones, itself among them; None: all."""
    linear: LinearLayout | None = None
    """Pages of a cache that the NPU reads in order; None: the block has none."""
    in_design: bool = False
    """A PIM design with a controller of its own attends to what the pages hold."""

    @property
    def on_pim(self) -> bool:
        """Whether requests with few new tokens attend in the banks."""
        return self.shape is not None or self.in_design

    @property
    def sections(self) -> KvSections | None:
        """Pages in which it grows."""
        if self.shape is not None:
            return self.shape.kv_sections
        return None if self.linear is None else self.linear.sections


def visible_tokens(context: int, window: int | None) -> int:
    """Tokens that attention reads of a request with ``context`` tokens.

    Parameters
    ----------
    context
        Tokens.
    window
        Last tokens that are seen; None: all.
    """
    return context if window is None else min(context, window)


def row_bursts(memory: MemoryConfig) -> int:
    """Bursts of one row of every bank of every channel.

    Parameters
    ----------
    memory
        Of the device.
    """
    org = memory.organization
    return org.channels * org.ranks * org.banks * org.columns


@dataclass(frozen=True)
class AddressPlan:
    """Bursts of the linear data and rows of the KV cache."""

    weight_burst: tuple[Mapping[str, tuple[int, int]], ...]
    """By simulated block, then by work beside the blocks, and operator: the first burst of its
    weights, and bursts from one of its matrices to the next."""
    activation_burst: int
    """First burst of the activations."""
    operand_row: int
    """First row, below the KV rows, that GWRITE's sources take (queries, attention weights,
    vectors that experts multiply)."""
    cache: KvCache
    """Keys and values of the requests; simulated blocks are those that it counts."""
    cache_kind: tuple[int | None, ...]
    """By simulated block: its kind in the cache; None: it keeps nothing."""
    requests: tuple[Hashable, ...]
    """By request of the batch: what the cache knows it as."""
    row_bursts: int
    """Bursts of one row of every bank of every channel."""
    block_bursts: tuple[int, ...] = ()
    """By simulated block: bursts of its weights."""
    outside_bursts: int = 0
    """Of the weights beside the blocks."""
    cache_apart: bool = False
    """The cache is in a memory of its own, which has nothing else in it."""

    def kv(self, layer: int, member: int) -> KvRows:
        """Where block ``layer`` keeps keys and values of request ``member`` of the batch, as the
        cache has them now."""
        return self.kvs(layer, [member])[0]

    def ring(self, layer: int, member: int) -> int | None:
        """Tokens of request ``member`` of the batch that block ``layer`` keeps, in a ring; None:
        all."""
        return self.rings(layer, [member])[0]

    def kvs(self, layer: int, members: Sequence[int]) -> list[KvRows]:
        """``kv`` of several requests."""
        kind = self.cache_kind[layer]
        if kind is None:
            return [KvRows() for _ in members]
        return [self.cache.pages(self.requests[member], kind) for member in members]

    def rings(self, layer: int, members: Sequence[int]) -> list[int | None]:
        """``ring`` of several requests."""
        kind = self.cache_kind[layer]
        if kind is None or self.cache.kinds[kind].window is None:
            return [None] * len(members)
        return [self.cache.ring(self.requests[member], kind) for member in members]

    def cache_rows(self, layer: int) -> tuple[int, ...]:
        """Rows that the cache of block ``layer`` takes in each channel, shape (channels,); of a
        linear one as many as its bursts fill."""
        kind, channels = self.cache_kind[layer], self.cache.channels
        if kind is None or self.cache_apart:
            return (0,) * channels
        rows = self.cache.rows_by_channel(kind)
        return rows if self.cache.unit == "row" else (-(-sum(rows) // self.row_bursts),)

    def rows_needed(self, blocks: Sequence[float], batches: int = 1) -> int:
        """Rows in each bank of the fullest channel where each simulated block stands for so many,
        with the caches of ``batches`` like this one: weights, activations, operands and caches."""
        by_block = [self.cache_rows(layer) for layer in range(len(blocks))]
        caches = [
            batches * fsum(n * rows for n, rows in zip(blocks, of_channel, strict=True))
            for of_channel in zip(*by_block, strict=True)
        ]
        return round(self.rows_beside(blocks) + max(caches, default=0))

    def rows_beside(self, blocks: Sequence[float]) -> float:
        """Rows in each bank of what is no cache, where each simulated block stands for so many."""
        linear = sum(self.block_bursts) + self.outside_bursts
        beside = self.operand_row - linear // self.row_bursts
        weights = fsum(n * size for n, size in zip(blocks, self.block_bursts, strict=True))
        return beside + weights / self.row_bursts

    def first_without_room(
        self, rows: int, blocks: Sequence[float], batches: int = 1
    ) -> str | None:
        """Which request of the batch is the first whose cache finds too few of ``rows``, in words;
        ``blocks`` and ``batches`` as in ``rows_needed``. None: no request does."""
        left = [rows - round(self.rows_beside(blocks))] * self.cache.channels
        if self.cache.unit != "row":
            return None
        for member, request in enumerate(self.requests):
            channel = self.cache.channel(request)
            caches = (n * self.kv(layer, member).count for layer, n in enumerate(blocks))
            need = round(batches * fsum(caches))
            if need > left[channel]:
                return (
                    f"request {request} with {self.cache.tokens(request)} tokens is the first "
                    f"without room: its cache takes {need} rows in channel {channel}, "
                    f"{max(left[channel], 0)} are left"
                )
            left[channel] -= need
        return None

    def weights(self, operator: str, layer: int, part: int = 0) -> int:
        """First burst of matrix ``part`` of ``operator`` in block ``layer``."""
        first, stride = self.weight_burst[layer][operator]
        return first + part * stride

    def weights_row(self, operator: str, layer: int, part: int = 0) -> int:
        """The same as a row, for a matrix that begins at one."""
        row, offset = divmod(self.weights(operator, layer, part), self.row_bursts)
        assert offset == 0, "this matrix does not begin at a row"
        return row


def plan_addresses(
    memory: MemoryConfig, weights: Sequence[Mapping[str, WeightRegion]], activation_bytes: int,
    kv: Sequence[BlockKv], contexts: Sequence[int], channels: Sequence[int], operand_rows: int,
    outside: Sequence[Mapping[str, WeightRegion]] = (), requests: Sequence[Hashable] | None = None,
    new_tokens: Sequence[int] | None = None,
) -> AddressPlan:  # fmt: skip
    """Lay everything out.

    Every block has its own KV rows; those of equal blocks are laid out once, all are counted.

    Parameters
    ----------
    memory
        Of the device.
    weights
        Regions by operator, of each simulated block.
    activation_bytes
        Most that a step has in memory.
    kv
        How each simulated block keeps its cache.
    contexts
        Tokens of each request of the batch.
    channels
        Channel of each request, for PIM's layout.
    operand_rows
        That GWRITE's sources take.
    outside
        Weights beside the blocks, by work; each is of another device, so that all begin at the same
        place.
    requests
        What the cache is to know each as; None: numbers from 0 on.
    new_tokens
        Most of each request in a step; None: 1.

    Raises
    ------
    LayoutError
        Where a channel has too few rows.
    """
    org = memory.organization
    stripe = row_bursts(memory)
    weight_burst: list[Mapping[str, tuple[int, int]]] = []
    ends = [0]
    for block in weights:
        places, end = _weight_places(block, ends[-1], org.burst_bytes, stripe)
        weight_burst.append(places)
        ends.append(end)
    activation_burst = ends[-1]
    for block in outside:
        places, end = _weight_places(block, ends[-1], org.burst_bytes, stripe)
        weight_burst.append(places)
        activation_burst = max(activation_burst, end)
    end = activation_burst + -(-activation_bytes // org.burst_bytes)
    operand_row = -(-end // stripe)
    first_row = operand_row + operand_rows
    if first_row > org.rows:
        raise LayoutError(
            f"weights and activations of {len(weights) + bool(outside)} blocks take {first_row} "
            "rows of each bank, "
            f"the memory has {org.rows}"
        )
    names = tuple(range(len(contexts)) if requests is None else requests)
    kinds = list(dict.fromkeys(each for each in kv if each.sections is not None))
    most = (1,) * len(names) if new_tokens is None else tuple(new_tokens)
    cache = _filled(
        _EmptyCache.of(kv, first_row, memory), names, tuple(contexts), tuple(channels), most
    ).copy()
    return AddressPlan(
        tuple(weight_burst), activation_burst, operand_row, cache,
        tuple(kinds.index(each) if each in kinds else None for each in kv), names, stripe,
        tuple(end - start for start, end in pairwise(ends)), activation_burst - ends[-1],
    )  # fmt: skip


@dataclass(frozen=True)
class _EmptyCache:
    """What ``KvCache`` is made of."""

    kinds: tuple[CacheKind, ...]
    channels: int
    rows: int
    first_row: int
    unit: str = "row"

    @classmethod
    def of(cls, kv: Sequence[BlockKv], first_row: int, memory: MemoryConfig) -> _EmptyCache:
        """The cache of blocks that keep it like ``kv``, from ``first_row`` on. Raises
        ``ValueError`` where some are in PIM's layout and others are not: they would lie over one
        another."""
        org = memory.organization
        count = Counter(each for each in kv if each.sections is not None)
        kinds = tuple(
            CacheKind(each.sections, blocks, each.window)
            for each, blocks in count.items()
            if each.sections is not None
        )
        layouts = {each.shape is None for each in count}
        if len(layouts) > 1:
            raise ValueError("caches in PIM's layout and in order on one device")
        if True in layouts:
            stripe = row_bursts(memory)
            rows = org.rows - first_row
            return cls(kinds, 1, rows * stripe, first_row * stripe, unit="burst")
        return cls(kinds, org.channels, org.rows - first_row, first_row)


_REQUEST_BYTES = 1000
"""Of a request that a cache holds, about."""


@remembered(4 << 20, lambda cache: _REQUEST_BYTES * len(cache.requests))
def _filled(
    empty: _EmptyCache, names: tuple[Hashable, ...], contexts: tuple[int, ...],
    channels: tuple[int, ...], most: tuple[int, ...],
) -> KvCache:  # fmt: skip
    """The cache with all requests in it, which nobody changes: a sweep's points lay out the same
    ones. Arguments by request, but for the cache; see ``plan_addresses``, and what it raises."""
    cache = KvCache(empty.kinds, empty.channels, empty.rows, empty.first_row, empty.unit)
    for name, context, channel, new in zip(names, contexts, channels, most, strict=True):
        try:
            cache.allocate(name, context, channel if cache.channels > 1 else 0, new)
        except CacheFullError as error:
            raise LayoutError(str(error)) from None
    return cache


def _weight_places(
    block: Mapping[str, WeightRegion], first: int, burst_bytes: int, stripe: int
) -> tuple[dict[str, tuple[int, int]], int]:
    """Where the weights of a block lie from burst ``first`` on, and the burst behind them."""
    places: dict[str, tuple[int, int]] = {}
    at = first
    for name, region in block.items():
        each = -(-region.part_bytes // burst_bytes)
        if region.in_rows:
            at = -(-at // stripe) * stripe
            each = -(-each // stripe) * stripe
        places[name] = (at, each)
        at += each * region.parts
    return places, at
