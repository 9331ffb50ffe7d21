"""A decode step's operators: expected values are formulas over the card's names."""

from __future__ import annotations

import pytest

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, load_card, parallelism
from pimsim.workload.decode import card_pass, fits_memory, memory_need
from pimsim.workload.operators import Block, ForwardPass, Operator, OperatorKind
from pimsim.workload.pipeline import Room
from pimsim.workload.requests import Request
from pimsim.workload.step import Step


def batch(*contexts: int) -> tuple[Request, ...]:
    return tuple(
        Request(id=i, arrival_s=0.0, prompt_tokens=context, output_tokens=1, generated_tokens=0)
        for i, context in enumerate(contexts)
    )


CONTEXTS = (17, 512, 3)
TOTAL = sum(CONTEXTS)
B = len(CONTEXTS)

# those whose block is the plain one; the others are in test_workload_architectures.py
PLAIN = [
    card
    for card in map(load_card, preset_names("model"))
    if card.moe is None and card.mla is None and card.window is None
]
MODELS = pytest.mark.parametrize("card", PLAIN, ids=lambda card: card.name)


def names(iteration: ForwardPass) -> list[str]:
    return [operator.name for operator in iteration.blocks[0].operators]


def test_gpt_block_in_order() -> None:
    iteration = card_pass(load_card("gpt3-7b"), Step.decode(batch(*CONTEXTS)))
    assert " ".join(names(iteration)) == (
        "ln1 qkv kv_append score softmax value proj allreduce1 res1 ln2 fc1 act fc2 allreduce2 res2"
    )


def test_rope_comes_between_projection_and_cache() -> None:
    iteration = card_pass(load_card("llama-3-8b"), Step.decode(batch(*CONTEXTS)))
    assert names(iteration)[1:5] == ["qkv", "rope", "kv_append", "score"]
    assert iteration.blocks[0].operator("kv_append").depends_on == ("rope",)
    assert iteration.blocks[0].operator("score").depends_on == ("rope", "kv_append")


def test_one_device_has_nothing_to_reduce() -> None:
    iteration = card_pass(load_card("gpt3-7b"), Step.decode(batch(*CONTEXTS)), tp=1)
    assert not any(o.kind is OperatorKind.COLLECTIVE for o in iteration.blocks[0].operators)
    assert iteration.blocks[0].operator("res1").depends_on == ("proj",)
    assert iteration.blocks[0].operator("res2").depends_on == ("fc2", "res1")


def test_without_append_nothing_is_written_and_nothing_waits_for_it() -> None:
    iteration = card_pass(load_card("gpt3-7b"), Step.decode(batch(*CONTEXTS)), append_kv=False)
    assert not iteration.blocks[0].has("kv_append")
    assert iteration.kv_write_bytes == 0
    assert iteration.blocks[0].operator("score").depends_on == ("qkv",)
    assert iteration.blocks[0].operator("value").depends_on == ("softmax",)


@MODELS
def test_gemm_shapes(card: ModelCard) -> None:
    iteration = card_pass(card, Step.decode(batch(*CONTEXTS)))
    gate = 2 if card.ffn_gated else 1
    expected = {
        "qkv": ((card.heads + 2 * card.kv_heads) * card.head_dim // card.tp, card.hidden),
        "proj": (card.hidden, card.heads * card.head_dim // card.tp),
        "fc1": (gate * card.ffn_hidden // card.tp, card.hidden),
        "fc2": (card.hidden, card.ffn_hidden // card.tp),
    }
    gemms = {o.name: o for o in iteration.blocks[0].operators if o.kind is OperatorKind.GEMM}
    assert set(gemms) == set(expected)
    for name, (n, k) in expected.items():
        gemm = gemms[name]
        assert (gemm.m, gemm.n, gemm.k) == (B, n, k)
        assert gemm.flops == 2 * B * n * k
        biased = card.bias or (card.qkv_bias and name == "qkv")
        assert gemm.weight_bytes == (k * n + (n if biased else 0)) * card.dtype_bytes
        assert gemm.input_bytes == B * k * card.dtype_bytes
        assert gemm.output_bytes == B * n * card.dtype_bytes


@MODELS
def test_attention_sizes(card: ModelCard) -> None:
    iteration = card_pass(card, Step.decode(batch(*CONTEXTS)))
    heads, kv_heads = card.heads // card.tp, card.kv_heads // card.tp
    features = B * heads * card.head_dim * card.dtype_bytes
    scores = heads * TOTAL * card.dtype_bytes
    for name, into, out in (("score", features, scores), ("value", scores, features)):
        operator = iteration.blocks[0].operator(name)
        assert (operator.heads, operator.kv_heads, operator.head_dim) == (
            heads,
            kv_heads,
            card.head_dim,
        )
        assert operator.flops == 2 * heads * card.head_dim * TOTAL
        assert operator.kv_read_bytes == kv_heads * card.head_dim * TOTAL * card.kv_dtype_bytes
        assert (operator.input_bytes, operator.output_bytes) == (into, out)
    softmax = iteration.blocks[0].operator("softmax")
    assert (softmax.rows, softmax.width) == (heads * B, max(CONTEXTS))
    assert softmax.input_bytes == softmax.output_bytes == scores


@MODELS
def test_append_writes_one_key_and_one_value_per_request(card: ModelCard) -> None:
    iteration = card_pass(card, Step.decode(batch(*CONTEXTS)))
    per_token = 2 * card.kv_heads // card.tp * card.head_dim * card.kv_dtype_bytes
    assert iteration.blocks[0].operator("kv_append").kv_write_bytes == B * per_token
    assert iteration.kv_write_bytes == iteration.layers * B * per_token
    assert iteration.kv_read_bytes == iteration.layers * TOTAL * per_token


@MODELS
def test_vector_work_covers_the_whole_hidden_state(card: ModelCard) -> None:
    iteration = card_pass(card, Step.decode(batch(*CONTEXTS)))
    state = B * card.hidden * card.dtype_bytes
    for name in ("ln1", "ln2", "res1", "res2"):
        operator = iteration.blocks[0].operator(name)
        assert (operator.rows, operator.width) == (B, card.hidden)
        assert operator.output_bytes == state
        assert operator.input_bytes == (2 if name.startswith("res") else 1) * state
    gate = 2 if card.ffn_gated else 1
    act = iteration.blocks[0].operator("act")
    assert (act.rows, act.width) == (B, card.ffn_hidden // card.tp)
    assert act.input_bytes == gate * act.output_bytes


# The arithmetic of one element, step by step; a transcendental is one operation.
LAYERNORM = ["sum", "- mean", "square", "sum", "* 1/sigma", "* gain", "+ shift"]
RMSNORM = ["square", "sum", "* 1/rms", "* gain"]
GELU = ["x*x", "*x", "*0.044715", "+x", "*c", "tanh", "+1", "*x", "/2"]
SILU = ["-x", "exp", "+1", "x/"]
SOFTMAX = ["max", "- max", "exp", "sum", "/ sum"]
ROPE = ["* cos", "* sin", "+"]


@pytest.mark.parametrize(
    ("name", "norm", "activation"),
    [("gpt3-7b", LAYERNORM, GELU), ("llama-3-8b", RMSNORM, [*SILU, "* gate"])],
)
def test_vector_arithmetic_per_element(name: str, norm: list[str], activation: list[str]) -> None:
    card = load_card(name)
    iteration = card_pass(card, Step.decode(batch(*CONTEXTS)))
    heads, kv_heads = card.heads // card.tp, card.kv_heads // card.tp
    expected = {
        "ln1": len(norm) * B * card.hidden,
        "ln2": len(norm) * B * card.hidden,
        "softmax": len(SOFTMAX) * heads * TOTAL,
        "act": len(activation) * B * card.ffn_hidden // card.tp,
        "res1": B * card.hidden,
        "res2": B * card.hidden,
    }
    if card.rope:
        expected["rope"] = len(ROPE) * B * (heads + kv_heads) * card.head_dim
    for operator, flops in expected.items():
        assert iteration.blocks[0].operator(operator).flops == flops


def test_iteration_says_what_it_is() -> None:
    card = load_card("gpt3-175b")
    requests = batch(*CONTEXTS)
    iteration = card_pass(card, Step.decode(requests))
    assert (iteration.model, iteration.tokens) == ("gpt3-175b", B)
    assert (iteration.contexts, iteration.requests) == (CONTEXTS, requests)
    assert iteration.layers == card.layers // card.pp
    assert (iteration.tp, iteration.pp) == (card.tp, card.pp)
    assert (iteration.dtype_bytes, iteration.kv_dtype_bytes) == (2, 2)


def test_layers_may_be_overridden_and_scale_the_sums() -> None:
    card = load_card("gpt3-7b")
    one = card_pass(card, Step.decode(batch(*CONTEXTS)), layers=1)
    seven = card_pass(card, Step.decode(batch(*CONTEXTS)), layers=7)
    assert one.flops == sum(operator.flops for operator in one.blocks[0].operators)
    for size in ("flops", "weight_bytes", "input_bytes", "output_bytes", "kv_read_bytes"):
        assert getattr(seven, size) == 7 * getattr(one, size) > 0


def test_generated_tokens_are_part_of_the_context() -> None:
    request = Request(id=0, arrival_s=0.0, prompt_tokens=5, output_tokens=9, generated_tokens=4)
    assert card_pass(load_card("gpt3-7b"), Step.decode([request])).contexts == (5 + 4,)


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="a step without entries"):
        Step.decode([])


def test_context_beyond_the_model_is_refused() -> None:
    card = load_card("gpt3-7b")
    card_pass(card, Step.decode(batch(card.max_context)))
    with pytest.raises(InputError, match=rf"request 1 .* {card.max_context + 1} tokens"):
        card_pass(card, Step.decode(batch(1, card.max_context + 1)))


@pytest.mark.parametrize("layers", [0, -1])
def test_layers_must_be_positive(layers: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        card_pass(load_card("gpt3-7b"), Step.decode(batch(1)), layers=layers)


def test_tp_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"heads \(32\) cannot be shared by tp 3; .*1, 2, 4, 8"):
        card_pass(load_card("llama-3-8b"), Step.decode(batch(1)), tp=3)


def test_devices_beyond_the_key_heads_hold_the_same_ones() -> None:
    card = load_card("llama-3-8b")
    tp = 2 * card.kv_heads
    score = card_pass(card, Step.decode(batch(*CONTEXTS)), tp=tp).blocks[0].operator("score")
    assert (score.heads, score.kv_heads) == (card.heads // tp, 1)
    assert score.kv_read_bytes == TOTAL * card.head_dim * card.kv_dtype_bytes
    qkv = card_pass(card, Step.decode(batch(1)), tp=tp).blocks[0].operator("qkv")
    assert qkv.n == (card.heads // tp + 2) * card.head_dim


def test_a_model_fits_exactly_its_need_and_not_a_byte_less() -> None:
    card, requests = load_card("gpt3-7b"), batch(*CONTEXTS)
    need = memory_need(card, Step.decode(requests))
    fits = fits_memory(card, Step.decode(requests), None, None, Room(need.total_bytes))
    assert fits == (need,)
    last = len(CONTEXTS) - 1
    size = 2 * card.heads * card.head_dim * card.kv_dtype_bytes * card.layers * CONTEXTS[-1]
    each = size / parallelism(card).tp / 2**20
    with pytest.raises(
        InputError,
        match=rf"gpt3-7b .*GiB on each device \(weights .*, KV .*\).*: request {last} with "
        rf"{CONTEXTS[-1]} tokens is the first without room: its KV cache takes {each:.1f} MiB, "
        rf"{each:.1f} MiB are left",
    ):
        fits_memory(card, Step.decode(requests), None, None, Room(need.total_bytes - 1))
    with pytest.raises(InputError, match="its weights alone take more: take more devices"):
        fits_memory(card, Step.decode(requests), None, None, Room(need.weights_bytes - 1))


def test_refusal_names_the_sizes_in_gib() -> None:
    card, gib = load_card("gpt3-175b"), 2**30
    need = memory_need(card, Step.decode(batch(2048)), 1, 1)
    with pytest.raises(InputError) as caught:
        fits_memory(card, Step.decode(batch(2048)), 1, 1, Room(32 * gib))
    message = str(caught.value)
    for size in (need.total_bytes, need.weights_bytes, need.kv_bytes, 32 * gib):
        assert f"{size / gib:.2f}" in message


def test_kv_need_is_the_cache_of_the_devices_layers_for_all_batches_under_way() -> None:
    card = load_card("gpt3-30b")
    per_token = 2 * card.kv_heads // card.tp * card.head_dim * card.kv_dtype_bytes
    of_batch = TOTAL * per_token * (card.layers // card.pp)
    assert card.pp == 2
    assert memory_need(card, Step.decode(batch(*CONTEXTS))).kv_bytes == 2 * of_batch
    assert memory_need(card, Step.decode(batch(*CONTEXTS)), batches=1).kv_bytes == of_batch


def test_vocabulary_is_cut_over_the_devices_and_rounded_up() -> None:
    card = load_card("gpt3-7b")
    one_more = card.model_copy(update={"vocab": card.vocab + card.tp})
    row = card.hidden * card.dtype_bytes
    assert card.vocab % card.tp == 1  # so that up and down differ
    blocks = card_pass(card, Step.decode(batch(1))).weight_bytes
    rows = card.vocab // card.tp + 1
    outside = rows * row + card.max_context * row + card.norm_parameters * card.dtype_bytes
    assert memory_need(card, Step.decode(batch(1))).weights_bytes == blocks + outside
    assert memory_need(one_more, Step.decode(batch(1))).weights_bytes == blocks + outside + row


def test_untied_output_layer_is_a_second_table_unless_another_stage_has_it() -> None:
    untied = load_card("llama-3-8b")
    tied = untied.model_copy(update={"tied_embeddings": True})
    table = untied.vocab * untied.hidden * untied.dtype_bytes
    extra = {
        pp: memory_need(untied, Step.decode(batch(1)), 1, pp).weights_bytes
        - memory_need(tied, Step.decode(batch(1)), 1, pp).weights_bytes
        for pp in (1, 2)
    }
    assert extra == {1: table, 2: 0}


def _pass(*operators: Operator) -> ForwardPass:
    return ForwardPass(
        model="m",
        step=Step.decode(batch(1)),
        blocks=(Block("decoder", operators),),
        model_blocks=(("decoder", 1),),
        layer_numbers=(0,),
        tp=1,
        pp=1,
        dtype_bytes=2,
        kv_dtype_bytes=2,
    )


def test_an_iteration_out_of_dependency_order_cannot_be_made() -> None:
    first = Operator(name="a", kind=OperatorKind.NORM)
    second = Operator(name="b", kind=OperatorKind.NORM, depends_on=("a",))
    assert _pass(first, second).blocks[0].has("b")
    with pytest.raises(ValueError, match="'b' depends on 'a'"):
        _pass(second, first)


def test_an_iteration_with_a_name_twice_cannot_be_made() -> None:
    operator = Operator(name="a", kind=OperatorKind.NORM)
    with pytest.raises(ValueError, match="'a' is there twice"):
        _pass(operator, operator)


def test_asking_for_an_operator_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="qkv"):
        _pass().blocks[0].operator("qkv")


# (card field, changed value) -> every field of a card must move some number of the iteration or
# of the memory need: a value without effect is a bug.
KNOBS = {
    "layers": 64,
    "hidden": 8192,
    "heads": 64,
    "kv_heads": 16,
    "head_dim": 64,
    "ffn_hidden": 32768,
    "ffn_gated": False,
    "activation": "relu",
    "norm": "layernorm",
    "bias": True,
    "rope": False,
    "vocab": 1000,
    "tied_embeddings": True,
    "dtype_bytes": 1,
    "kv_dtype_bytes": 1,
    "tp": 2,
    "pp": 2,
    "qkv_bias": True,
    "qk_norm": "head",
    "post_norms": True,
    "attention_sinks": True,
    "embed_scale": True,
    "rope_dim": 64,
    "window": {"size": 2},
    "moe": {"experts": 4, "experts_per_token": 2, "expert_hidden": 64},
    "mla": {"q_lora": 64, "kv_lora": 64, "nope_dim": 64, "rope_dim": 32, "v_dim": 64},
}


@pytest.mark.parametrize("field", KNOBS)
def test_no_field_of_a_card_is_without_effect(field: str) -> None:
    before = load_card("llama-3-8b")
    after = ModelCard.model_validate({**before.model_dump(), field: KNOBS[field]})
    assert _numbers(before) != _numbers(after)


def _numbers(card: ModelCard) -> tuple[object, ...]:
    requests = batch(*CONTEXTS)
    need, phases = memory_need(card, Step.decode(requests)), card_trace(card).phases
    return card_pass(card, Step.decode(requests)), need, phases


def test_rows_of_the_position_table_may_differ_from_the_longest_context() -> None:
    card = load_card("gpt3-7b")
    more = ModelCard.model_validate({**card.model_dump(), "positions": card.max_context + 2})
    extra = 2 * card.hidden * card.dtype_bytes
    assert memory_need(more, Step.decode(batch(1))).weights_bytes == (
        memory_need(card, Step.decode(batch(1))).weights_bytes + extra
    )


def test_the_knobs_are_all_fields_but_the_labels_and_the_limit() -> None:
    assert set(KNOBS) == set(ModelCard.model_fields) - {
        "name", "source", "max_context", "positions",
    }  # fmt: skip


def test_norms_behind_attention_and_network_come_before_their_residuals() -> None:
    card = load_card("llama-3-8b").model_copy(update={"post_norms": True})
    block = card_pass(card, Step.decode(batch(5)), tp=1).blocks[0]
    assert {
        name: block.operator(name).depends_on
        for name in ("post_ln1", "res1", "ln2", "post_ln2", "res2")
    } == {
        "post_ln1": ("proj",), "res1": ("post_ln1",), "ln2": ("res1",), "post_ln2": ("fc2",),
        "res2": ("post_ln2", "res1"),
    }  # fmt: skip
