"""Element formats against their closed forms: bits a weight, traffic, room, what refuses them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

import pimsim
from pimsim.config.element_format import format_settings
from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.degrees import trace_memory_bytes
from pimsim.workload.formats import load_format
from pimsim.workload.instantiate import instantiate
from pimsim.workload.operators import Block
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.stored_weights import quantised
from pimsim.workload.trace import OperatorTrace

LLAMA = card_trace(load_card("llama-3-8b"))
MIXTRAL = card_trace(load_card("mixtral-8x7b"))
HALF = Fraction(1, 2)
BITS = {
    "int8": 8 + Fraction(16, 128),
    "int8:group=0": 8 + Fraction(16, 4096),
    "int4": 4 + Fraction(16, 128),
    "int4:group=64,zeros=true": 4 + Fraction(16 + 4, 64),
    "int3": 3 + Fraction(16, 128),
    "int3:group=32,zeros=true": 3 + Fraction(16 + 3, 32),
    "fp8": 8 + Fraction(32, 128 * 128),
    "mxfp4": Fraction(17, 4),
    "nvfp4": Fraction(9, 2),
    "semi_structured": HALF * 16 + 1,
    "semi_structured:keeps=4,of=8": HALF * 16 + Fraction(3, 2),
    "semi_structured:bits=4,group=64": HALF * 4 + 1 + Fraction(16, 64),
    "semi_structured:keeps=1,of=4,bits=8": 2 + HALF + Fraction(16, 128),
    "unstructured": HALF * 16 + 1,
    "unstructured:zeros=0.75": Fraction(16, 4) + 1,
    "unstructured:bits=4": HALF * 4 + 1 + Fraction(16, 128),
}
"""Bits a weight of a matrix of 4096 inputs, as published."""


def step(*contexts: int) -> Step:
    return Step(tuple(StepEntry(Request(i, 0.0, c, 9, 0), 1, c, 1) for i, c in enumerate(contexts)))


def packed(trace: OperatorTrace, text: str) -> OperatorTrace:
    return quantised(trace, load_format(text).weights(16))


def block(trace: OperatorTrace, tp: int = 1) -> Block:
    return instantiate(trace, step(100, 7), layers=1, tp=tp).blocks[0]


def test_every_format_is_tested() -> None:
    assert {text.partition(":")[0] for text in BITS} == set(module_names("format"))


@pytest.mark.parametrize("text", BITS)
def test_a_matrix_has_the_published_bits_a_weight(text: str) -> None:
    pieces = load_format(text).weights(16).pieces(4096, 1024)
    assert 8 * sum(size for _, size in pieces.values()) == BITS[text] * 4096 * 1024


@pytest.mark.parametrize("text", [each for each in BITS if each != "int8:group=0"])
@pytest.mark.parametrize("tp", [1, 4])
def test_products_read_that_and_nothing_else_changes(text: str, tp: int) -> None:
    plain, found = block(LLAMA, tp), block(packed(LLAMA, text), tp)
    for each, own in zip(plain.operators, found.operators, strict=True):
        if each.kind == "gemm":
            assert own.weight_bytes == each.weight_bytes * BITS[text] / 16
        else:
            assert own == each
        assert (own.flops, own.input_bytes, own.kv_read_bytes) == (
            each.flops, each.input_bytes, each.kv_read_bytes,
        )  # fmt: skip


@pytest.mark.parametrize("text", ["int4", "mxfp4", "semi_structured"])
def test_room_is_that_of_the_products_alone(text: str) -> None:
    found, facts = packed(LLAMA, text), LLAMA.facts
    products = 32 * (4096 * (4096 + 2 * 1024) + 4096**2 + 3 * 4096 * 14336)
    saved = products * 2 * (1 - BITS[text] / 16)
    assert facts.parameter_bytes - found.facts.parameter_bytes == saved
    assert found.facts.parameters == facts.parameters
    held = [trace_memory_bytes(each, step(100), 1, 1)[0] for each in (LLAMA, found)]
    assert held[0] - held[1] == saved


def test_experts_are_stored_so_and_the_router_is_not() -> None:
    plain, found = block(MIXTRAL), block(packed(MIXTRAL, "nvfp4"))
    for name in ("expert_fc1", "expert_fc2", "qkv"):
        assert found.operator(name).weight_bytes == plain.operator(name).weight_bytes * 4.5 / 16
    assert found.operator("router") == plain.operator("router")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("int4:group=-1", "group: found -1"),
        ("int4:grup=64", "did you mean 'group'"),
        ("int5", "did you mean 'int"),
        ("semi_structured:keeps=4", "keeps is 4 of 4: it must be less"),
        ("semi_structured:bits=5", "bits: found 5"),
        ("unstructured:zeros=1", "zeros: found 1"),
        ("unstructured:index=bitmask", "did you mean 'bitmap'"),
        ("mxfp4:group=16", "group"),
        ("none:group=3", "'none' has no keys"),
    ],
)
def test_a_wrong_text_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        format_settings(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


# runs ---------------------------------------------------------------------------------------------

SMALL = (
    "memory.organization.channels=2", "npu.systolic.rows=32", "npu.systolic.cols=16",
    "npu.systolic.arrays=2", "parallel.tp=1",
)  # fmt: skip


def run(machine: str, card: Path, *more: str) -> pimsim.Result:
    small = {"dgx-h100": ("devices=1",), "npu-only": SMALL, "npu-pim": SMALL}.get(machine, ())
    return pimsim.run(
        machine, model=card, requests="equal:100+9", layers=1, overrides=[*small, *more]
    )


@pytest.mark.parametrize("machine", ["npu-only", "npu-pim", "dgx-h100"])
def test_a_run_streams_packed_weights(tiny_card: Path, machine: str) -> None:
    plain = run(machine, tiny_card)
    found = run(machine, tiny_card, "workload.weight_format=int4")
    read = [{o.name: o.bytes for o in each.operators} for each in (plain, found)]
    for name in ("qkv", "fc2"):
        assert read[0][name] / read[1][name] == pytest.approx(16 / 4.125, rel=0.06)
    assert found.iteration_s < plain.iteration_s
    assert {o.name: o.flops for o in found.operators} == {o.name: o.flops for o in plain.operators}


def test_a_round_verifies_packed_weights(tiny_card: Path) -> None:
    both = run(
        "npu-only", tiny_card, "workload.weight_format=int4",
        "workload.decoding=prompt_lookup:tokens=2,drafts=3",
    )  # fmt: skip
    alone = run("npu-only", tiny_card, "workload.decoding=prompt_lookup:tokens=2,drafts=3")
    assert both.decoding is not None and both.tokens_per_s > alone.tokens_per_s


@pytest.mark.parametrize(
    ("machine", "more", "words"),
    [
        ("npu-only", ["workload.weight_format=unstructured:index=none"], "nothing is saved"),
        (
            "npu-only", ["workload.weight_format=semi_structured:keeps=2,of=3"],
            "its 512 inputs are no multiple of 3, of which the format keeps 2",
        ),
        (
            "ianus", ["workload.weight_format=int8"],
            "schedule.product_placement 'auto': PIM multiplies weights as they lie",
        ),
        (
            "npu-only", ["workload.weight_format=int8", "workload.sparsity=law:relu"],
            "workload.sparsity 'law:relu': features are skipped",
        ),
        (
            "dgx-attacc-bank", ["workload.weight_format=int8", "ffn_split=true"],
            "ffn_split: PIM multiplies",
        ),
    ],
)  # fmt: skip
def test_a_run_that_cannot_store_so_says_why(
    tiny_card: Path, machine: str, more: list[str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(machine, tiny_card, *more)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_experts_on_pim_lie_whole(tmp_path: Path, tiny_card: Path) -> None:
    card = tmp_path / "moe.yaml"
    card.write_text(
        tiny_card.read_text() + "moe: {experts: 4, experts_per_token: 2, expert_hidden: 256}\n"
    )
    with pytest.raises(InputError) as caught:
        run("npu-pim", card, "workload.weight_format=int4")
    assert "schedule.expert_placement 'by-tokens': PIM multiplies" in str(caught.value)
    found = run("npu-pim", card, "workload.weight_format=int4", "schedule.expert_placement=npu")
    assert any(o.name.startswith("expert_fc1") for o in found.operators)
