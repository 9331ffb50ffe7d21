"""Decode attention alone: requests on one PIM channel, no other traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import VectorConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.layout import C_COMMANDS, C_STACK, INFINITY
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.hardware.dram.system import Group, MemorySystem
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import BlockKv, plan_addresses
from pimsim.mapping.attention import AttentionBatch, score_work, value_work

__all__ = ["PIM_CAUSES", "AttentionResult", "run_attention"]

PIM_CAUSES = (
    "computing", "row_activation", "activation_window", "row_miss", "gwrite", "command_bus",
    "refresh", "waiting",
)  # fmt: skip
"""Names of the kernel's causes of PIM time, in their order."""
ELEMENT_BYTES = 2
CHANNEL = 0


@dataclass(frozen=True)
class AttentionResult:
    """Cycles of the memory's clock."""

    score_cycles: int
    """Scores of all requests, their softmax included."""
    value_cycles: int
    softmax_cycles: int
    """Cycles of vector units, added over requests and heads."""
    commands: dict[str, int]
    pim_stack: dict[str, int]
    """Cycles of the channel's PIM commands by what each waited for."""


def run_attention(
    memory: MemoryConfig, pim: PimConfig, heads: int, head_dim: int, contexts: Sequence[int],
    vector: VectorConfig, new_tokens: int = 1,
) -> AttentionResult:  # fmt: skip
    """Attend to requests with so many tokens in their KV cache, 2-byte elements, the last new ones
    of each one after the other.

    The device has one channel's worth of requests; its other channels are idle.

    Parameters
    ----------
    memory
        Of the device, with its timings.
    pim
        The design that computes in it.
    heads
        Of this device, each with its own keys and values.
    head_dim
        Elements of a key, and of a value, of one head.
    contexts
        Tokens in the cache of each request, (requests,).
    vector
        Units that do the softmax.
    new_tokens
        Of each context, tokens at its end that attend.

    Returns
    -------
    AttentionResult
        Cycles, commands and causes of the channel.

    Raises
    ------
    InputError
        Where the rows do not suffice.
    """
    memory = device_memory(memory)
    shape = AttentionShape.of(heads, heads, head_dim, memory, pim, ELEMENT_BYTES)
    channel = [CHANNEL] * len(contexts)
    rows = pim.operand_rows
    addresses = plan_addresses(memory, [{}], 0, [BlockKv(shape)], contexts, channel, rows)
    caches = [addresses.kv(0, number) for number in range(len(contexts))]
    rows_of = [own for own in caches for _ in range(new_tokens)]
    seen = [each - back for each in contexts for back in range(new_tokens - 1, -1, -1)]
    batch = AttentionBatch(shape, tuple(rows_of), tuple(seen), (CHANNEL,) * len(seen))
    system = MemorySystem(memory, pim)
    ends: list[int] = []
    softmax = 0
    start = 0
    for work in (score_work, value_work):
        programs, marks, after = work(
            batch, addresses.operand_row, memory, pim, vector, ELEMENT_BYTES
        )
        if work is score_work:
            softmax = int(after.duration.sum())
        start = system.now
        system.submit_pim(start, programs, marks, after)
        done: Group | None = None
        while done is None:
            done = system.advance(INFINITY)
        ends.append(system.now - start + 2 * memory.controller.fabric_latency)
    counts = system.channels["counter"][CHANNEL]
    used = {
        name: int(count)
        for name, count in zip(COMMANDS, counts[C_COMMANDS:], strict=False)
        if count or name in ("ACT", "PRE", "RD", "WR", "REF", "G_ACT")
    }
    stack = counts[C_STACK : C_STACK + len(PIM_CAUSES)]
    return AttentionResult(
        ends[0], ends[1], softmax, used,
        {name: int(cycles) for name, cycles in zip(PIM_CAUSES, np.asarray(stack), strict=True)},
    )  # fmt: skip
