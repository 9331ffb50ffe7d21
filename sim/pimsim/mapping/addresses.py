"""Where things lie in the device's memory: weights, activations, KV rows.

Weights and activations are linear and spread over all channels, weights of each block after
those of the block before. Matrices that PIM multiplies begin at a row of all banks of all channels,
so that the same bytes serve a stream to the NPU and the multipliers in the banks. KV rows begin at
the first row that no linear data touches; a request's rows lie in its own channel, in every bank
alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape

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
    """A request's last tokens that are kept, in a ring; None: all."""


def visible_tokens(context: int, window: int | None) -> int:
    """Tokens that attention reads of a request with ``context`` tokens."""
    return context if window is None else min(context, window)


def row_bursts(memory: MemoryConfig) -> int:
    """Bursts of one row of every bank of every channel."""
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
    kv: tuple[tuple[KvRows, ...], ...]
    """By simulated block: one entry for each request, in batch order."""
    row_bursts: int
    """Bursts of one row of every bank of every channel."""
    block_bursts: tuple[int, ...] = ()
    """By simulated block: bursts of its weights."""
    kv_rows: tuple[tuple[int, ...], ...] = ()
    """By simulated block: rows that its cache takes in each channel."""
    outside_bursts: int = 0
    """Of the weights beside the blocks."""

    def rows_needed(self, blocks: Sequence[float], batches: int = 1) -> int:
        """Rows in each bank of the fullest channel where each simulated block stands for so many,
        with the caches of ``batches`` like this one: weights, activations, operands and caches."""
        linear = sum(self.block_bursts) + self.outside_bursts
        beside = self.operand_row - linear // self.row_bursts
        weights = fsum(n * size for n, size in zip(blocks, self.block_bursts, strict=True))
        caches = [
            batches * fsum(n * rows[channel] for n, rows in zip(blocks, self.kv_rows, strict=True))
            for channel in range(len(self.kv_rows[0]) if self.kv_rows else 0)
        ]
        return round(beside + weights / self.row_bursts + max(caches, default=0))

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
    outside: Sequence[Mapping[str, WeightRegion]] = (),
) -> AddressPlan:  # fmt: skip
    """Lay everything out. Raises ``LayoutError`` where a channel has too few rows.

    ``weights`` and ``kv``: by simulated block. ``operand_rows``: rows that GWRITE's sources
    take. ``outside``: weights beside the blocks, by work; each is of another device, so that all
    begin at the same place. Every block has its own KV rows; those of equal blocks are laid out
    once, all are counted.
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
    laid_out = {
        each: _kv_rows(each, first_row, org.channels, contexts, channels) for each in set(kv)
    }
    need = [first_row] * org.channels
    for block_kv in kv:
        need = [total + own for total, own in zip(need, laid_out[block_kv][1], strict=True)]
    for channel, last in enumerate(need):
        if last > org.rows:
            raise LayoutError(
                f"channel {channel} needs {last} rows in each bank for the KV cache of {len(kv)} "
                f"blocks, the memory has {org.rows}"
            )
    return AddressPlan(
        tuple(weight_burst), activation_burst, operand_row,
        tuple(laid_out[block_kv][0] for block_kv in kv), stripe,
        tuple(end - start for start, end in pairwise(ends)),
        tuple(tuple(laid_out[block_kv][1]) for block_kv in kv),
        activation_burst - ends[-1],
    )  # fmt: skip


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


def _kv_rows(
    kv: BlockKv, first_row: int, count: int, contexts: Sequence[int], channels: Sequence[int]
) -> tuple[tuple[KvRows, ...], list[int]]:
    """One block's rows of each request, and how many each of ``count`` channels gives."""
    used = [0] * count
    rows: list[KvRows] = []
    for context, channel in zip(contexts, channels, strict=True):
        if kv.shape is None:
            rows.append(KvRows())
            continue
        kept = visible_tokens(context, kv.window)
        own = KvRows.from_row(first_row + used[channel], kv.shape.kv_sections, kept)
        used[channel] += own.count
        rows.append(own)
    return tuple(rows), used
