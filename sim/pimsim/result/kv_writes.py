"""What the steps of a run wrote to the KV cache, and what they had to, in exact bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

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
    lanes = tuple(kv_lanes(kv, device.config.memory, device.whole.kv_dtype_bytes))
    plan = device.mapper.addresses
    brought = empty = before = after = 0
    members = [i for part in device.members for i in part]
    entries = [at for part in device.entries for at in part]
    for member, at in zip(members, entries, strict=True):
        entry, ring = device.work.step.entries[at], plan.ring(layer, member)
        for each in lanes:
            brought += each.brought_bytes(entry.new_tokens)
            empty += each.empty_bytes(entry.cached, entry.context, ring)
            before += each.held_bytes(entry.cached, ring)
            after += each.held_bytes(entry.context, ring)
    needed = sum(o.kv_write_bytes for o in device.whole.blocks[layer].operators)
    return KvWrites(number, layer, written_bytes, brought, empty, before, after, needed)
