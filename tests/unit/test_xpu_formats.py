"""Servers of GPUs move the bytes of a model's own formats, whatever its blocks are like."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from tests.gpu_blocks import block_kernels, decode_step

from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.config.resources import find_source, preset_names
from pimsim.engine.xpu_device import build_xpu_devices
from pimsim.engine.xpu_machine import run_xpu_devices
from pimsim.hardware.xpu.tiling import Product, traffic
from pimsim.mapping.kernels import BlockKernels
from pimsim.validate.gpu_steps import decoding
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.operators import ForwardPass, OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import (
    Operand,
    OperandRole,
    OperatorTrace,
    SymbolicOperator,
    load_trace,
)

LLAMA = load_card("llama-3-8b")


def changed(
    trace: OperatorTrace, change: Callable[[SymbolicOperator], SymbolicOperator]
) -> OperatorTrace:
    phases = {
        name: phase.model_copy(
            update={
                "blocks": {
                    kind: tuple(change(each) for each in operators)
                    for kind, operators in phase.blocks.items()
                }
            }
        )
        for name, phase in trace.phases.items()
    }
    return trace.model_copy(update={"phases": phases})


def packed(trace: OperatorTrace) -> OperatorTrace:
    """Weights of products in 4 bits, a scale of 16 for each 32: 9/16 of a byte an element."""

    def change(operator: SymbolicOperator) -> SymbolicOperator:
        if operator.kind is not OperatorKind.GEMM:
            return operator
        size = operator.n * operator.k
        weights = (
            Operand(name="q", role=OperandRole.WEIGHT, dtype="int4", bytes={"1": size // 2}),
            Operand(name="s", role=OperandRole.WEIGHT, dtype="f16", bytes={"1": size // 16}),
        )
        rest = [each for each in operator.operands if each.role is not OperandRole.WEIGHT]
        return operator.model_copy(update={"operands": (*weights, *rest)})

    return changed(trace, change)


def cached_in_4_bits(trace: OperatorTrace) -> OperatorTrace:
    def change(operator: SymbolicOperator) -> SymbolicOperator:
        operands = tuple(
            each.model_copy(update={"bytes": {s: n // 4 for s, n in each.bytes.items()}})
            if each.role is OperandRole.KV
            else each
            for each in operator.operands
        )
        return operator.model_copy(update={"operands": operands})

    facts = trace.facts.model_copy(update={"kv_dtype_bytes": 1})
    return changed(trace, change).model_copy(update={"facts": facts})


def sources() -> dict[str, ModelCard | OperatorTrace]:
    """All cards and traces that are shipped, and made-up formats."""
    found: dict[str, ModelCard | OperatorTrace] = {
        name: load_card(name) for name in preset_names("model")
    }
    found |= {
        f"{name}.trace": load_trace(find_source("operators", name))
        for name in preset_names("operators")
    }
    plain = card_trace(LLAMA)
    return found | {"packed": packed(plain), "4-bit cache": cached_in_4_bits(plain)}


SOURCES = sources()
EXPERTS = {
    name
    for name, each in SOURCES.items()
    if (each.moe is not None if isinstance(each, ModelCard) else each.facts.experts)
}


def products_of(block: BlockKernels) -> list[Product]:
    return [product for _, product in (*block.projections, *block.ffn)]


def heads_of(source: ModelCard | OperatorTrace) -> int:
    return source.heads if isinstance(source, ModelCard) else source.facts.heads


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        (name, devices)
        for name in sorted(set(SOURCES) - EXPERTS)
        for devices in (1, 2)
        if heads_of(SOURCES[name]) % devices == 0
    ],
)
def test_kernels_move_the_bytes_of_the_trace(name: str, devices: int) -> None:
    step: ForwardPass = decode_step(SOURCES[name], batch=3, context=90, devices=devices)
    of_kind = {block.kind: block for block in step.blocks}
    for fused in (True, False):
        blocks = block_kernels(step, fused_gate=fused)
        assert [(each.kind, each.count) for each in blocks] == list(step.model_blocks)
        for kernels in blocks:
            operators = of_kind[kernels.kind].operators
            products = [each for each in operators if each.kind is OperatorKind.GEMM]
            assert sum(each.stored_bytes for each in products_of(kernels)) == sum(
                each.weight_bytes for each in products
            )
            assert sum(2 * each.macs for each in products_of(kernels)) == sum(
                each.flops for each in products
            )
            read = sum(each.kv_read_bytes for each in operators)
            attention = kernels.attention
            assert attention.kv_bytes == read
            assert attention.score.stored_bytes + attention.value.stored_bytes == read
            assert kernels.weight_bytes == sum(each.weight_bytes for each in operators)
            assert kernels.weight_bytes > 0


def test_elements_of_a_packed_format_have_their_share_of_scales() -> None:
    [block] = block_kernels(decode_step(packed(card_trace(LLAMA)), 1, 10, 1), fused_gate=True)
    assert {product.b_bytes for product in products_of(block)} == {Fraction(9, 16)}
    qkv = dict(block.projections)["qkv"]
    assert qkv.stored_bytes == 6144 * 4096 * 9 // 16
    moved = traffic(qkv, load_system("dgx-a100a").config.xpu).memory_bytes
    assert moved == 6144 * 4096 * 9 // 16 + 2 * (4096 + 6144)


def test_a_step_of_packed_weights_reads_less_and_computes_the_same() -> None:
    config = load_system("dgx-a100a", ["devices=1"]).config
    plain, small = (decoding(config, each, 1, 64, 3) for each in (LLAMA, packed(card_trace(LLAMA))))
    cached = plain.bound_s["xpu_memory"] - 32 * 2 * block_elements() / 3352e9
    assert small.bound_s["xpu_memory"] - cached == pytest.approx(
        32 * block_elements() * 9 / 16 / 3352e9
    )
    assert small.bound_s["xpu_compute"] == plain.bound_s["xpu_compute"]
    assert small.step_s < plain.step_s


def block_elements() -> int:
    """Weights of the products of a block of Llama 3 8B."""
    return 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336


def test_a_cache_narrower_than_a_byte_is_read_so_but_not_by_pim() -> None:
    trace = cached_in_4_bits(card_trace(LLAMA))
    [block] = block_kernels(decode_step(trace, 2, 30, 1), fused_gate=True)
    assert block.attention.score.b_bytes == Fraction(1, 2)
    assert block.attention.kv_bytes == 2 * 30 * 2 * 1024 // 2
    with pytest.raises(InputError, match=r"1/2 bytes an element; PIM .* whole bytes"):
        decoding(load_system("dgx-attacc-bank").config, trace, 8, 64, 3)


def test_each_kind_of_block_counts_as_often_as_it_is_there() -> None:
    """Gemma 3 270M: 15 blocks with a window of 512 and 3 without; only these see all tokens."""
    card = load_card("gemma-3-270m")
    blocks = block_kernels(decode_step(card, 1, 2000, 1), fused_gate=True)
    assert {each.kind: (each.count, each.attention.context) for each in blocks} == {
        "sliding": (15, 512), "full": (3, 2000),
    }  # fmt: skip
    names = [each.name for each in blocks[0].add_norms]
    assert sorted(names) == sorted(
        ["qk_norm.q_norm", "qk_norm.k_norm", "post_ln1", "post_ln2", "res1+ln2", "res2+ln1"]
    )
    config = load_system("dgx-a100a", ["devices=1"]).config
    result = decoding(config, card, 1, 1999, 2)
    step = Step.decode([Request(0, 0.0, 2000, 1, 0)])
    kv = 2 * 2 * card.kv_heads * card.head_dim * (15 * 512 + 3 * 2000)
    held = sum(each.count * each.weight_bytes for each in blocks)
    tables = card.vocab * card.hidden * card.dtype_bytes
    assert result.need_bytes == pytest.approx(kv + held + tables, rel=1e-4)
    outcome = run_xpu_devices(build_xpu_devices(config, card, [step]))
    of_kind: dict[str, float] = {}
    for work in outcome.recorder.works:
        of_kind[outcome.device.whole.blocks[work.layer].kind] = work.cost.time_s
    assert result.step_s == pytest.approx(15 * of_kind["sliding"] + 3 * of_kind["full"])
