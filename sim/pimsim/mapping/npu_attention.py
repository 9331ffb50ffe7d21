"""Attention on the NPU: the KV cache streams in, request after request computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from pimsim.config.npu import NpuConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.dram.system import Rows
from pimsim.hardware.npu.gemm import GemmPlan, plan_gemm
from pimsim.hardware.npu.vector import vector_cycles, vector_lane_ops
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.mapping.scratchpad import softmax_sram_bytes
from pimsim.mapping.tasks import NpuTask
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["ArrayCost", "SingleAttention", "npu_product", "npu_softmax"]


def npu_softmax(
    operator: Operator, layer: int, contexts: Sequence[int], npu: NpuConfig, element_bytes: int
) -> NpuTask:
    """Softmax of every head of every request.

    Parameters
    ----------
    operator
        Softmax.
    layer
        Of the block.
    contexts
        Scores of each request's heads.
    npu
        Its vector units.
    element_bytes
        Of a score.
    """
    unit = npu.vector
    heads = operator.rows // max(len(contexts), 1)
    total = sum(vector_cycles("softmax", c, unit) for c in contexts) * heads
    total = vector_timing(unit).npu_softmax_cycles(total)
    return NpuTask(
        operator.name, str(operator.kind), "vector", layer, operator.flops, 0, 0,
        compute_cycles=-(-total // unit.units),
        vector_unit_cycles=total,
        vector_lane_ops=heads * sum(vector_lane_ops("softmax", c) for c in contexts),
        sram_bytes=softmax_sram_bytes(contexts, heads, element_bytes),
    )  # fmt: skip


def npu_product(
    operator: Operator, layer: int, contexts: Sequence[int], npu: NpuConfig, element_bytes: int,
    streams: Mapping[int, Rows], burst_bytes: int,
) -> NpuTask:  # fmt: skip
    """Scores or values of all requests.

    Values that read what the scores have brought (MLA's latent) move nothing: a request's latent
    stays on chip from its scores to its values.

    Parameters
    ----------
    operator
        Scores or values.
    layer
        Of the block.
    contexts
        Tokens of each request.
    npu
        Its arrays and ``attention``.
    element_bytes
        Of what the arrays multiply.
    streams
        That read the cache, by core.
    burst_bytes
        Of the memory.
    """
    score = operator.kind is OperatorKind.ATTENTION_SCORE
    attention = _chosen(npu.attention)
    costs = [attention.cost(operator, c, score, npu, element_bytes) for c in contexts]
    cycles = [cost.taken for cost in costs]
    # in order of address, whatever ``npu.operand_layout`` says of other operands
    bursts = sum(stream.total for stream in streams.values())
    return NpuTask(
        operator.name, str(operator.kind), "systolic", layer, operator.flops, 0,
        operator.kv_read_bytes,
        streams=tuple(streams.values()),
        stream_cores=tuple(streams),
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


class ArrayCost(NamedTuple):
    """Array cycles of one request."""

    taken: int
    streamed: int
    """Operands stream; what is neither this nor loading is filling and draining."""
    loading: int


class SingleAttention:
    """Products of one new token with its keys, or its values: ``by-products``.

    A module of kind ``npu_attention`` offers a subclass of it, ``Attention``.
    """

    def cost(
        self, operator: Operator, context: int, score: bool, npu: NpuConfig, element_bytes: int
    ) -> ArrayCost:
        """Array cycles of one request's scores (``score``) or values over ``context`` tokens, all
        heads, which are dealt to the arrays of all cores."""
        systolic, arrays = npu.systolic, npu.systolic.arrays * npu.cores
        one = _one_head(operator, context, score, npu, element_bytes)
        # with hidden preloads the next head's keys load while this one drains
        hidden = systolic.preload == "hidden"
        each = one.taken_cycles if hidden else one.cycles
        parts = (each, one.streamed_cycles, min(one.loading_cycles, each - one.streamed_cycles))
        return ArrayCost(*(-(-part * operator.kv_heads // arrays) for part in parts))


@cache
def _chosen(name: str) -> SingleAttention:
    if name == "by-products":
        return SingleAttention()
    made: SingleAttention = load_module("npu_attention", name).Attention()
    return made
