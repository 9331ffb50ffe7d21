"""Which channel holds a request's KV cache, and which sub-batch serves it.

NeuPIMs section 6.3 to 6.5: a request lives in one channel; channels are filled greedily by
estimated time (longest first, to the least loaded); a sub-batch gets half of each channel's
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.peak import column_clocks
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.workload.requests import Request

__all__ = [
    "assign_channels",
    "deal_longest_first",
    "estimate_attention_cycles",
    "split_sub_batches",
]

Ints = NDArray[np.int64]


def estimate_attention_cycles(
    context: Ints, shape: AttentionShape, memory: MemoryConfig, pim: PimConfig
) -> Ints:
    """Cycles that attention of so many tokens each takes on one channel by itself.

    NeuPIMs Algorithm 1: a GWRITE for each chunk, and for each row the precharges, the group
    activations under tFAW and the dot products; times from the memory's own timings.

    Parameters
    ----------
    context
        (requests,): tokens.
    shape
        Of attention on a channel.
    memory
        Of the device.
    pim
        The units in it.

    Returns
    -------
    Ints
        (requests,), cycles of the memory.
    """
    t = memory.timings
    names = {**t, **pim.timings}
    gwrite = evaluate_delay(pim.gwrite_cycles, names, "pim.gwrite_cycles") + t["tRCDRD"]
    groups = shape.banks // memory.organization.banks_per_group // memory.organization.ranks
    step = column_clocks(memory)
    opened = shape.banks + t.get("tFAW", 0) * (groups - 1) + t["tRCDRD"]
    group = shape.heads // shape.kv_heads
    key_tiles = -(-context // shape.banks)
    score = np.zeros_like(context)
    for piece in shape.key_pieces:
        dots = len(piece.heads) * step * (max(piece.comps, pim.comp_pipeline) + 1)
        score += group * (gwrite + -(-key_tiles // piece.tiles) * opened + key_tiles * dots)
    chunks = -(-context // shape.row_elements)
    tokens = np.minimum(context, shape.row_elements)
    comps_each = np.maximum(-(-tokens // shape.elements_per_comp), pim.comp_pipeline)
    value = shape.heads * chunks * (gwrite + shape.value_tiles * (opened + step * (comps_each + 1)))
    cycles: Ints = score + value
    return cycles


def deal_longest_first(cost: Sequence[int], places: int) -> list[int]:
    """The place of each piece of work: the longest first, to the place with the least so far.

    Parameters
    ----------
    cost
        Of each piece, in any unit.
    places
        How many there are.
    """
    loads = [(0, place) for place in range(places)]  # a heap, as it is
    where = [0] * len(cost)
    for i in sorted(range(len(cost)), key=lambda i: (-cost[i], i)):
        load, where[i] = loads[0]
        heapreplace(loads, (load + cost[i], where[i]))
    return where


def assign_channels(
    requests: Sequence[Request], channels: int, policy: str, cost: Sequence[int]
) -> list[int]:
    """The channel of each request.

    ``trace``: as the request file says, round-robin where it says nothing. ``round-robin``: in the
    order of the requests. ``least-loaded``: longest first, each to the channel of least ``cost`` so
    far.

    Parameters
    ----------
    requests
        Of the batch.
    channels
        Of the memory.
    policy
        ``trace``, ``round-robin`` or ``least-loaded``.
    cost
        Estimated time of each request, in any unit.

    Raises
    ------
    InputError
        On a channel that the memory does not have, whether it is used or not.

    References
    ----------
    NeuPIMs, ASPLOS 2024, sections 6.3 to 6.5.
    """
    for request in requests:
        if request.channel is not None and request.channel >= channels:
            raise InputError(
                f"request {request.id}: channel {request.channel}, but the memory has "
                f"channels 0 to {channels - 1}"
            )
    if policy == "least-loaded":
        return deal_longest_first(cost, channels)
    placed = [i % channels for i in range(len(requests))]
    if policy == "trace":
        for i, request in enumerate(requests):
            if request.channel is not None:
                placed[i] = request.channel
    return placed


def split_sub_batches(
    channel: Sequence[int], cost: Sequence[int], policy: str, parts: int = 2
) -> tuple[list[int], ...]:
    """Indices of the requests of each sub-batch, each in batch order.

    ``per-channel``: each channel's list in runs of equal length, the first to the first sub-batch;
    what is left over of a list goes to the sub-batches in turn. ``balanced``: on each channel,
    longest first to the sub-batch with the least estimated time, ties in turn.

    Parameters
    ----------
    channel
        Of each request.
    cost
        Estimated time of each request, in any unit.
    policy
        ``per-channel`` or ``balanced``.
    parts
        Sub-batches.

    References
    ----------
    NeuPIMs, ASPLOS 2024, sections 6.3 to 6.5.
    """
    members: dict[int, list[int]] = {}
    for i, c in enumerate(channel):
        members.setdefault(c, []).append(i)
    split: tuple[list[int], ...] = tuple([] for _ in range(parts))
    turn = 0
    for c in sorted(members):
        mine = members[c]
        if policy == "balanced":
            load = [0] * parts
            for i in sorted(mine, key=lambda i: (-cost[i], i)):
                part = min(range(parts), key=lambda p: (load[p], (p - turn) % parts))
                split[part].append(i)
                load[part] += cost[i]
            turn = (turn + 1) % parts
            continue
        each, left = divmod(len(mine), parts)
        more = {(turn + at) % parts for at in range(left)}
        turn = (turn + left) % parts
        first = 0
        for part, own in enumerate(split):
            own.extend(mine[first : first + each + (part in more)])
            first += each + (part in more)
    return tuple(sorted(own) for own in split)
