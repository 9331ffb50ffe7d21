"""Experts, latents and windows: expected values are formulas over the card's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.workload.arithmetic import COMBINE_FLOPS, RESIDUAL_FLOPS
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.decode import card_pass, memory_need
from pimsim.workload.instantiate import instantiate, sample_blocks
from pimsim.workload.moe import DROPPED, ExpertLoad, UniformRouting
from pimsim.workload.operators import Block, ForwardPass, OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace, dump_trace


def batch(*contexts: int) -> tuple[Request, ...]:
    return tuple(
        Request(id=i, arrival_s=0.0, prompt_tokens=context, output_tokens=1, generated_tokens=0)
        for i, context in enumerate(contexts)
    )


class Fixed:
    """All tokens of every block go to the same experts."""

    def __init__(self, *experts: int) -> None:
        self.experts = experts

    def assignments(self, layer: int, tokens: int) -> NDArray[np.int64]:
        return np.tile(np.array(self.experts, dtype=np.int64), (tokens, 1))


def block(card: ModelCard, requests: tuple[Request, ...], at: int = 0, **options: object):
    step = Step.decode(requests)
    return card_pass(card, step, tp=1, pp=1, **options).blocks[at]  # type: ignore[arg-type]


def prompt_block(card: ModelCard, prompt: int) -> Block:
    return card_pass(card, Step.prefill(batch(prompt)), tp=1, pp=1).blocks[0]


# experts --------------------------------------------------------------------------------------
def test_only_experts_that_are_hit_are_read() -> None:
    card, requests = load_card("mixtral-8x7b"), batch(5, 6, 7)
    moe = card.moe
    assert moe is not None
    first = block(card, requests, routing=Fixed(1, 6)).operator("expert_fc1")
    assert (first.experts, first.expert_tokens) == ((1, 6), (3, 3))
    assert first.m == len(requests) * moe.experts_per_token
    one = card.hidden * 2 * moe.expert_hidden * card.dtype_bytes
    assert first.weight_bytes == 2 * one
    assert first.flops == 2 * first.m * card.hidden * 2 * moe.expert_hidden


def test_dropped_tokens_do_no_work_and_may_leave_an_expert_alone() -> None:
    card, requests = load_card("mixtral-8x7b"), batch(5, 6)
    first = block(card, requests, routing=Fixed(3, DROPPED)).operator("expert_fc1")
    assert (first.experts, first.expert_tokens, first.m) == ((3,), (2,), 2)


def test_tokens_are_conserved_under_uniform_routing() -> None:
    card, tokens = load_card("qwen3-30b-a3b"), 37
    moe = card.moe
    assert moe is not None
    step = card_pass(card, Step.decode(batch(*[9] * tokens)), tp=1, pp=1)
    loads = [b.operator("expert_fc1") for b in step.blocks]
    assert {load.m for load in loads} == {tokens * moe.experts_per_token}
    assert all(sum(load.expert_tokens) == load.m for load in loads)
    assert len({load.expert_tokens for load in loads}) > 1  # blocks differ
    again = card_pass(card, Step.decode(batch(*[9] * tokens)), tp=1, pp=1)
    assert again == step
    other = card_pass(card, Step.decode(batch(*[9] * tokens)), tp=1, pp=1, seed=1)
    assert other != step


def test_uniform_routing_never_repeats_an_expert_of_a_token() -> None:
    chosen = UniformRouting(16, 4, seed=3).assignments(2, 500)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert set(chosen.ravel().tolist()) == set(range(16))


def test_routing_of_another_model_is_refused() -> None:
    card = load_card("mixtral-8x7b")
    with pytest.raises(InputError, match="gives 3 experts a token, the model has 2"):
        block(card, batch(5), routing=Fixed(1, 2, 3))
    with pytest.raises(InputError, match="expert 8; there are 0 to 7"):
        block(card, batch(5), routing=Fixed(1, 8))


def test_shared_expert_takes_every_token_and_first_blocks_are_dense() -> None:
    card, requests = load_card("deepseek-v3"), batch(4, 4)
    moe = card.moe
    assert moe is not None
    step = card_pass(card, Step.decode(requests), tp=1, pp=1)
    kinds = [b.kind for b in step.blocks]
    assert kinds == ["dense"] * moe.dense_layers + ["moe"] * (card.layers - moe.dense_layers)
    assert step.model_blocks == (("dense", 3), ("moe", 58))
    dense, experts = step.blocks[0], step.blocks[-1]
    assert dense.operator("fc1").n == 2 * card.ffn_hidden
    assert experts.operator("shared_fc1").n == 2 * moe.shared_hidden
    assert experts.operator("shared_fc1").m == len(requests)
    combine = experts.operator("combine")
    assigned = len(requests) * moe.experts_per_token
    assert combine.flops == card.hidden * (
        COMBINE_FLOPS * assigned + RESIDUAL_FLOPS * len(requests)
    )
    assert combine.depends_on == ("expert_fc2", "route", "shared_fc2")


def test_a_gate_on_the_shared_expert_is_apart_from_its_gated_network() -> None:
    card = load_card("deepseek-v3")
    assert card.moe is not None
    gated = card.model_copy(update={"moe": card.moe.model_copy(update={"shared_gate": True})})
    operators = card_trace(gated).phases["decode"].blocks["moe"]
    gate = next(o for o in operators if o.group == "shared_gate")
    assert (gate.n, gate.k) == (1, card.hidden)
    assert [o.name for o in operators if o.group == "shared_fc1"] == ["shared_gate", "shared_up"]
    assert gate.name in operators[-2].depends_on


def test_all_reduce_follows_the_sum_of_experts_once() -> None:
    step = card_pass(load_card("deepseek-v3"), Step.decode(batch(4)), tp=4, pp=1)
    reduced = [o for o in step.blocks[-1].operators if o.kind is OperatorKind.COLLECTIVE]
    assert [o.depends_on for o in reduced] == [("proj",), ("combine",)]


def test_memory_holds_every_expert() -> None:
    card = load_card("mixtral-8x7b")
    need = memory_need(card, Step.decode(batch(1)), 1, 1)
    assert need.weights_bytes == card_trace(card).facts.parameter_bytes


# latents --------------------------------------------------------------------------------------
def test_decode_reads_one_latent_for_all_heads_once() -> None:
    card, contexts = load_card("deepseek-v3"), (100, 7)
    mla = card.mla
    assert mla is not None
    decoder = block(card, batch(*contexts))
    latent = mla.kv_lora + mla.rope_dim
    score, value = decoder.operator("score"), decoder.operator("value")
    assert (score.heads, score.kv_heads, score.head_dim) == (card.heads, 1, latent)
    assert score.kv_read_bytes == sum(contexts) * latent * card.kv_dtype_bytes
    assert (value.kv_read_bytes, value.head_dim) == (0, mla.kv_lora)
    append = decoder.operator("kv_append")
    assert append.kv_write_bytes == len(contexts) * latent * card.kv_dtype_bytes
    absorb = decoder.operator("absorb_k")
    assert (absorb.count, absorb.n, absorb.k) == (card.heads, mla.kv_lora, mla.nope_dim)
    assert absorb.weight_bytes == card.heads * mla.kv_lora * mla.nope_dim * card.dtype_bytes


def test_keys_and_values_of_a_latent_may_be_of_other_sizes() -> None:
    card = load_card("deepseek-v3")
    assert card.mla is not None
    mla = card.mla.model_copy(update={"nope_dim": 96, "v_dim": 64})
    decoder = block(card.model_copy(update={"mla": mla}), batch(100, 7))
    into, out = decoder.operator("absorb_k"), decoder.operator("absorb_v")
    assert (into.n, into.k) == (mla.kv_lora, 96)
    assert (out.n, out.k) == (64, mla.kv_lora)
    each = card.heads * mla.kv_lora * card.dtype_bytes
    assert (into.weight_bytes, out.weight_bytes) == (96 * each, 64 * each)
    assert decoder.operator("q_b").n == card.heads * (96 + mla.rope_dim)
    assert decoder.operator("proj").k == card.heads * 64


def test_decode_of_deepseek_v3_does_the_work_that_the_absorbed_trace_does() -> None:
    """reference/workloads.md: 72.0 MB of cache at 1025 tokens."""
    card = load_card("deepseek-v3")
    step = card_pass(card, Step.decode(batch(1025)), tp=1, pp=1)
    assert step.kv_read_bytes / 1e6 == pytest.approx(72.0, abs=0.05)


def test_prefill_expands_the_latent_instead() -> None:
    card, prompt = load_card("deepseek-v3"), 1024
    mla = card.mla
    assert mla is not None
    decoder = prompt_block(card, prompt)
    assert not decoder.has("absorb_k")
    expand = decoder.operator("kv_b")
    assert (expand.m, expand.n) == (prompt, card.heads * (mla.nope_dim + mla.v_dim))
    pairs = prompt * (prompt + 1) // 2
    dim = mla.nope_dim + mla.rope_dim
    assert decoder.operator("score").flops == 2 * card.heads * dim * pairs


def test_the_latent_is_whole_on_every_device() -> None:
    card, tp = load_card("deepseek-v3"), 64
    part, whole = (
        card_pass(card, Step.decode(batch(50)), tp=degree, pp=1).blocks[0] for degree in (tp, 1)
    )
    assert part.operator("score").kv_read_bytes == whole.operator("score").kv_read_bytes
    assert part.operator("kv_a").n == whole.operator("kv_a").n
    assert part.operator("absorb_k").count * tp == whole.operator("absorb_k").count
    assert part.operator("score").flops * tp == whole.operator("score").flops


# windows --------------------------------------------------------------------------------------
def test_windows_limit_what_is_read_and_held() -> None:
    card = load_card("gemma-3-270m")
    assert card.window is not None
    size, contexts = card.window.size, (card.window.size - 1, card.window.size + 100)
    step = card_pass(card, Step.decode(batch(*contexts)), tp=1, pp=1)
    per_token = card.kv_heads * card.head_dim * card.kv_dtype_bytes
    seen = {"sliding": sum(min(c, size) for c in contexts), "full": sum(contexts)}
    for each in step.blocks:
        assert each.operator("score").kv_read_bytes == seen[each.kind] * per_token
        assert each.operator("value").window == (size if each.kind == "sliding" else 0)
        widest = size if each.kind == "sliding" else max(contexts)
        assert each.operator("softmax").width == widest
    assert [b.kind for b in step.blocks[:6]] == ["sliding"] * 5 + ["full"]
    held = sum(2 * per_token * seen[b.kind] for b in step.blocks)
    assert memory_need(card, Step.decode(batch(*contexts))).kv_bytes == held


@pytest.mark.parametrize(("prompt", "window"), [(1, 4), (4, 4), (5, 4), (9, 4), (3, 1)])
def test_pairs_of_a_windowed_prefill_are_those_one_counts(prompt: int, window: int) -> None:
    card = ModelCard.model_validate(
        {**load_card("smollm2-135m").model_dump(), "window": {"size": window}}
    )
    score = prompt_block(card, prompt).operator("score")
    pairs = sum(min(position + 1, window) for position in range(prompt))
    assert score.flops == 2 * card.heads * card.head_dim * pairs


def test_norms_of_each_head_have_one_gain_on_every_device() -> None:
    card = load_card("qwen3-30b-a3b")
    part = card_pass(card, Step.decode(batch(8)), tp=4, pp=1).blocks[0]
    for name, heads in (("qk_norm.q_norm", card.heads), ("qk_norm.k_norm", card.kv_heads)):
        norm = part.operator(name)
        assert (norm.rows, norm.width) == (heads // 4, card.head_dim)
        assert norm.weight_bytes == card.head_dim * card.dtype_bytes


# blocks ---------------------------------------------------------------------------------------
def test_a_sample_has_every_kind_in_proportion() -> None:
    kinds = ["dense"] * 3 + ["moe"] * 58
    assert sample_blocks(kinds, 2) == [0, 3]
    assert [kinds[i] for i in sample_blocks(kinds, 20)].count("dense") == 1
    assert sample_blocks(kinds, 61) == list(range(61))
    assert sample_blocks(["a"] * 4, 2) == [0, 1]
    assert sample_blocks(["a", "b"] * 3, 4) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"2 kinds of block \(dense, moe\)"):
        sample_blocks(kinds, 1)


@pytest.mark.parametrize("name", preset_names("model"))
@pytest.mark.parametrize("make", [Step.prefill, Step.decode], ids=["prefill", "decode"])
def test_every_card_gives_both_phases_and_its_trace_reads_back(
    name: str, make: Callable[[Sequence[Request]], Step]
) -> None:
    card = load_card(name)
    trace = card_trace(card)
    step: ForwardPass = instantiate(trace, make(batch(12, 9)))
    assert step.tokens == (2 if make == Step.decode else 21)
    assert step.layers == card.layers
    assert all(o.flops or o.kv_write_bytes for b in step.blocks for o in b.operators)
    assert OperatorTrace.model_validate_json(dump_trace(trace)) == trace


def test_load_of_no_token_is_empty() -> None:
    nothing = np.full((2, 2), DROPPED, dtype=np.int64)
    assert ExpertLoad.of(nothing, 4) == ExpertLoad((), ())
