"""A model card as an operator trace: what a forward pass of that architecture does.

Operators and their groups are those that an export of the real model has too (``capture``), which
is what lets the two be compared one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal

from pimsim.workload.cards import ModelCard
from pimsim.workload.operators import OperatorKind
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import (
    BlockRun,
    ModelFacts,
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
)

__all__ = ["card_trace"]

Operators = list[SymbolicOperator]


@cache
def card_trace(card: ModelCard) -> OperatorTrace:
    """Prefill and decode of the card's model, symbolic in tokens and contexts.

    Parameters
    ----------
    card
        Of the model.
    """
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

    @property
    def make(self) -> OperatorMaker:
        """With the card's element sizes."""
        return OperatorMaker(self.card.dtype_bytes, self.card.kv_dtype_bytes)

    def _norm(self, name: str, *after: str) -> SymbolicOperator:
        return self.make.norm(name, self.card.hidden, self.card.norm, after)

    # blocks -----------------------------------------------------------------------------------
    def embed(self) -> Operators:
        """Rows of the tables, one a token."""
        card = self.card
        return [self.make.embed(card.hidden, 1 if card.rope else 2, card.embed_scale)]

    def head(self) -> Operators:
        """The last norm, and a row of logits a request."""
        card = self.card
        return [
            self._norm("final_norm"),
            self.make.gemm(
                "lm_head", card.vocab, card.hidden, ("final_norm",), m="L", shard=Shard.COLUMNS
            ),
        ]

    def layer(self, layer: int) -> Operators:
        """A decoder block."""
        card, window = self.card, self.card.window_of(layer)
        block = [self._norm("ln1")]
        block += self._latent_attention() if card.mla else self._attention(window)
        mixed = block[-1].name
        if card.post_norms:
            block.append(self._norm("post_ln1", mixed))
            mixed = "post_ln1"
        block += [self.make.residual("res1", card.hidden, (mixed,)), self._norm("ln2", "res1")]
        block += self._experts() if card.is_moe(layer) else self._ffn(card.ffn_hidden)
        mixed = block[-1].name
        if card.post_norms:
            block.append(self._norm("post_ln2", mixed))
            mixed = "post_ln2"
        block.append(self.make.residual("res2", card.hidden, (mixed, "res1")))
        return block

    def _attention(self, window: int | None) -> Operators:
        card = self.card
        heads, kv, dim = card.heads, card.kv_heads, card.head_dim
        biased = card.bias or card.qkv_bias
        block = [
            self.make.gemm(
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
                    norm = self.make.norm(
                        name, dim, "rmsnorm", (part,), group="qk_norm", rows={"T": count},
                        shard=Shard.HEADS, heads=heads if part == "q" else 0,
                        kv_heads=0 if part == "q" else kv,
                    )  # fmt: skip
                else:
                    norm = self.make.norm(
                        name, count * dim, "rmsnorm", (part,), group="qk_norm",
                        shard=Shard.COLUMNS,
                    )  # fmt: skip
                block.append(norm)
                ready[part] = name
        cached: tuple[str, ...] = (ready["k"], "v")
        if card.rope:
            block.append(
                self.make.rope(heads, kv, card.rope_dim or dim, dim, tuple(ready.values()))
            )
            ready = {"q": "rope", "k": "rope"}
            cached = ("rope",)
        block.append(self.make.append(2 * kv * dim, kv, dim, cached))
        block += self.make.scores(
            heads, kv, dim, dim, window, (ready["q"], "kv_append"), ("softmax", "kv_append"),
            sinks=card.attention_sinks,
        )  # fmt: skip
        block.append(
            self.make.gemm(
                "proj", card.hidden, heads * dim, ("value",), shard=Shard.ROWS, bias=card.bias
            )
        )
        return block

    def _latent_attention(self) -> Operators:
        """MLA: prefill expands the latent to keys and values, decode absorbs that into queries
        and outputs (DeepSeek-V2, arXiv 2405.04434, section 2.1.2)."""
        card, mla = self.card, self.card.mla
        assert mla is not None
        heads, latent, cached = card.heads, mla.kv_lora, mla.kv_lora + mla.rope_dim
        query, block = ("ln1",), []
        if mla.q_lora:
            block += [
                self.make.gemm("q_a", mla.q_lora, card.hidden, ("ln1",), bias=card.qkv_bias),
                self.make.norm("q_a_norm", mla.q_lora, "rmsnorm", ("q_a",)),
            ]
            query = ("q_a_norm",)
        block += [
            self.make.gemm(
                "q_b", heads * (mla.nope_dim + mla.rope_dim), mla.q_lora or card.hidden, query,
                shard=Shard.COLUMNS,
            ),
            self.make.gemm("kv_a", cached, card.hidden, ("ln1",), bias=card.qkv_bias),
            self.make.norm("kv_a_norm", latent, "rmsnorm", ("kv_a",)),
            self.make.rope(heads, 1, mla.rope_dim, mla.rope_dim, ("q_b", "kv_a")),
            self.make.append(cached, 1, cached, ("kv_a_norm", "rope")),
        ]  # fmt: skip
        if self.decode:
            absorb = {"shard": Shard.HEADS, "count": heads, "heads": heads}
            block += [
                self.make.gemm("absorb_k", latent, mla.nope_dim, ("q_b",), **absorb),  # type: ignore[arg-type]
                *self.make.scores(
                    heads, 1, latent + mla.rope_dim, latent, None,
                    ("absorb_k", "rope", "kv_append"), ("softmax", "kv_append"), shared=True,
                ),
                self.make.gemm("absorb_v", mla.v_dim, latent, ("value",), **absorb),  # type: ignore[arg-type]
            ]  # fmt: skip
        else:
            block.append(
                self.make.gemm(
                    "kv_b", heads * (mla.nope_dim + mla.v_dim), latent, ("kv_append",),
                    shard=Shard.COLUMNS,
                )
            )  # fmt: skip
            dim = mla.nope_dim + mla.rope_dim
            block += self.make.scores(
                heads, heads, dim, mla.v_dim, None, ("q_b", "rope", "kv_b"), ("softmax", "kv_b")
            )
        block.append(
            self.make.gemm(
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
            self.make.gemm(
                name, hidden, card.hidden, ("ln2",), group=first, shard=Shard.COLUMNS, bias=bias
            )
            for name in names
        ]
        block += [
            self.make.activate(
                act, {"T": 1}, hidden, card.activation, card.ffn_gated, tuple(names)
            ),
            self.make.gemm(second, card.hidden, hidden, (act,), shard=Shard.ROWS, bias=bias),
        ]
        return block

    def _experts(self) -> Operators:
        card, moe = self.card, self.card.moe
        assert moe is not None
        width = moe.expert_hidden * (2 if card.ffn_gated else 1)
        block = [
            self.make.gemm(
                "router", moe.experts, card.hidden, ("ln2",), kind=OperatorKind.ROUTER,
                bias=moe.router_bias,
            ),
            self.make.route(
                moe.experts_per_token if moe.scoring == "softmax-chosen" else moe.experts,
                "sigmoid" if moe.scoring == "sigmoid" else "softmax", ("router",),
            ),
            self.make.gemm(
                "expert_fc1", width, card.hidden, ("ln2", "route"), m="A", shard=Shard.COLUMNS,
                kind=OperatorKind.EXPERT_GEMM, bias=card.bias,
            ),
            self.make.activate(
                "expert_act", {"A": 1}, moe.expert_hidden, card.activation, card.ffn_gated,
                ("expert_fc1",),
            ),
            self.make.gemm(
                "expert_fc2", card.hidden, moe.expert_hidden, ("expert_act",), m="A",
                shard=Shard.ROWS, kind=OperatorKind.EXPERT_GEMM, bias=card.bias,
            ),
        ]  # fmt: skip
        after = ["expert_fc2", "route"]
        if moe.shared_hidden:
            block += self._ffn(moe.shared_hidden, "shared_")
            after.append("shared_fc2")
            if moe.shared_gate:
                gate = "shared_expert_gate"
                block.append(self.make.gemm(gate, 1, card.hidden, ("ln2",), group="shared_gate"))
                after.append(gate)
        block.append(self.make.combine(card.hidden, moe.shared_hidden > 0, tuple(after)))
        return block
