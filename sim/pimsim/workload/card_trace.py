"""A model card as an operator trace: what a forward pass of that architecture does.

Operators and their groups are those that an export of the real model has too (``capture``), which
is what lets the two be compared one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal

from pimsim.workload.arithmetic import (
    ACTIVATION_FLOPS,
    COMBINE_FLOPS,
    GATE_FLOPS,
    NORM_FLOPS,
    RESIDUAL_FLOPS,
    ROPE_FLOPS,
    ROUTE_FLOPS,
    SOFTMAX_FLOPS,
)
from pimsim.workload.cards import ModelCard
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import (
    BlockRun,
    ModelFacts,
    Operand,
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
    window_symbol,
)

__all__ = ["card_trace"]

Form = Mapping[str, int]
Operators = list[SymbolicOperator]
_DTYPES = {1: "int8", 2: "bf16", 4: "f32"}


@cache
def card_trace(card: ModelCard) -> OperatorTrace:
    """Prefill and decode of the card's model, symbolic in tokens and contexts."""
    phases: dict[Literal["prefill", "decode"], Phase] = {}
    names: tuple[Literal["prefill", "decode"], ...] = ("prefill", "decode")
    for name in names:
        block = _Blocks(card, decode=name == "decode")
        kinds: dict[str, tuple[SymbolicOperator, ...]] = {}
        order = [card.block_kind(layer) for layer in range(card.layers)]
        for layer, kind in enumerate(order):
            if kind not in kinds:
                kinds[kind] = tuple(block.layer(layer))
        runs = [BlockRun(block=kind, count=len(list(same))) for kind, same in groupby(order)]
        kinds |= {"embed": tuple(block.embed()), "head": tuple(block.head())}
        phases[name] = Phase(blocks=kinds, layers=tuple(runs), before="embed", after="head")
    parameters = _parameters(card, phases["prefill"])
    per_token = _kv_bytes(phases["decode"])
    return OperatorTrace(
        model=card.name,
        source=f"card {card.name}: {card.source}",
        facts=ModelFacts(
            architecture="card", layers=card.layers, hidden=card.hidden, heads=card.heads,
            kv_heads=card.kv_heads, vocab=card.vocab, max_context=card.max_context,
            experts=card.moe.experts if card.moe else 0,
            experts_per_token=card.moe.experts_per_token if card.moe else 0,
            parameters=parameters, parameter_bytes=parameters * card.dtype_bytes,
            kv_bytes_per_token=per_token, dtype_bytes=card.dtype_bytes,
            kv_dtype_bytes=card.kv_dtype_bytes,
        ),
        phases=phases,
    )  # fmt: skip


def _parameters(card: ModelCard, phase: Phase) -> int:
    """All of them: blocks with all experts, tables once where they are tied, the last norm."""
    experts = card.moe.experts if card.moe else 0
    size = 0
    for kind in phase.sequence():
        for operator in phase.blocks[kind]:
            form = operator.bytes_of(OperandRole.WEIGHT, write=False)
            size += form.get("1", 0) + form.get("E", 0) * experts
    tables = 1 if card.tied_embeddings else 2
    positions = 0 if card.rope else (card.positions or card.max_context)
    outside = (tables * card.vocab + positions) * card.hidden + card.norm_parameters
    return size // card.dtype_bytes + outside


def _kv_bytes(phase: Phase) -> int:
    total = 0
    for kind in phase.sequence():
        for operator in phase.blocks[kind]:
            total += operator.bytes_of(OperandRole.KV, write=True).get("T", 0)
    return total


@dataclass(frozen=True)
class _Blocks:
    """The operators of each kind of block."""

    card: ModelCard
    decode: bool

    # operands ---------------------------------------------------------------------------------
    def _weight(self, name: str, elements: Form | int, whole: bool = False) -> Operand:
        size = self.card.dtype_bytes
        form = {"1": elements} if isinstance(elements, int) else elements
        return Operand(
            name=name, role=OperandRole.WEIGHT, dtype=_DTYPES[size], bytes=_times(form, size),
            whole=whole,
        )  # fmt: skip

    def _activation(self, elements: Form, name: str, write: bool = False) -> Operand:
        size = self.card.dtype_bytes
        return Operand(
            name=name, role=OperandRole.ACTIVATION, write=write, dtype=_DTYPES[size],
            bytes=_times(elements, size),
        )  # fmt: skip

    def _cache(self, elements: Form, name: str, write: bool = False) -> Operand:
        size = self.card.kv_dtype_bytes
        return Operand(
            name=name, role=OperandRole.KV, write=write, dtype=_DTYPES[size],
            bytes=_times(elements, size),
        )  # fmt: skip

    # building stones --------------------------------------------------------------------------
    def _gemm(
        self, name: str, n: int, k: int, after: tuple[str, ...], *, group: str = "",
        shard: Shard = Shard.NONE, bias: bool = False, m: str = "T", count: int = 1,
        kind: OperatorKind = OperatorKind.GEMM, heads: int = 0, kv_heads: int = 0, dim: int = 0,
    ) -> SymbolicOperator:  # fmt: skip
        # an expert's weights are read when it has a token
        once = "E" if kind is OperatorKind.EXPERT_GEMM else "1"
        operands = [self._weight(f"{name}.weight", {once: count * n * k})]
        if bias:
            operands.append(
                self._weight(f"{name}.bias", {once: count * n}, whole=shard is Shard.ROWS)
            )
        operands += [
            self._activation({m: count * k}, "input"),
            self._activation({m: count * n}, "output", write=True),
        ]
        return SymbolicOperator(
            name=name, kind=kind, group=group or name, shard=shard, m={m: 1}, n=n, k=k,
            count=count, heads=heads, kv_heads=kv_heads, head_dim=dim,
            flops={m: 2 * count * n * k}, operands=tuple(operands), depends_on=after,
        )  # fmt: skip

    def _vector(
        self, name: str, kind: OperatorKind, rows: Form, width: int, flops: int,
        after: tuple[str, ...], *, group: str = "", function: str = "", shard: Shard = Shard.NONE,
        inputs: int = 1, weights: tuple[Operand, ...] = (), heads: int = 0, kv_heads: int = 0,
        dim: int = 0,
    ) -> SymbolicOperator:  # fmt: skip
        elements = _times(rows, width)
        return SymbolicOperator(
            name=name, kind=kind, group=group or name, shard=shard, function=function, rows=rows,
            width=width, heads=heads, kv_heads=kv_heads, head_dim=dim,
            flops=_times(elements, flops), depends_on=after,
            operands=(
                *weights,
                self._activation(_times(elements, inputs), "input"),
                self._activation(elements, "output", write=True),
            ),
        )  # fmt: skip

    def _norm(
        self, name: str, after: tuple[str, ...], *, group: str = "", rows: Form | None = None,
        width: int | None = None, function: str | None = None, shard: Shard = Shard.NONE,
        heads: int = 0, kv_heads: int = 0,
    ) -> SymbolicOperator:  # fmt: skip
        width = self.card.hidden if width is None else width
        function = self.card.norm if function is None else function
        parameters = width * (2 if function == "layernorm" else 1)
        gain = self._weight(f"{name}.weight", parameters, whole=shard is Shard.HEADS)
        return self._vector(
            name, OperatorKind.NORM, {"T": 1} if rows is None else rows, width,
            NORM_FLOPS[function], after, group=group, function=function, shard=shard,
            weights=(gain,), heads=heads, kv_heads=kv_heads,
        )  # fmt: skip

    def _residual(self, name: str, after: tuple[str, ...]) -> SymbolicOperator:
        return self._vector(
            name, OperatorKind.ELEMENTWISE, {"T": 1}, self.card.hidden, RESIDUAL_FLOPS, after,
            inputs=2,
        )  # fmt: skip

    # blocks -----------------------------------------------------------------------------------
    def embed(self) -> Operators:
        """Rows of the tables, one a token."""
        card = self.card
        tables = 1 if card.rope else 2
        flops = (tables - 1) + (1 if card.embed_scale else 0)
        return [
            self._vector(
                "embed", OperatorKind.EMBEDDING, {"T": 1}, card.hidden, flops, (), inputs=0,
                weights=(self._weight("embed.weight", {"T": tables * card.hidden}),),
            )
        ]  # fmt: skip

    def head(self) -> Operators:
        """The last norm, and a row of logits a request."""
        card = self.card
        return [
            self._norm("final_norm", ()),
            self._gemm(
                "lm_head", card.vocab, card.hidden, ("final_norm",), m="L", shard=Shard.COLUMNS
            ),
        ]

    def layer(self, layer: int) -> Operators:
        """A decoder block."""
        card, window = self.card, self.card.window_of(layer)
        block = [self._norm("ln1", ())]
        block += self._latent_attention() if card.mla else self._attention(window)
        mixed = block[-1].name
        if card.post_norms:
            block.append(self._norm("post_ln1", (mixed,)))
            mixed = "post_ln1"
        block += [self._residual("res1", (mixed,)), self._norm("ln2", ("res1",))]
        block += self._experts() if card.is_moe(layer) else self._ffn(card.ffn_hidden)
        mixed = block[-1].name
        if card.post_norms:
            block.append(self._norm("post_ln2", (mixed,)))
            mixed = "post_ln2"
        block.append(self._residual("res2", (mixed, "res1")))
        return block

    def _attention(self, window: int | None) -> Operators:
        card = self.card
        heads, kv, dim = card.heads, card.kv_heads, card.head_dim
        biased = card.bias or card.qkv_bias
        block = [
            self._gemm(
                name, count * dim, card.hidden, ("ln1",), group="qkv", shard=Shard.COLUMNS,
                bias=biased, heads=heads if name == "q" else 0,
                kv_heads=0 if name == "q" else kv, dim=dim,
            )
            for name, count in (("q", heads), ("k", kv), ("v", kv))
        ]  # fmt: skip
        ready = {"q": "q", "k": "k"}
        if card.qk_norm != "none":
            for part, count in (("q", heads), ("k", kv)):
                name = f"{part}_norm"
                if card.qk_norm == "head":
                    norm = self._norm(
                        name, (part,), group="qk_norm", rows={"T": count}, width=dim,
                        function="rmsnorm", shard=Shard.HEADS,
                        heads=heads if part == "q" else 0, kv_heads=0 if part == "q" else kv,
                    )  # fmt: skip
                else:
                    norm = self._norm(
                        name,
                        (part,),
                        group="qk_norm",
                        width=count * dim,
                        function="rmsnorm",
                        shard=Shard.COLUMNS,
                    )
                block.append(norm)
                ready[part] = name
        cached: tuple[str, ...] = (ready["k"], "v")
        if card.rope:
            turned = card.rope_dim or dim
            block.append(
                self._vector(
                    "rope",
                    OperatorKind.ROPE,
                    {"T": heads + kv},
                    turned,
                    ROPE_FLOPS,
                    tuple(ready.values()),
                    shard=Shard.HEADS,
                    heads=heads,
                    kv_heads=kv,
                    dim=dim,
                )
            )
            ready = {"q": "rope", "k": "rope"}
            cached = ("rope",)
        block.append(self._append(2 * kv * dim, kv, dim, cached))
        block += self._scores(
            heads, kv, dim, dim, window, (ready["q"], "kv_append"), ("softmax", "kv_append")
        )
        block.append(
            self._gemm(
                "proj", card.hidden, heads * dim, ("value",), shard=Shard.ROWS, bias=card.bias
            )
        )
        return block

    def _append(
        self, elements: int, kv_heads: int, dim: int, after: tuple[str, ...]
    ) -> SymbolicOperator:
        return SymbolicOperator(
            name="kv_append", kind=OperatorKind.KV_APPEND, group="kv_append", shard=Shard.HEADS,
            rows={"T": 1}, width=elements, kv_heads=kv_heads, head_dim=dim, depends_on=after,
            operands=(
                self._activation({"T": elements}, "input"),
                self._cache({"T": elements}, "cache", write=True),
            ),
        )  # fmt: skip

    def _scores(
        self, heads: int, kv_heads: int, key_dim: int, value_dim: int, window: int | None,
        after: tuple[str, ...], value_after: tuple[str, ...], shared: bool = False,
    ) -> Operators:  # fmt: skip
        """Scores, softmax, weighted values; ``shared``: values are a part of the cached keys."""
        pairs, keys = window_symbol("P", window), window_symbol("K", window)
        sinks = (self._weight("sinks", heads),) if self.card.attention_sinks else ()
        score = SymbolicOperator(
            name="score", kind=OperatorKind.ATTENTION_SCORE, group="score", shard=Shard.HEADS,
            heads=heads, kv_heads=kv_heads, head_dim=key_dim, window=window,
            flops={pairs: 2 * heads * key_dim}, depends_on=after,
            operands=(
                self._activation({"T": heads * key_dim}, "query"),
                self._cache({keys: kv_heads * key_dim}, "keys"),
                self._activation({pairs: heads}, "scores", write=True),
            ),
        )  # fmt: skip
        softmax = SymbolicOperator(
            name="softmax", kind=OperatorKind.SOFTMAX, group="softmax", shard=Shard.HEADS,
            rows={"T": heads}, heads=heads, window=window,
            flops={pairs: SOFTMAX_FLOPS * heads}, depends_on=("score",),
            operands=(
                *sinks,
                self._activation({pairs: heads}, "scores"),
                self._activation({pairs: heads}, "weights", write=True),
            ),
        )  # fmt: skip
        read = () if shared else (self._cache({keys: kv_heads * value_dim}, "values"),)
        value = SymbolicOperator(
            name="value", kind=OperatorKind.ATTENTION_VALUE, group="value", shard=Shard.HEADS,
            heads=heads, kv_heads=kv_heads, head_dim=value_dim, window=window,
            flops={pairs: 2 * heads * value_dim}, depends_on=value_after,
            operands=(
                self._activation({pairs: heads}, "weights"), *read,
                self._activation({"T": heads * value_dim}, "output", write=True),
            ),
        )  # fmt: skip
        return [score, softmax, value]

    def _latent_attention(self) -> Operators:
        """MLA: prefill expands the latent to keys and values, decode absorbs that into queries
        and outputs (DeepSeek-V2, arXiv 2405.04434, section 2.1.2)."""
        card, mla = self.card, self.card.mla
        assert mla is not None
        heads, latent = card.heads, mla.kv_lora
        query, block = ("ln1",), []
        if mla.q_lora:
            block += [
                self._gemm("q_a", mla.q_lora, card.hidden, ("ln1",), bias=card.qkv_bias),
                self._norm("q_a_norm", ("q_a",), width=mla.q_lora, function="rmsnorm"),
            ]
            query = ("q_a_norm",)
        block += [
            self._gemm(
                "q_b", heads * (mla.nope_dim + mla.rope_dim), mla.q_lora or card.hidden, query,
                shard=Shard.COLUMNS,
            ),
            self._gemm("kv_a", latent + mla.rope_dim, card.hidden, ("ln1",), bias=card.qkv_bias),
            self._norm("kv_a_norm", ("kv_a",), width=latent, function="rmsnorm"),
            self._vector(
                "rope", OperatorKind.ROPE, {"T": heads + 1}, mla.rope_dim, ROPE_FLOPS,
                ("q_b", "kv_a"), shard=Shard.HEADS, heads=heads, kv_heads=1, dim=mla.rope_dim,
            ),
            self._append(latent + mla.rope_dim, 1, latent + mla.rope_dim, ("kv_a_norm", "rope")),
        ]  # fmt: skip
        if self.decode:
            absorb = {"shard": Shard.HEADS, "count": heads, "heads": heads}
            block += [
                self._gemm("absorb_k", latent, mla.nope_dim, ("q_b",), **absorb),  # type: ignore[arg-type]
                *self._scores(
                    heads, 1, latent + mla.rope_dim, latent, None,
                    ("absorb_k", "rope", "kv_append"), ("softmax", "kv_append"), shared=True,
                ),
                self._gemm("absorb_v", mla.v_dim, latent, ("value",), **absorb),  # type: ignore[arg-type]
            ]  # fmt: skip
        else:
            block.append(
                self._gemm(
                    "kv_b", heads * (mla.nope_dim + mla.v_dim), latent, ("kv_a_norm",),
                    shard=Shard.COLUMNS,
                )
            )  # fmt: skip
            dim = mla.nope_dim + mla.rope_dim
            block += self._scores(
                heads, heads, dim, mla.v_dim, None, ("q_b", "rope", "kv_b"), ("softmax", "kv_b")
            )
        block.append(
            self._gemm(
                "proj", card.hidden, heads * mla.v_dim, (block[-1].name,), shard=Shard.ROWS,
                bias=card.bias,
            )
        )  # fmt: skip
        return block

    def _ffn(self, hidden: int, prefix: str = "", bias: bool | None = None) -> Operators:
        card = self.card
        bias = card.bias if bias is None else bias
        first, act, second = f"{prefix}fc1", f"{prefix}act", f"{prefix}fc2"
        names = [f"{prefix}gate", f"{prefix}up"] if card.ffn_gated else [first]
        block = [
            self._gemm(
                name, hidden, card.hidden, ("ln2",), group=first, shard=Shard.COLUMNS, bias=bias
            )
            for name in names
        ]
        block += [
            self._activate(act, {"T": 1}, hidden, tuple(names)),
            self._gemm(second, card.hidden, hidden, (act,), shard=Shard.ROWS, bias=bias),
        ]
        return block

    def _activate(
        self, name: str, rows: Form, width: int, after: tuple[str, ...]
    ) -> SymbolicOperator:
        card = self.card
        flops = ACTIVATION_FLOPS[card.activation] + (GATE_FLOPS if card.ffn_gated else 0)
        return self._vector(
            name, OperatorKind.ACTIVATION, rows, width, flops, after, function=card.activation,
            shard=Shard.COLUMNS, inputs=2 if card.ffn_gated else 1,
        )  # fmt: skip

    def _experts(self) -> Operators:
        card, moe = self.card, self.card.moe
        assert moe is not None
        width = moe.expert_hidden * (2 if card.ffn_gated else 1)
        block = [
            self._gemm(
                "router", moe.experts, card.hidden, ("ln2",), kind=OperatorKind.ROUTER,
                bias=moe.router_bias,
            ),
            self._vector(
                "route", OperatorKind.ELEMENTWISE, {"T": 1}, moe.experts,
                ROUTE_FLOPS[moe.scoring], ("router",),
            ),
            self._gemm(
                "expert_fc1", width, card.hidden, ("ln2", "route"), m="A", shard=Shard.COLUMNS,
                kind=OperatorKind.EXPERT_GEMM, bias=card.bias,
            ),
            self._activate("expert_act", {"A": 1}, moe.expert_hidden, ("expert_fc1",)),
            self._gemm(
                "expert_fc2", card.hidden, moe.expert_hidden, ("expert_act",), m="A",
                shard=Shard.ROWS, kind=OperatorKind.EXPERT_GEMM, bias=card.bias,
            ),
        ]  # fmt: skip
        after = ["expert_fc2", "route"]
        if moe.shared_hidden:
            block += self._ffn(moe.shared_hidden, "shared_")
            after.append("shared_fc2")
            if moe.shared_gate:
                block.append(self._gemm("shared_gate", 1, card.hidden, ("ln2",)))
                after.append("shared_gate")
        elements: dict[str, int] = {"A": card.hidden}
        flops: dict[str, int] = {"A": COMBINE_FLOPS * card.hidden}
        if moe.shared_hidden:
            elements["T"] = card.hidden
            flops["T"] = RESIDUAL_FLOPS * card.hidden
        block.append(
            SymbolicOperator(
                name="combine", kind=OperatorKind.ELEMENTWISE, group="combine", rows={"T": 1},
                width=card.hidden, flops=flops, depends_on=tuple(after),
                operands=(
                    self._activation(elements, "input"),
                    self._activation({"T": card.hidden}, "output", write=True),
                ),
            )
        )  # fmt: skip
        return block


def _times(form: Form, factor: int) -> dict[str, int]:
    return {symbol: coefficient * factor for symbol, coefficient in form.items() if factor}
