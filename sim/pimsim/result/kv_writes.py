"""What the steps of a run wrote to the KV cache, and what they had to, in exact bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from pimsim.engine.device import Device
from pimsim.engine.iteration import Outcome, StepOutcome
from pimsim.mapping.kv_lanes import kv_lanes
from pimsim.result.invariants import KvWrites
from pimsim.workload.operators import OperatorKind

__all__ = ["kv_writes"]


def kv_writes(outcome: Outcome) -> Iterator[KvWrites]:
    """Of every step and simulated block, in order.

    A run whose schedule appends nothing (``schedule.kv_append: false``) owes nothing either.

    Parameters
    ----------
    outcome
        Of a run.
    """
    for step in outcome.steps:
        written = _written(step)
        for layer in range(step.device.layers):
            yield _owed(step.device, step.number, layer, written[layer])


def _written(step: StepOutcome) -> Counter[int]:
    """Bytes by block that its tasks of new keys and values have moved."""
    found: Counter[int] = Counter()
    for operator in step.operators:
        if operator.kind == OperatorKind.KV_APPEND:
            found[operator.layer] += operator.bytes
    return found


def _owed(device: Device, number: int, layer: int, written_bytes: int) -> KvWrites:
    """The law's terms for one block, from the step's tokens and the layout of its cache."""
    work, kv = device.work, device.kv[layer]
    kind = device.whole.blocks[layer].kind
    # the trace says whether the block keeps anything of its own, whatever was made of it
    appended = [
        o for o in work.trace.phases["decode"].blocks[kind] if o.kind is OperatorKind.KV_APPEND
    ]
    if not appended or not work.append_kv:
        return KvWrites(number, layer, written_bytes)
    memory = device.config.memory_of_pim if kv.in_design else device.config.memory
    lanes = tuple(kv_lanes(kv, memory, device.whole.kv_dtype_bytes))
    brought = empty = before = after = 0
    members = [i for part in device.members for i in part]
    entries = [at for part in device.entries for at in part]
    contexts = np.array(device.work.step.contexts)[entries]
    fed = np.array(device.work.step.new_tokens)[entries]
    for ring, own in _by_ring(device.mapper.addresses.rings(layer, members)).items():
        new, context = fed[own], contexts[own]
        cached = context - new
        for each in lanes:
            brought += each.brought_bytes(int(new.sum()))
            empty += int(np.sum(each.empty_bytes(cached, context, ring)))
            before += int(np.sum(each.held_bytes(cached, ring)))
            after += int(np.sum(each.held_bytes(context, ring)))
    needed = sum(o.kv_write_bytes for o in device.whole.blocks[layer].operators)
    return KvWrites(number, layer, written_bytes, brought, empty, before, after, needed)


def _by_ring(rings: Sequence[int | None]) -> dict[int | None, list[int]]:
    """Which of the requests have each ring."""
    found: dict[int | None, list[int]] = {}
    for number, ring in enumerate(rings):
        found.setdefault(ring, []).append(number)
    return found
