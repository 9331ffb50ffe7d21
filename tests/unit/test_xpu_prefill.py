"""Prefill on systems of GPUs: kernels of any step, chunks, transfers and logits, by hand."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import pytest
from tests.gpu_blocks import block_kernels, decode_step, forward_pass

from pimsim.config.loader import load_system
from pimsim.engine.xpu_attention import flash_cost
from pimsim.engine.xpu_block import FixedCosts, block_cost
from pimsim.hardware.fabric.collectives import all_reduce
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.roofline import peak_flops
from pimsim.hardware.xpu.tiling import Product
from pimsim.validate.gpu import output_layer
from pimsim.validate.gpu_steps import MeanStep, decoding, prefilling
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.requests import Request
from pimsim.workload.run_steps import run_steps
from pimsim.workload.step import Step, StepEntry

GPT = load_card("gpt3-7b")
LLAMA = load_card("llama-3-8b")
REQUEST = Request(id=0, arrival_s=0.0, prompt_tokens=10**6, output_tokens=1, generated_tokens=0)


def step(*entries: tuple[int, int, int]) -> Step:
    """Of (new tokens, context, rows of logits)."""
    return Step(tuple(StepEntry(REQUEST, new, context, rows, 0) for new, context, rows in entries))


def prompts(batch: int, tokens: int, chunk: int | None = None) -> tuple[Step, ...]:
    """The steps that feed prompts of the same length."""
    asked = load_system("dgx-h100").config.workload
    alike = [Request(number, 0.0, tokens, 1, 0) for number in range(batch)]
    return run_steps(alike, asked.model_copy(update={"phase": "prefill", "chunk": chunk}))


def test_kernels_of_a_prompt_by_hand() -> None:
    asked = step((100, 160, 0), (100, 160, 0))
    [block] = block_kernels(forward_pass(LLAMA, asked, 4), fused_gate=True)
    products = {name: (work.m, work.n, work.k) for name, work in (*block.projections, *block.ffn)}
    assert products == {
        "qkv": (200, (32 + 2 * 8) * 128 // 4, 4096),
        "proj": (200, 4096, 4096 // 4),
        "fc1": (200, 2 * 14336 // 4, 4096),
        "fc2": (200, 4096, 14336 // 4),
    }
    assert block.attention is None
    [attention] = block.flash
    [part] = attention.parts
    assert (part.requests, part.new_tokens, part.context, part.keys) == (2, 100, 160, 160)
    assert part.pairs == 60 * 100 + 100 * 101 // 2
    assert (attention.heads, attention.kv_heads) == (32 // 4, 8 // 4)
    assert (attention.key_dim, attention.value_dim, attention.key_value_bytes) == (128, 128, 512)
    assert block.attention_macs == 2 * part.pairs * 8 * 256
    assert block.kv_bytes == 2 * 160 * 2 * 512
    assert block.kv_written_bytes == 2 * 100 * 2 * 512
    assert block.kv_cached_bytes == 2 * 60 * 2 * 512
    assert attention.softmax_flops == 5 * 2 * part.pairs * 8
    assert block.reduced_bytes == (200 * 4096 * 2,) * 2


def test_single_tokens_of_one_context_are_what_decoding_has() -> None:
    [block] = block_kernels(forward_pass(GPT, step((1, 90, 1), (1, 90, 1)), 2), fused_gate=True)
    assert [block] == list(block_kernels(decode_step(GPT, 2, 90, 2), fused_gate=True))
    assert block.flash == ()
    assert block.attention is not None
    assert block.attention_macs == 2 * 90 * 16 * 256
    assert block.kv_bytes == block.attention.kv_bytes == 2 * 90 * 16 * 512


def test_a_mixed_step_groups_equal_entries_in_one_launch() -> None:
    asked = step((1, 90, 1), (64, 64, 0), (1, 90, 1), (1, 91, 1), (5, 90, 5))
    [block] = block_kernels(forward_pass(GPT, asked, 1), fused_gate=True)
    assert {work.m for _, work in (*block.projections, *block.ffn)} == {72}
    [attention] = block.flash
    shapes = [(part.requests, part.new_tokens, part.context) for part in attention.parts]
    assert shapes == [(2, 1, 90), (1, 64, 64), (1, 1, 91), (1, 5, 90)]
    pairs = 2 * 90 + 64 * 65 // 2 + 91 + 85 * 5 + 15
    assert block.attention_macs == pairs * 32 * 256
    assert block.kv_bytes == (3 * 90 + 64 + 91) * 32 * 512


def test_a_window_limits_keys() -> None:
    """Gemma's sliding blocks see 512 keys; new tokens 301 to 1000 of the prompt."""
    forward = forward_pass(load_card("gemma-3-270m"), step((700, 1000, 0)), 1)
    blocks = {each.kind: each for each in block_kernels(forward, fused_gate=True)}
    assert {kind: each.flash[0].window for kind, each in blocks.items()} == {
        "sliding": 512, "full": None,
    }  # fmt: skip
    [sliding], [full] = (blocks[kind].flash for kind in ("sliding", "full"))
    growing = sum(range(301, 512))  # keys of tokens that see fewer than the window
    assert (sliding.parts[0].keys, sliding.parts[0].pairs) == (1000, growing + 489 * 512)
    assert (full.parts[0].keys, full.parts[0].pairs) == (1000, 700 * 300 + 700 * 701 // 2)
    late = forward_pass(load_card("gemma-3-270m"), step((100, 1000, 0)), 1)
    blocks = {each.kind: each for each in block_kernels(late, fused_gate=True)}
    token = blocks["full"].kv_written_bytes // 100
    assert blocks["sliding"].kv_bytes == 611 * token
    assert blocks["sliding"].kv_cached_bytes == 511 * token
    assert blocks["full"].kv_cached_bytes == 900 * token


def test_the_block_by_hand() -> None:
    """Three prompts of 48 on four devices: each kernel alone, and their sum."""
    config = load_system("dgx-a100a", ["devices=4"]).config
    result = prefilling(config, GPT, 3, 48)
    xpu, tokens, hidden = config.xpu, 144, 4096
    gemm = {
        "qkv": Product(tokens, 3 * hidden // 4, hidden, b_bytes=2 + _bias(2, hidden)),
        "proj": Product(tokens, hidden, hidden // 4, b_bytes=2 + _bias(2, hidden // 4)),
        "fc1": Product(tokens, hidden, hidden, b_bytes=2 + _bias(2, hidden)),
        "fc2": Product(tokens, hidden, hidden, b_bytes=2 + _bias(2, hidden)),
    }
    for name, product in gemm.items():
        found = 32 * gpu_kernels(xpu).product(product, xpu).time_s
        assert result.gemm_s[name] == pytest.approx(found, rel=1e-3), name
    [block] = block_kernels(forward_pass(GPT, prompts(3, 48)[0], 4), fused_gate=False)
    assert result.parts_s["attention"] == pytest.approx(
        32 * gpu_kernels(xpu).flash(block.flash[0], xpu).time_s
    )
    reduced = all_reduce(tokens * hidden * 2, 4, config.link).time_ps * 1e-12
    assert result.parts_s["communication"] == pytest.approx(32 * 2 * reduced)
    assert result.parts_s["gemm"] == pytest.approx(sum(result.gemm_s.values()))
    macs = 32 * (sum(each.macs for each in gemm.values()) + block.attention_macs)
    assert result.bound_s["xpu_compute"] == pytest.approx(2 * macs / peak_flops(xpu, 2))
    weights = sum(work.stored_bytes for _, work in (*block.projections, *block.ffn))
    moved = 32 * (weights + block.kv_bytes)
    assert result.bound_s["xpu_memory"] == pytest.approx(moved / 3352e9)
    assert block.attention_macs == 3 * (48 * 49 // 2) * 8 * 256


def _bias(element_bytes: int, depth: int) -> float:
    return element_bytes / depth


@pytest.mark.parametrize("name", ["dgx-a100a", "dgx-attacc-bank", "dgx-a100a-cpu"])
def test_chunks_do_the_same_work(name: str) -> None:
    config = load_system(name).config
    results = [prefilling(config, LLAMA, 3, 1000, chunk) for chunk in (None, 1000, 500, 128, 7)]
    assert results[0] == results[1]
    assert [each.steps for each in results] == [1, 1, 2, 8, 143]
    for each in results:
        check_laws(each, 3)
        assert each.steps * each.bound_s["xpu_compute"] == pytest.approx(
            results[0].bound_s["xpu_compute"]
        )
        assert each.need_bytes == results[0].need_bytes
    times = [each.steps * each.step_s for each in results]
    assert all(one < more for one, more in pairwise(times[1:]))


def check_laws(result: MeanStep, batch: int) -> None:
    assert result.step_s >= max(result.bound_s.values())
    assert sum(result.parts_s.values()) == pytest.approx(result.step_s)
    assert all(joule >= 0 for joule in asdict(result.energy_j).values())
    assert result.tokens_per_s * result.steps * result.step_s == pytest.approx(batch * 1000)


def test_logits_are_made_once_however_many_chunks() -> None:
    config = load_system("dgx-a100a", ["workload.outside=true"]).config
    heads = [prefilling(config, GPT, 2, 900, chunk) for chunk in (None, 300)]
    whole, pieces = (each.gemm_s["lm_head"] * each.steps for each in heads)
    assert whole == pytest.approx(pieces)
    steps = prompts(2, 900, 400)
    assert [(each.new_tokens, each.contexts, each.logits, each.made) for each in steps] == [
        ((400, 400), (400, 400), 0, 0),
        ((400, 400), (800, 800), 0, 0),
        ((100, 100), (900, 900), 2, 2),
    ]
    assert output_layer(card_trace(GPT), steps[0], 8) == ()
    [(name, head)] = output_layer(card_trace(GPT), steps[-1], 8)
    assert (name, head.m, head.n, head.k) == ("lm_head", 2, -(-50257 // 8), 4096)
    alone = gpu_kernels(config.xpu).product(head, config.xpu).time_s
    assert whole == pytest.approx(alone)


@pytest.mark.parametrize(("name", "shares"), [("dgx-attacc-bank", 1), ("dgx-a100a-cpu", 4)])
def test_keys_go_to_who_holds_them_and_come_back(name: str, shares: int) -> None:
    """Chunks of 400, 400 and 100: 900 keys go, 400 and 800 come back."""
    config = load_system(name).config
    holder = config.stacks if config.attention == "pim" else config.host
    assert holder is not None
    alone = config.model_copy(update={"attention": "xpu", "overlap": "none", "ffn_split": False})
    there, here = (prefilling(each, GPT, 2, 900, 400) for each in (config, alone))
    moved = 32 * 2 * (900 + 400 + 800) * 2 * (4096 // 8) * 2
    more = 3 * (there.parts_s["communication"] - here.parts_s["communication"])
    assert more == pytest.approx(shares * moved / (holder.transfer_gb_per_s * 1e9))
    joule = 3 * (there.energy_j.link - here.energy_j.link)
    assert joule == pytest.approx(8 * moved * 8 * config.link_pj_per_bit * 1e-12)
    assert there.energy_j.pim == there.energy_j.host == 0
    assert there.parts_s["attention"] == here.parts_s["attention"]


def test_decoding_needs_the_room_that_prefill_needs() -> None:
    config = load_system("dgx-a100a").config
    fed = prefilling(config, LLAMA, 3, 801)
    assert fed.need_bytes == decoding(config, LLAMA, 3, 800, 2).need_bytes


def test_latent_attention_expands_what_is_cached() -> None:
    """DeepSeek's dense blocks: 16 heads of 192 and 128 a device, keys of 60 cached tokens made
    again."""
    dense = load_card("deepseek-v3").model_copy(update={"moe": None})
    forward = forward_pass(dense, step((100, 160, 0), (1, 90, 1)), 8)
    [kernels] = block_kernels(forward, fused_gate=True)
    single, prompt = sorted(kernels.flash, key=lambda each: each.kv_heads)
    assert (prompt.heads, prompt.kv_heads, prompt.key_dim, prompt.value_dim) == (16, 16, 192, 128)
    assert [(part.new_tokens, part.context) for part in prompt.parts] == [(100, 160)]
    assert prompt.key_value_bytes == (192 + 128) * 2
    assert (single.heads, single.kv_heads) == (16, 1)
    assert [(part.new_tokens, part.context) for part in single.parts] == [(1, 90)]
    expansion = dict(kernels.projections)["kv_b"]
    assert (expansion.m, expansion.k) == (160, 512)
    config = load_system("dgx-h100").config
    cost = block_cost(kernels, FixedCosts.of(kernels, config), config)
    assert cost.parts_s["attention"] == pytest.approx(
        sum(gpu_kernels(config.xpu).flash(each, config.xpu).time_s for each in kernels.flash)
    )
    both = flash_cost(kernels.flash, config)
    costs = [gpu_kernels(config.xpu).flash(each, config.xpu) for each in kernels.flash]
    assert both.memory_pj == pytest.approx(sum(each.memory_pj for each in costs))
    assert both.core_pj == pytest.approx(sum(each.core_pj for each in costs))
    assert both.bound == max(costs, key=lambda each: each.time_s).bound


def test_attention_of_several_tokens_is_refused_where_pim_has_it() -> None:
    config = load_system("dgx-attacc-bank").config
    [block] = block_kernels(forward_pass(GPT, step((8, 8, 1)), 8), fused_gate=True)
    with pytest.raises(ValueError, match="is the device's"):
        block_cost(block, FixedCosts.of(block, config), config)
