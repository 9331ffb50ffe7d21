"""A decode step: one new token of every request through one decoder block.

Tensor parallelism is Megatron's (Shoeybi et al. 2019, arXiv 1909.08053, section 3): QKV and the
first FFN matrix are cut by columns, the projection and the second FFN matrix by rows, each
followed by an all-reduce; norms, residuals and the row-cut biases are on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pimsim.config.errors import InputError
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.operators import Block, Iteration, Operator, OperatorKind
from pimsim.workload.requests import Request

__all__ = ["MemoryNeed", "decode_iteration", "fits_memory", "memory_need"]

_NORM_FLOPS = {"layernorm": 7, "rmsnorm": 4}
"""Per element. LayerNorm: sum, subtract mean, square, sum, times 1/sigma, gain, shift. RMSNorm:
square, sum, times 1/rms, gain."""

_ACTIVATION_FLOPS = {"gelu": 9, "silu": 4, "relu": 1}
"""Per element. GELU as tanh: x/2 (1 + tanh(c (x + 0.044715 x^3))). SiLU: x / (1 + exp(-x)).
A gate adds one product."""

_SOFTMAX_FLOPS = 5
"""Per element: maximum, subtract, exponential, sum, divide."""

_ROPE_FLOPS = 3
"""Per element: two products and a sum."""


def decode_iteration(
    card: ModelCard,
    requests: Sequence[Request],
    tp: int | None = None,
    pp: int | None = None,
    layers: int | None = None,
    append_kv: bool = True,
) -> Iteration:
    """The decode step of a batch on one of ``tp`` x ``pp`` devices.

    ``tp`` and ``pp`` are the card's where ``None``; ``layers`` overrides the ``card.layers / pp``
    blocks of a device. ``append_kv=False`` leaves out the writing of the new K and V, as the
    NeuPIMs artifact does. Raises ``InputError`` for an empty batch, a context that the model
    cannot take, or degrees of parallelism that do not divide it.
    """
    degrees = parallelism(card, tp, pp)
    _check_contexts(card, requests)
    if layers is not None and layers < 1:
        raise InputError(f"layers is {layers}; at least 1 is needed")
    contexts = tuple(request.context for request in requests)
    block = _Block(card, contexts, degrees.tp)
    of_device = card.layers // degrees.pp
    return Iteration(
        model=card.name,
        phase="decode",
        tokens=len(requests),
        contexts=contexts,
        requests=tuple(requests),
        blocks=(Block("decoder", block.operators(append_kv)),) * (layers or of_device),
        model_blocks=(("decoder", of_device),),
        tp=degrees.tp,
        pp=degrees.pp,
        dtype_bytes=card.dtype_bytes,
        kv_dtype_bytes=card.kv_dtype_bytes,
    )


def _check_contexts(card: ModelCard, requests: Sequence[Request]) -> None:
    if not requests:
        raise InputError(f"model {card.name}: the batch is empty; at least 1 request is needed")
    for request in requests:
        if not 1 <= request.context <= card.max_context:
            raise InputError(
                f"request {request.id} has a context of {request.context} tokens; "
                f"model {card.name} takes 1 to {card.max_context} (max_context)"
            )


@dataclass(frozen=True, slots=True)
class _Block:
    """The sizes of one decoder block on one device, and the operators they give."""

    card: ModelCard
    contexts: tuple[int, ...]
    tp: int

    @property
    def tokens(self) -> int:
        return len(self.contexts)

    @property
    def heads(self) -> int:
        return self.card.heads // self.tp

    @property
    def kv_heads(self) -> int:
        return self.card.kv_heads // self.tp

    def operators(self, append_kv: bool) -> tuple[Operator, ...]:
        card = self.card
        attention = card.attention_features // self.tp
        qkv = card.qkv_features // self.tp
        ffn = card.ffn_hidden // self.tp
        fc1 = 2 * ffn if card.ffn_gated else ffn
        rotated = "rope" if card.rope else "qkv"
        reduced = self.tp > 1
        block = [
            self.norm("ln1"),
            self.gemm("qkv", n=qkv, k=card.hidden, after="ln1"),
        ]
        if card.rope:
            block.append(self.rope())
        if append_kv:
            block.append(self.kv_append(rotated))
        # The step attends to its own token, so the new K must be in the cache before.
        cached = (rotated, "kv_append") if append_kv else (rotated,)
        block += [
            self.attention("score", OperatorKind.ATTENTION_SCORE, cached),
            self.softmax(),
            self.attention("value", OperatorKind.ATTENTION_VALUE, ("softmax", *cached[1:])),
            self.gemm("proj", n=card.hidden, k=attention, after="value"),
        ]
        if reduced:
            block.append(self.all_reduce("allreduce1", "proj"))
        block += [
            self.residual("res1", "allreduce1" if reduced else "proj"),
            self.norm("ln2", "res1"),
            self.gemm("fc1", n=fc1, k=card.hidden, after="ln2"),
            self.activation(ffn),
            self.gemm("fc2", n=card.hidden, k=ffn, after="act"),
        ]
        if reduced:
            block.append(self.all_reduce("allreduce2", "fc2"))
        block.append(self.residual("res2", "allreduce2" if reduced else "fc2", "res1"))
        return tuple(block)

    def _activation_bytes(self, *shape: int) -> int:
        return prod(shape) * self.card.dtype_bytes

    def gemm(self, name: str, *, n: int, k: int, after: str) -> Operator:
        m = self.tokens
        return Operator(
            name=name,
            kind=OperatorKind.GEMM,
            m=m,
            n=n,
            k=k,
            weight_bytes=(k * n + (n if self.card.bias else 0)) * self.card.dtype_bytes,
            input_bytes=self._activation_bytes(m, k),
            output_bytes=self._activation_bytes(m, n),
            flops=2 * m * n * k,
            depends_on=(after,),
        )

    def norm(self, name: str, *after: str) -> Operator:
        rows, width = self.tokens, self.card.hidden
        return Operator(
            name=name,
            kind=OperatorKind.NORM,
            rows=rows,
            width=width,
            weight_bytes=self.card.norm_parameters * self.card.dtype_bytes,
            input_bytes=self._activation_bytes(rows, width),
            output_bytes=self._activation_bytes(rows, width),
            flops=_NORM_FLOPS[self.card.norm] * rows * width,
            function=self.card.norm,
            depends_on=after,
        )

    def rope(self) -> Operator:
        """Turn queries and keys; the table of angles is small and reused, hence not counted."""
        rows, width = self.tokens * (self.heads + self.kv_heads), self.card.head_dim
        return Operator(
            name="rope",
            kind=OperatorKind.ROPE,
            rows=rows,
            width=width,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.card.head_dim,
            input_bytes=self._activation_bytes(rows, width),
            output_bytes=self._activation_bytes(rows, width),
            flops=_ROPE_FLOPS * rows * width,
            depends_on=("qkv",),
        )

    def kv_append(self, after: str) -> Operator:
        elements = 2 * self.kv_heads * self.card.head_dim
        return Operator(
            name="kv_append",
            kind=OperatorKind.KV_APPEND,
            rows=self.tokens,
            width=elements,
            kv_heads=self.kv_heads,
            head_dim=self.card.head_dim,
            input_bytes=self._activation_bytes(self.tokens, elements),
            kv_write_bytes=self.tokens * elements * self.card.kv_dtype_bytes,
            depends_on=(after,),
        )

    def attention(self, name: str, kind: OperatorKind, after: tuple[str, ...]) -> Operator:
        """q K^T or p V: one token of each request against the K or V of its whole context."""
        card, total = self.card, sum(self.contexts)
        features = self._activation_bytes(self.tokens, self.heads, card.head_dim)
        scores = self._activation_bytes(self.heads, total)
        is_score = kind is OperatorKind.ATTENTION_SCORE
        return Operator(
            name=name,
            kind=kind,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=card.head_dim,
            input_bytes=features if is_score else scores,
            output_bytes=scores if is_score else features,
            kv_read_bytes=total * self.kv_heads * card.head_dim * card.kv_dtype_bytes,
            flops=2 * self.heads * card.head_dim * total,
            depends_on=after,
        )

    def softmax(self) -> Operator:
        total = sum(self.contexts)
        return Operator(
            name="softmax",
            kind=OperatorKind.SOFTMAX,
            rows=self.heads * self.tokens,
            width=max(self.contexts),
            heads=self.heads,
            input_bytes=self._activation_bytes(self.heads, total),
            output_bytes=self._activation_bytes(self.heads, total),
            flops=_SOFTMAX_FLOPS * self.heads * total,
            depends_on=("score",),
        )

    def activation(self, ffn: int) -> Operator:
        gated = self.card.ffn_gated
        elements = self.tokens * ffn
        return Operator(
            name="act",
            kind=OperatorKind.ACTIVATION,
            rows=self.tokens,
            width=ffn,
            input_bytes=self._activation_bytes(elements, 2 if gated else 1),
            output_bytes=self._activation_bytes(elements),
            flops=(_ACTIVATION_FLOPS[self.card.activation] + (1 if gated else 0)) * elements,
            depends_on=("fc1",),
            function=self.card.activation,
        )

    def residual(self, name: str, *after: str) -> Operator:
        """Add the block's input (``res1``) or the sum so far (``res2``)."""
        rows, width = self.tokens, self.card.hidden
        return Operator(
            name=name,
            kind=OperatorKind.ELEMENTWISE,
            rows=rows,
            width=width,
            input_bytes=self._activation_bytes(2, rows, width),
            output_bytes=self._activation_bytes(rows, width),
            flops=rows * width,
            depends_on=after,
        )

    def all_reduce(self, name: str, after: str) -> Operator:
        """Sum the partial results of the ``tp`` devices; bytes are those of one device's copy."""
        rows, width = self.tokens, self.card.hidden
        return Operator(
            name=name,
            kind=OperatorKind.COLLECTIVE,
            rows=rows,
            width=width,
            input_bytes=self._activation_bytes(rows, width),
            output_bytes=self._activation_bytes(rows, width),
            depends_on=(after,),
        )


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a model and its KV cache take on the fullest device."""

    weights_bytes: int
    kv_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache together."""
        return self.weights_bytes + self.kv_bytes


def memory_need(
    card: ModelCard, requests: Sequence[Request], tp: int | None = None, pp: int | None = None
) -> MemoryNeed:
    """What a device must hold: its blocks, its share of the embeddings, the KV of the contexts.

    The fullest stage is counted: with ``pp`` of 1 the only one, which holds the input table and
    the output layer (one table where the embeddings are tied), learned positions and the last norm;
    else the first, which has no output layer. Vocabulary tables are cut by rows over the ``tp``
    devices, positions and norms are whole on each.
    """
    degrees = parallelism(card, tp, pp)
    layers = card.layers // degrees.pp
    block = decode_iteration(card, requests, degrees.tp, degrees.pp, layers=layers)
    is_whole = degrees.pp == 1
    tables = 2 if is_whole and not card.tied_embeddings else 1
    vocab = -(-card.vocab // degrees.tp)
    positions = 0 if card.rope else card.max_context
    outside = (tables * vocab + positions) * card.hidden
    outside += card.norm_parameters if is_whole else 0
    return MemoryNeed(
        weights_bytes=block.weight_bytes + outside * card.dtype_bytes,
        kv_bytes=block.kv_read_bytes,
    )


def fits_memory(
    card: ModelCard,
    requests: Sequence[Request],
    tp: int | None,
    pp: int | None,
    capacity_bytes: int,
) -> MemoryNeed:
    """The need of the fullest device, known to fit; raises ``InputError`` where it does not."""
    need = memory_need(card, requests, tp, pp)
    if need.total_bytes > capacity_bytes:
        degrees = parallelism(card, tp, pp)
        raise InputError(
            f"model {card.name} (tp {degrees.tp}, pp {degrees.pp}, {len(requests)} requests) needs "
            f"{_gib(need.total_bytes)} GiB on each device (weights {_gib(need.weights_bytes)}, "
            f"KV {_gib(need.kv_bytes)}), memory has {_gib(capacity_bytes)} GiB"
        )
    return need


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"
