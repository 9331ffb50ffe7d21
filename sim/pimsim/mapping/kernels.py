"""A decode step's operators as the kernels that a GPU launches.

What is fused: rotary positions and the write of new keys and values into the QKV product, whose
outputs they are; a residual sum with the norm after it (the second one with the next block's first
norm). Biases are added by the product. All requests have the same context.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.hardware.xpu.tiling import Product
from pimsim.workload.cards import ModelCard
from pimsim.workload.decode import decode_iteration
from pimsim.workload.operators import Iteration, Operator
from pimsim.workload.requests import Request

__all__ = ["AttentionKernels", "BlockKernels", "Streamed", "block_kernels", "decode_step"]


@dataclass(frozen=True, slots=True)
class Streamed:
    """A kernel that reads and writes each tensor once."""

    name: str
    moved_bytes: int
    flops: int


@dataclass(frozen=True, slots=True)
class AttentionKernels:
    """Decode attention of one device's heads over all requests."""

    heads: int
    """Query heads of all requests."""
    head_dim: int
    context: int
    """Tokens that each reads."""
    element_bytes: int
    """Of the KV cache."""
    score: Product
    value: Product
    softmax: Streamed
    kv_bytes: int
    """Keys and values read."""
    sent_bytes: int
    """New queries, keys and values: what a unit that holds the KV cache is sent."""
    returned_bytes: int
    """Results that come back."""


@dataclass(frozen=True, slots=True)
class BlockKernels:
    """One decoder block on one device, in the order of its launches."""

    attention: AttentionKernels
    projections: tuple[tuple[str, Product], ...]
    """QKV and output projection."""
    ffn: tuple[tuple[str, Product], ...]
    add_norms: tuple[Streamed, ...]
    activation: Streamed
    reduced_bytes: tuple[int, ...]
    """One device's payload of each all-reduce."""
    weight_bytes: int


def decode_step(card: ModelCard, batch: int, context: int, devices: int) -> Iteration:
    """One block of a step in which each of ``batch`` requests attends to ``context`` tokens.

    Contexts longer than the card's ``max_context`` are taken: they are a matter of quality, not of
    time. Raises ``InputError`` for degrees that do not divide the model.
    """
    if batch < 1 or context < 1:
        raise InputError(f"batch {batch} and context {context}; both must be at least 1")
    request = Request(
        id=0, arrival_s=0.0, prompt_tokens=context, output_tokens=1, generated_tokens=0
    )
    longest = max(card.max_context, context)
    roomy = card.model_copy(update={"max_context": longest})
    return decode_iteration(roomy, [request] * batch, tp=devices, pp=1, layers=1)


def block_kernels(step: Iteration, *, fused_gate: bool) -> BlockKernels:
    """The kernels of a step; ``fused_gate`` makes gate and up projections one product."""
    context, requests = step.contexts[0], len(step.contexts)
    if any(each != context for each in step.contexts):
        raise ValueError("requests of one context expected")
    block = step.blocks[0]
    act, fc1 = block.operator("act"), block.operator("fc1")
    halves = 1 if fused_gate else fc1.n // act.width
    one = _gemm(fc1, step, halves)
    ffn = [("fc1", one)] if halves == 1 else [("gate", one), ("up", one)]
    return BlockKernels(
        attention=_attention(step, requests, context),
        projections=tuple((name, _gemm(block.operator(name), step)) for name in ("qkv", "proj")),
        ffn=(*ffn, ("fc2", _gemm(block.operator("fc2"), step))),
        add_norms=(_add_norm(step, "res1", "ln2"), _add_norm(step, "res2", "ln1")),
        activation=_streamed(act),
        reduced_bytes=tuple(
            step.blocks[0].operator(name).input_bytes
            for name in ("allreduce1", "allreduce2")
            if step.blocks[0].has(name)
        ),
        weight_bytes=step.weight_bytes,
    )


def _gemm(operator: Operator, step: Iteration, parts: int = 1) -> Product:
    """One of ``parts`` equal slices of the columns."""
    return Product(
        operator.m,
        operator.n // parts,
        operator.k,
        element_bytes=step.dtype_bytes,
        b_bytes=step.dtype_bytes,
    )


def _streamed(operator: Operator) -> Streamed:
    return Streamed(operator.name, operator.input_bytes + operator.output_bytes, operator.flops)


def _add_norm(step: Iteration, residual: str, norm: str) -> Streamed:
    """Two inputs, one output: the sum between them is not counted, as in AttAcc's fit."""
    first, second = step.blocks[0].operator(residual), step.blocks[0].operator(norm)
    moved = first.input_bytes + second.output_bytes
    return Streamed(f"{residual}+{norm}", moved, first.flops + second.flops)


def _attention(step: Iteration, requests: int, context: int) -> AttentionKernels:
    """A thread block for each KV head of each request, its group of queries the rows."""
    score, value = step.blocks[0].operator("score"), step.blocks[0].operator("value")
    rows, count = score.heads // score.kv_heads, score.kv_heads * requests

    def product(n: int, k: int) -> Product:
        return Product(rows, n, k, count, step.dtype_bytes, step.kv_dtype_bytes, tiled=False)

    return AttentionKernels(
        heads=score.heads * requests,
        head_dim=score.head_dim,
        context=context,
        element_bytes=step.kv_dtype_bytes,
        score=product(context, score.head_dim),
        value=product(value.head_dim, context),
        softmax=_streamed(step.blocks[0].operator("softmax")),
        kv_bytes=score.kv_read_bytes + value.kv_read_bytes,
        sent_bytes=step.blocks[0].operator("qkv").output_bytes,
        returned_bytes=value.output_bytes,
    )
