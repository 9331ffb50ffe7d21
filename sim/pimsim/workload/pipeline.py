"""A model cut into pipeline stages: which blocks each holds, and what it takes in memory.

Stages differ: in how many blocks they have and of which kinds, and in that the first holds the
input table and the last the output layer. Batches follow one another through the stages, as many at
a time as there are stages (GPipe, Huang et al. 2019, arXiv 1811.06965), so that each stage keeps
the KV cache of all of them for its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.workload.cards import Parallelism
from pimsim.workload.instantiate import BlockBytes, held_bytes
from pimsim.workload.stages import cut_blocks, stage_kinds
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["MemoryNeed", "NoRoomError", "Room", "TableBytes", "fullest", "refusal", "stage_needs"]


class NoRoomError(InputError):
    """Weights and KV cache need more than the memories of a device have."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a pipeline stage takes on each of its devices."""

    weights_bytes: int
    kv_bytes: int
    """Of all batches under way."""

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache together."""
        return self.weights_bytes + self.kv_bytes


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the memories of a device."""

    device_bytes: int
    """Of its own memory."""
    pim_bytes: int | None = None
    """Of PIM's own memory, which holds the KV cache and nothing else; None: the device's holds
    both."""

    def holds(self, need: MemoryNeed) -> bool:
        """Whether ``need`` fits."""
        if self.pim_bytes is None:
            return need.total_bytes <= self.device_bytes
        return need.weights_bytes <= self.device_bytes and need.kv_bytes <= self.pim_bytes

    def for_kv(self, need: MemoryNeed) -> int:
        """Bytes that are left for the cache; below 0 where the weights alone take more."""
        left = self.device_bytes - need.weights_bytes
        return left if self.pim_bytes is None or left < 0 else self.pim_bytes

    @property
    def words(self) -> str:
        """As a message says it."""
        has = f"memory has {_gib(self.device_bytes)} GiB"
        if self.pim_bytes is not None:
            has += f" for the weights, pim_memory {_gib(self.pim_bytes)} GiB for the KV cache"
        return has


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"


@dataclass(frozen=True, slots=True)
class TableBytes:
    """Bytes on each device of what lies outside the blocks."""

    first: int
    """On the first stage: the input table, learned positions."""
    last: int
    """On the last stage: the last norm and the output layer."""
    shared: int = 0
    """Of both: a table that is input table and output layer at once, held once by a stage that is
    the first and the last."""


def stage_needs(
    trace: OperatorTrace, step: Step, tp: int, pp: int, tables: TableBytes,
    batches: int | None = None,
) -> tuple[MemoryNeed, ...]:  # fmt: skip
    """What each of ``pp`` stages takes, in their order.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices of a stage.
    pp
        Stages.
    tables
        Bytes of what is outside blocks.
    batches
        Of ``step``, under way at once; None: one a stage.
    """
    kinds = list(trace.phases["decode"].sequence())
    each = held_bytes(trace, step, tp)
    under_way = pp if batches is None else batches
    stages = cut_blocks(len(kinds), pp)
    needs = []
    for number, blocks in enumerate(stages):
        weights, kv = _sum(each, stage_kinds(kinds, blocks))
        is_first, is_last = number == 0, number == len(stages) - 1
        weights += tables.first if is_first else 0
        weights += tables.last if is_last else 0
        weights -= tables.shared if is_first and is_last else 0
        needs.append(MemoryNeed(weights, kv * under_way))
    return tuple(needs)


def _sum(each: Mapping[str, BlockBytes], counts: Mapping[str, int]) -> tuple[int, int]:
    return (
        sum(count * each[kind].weights for kind, count in counts.items()),
        sum(count * each[kind].kv for kind, count in counts.items()),
    )


def fullest(needs: Sequence[MemoryNeed]) -> MemoryNeed:
    """The stage that takes the most, which decides whether a model fits; the first of equals.

    Parameters
    ----------
    needs
        By stage.
    """
    return max(needs, key=lambda need: need.total_bytes)


def refusal(
    trace: OperatorTrace, step: Step, degrees: Parallelism, needs: Sequence[MemoryNeed],
    room: Room, batches: int | None = None,
) -> str:  # fmt: skip
    """That ``needs`` do not fit: what the first stage without room needs, what there is, and which
    request is the first whose cache it does not hold.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    degrees
        Of parallelism.
    needs
        By stage; one of them does not fit.
    room
        Of a device.
    batches
        Like this one, under way at once; None: one a stage.
    """
    need = fullest([each for each in needs if not room.holds(each)])
    refused = _first_without_room(trace, step, degrees.tp, needs, need, room, batches)
    return (
        f"model {trace.model} ({degrees.words(len(step.entries), batches)}) needs "
        f"{_gib(need.total_bytes)} GiB on each device{degrees.of_stage} (weights "
        f"{_gib(need.weights_bytes)}, KV {_gib(need.kv_bytes)}), {room.words}: {refused}"
    )


def _first_without_room(
    trace: OperatorTrace, step: Step, tp: int, needs: Sequence[MemoryNeed], need: MemoryNeed,
    room: Room, batches: int | None,
) -> str:  # fmt: skip
    """Which request of ``step`` is the first whose cache the stage of ``need`` does not hold, and
    what would help, in words."""
    number, left = needs.index(need), room.for_kv(need)
    wider = "more devices (parallel.tp, parallel.pp)"
    if left < 0:
        return f"its weights alone take more: take {wider}"
    under_way = len(needs) if batches is None else batches
    kinds = list(trace.phases["decode"].sequence())
    own = stage_kinds(kinds, cut_blocks(len(kinds), len(needs))[number])
    known: dict[tuple[int, int], int] = {}
    for entry in step.entries:
        asked = entry.context, entry.new_tokens
        if asked not in known:
            known[asked] = under_way * _sum(held_bytes(trace, Step((entry,)), tp), own)[1]
        if known[asked] > left:
            return (
                f"request {entry.request.id} with {entry.context} tokens is the first without "
                f"room: its KV cache takes {known[asked] / 2**20:.1f} MiB, {left / 2**20:.1f} MiB "
                f"are left; take fewer or shorter requests, or {wider}"
            )
        left -= known[asked]
    return f"take {wider}"
