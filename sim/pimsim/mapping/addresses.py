"""Where things lie in the device's memory: weights, activations, KV rows.

Weights and activations are linear and spread over all channels, weights of each block after
those of the block before. KV rows begin at the first row that no linear data touches; a request's
rows lie in its own channel, in every bank alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.pim.programs import AttentionShape

__all__ = ["AddressPlan", "KvRows", "plan_addresses"]


@dataclass(frozen=True)
class KvRows:
    """First rows of one request's keys and values."""

    keys: int
    values: int


@dataclass(frozen=True)
class AddressPlan:
    """Bursts of the linear data and rows of the KV cache."""

    weight_burst: dict[str, int]
    """First burst of each operator's weights within a block."""
    block_bursts: int
    """Bursts of one block's weights."""
    activation_burst: int
    """First burst of the activations."""
    operand_row: int
    """First row, below the KV rows, that GWRITE's sources take (queries, attention weights)."""
    kv: tuple[KvRows, ...]
    """One entry for each request, in batch order."""

    def weights(self, operator: str, layer: int) -> int:
        """First burst of ``operator``'s weights in block ``layer``."""
        return layer * self.block_bursts + self.weight_burst[operator]


def plan_addresses(
    memory: MemoryConfig, weight_bytes: dict[str, int], activation_bytes: int, layers: int,
    shape: AttentionShape | None, contexts: Sequence[int], channels: Sequence[int],
    operand_rows: int,
) -> AddressPlan:  # fmt: skip
    """Lay everything out. Raises ``InputError`` where a channel has too few rows for its KV.

    ``weight_bytes``: by operator, of one block. ``operand_rows``: rows that GWRITE's sources
    take. Every block has its own KV rows; one block's are laid out, all are counted.
    """
    org = memory.organization
    at = 0
    weight_burst: dict[str, int] = {}
    for name, size in weight_bytes.items():
        weight_burst[name] = at
        at += -(-size // org.burst_bytes)
    block_bursts = at
    activation_burst = block_bursts * layers
    end = activation_burst + -(-activation_bytes // org.burst_bytes)
    stripe = org.channels * org.ranks * org.banks * org.columns
    operand_row = -(-end // stripe)
    first_row = operand_row + operand_rows
    used = [first_row] * org.channels
    rows: list[KvRows] = []
    for context, channel in zip(contexts, channels, strict=True):
        if shape is None:
            rows.append(KvRows(0, 0))
            continue
        keys = used[channel]
        values = keys + shape.key_rows(context)
        used[channel] = values + shape.value_rows(context)
        rows.append(KvRows(keys, values))
    for channel, last in enumerate(used):
        need = first_row + (last - first_row) * layers
        if need > org.rows:
            raise InputError(
                f"channel {channel} needs {need} rows in each bank for the KV cache of {layers} "
                f"blocks, the memory has {org.rows}"
            )
    return AddressPlan(weight_burst, block_bursts, activation_burst, operand_row, tuple(rows))
