"""The NeuPIMs artifact, branch npu-only, attends one request at a time, head by head.

271 cycles for each started block of 128 tokens, with the softmax and the load of the query, half of
it to each of the two operators (MECHANISMS 4.12).
"""

from __future__ import annotations

from pimsim.config.npu import NpuConfig
from pimsim.hardware.npu.vector import vector_cycles
from pimsim.mapping.npu_attention import ArrayCost, SingleAttention
from pimsim.reproductions.neupims_arrays import latency_cycles
from pimsim.workload.operators import Operator

__all__ = ["Attention"]


class Attention(SingleAttention):
    """The latency of the arrays for each block of each head."""

    def cost(
        self, operator: Operator, context: int, score: bool, npu: NpuConfig, element_bytes: int
    ) -> ArrayCost:
        """See ``SingleAttention``."""
        del score, element_bytes
        systolic = npu.systolic
        rows = systolic.rows
        blocks = -(-(context + rows - 1) // rows)
        softmax = vector_cycles("softmax", context, npu.vector)
        head = 2 * rows - 1 + context // 8 + softmax + (latency_cycles(systolic) + 1) * blocks
        taken = operator.heads * head // 2
        return ArrayCost(taken, taken, 0)
