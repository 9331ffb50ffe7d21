"""Steps: what an entry counts, by hand and against pairs written out; steps of several kinds."""

from __future__ import annotations

from itertools import product

import pytest

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.instantiate import instantiate
from pimsim.workload.operators import Operator, OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.step import Mask, Step, StepEntry

ATTENTION = (OperatorKind.ATTENTION_SCORE, OperatorKind.SOFTMAX, OperatorKind.ATTENTION_VALUE)
SIZES = (
    "flops", "weight_bytes", "input_bytes", "output_bytes", "kv_read_bytes", "kv_write_bytes",
)  # fmt: skip


def request(number: int = 0, prompt: int = 7) -> Request:
    return Request(number, 0.0, prompt, 20, 3)


def seen(entry: StepEntry, window: int | None) -> list[set[int]]:
    """Positions of the keys that each new token attends to."""
    found = []
    for position in range(entry.cached, entry.context):
        last = position if entry.mask is Mask.CAUSAL else entry.context - 1
        first = 0 if window is None else max(last - window + 1, 0)
        found.append(set(range(first, last + 1)))
    return found


@pytest.mark.parametrize("mask", [Mask.CAUSAL])
def test_pairs_and_keys_are_those_of_positions_written_out(mask: Mask) -> None:
    for context, window in product(range(1, 9), [None, 1, 2, 3, 5, 8, 11]):
        for new in range(1, context + 1):
            entry = StepEntry(request(), new, context, mask=mask)
            sets = seen(entry, window)
            assert entry.pairs(window) == sum(map(len, sets)), (context, new, window)
            assert entry.keys(window) == len(set().union(*sets)), (context, new, window)


def test_a_full_mask_sees_all_of_the_context() -> None:
    entry = StepEntry(request(), 4, 10, logits=4, made=0, mask=Mask.FULL)
    assert (entry.pairs(), entry.keys()) == (40, 10)


def test_fed_wanted_and_made_are_three_numbers() -> None:
    piece = StepEntry(request(0), 5, 8, logits=0, made=0)
    draft = StepEntry(request(1), 4, 30, logits=4, made=2)
    decode = StepEntry(request(2), 1, 12)
    step = Step((piece, draft, decode))
    assert (step.tokens, step.logits, step.made) == (10, 5, 3)
    assert [entry.feeds_prompt for entry in step.entries] == [True, False, False]
    assert [entry.cached for entry in step.entries] == [3, 26, 11]
    values = step.symbols([{"P": 1, "K@4": 1}])
    assert values["T"] == 10
    assert values["B"] == 3
    assert values["L"] == 5
    assert values["P"] == (4 + 5 + 6 + 7 + 8) + (27 + 28 + 29 + 30) + 12
    assert values["K@4"] == 8 + 7 + 4


def test_a_step_of_requests() -> None:
    requests = [request(0, 5), request(1, 9)]
    decode = Step.decode(requests)
    assert (decode.contexts, decode.new_tokens, decode.made) == ((8, 12), (1, 1), 2)
    prefill = Step.prefill(requests)
    assert (prefill.contexts, prefill.new_tokens) == ((5, 9), (5, 9))
    assert (prefill.tokens, prefill.logits, prefill.made) == (14, 2, 2)
    assert prefill.token_numbers([1]) == tuple(range(5, 14))
    assert prefill.token_numbers([1, 0]) == (*range(5, 14), *range(5))
    assert prefill.part([1]).requests == (requests[1],)


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ((0, 5, 0, 0), "0 new tokens in a context of 5; 1 to 5 are possible"),
        ((6, 5, 0, 0), "6 new tokens in a context of 5"),
        ((2, 5, 3, 0), "3 rows of logits of 2 new tokens"),
        ((2, 5, -1, -1), "-1 rows of logits"),
        ((2, 5, 1, 2), "2 tokens made of 1 rows of logits"),
    ],
)
def test_numbers_that_contradict_each_other(numbers: tuple[int, ...], problem: str) -> None:
    new, context, logits, made = numbers
    with pytest.raises(ValueError, match=problem):
        StepEntry(request(4), new, context, logits, made)


def totals(step: Step, model: str, attention: bool) -> dict[str, int]:
    block = instantiate(card_trace(load_card(model)), step, layers=None).blocks[0]
    operators = [o for o in block.operators if (o.kind in ATTENTION) == attention]
    return {size: sum(getattr(o, size) for o in operators) for size in SIZES}


@pytest.mark.parametrize("model", preset_names("model"))
def test_attention_of_a_mixed_step_is_that_of_its_parts(model: str) -> None:
    prompt = StepEntry(request(0), 6, 9, logits=1)
    decode = StepEntry(request(1), 1, 14)
    mixed = totals(Step((prompt, decode)), model, attention=True)
    alone = [totals(Step((entry,)), model, attention=True) for entry in (prompt, decode)]
    # of learned sinks each form reads its own
    for size in SIZES[:1] + SIZES[2:]:
        assert mixed[size] == sum(each[size] for each in alone), size


def test_a_mixed_step_of_latent_attention_has_both_forms_once() -> None:
    card = load_card("deepseek-v3")
    prompt, decode = StepEntry(request(0), 6, 6), StepEntry(request(1), 1, 14)
    block = instantiate(card_trace(card), Step((prompt, decode)), layers=None).blocks[0]
    names = [operator.name for operator in block.operators]
    assert card.mla is not None
    for name in ("q_b", "kv_a", "kv_append", "kv_b", "absorb_k", "score", "score.prompt", "proj"):
        assert names.count(name) == 1, name

    def rows(name: str) -> tuple[int, tuple[int, ...]]:
        operator: Operator = block.operator(name)
        return operator.m or operator.rows, operator.entries

    assert rows("q_b") == (7, ())
    assert rows("kv_append") == (7, ())
    assert rows("proj") == (7, ())
    assert rows("kv_b") == (6, (0,))
    assert rows("absorb_k") == (1, (1,))
    assert block.operator("score").kv_heads == 1
    assert block.operator("score.prompt").kv_heads == card.heads
    assert set(block.operator("proj").depends_on) == {"absorb_v", "value.prompt"}
    assert block.operator("value.prompt").depends_on == ("softmax.prompt", "kv_b")


def test_a_latent_is_expanded_for_all_that_is_cached() -> None:
    trace = card_trace(load_card("deepseek-v3"))
    whole = instantiate(trace, Step((StepEntry(request(), 6, 6),)), layers=None).blocks[0]
    piece = instantiate(trace, Step((StepEntry(request(), 2, 6),)), layers=None).blocks[0]
    assert piece.operator("kv_b").m == whole.operator("kv_b").m == 6
    assert piece.operator("kv_a").m == 2
    assert piece.operator("kv_b").flops == whole.operator("kv_b").flops


@pytest.mark.parametrize("model", ["llama-3-8b", "gemma-3-27b", "deepseek-v3", "gpt-oss-120b"])
@pytest.mark.parametrize("chunks", [(3, 4, 5), (1, 11), (6, 6), (12,)])
def test_chunks_of_a_prompt_do_what_the_prompt_does(model: str, chunks: tuple[int, ...]) -> None:
    """Arithmetic of attention and keys written add up; so do all products of new tokens."""
    trace = card_trace(load_card(model))
    whole = instantiate(trace, Step((StepEntry(request(), 12, 12),)), layers=None).blocks[0]
    parts, at = [], 0
    for new in chunks:
        at += new
        is_last = at == 12
        entry = StepEntry(request(), new, at, logits=int(is_last), made=int(is_last))
        parts.append(instantiate(trace, Step((entry,)), layers=None).blocks[0])
    for operator in whole.operators:
        # latents are expanded again, experts drawn anew
        if operator.name == "kv_b" or operator.group.startswith(("expert", "combine")):
            continue
        mine = [part.operator(operator.name) for part in parts]
        assert sum(each.flops for each in mine) == operator.flops, operator.name
        assert sum(each.kv_write_bytes for each in mine) == operator.kv_write_bytes


def test_a_trace_without_prompts_refuses_them() -> None:
    trace = card_trace(load_card("llama-3-8b"))
    decode_only = trace.model_copy(update={"phases": {"decode": trace.phases["decode"]}})
    instantiate(decode_only, Step.decode([request()]), layers=1)
    with pytest.raises(InputError, match="trace of llama-3-8b: it has no prefill"):
        instantiate(decode_only, Step.prefill([request()]), layers=1)


def test_pieces_of_a_latent_read_what_is_cached_from_the_cache() -> None:
    """Of DeepSeek-V3 576 elements a token, once a block: the keys that it expands to are no cache.
    Whole on every device; new tokens' latents are activations."""
    card = load_card("deepseek-v3")
    assert card.mla is not None
    mla, trace = card.mla, card_trace(card)
    cached = mla.kv_lora + mla.rope_dim
    for tp in (1, 4):
        for new, context in ((6, 6), (2, 6), (1, 9)):
            step = Step((StepEntry(request(), new, context, logits=0, made=0),))
            block = instantiate(trace, step, layers=None, tp=tp).blocks[0]
            read = {o.name: o.kv_read_bytes for o in block.operators if o.kv_read_bytes}
            size = (context - new) * cached * card.kv_dtype_bytes
            assert read == ({"kv_b": size} if size else {})
            expand, score = block.operator("kv_b"), block.operator("score")
            assert expand.input_bytes == new * mla.kv_lora * card.dtype_bytes
            assert expand.output_bytes == expand.m * expand.n * card.dtype_bytes
            dim = mla.nope_dim + mla.rope_dim
            made = (new + context) * score.heads * dim * card.dtype_bytes
            assert score.input_bytes == made


def test_a_latent_in_pieces_beside_a_decode_reads_each_once() -> None:
    card = load_card("deepseek-v3")
    assert card.mla is not None
    piece = StepEntry(request(0), 6, 20, logits=0, made=0)
    block = instantiate(
        card_trace(card), Step((piece, StepEntry(request(1), 1, 14))), layers=None
    ).blocks[0]
    read = {o.name: o.kv_read_bytes for o in block.operators if o.kv_read_bytes}
    each = (card.mla.kv_lora + card.mla.rope_dim) * card.kv_dtype_bytes
    assert read == {"kv_b": 14 * each, "score": 14 * each}


def test_two_products_of_a_latent_bring_it_once() -> None:
    """Keys and values expanded by products of their own: the second finds it on chip."""
    trace = card_trace(load_card("deepseek-v3"))
    prefill = trace.phases["prefill"]
    blocks = {}
    for kind, operators in prefill.blocks.items():
        own = []
        for each in operators:
            if "kv_b" in each.depends_on:
                each = each.model_copy(update={"depends_on": (*each.depends_on, "kv_c")})
            own.append(each)
            if each.name == "kv_b":
                own.append(each.model_copy(update={"name": "kv_c", "group": "kv_c"}))
        blocks[kind] = tuple(own)
    phases = {**trace.phases, "prefill": prefill.model_copy(update={"blocks": blocks})}
    step = Step((StepEntry(request(), 2, 6),))
    block = instantiate(trace.model_copy(update={"phases": phases}), step, layers=None).blocks[0]
    assert block.operator("kv_c").m == block.operator("kv_b").m == 6
    read = {o.name: o.kv_read_bytes for o in block.operators if o.kv_read_bytes}
    assert read == {"kv_b": 4 * 576 * 2}
