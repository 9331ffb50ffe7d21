"""Attention on the NPU: the KV cache streams in, request after request computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pimsim.config.npu import NpuConfig
from pimsim.hardware.dram.system import Stream
from pimsim.hardware.npu.gemm import GemmPlan, plan_gemm
from pimsim.hardware.npu.vector import vector_lane_ops
from pimsim.mapping.attention import softmax_cycles
from pimsim.mapping.scratchpad import softmax_sram_bytes
from pimsim.mapping.tasks import NpuTask
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["npu_product", "npu_softmax"]


def npu_softmax(
    operator: Operator, layer: int, contexts: Sequence[int], npu: NpuConfig, element_bytes: int
) -> NpuTask:
    """Softmax of every head of every request over ``contexts`` scores each."""
    unit = npu.vector
    each = [softmax_cycles(c, unit, element_bytes, False) for c in contexts]
    heads = operator.rows // max(len(contexts), 1)
    total = sum(each) * heads
    return NpuTask(
        operator.name, str(operator.kind), "vector", layer, operator.flops, 0, 0,
        compute_cycles=0 if unit.artifact_free else -(-total // unit.units),
        vector_unit_cycles=0 if unit.artifact_free else total,
        vector_lane_ops=heads * sum(vector_lane_ops("softmax", c) for c in contexts),
        sram_bytes=softmax_sram_bytes(contexts, heads, element_bytes),
    )  # fmt: skip


def npu_product(
    operator: Operator, layer: int, contexts: Sequence[int], npu: NpuConfig, element_bytes: int,
    first_burst: int, burst_bytes: int,
) -> NpuTask:  # fmt: skip
    """Scores or values of all requests.

    Values that read what the scores have brought (MLA's latent) move nothing: a request's latent
    stays on chip from its scores to its values.
    """
    score = operator.kind is OperatorKind.ATTENTION_SCORE
    costs = [_cycles(operator, c, score, npu, element_bytes) for c in contexts]
    cycles = [cost.taken for cost in costs]
    # in order of address in the artifact's presets too: there the latency of one head after
    # the other bounds attention, not its loads
    bursts = -(-operator.kv_read_bytes // burst_bytes)
    return NpuTask(
        operator.name, str(operator.kind), "systolic", layer, operator.flops, 0,
        operator.kv_read_bytes,
        streams=(Stream(first_burst, bursts),) if bursts else (),
        compute_cycles=sum(cycles),
        streamed_cycles=sum(cost.streamed for cost in costs),
        loading_cycles=sum(cost.loading for cost in costs),
        tail_cycles=cycles[-1] + npu.systolic.rows + npu.systolic.cols - 2,
        sram_bytes=bursts * burst_bytes + sum(
            _array_bytes(operator, c, score, npu, element_bytes) for c in contexts
        ),
    )  # fmt: skip


def _one_head(
    operator: Operator, context: int, score: bool, npu: NpuConfig, element_bytes: int
) -> GemmPlan:
    """The product of a key head's queries, or probabilities, on one array."""
    dim = operator.head_dim
    n, k = (context, dim) if score else (dim, context)
    one = npu.systolic.model_copy(update={"arrays": 1})
    return plan_gemm(operator.heads // operator.kv_heads, n, k, one, element_bytes)


def _array_bytes(
    operator: Operator, context: int, score: bool, npu: NpuConfig, element_bytes: int
) -> int:
    """Bytes that the arrays read and write for one request, all heads."""
    plan = _one_head(operator, context, score, npu, element_bytes)
    assert plan.traffic is not None  # plan_gemm puts it in
    results = operator.heads // operator.kv_heads * (context if score else operator.head_dim)
    each = plan.traffic.sram_bytes(results, element_bytes, follows=False, goes_on=False)
    return each * operator.kv_heads


class _Cost(NamedTuple):
    """Array cycles of one request."""

    taken: int
    streamed: int
    """Operands stream; what is neither this nor loading is filling and draining."""
    loading: int


def _cycles(
    operator: Operator, context: int, score: bool, npu: NpuConfig, element_bytes: int
) -> _Cost:
    """Array cycles of one request's scores or values, all heads."""
    systolic = npu.systolic
    if npu.artifact_attention:
        # npu-only branch, half of it to each of the two operators (MECHANISMS 4.12)
        rows = systolic.rows
        fill = 2 * rows - 1
        blocks = -(-(context + rows - 1) // rows)
        softmax = softmax_cycles(context, npu.vector, 1, False)
        latency = systolic.rows + systolic.cols - 2 + max(rows // systolic.arrays, 4) + 1
        head = fill + context // 8 + softmax + latency * blocks
        taken = operator.heads * head // 2
        return _Cost(taken, taken, 0)
    one = _one_head(operator, context, score, npu, element_bytes)
    # with hidden preloads the next head's keys load while this one drains
    hidden = systolic.preload == "hidden"
    each = one.taken_cycles if hidden else one.cycles
    parts = (each, one.streamed_cycles, min(one.loading_cycles, each - one.streamed_cycles))
    return _Cost(*(-(-part * operator.kv_heads // systolic.arrays) for part in parts))
