"""What must go over the link between a device and PIM's own memory, by the workload's operators."""

from __future__ import annotations

from collections.abc import Iterable

from pimsim.engine.device import Device
from pimsim.mapping.attention_split import fetched_bytes, split_attention
from pimsim.workload.operators import Block, OperatorKind
from pimsim.workload.step import Step

__all__ = ["link_bytes"]


def link_bytes(devices: Iterable[Device]) -> int:
    """Bytes of new keys and values, of queries and results of what attends on PIM, of its scores
    and probabilities where a design does products alone, and of cached keys and values of what
    attends on the NPU, of all simulated blocks.

    Parameters
    ----------
    devices
        At each step of the run.
    """
    return sum(
        _of_block(block, forward.step, device)
        for device in devices
        for forward in device.passes
        for block in forward.blocks
    )


def _of_block(block: Block, step: Step, device: Device) -> int:
    pim, element_bytes = device.config.pim, device.whole.dtype_bytes
    size = sum(o.kv_write_bytes for o in block.operators if o.kind is OperatorKind.KV_APPEND)
    scores = {o.entries: o for o in block.operators if o.kind is OperatorKind.ATTENTION_SCORE}
    for value in block.operators:
        if value.kind is not OperatorKind.ATTENTION_VALUE:
            continue
        score = scores[value.entries]
        split = split_attention(step, score, True, device.pim_tokens, False)
        tokens = sum(step.new_tokens[at] for at in split.pim)
        size += tokens * score.heads * (score.head_dim + value.head_dim) * element_bytes
        if pim is not None and "attention" not in pim.operations:
            pairs = step.pairs(score.window or None)
            size += 2 * sum(pairs[at] for at in split.pim) * score.heads * element_bytes
        size += fetched_bytes(score, value, split.tiled, step)
    return size
