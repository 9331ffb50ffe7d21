"""Element formats against their closed forms: bits a weight, traffic, room, what refuses them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.degrees import trace_memory_bytes
from pimsim.workload.formats import load_format
from pimsim.workload.instantiate import instantiate
from pimsim.workload.kv_views import load_view
from pimsim.workload.operators import Block
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.stored_cache import packed_cache
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


CACHE_BITS = {
    "int8": 8 + Fraction(16, 128),
    "int4:group=32,zeros=true": 4 + Fraction(16 + 4, 32),
    "int3:group=0": 3 + Fraction(16, 128),
    "fp8": Fraction(8),
    "mxfp4": Fraction(17, 4),
    "nvfp4": Fraction(9, 2),
    "kivi:residual=0": Fraction(3),
    "kivi:bits=4,residual=0": Fraction(5),
    "kivi:group=64,residual=0": Fraction(5, 2),
}
"""Bits an element of a cache with heads of 128."""


def test_every_format_is_tested() -> None:
    tested = {text.partition(":")[0] for text in (*BITS, *CACHE_BITS)}
    assert tested == set(module_names("format"))


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


@pytest.mark.parametrize("text", CACHE_BITS)
@pytest.mark.parametrize("tp", [1, 4])
def test_a_cache_has_the_published_bits_an_element(text: str, tp: int) -> None:
    trace = packed_cache(LLAMA, load_format(text).cache())
    plain, found = block(LLAMA, tp), block(trace, tp)
    for each, own in zip(plain.operators, found.operators, strict=True):
        for what in ("kv_read_bytes", "kv_write_bytes"):
            assert getattr(own, what) == getattr(each, what) * CACHE_BITS[text] / 16
        assert (own.flops, own.weight_bytes, own.input_bytes, own.output_bytes) == (
            each.flops, each.weight_bytes, each.input_bytes, each.output_bytes,
        )  # fmt: skip
    held = [trace_memory_bytes(each, step(100, 7), tp, 1) for each in (LLAMA, trace)]
    assert held[1] == (held[0][0], held[0][1] * CACHE_BITS[text] / 16)
    assert trace.facts.kv_bytes_per_token == LLAMA.facts.kv_bytes_per_token * CACHE_BITS[text] / 16


@pytest.mark.parametrize("contexts", [(1,), (128,), (129, 20), (7000, 128, 127)])
def test_kivi_keeps_the_last_tokens_as_they_are(contexts: tuple[int, ...]) -> None:
    trace = packed_cache(LLAMA, load_format("kivi").cache())
    found = instantiate(trace, step(*contexts), layers=1).blocks[0]
    recent = sum(min(each, 128) for each in contexts)
    read = 8 * 128 * (3 * (sum(contexts) - recent) + 16 * recent) // 8
    assert found.operator("score").kv_read_bytes == found.operator("value").kv_read_bytes == read
    # a token is written as it comes, and packed once it is none of the last
    assert found.operator("kv_append").kv_write_bytes == len(contexts) * 2 * 8 * 128 * (16 + 3) // 8
    assert trace_memory_bytes(trace, step(*contexts), 1, 1)[1] == 32 * 2 * read


def test_windows_keep_their_own_last_tokens() -> None:
    view = load_view("lambda_mask:window=100,sinks=4").model(LLAMA)
    trace = packed_cache(view, load_format("kivi:residual=64").cache())
    small = packed_cache(view, load_format("kivi").cache())
    read = [
        instantiate(each, step(5000), layers=1).blocks[0].operator("score").kv_read_bytes
        for each in (trace, small)
    ]
    assert read == [128 * (3 * 40 + 16 * 64), 128 * 16 * 104]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kivi:bits=3", "bits: found 3"),
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
        load_format(text)
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


@pytest.mark.parametrize(
    ("machine", "text", "ratio"),
    [("npu-only", "int4", 16 / 4.125), ("npu-only", "kivi:residual=0", 16 / 3),
     ("dgx-h100", "kivi", 16 * 1509 / (16 * 128 + 3 * 1381))],
)  # fmt: skip
def test_a_run_reads_a_packed_cache(tiny_card: Path, machine: str, text: str, ratio: float) -> None:
    small = ("devices=1",) if machine == "dgx-h100" else SMALL
    plain, found = (
        pimsim.run(
            machine, model=tiny_card, requests="equal:1500+9", layers=1,
            overrides=[*small, f"workload.kv_format={each}"],
        )
        for each in ("none", text)
    )  # fmt: skip
    read = [
        sum(o.bytes for o in each.operators if o.name in ("score", "value", "attention"))
        for each in (plain, found)
    ]
    assert read[0] / read[1] == pytest.approx(ratio, rel=0.02)
    assert found.iteration_s < plain.iteration_s


def test_a_round_verifies_packed_weights(tiny_card: Path) -> None:
    both = run(
        "npu-only", tiny_card, "workload.weight_format=int4", "workload.kv_format=fp8",
        "workload.decoding=prompt_lookup:tokens=2,drafts=3",
    )  # fmt: skip
    alone = run("npu-only", tiny_card, "workload.decoding=prompt_lookup:tokens=2,drafts=3")
    assert both.decoding is not None and both.tokens_per_s > alone.tokens_per_s


@pytest.mark.parametrize(
    ("machine", "more", "words"),
    [
        ("npu-only", ["workload.weight_format=unstructured:index=none"], "nothing is saved"),
        ("npu-only", ["workload.weight_format=kivi"], "it is a format of KV caches"),
        ("npu-only", ["workload.kv_format=unstructured"], "it is a format of weights"),
        ("npu-only", ["workload.kv_format=kivi"], "tokens of one size; allowed: residual=0"),
        ("npu-only", ["workload.kv_format=int8:group=1"], "nothing is saved"),
        ("npu-only", ["workload.kv_format=int5"], "kv_format: found 'int5'"),
        ("npu-pim", ["workload.kv_format=int8"], "beside attention on PIM, which multiplies keys"),
        ("dgx-attacc-bank", ["workload.kv_format=fp8"], "beside attention on PIM"),
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


def test_latents_are_not_packed() -> None:
    with pytest.raises(InputError, match=r"model deepseek-v3 keeps latents \(MLA\)"):
        packed_cache(card_trace(load_card("deepseek-v3")), load_format("fp8").cache())


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
