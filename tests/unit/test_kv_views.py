"""Views of the KV cache against their closed forms: keys, bytes, arithmetic, rotation, room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.mapping.attention_tasks import chosen_spans
from pimsim.mapping.kv_cache import KEYS
from pimsim.mapping.linear_kv import LinearLayout
from pimsim.simulate import resolve
from pimsim.technique_runs import left_of
from pimsim.workload.arithmetic import ROPE_FLOPS
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.degrees import trace_memory_bytes
from pimsim.workload.instantiate import instantiate
from pimsim.workload.kv_views import load_view
from pimsim.workload.operators import Block
from pimsim.workload.requests import Request, load_requests
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.trace import OperatorTrace

LLAMA = card_trace(load_card("llama-3-8b"))
H, KV, DIM = 32, 8, 128
EXAMPLES = {
    "gemfilter": "gemfilter:blocks=1,budget=64",
    "deepseek_sparse": "deepseek_sparse",
    "lambda_mask": "lambda_mask:window=40,sinks=4", "snapkv": "snapkv:budget=64",
    "streaming_llm": "streaming_llm", "quest": "quest:budget=64,dense=1",
}  # fmt: skip
"""One valid text for each view."""


def step(*contexts: int, new: int = 1) -> Step:
    return Step(
        tuple(StepEntry(Request(i, 0.0, c, 9, 0), new, c, 1) for i, c in enumerate(contexts))
    )


def block(trace: OperatorTrace, asked: Step, tp: int = 1) -> Block:
    return instantiate(trace, asked, layers=1, tp=tp).blocks[0]


def test_every_view_is_tested() -> None:
    assert set(EXAMPLES) == set(module_names("kv_view"))


@pytest.mark.parametrize("contexts", [(30, 44, 45, 1000), (44,), (7000, 7000)])
def test_a_query_reads_the_window_and_the_sinks(contexts: tuple[int, ...]) -> None:
    found = block(load_view(EXAMPLES["lambda_mask"]).model(LLAMA), step(*contexts))
    read = sum(min(c, 44) for c in contexts)
    score, value = found.operator("score"), found.operator("value")
    assert score.flops == value.flops == 2 * read * H * DIM
    assert score.kv_read_bytes == value.kv_read_bytes == 2 * read * KV * DIM
    assert found.operator("kv_append").kv_write_bytes == len(contexts) * 2 * 2 * KV * DIM
    whole = block(LLAMA, step(*contexts))
    assert found.operator("qkv") == whole.operator("qkv")
    # keys are cached unrotated: queries are turned once, each key whenever it is read
    assert found.operator("rope").rows == len(contexts) * H
    turned = found.operator("rotate_keys")
    assert turned.rows == read * KV and turned.flops == ROPE_FLOPS * read * KV * DIM
    assert turned.input_bytes == turned.kv_read_bytes == 0
    assert turned.depends_on == ("kv_append",) and "rotate_keys" in score.depends_on


def test_the_published_bytes_are_c_over_window_and_sinks() -> None:
    context = 32_768
    view = load_view("lambda_mask").model(LLAMA)
    longer = LLAMA.model_copy(
        update={"facts": LLAMA.facts.model_copy(update={"max_context": context})}
    )
    bytes_of = [
        block(each, step(context)).operator("score").kv_read_bytes for each in (view, longer)
    ]
    assert bytes_of[1] * (4096 + 10) == bytes_of[0] * context


def test_what_is_between_is_evicted() -> None:
    view = load_view(EXAMPLES["lambda_mask"]).model(LLAMA)
    held = trace_memory_bytes(view, step(5000, 20), 1, 1)[1]
    assert held == (44 + 20) * LLAMA.facts.kv_bytes_per_token
    assert trace_memory_bytes(LLAMA, step(5000, 20), 1, 1)[1] == 5020 * 131_072


def test_queries_that_are_turned_leave_keys_as_they_lie() -> None:
    text = EXAMPLES["lambda_mask"] + ",rotation=queries"
    found = block(load_view(text).model(LLAMA), step(500))
    assert not found.has("rotate_keys")
    assert found.operator("rope") == block(LLAMA, step(500)).operator("rope")


def test_devices_share_heads_of_keys_that_are_turned() -> None:
    found = block(load_view("streaming_llm").model(LLAMA), step(5000), tp=4)
    assert found.operator("rotate_keys").rows == 2048 * KV // 4
    assert found.operator("score").kv_read_bytes == 2 * 2048 * KV * DIM // 4


def test_a_prompt_sees_the_same_part() -> None:
    view = load_view("lambda_mask:window=3,sinks=1").model(LLAMA)
    score = block(view, step(6, new=6)).operator("score")
    assert score.flops == 2 * (1 + 2 + 3 + 4 + 4 + 4) * H * DIM


def test_windows_of_the_model_that_are_smaller_stay() -> None:
    gemma = card_trace(load_card("gemma-3-27b"))
    view = load_view("streaming_llm:window=2000,sinks=48").model(gemma)
    small = load_view("streaming_llm:window=100,sinks=28").model(gemma)
    windows = [
        {o.window for kind in each.phases["decode"].blocks.values() for o in kind if o.window}
        for each in (gemma, view, small)
    ]
    assert windows == [{1024}, {1024, 2048}, {128}]


def test_models_without_a_rotary_embedding_turn_nothing() -> None:
    view = load_view("streaming_llm").model(card_trace(load_card("gpt3-7b")))
    assert not block(view, step(5000)).has("rotate_keys")


def test_a_prompt_that_is_cut_keeps_what_it_generates() -> None:
    asked = [Request(i, 0.0, prompt, 99, made) for i, (prompt, made) in enumerate(CUT)]
    left = load_view("snapkv:budget=64").requests(asked)
    assert [each.context for each in left] == [min(p, 64) + made for p, made in CUT]
    assert [each.generated_tokens for each in left] == [made for _, made in CUT]


CUT = ((5000, 0), (5000, 20), (64, 20), (63, 1), (65, 1))


@pytest.mark.parametrize(
    ("card", "words"), [("deepseek-v3", "keeps latents"), ("gemma-3-27b", "blocks with a window")]
)
def test_heads_that_cannot_choose_are_refused(card: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_view("snapkv").model(card_trace(load_card(card)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("snapkv:budget=0", "budget: found 0"),
        ("lambda_mask:window=0", "window: found 0; allowed: at least 1, at most 1000000"),
        ("lambda_mask:sinks=-1", "sinks: found -1"),
        ("lambda_mask:windo=9", "did you mean 'window'"),
        ("lambda_mask:rotation=key", "did you mean 'keys'"),
        ("lambda", "did you mean 'lambda_mask'"),
        ("none:window=3", "'none' has no keys"),
    ],
)
def test_a_wrong_text_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        load_view(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_latents_have_no_such_keys() -> None:
    with pytest.raises(InputError, match=r"model deepseek-v3 keeps latents \(MLA\)"):
        load_view("lambda_mask").model(card_trace(load_card("deepseek-v3")))


# runs ---------------------------------------------------------------------------------------------

SMALL = (
    "memory.organization.channels=2", "npu.systolic.rows=32", "npu.systolic.cols=16",
    "npu.systolic.arrays=2", "parallel.tp=1",
)  # fmt: skip


@pytest.fixture
def rotary(tiny_card: Path, tmp_path: Path) -> Path:
    path = tmp_path / "rotary.yaml"
    path.write_text(tiny_card.read_text().replace("rope: false", "rope: true"))
    return path


def test_a_run_reads_less_and_takes_less(rotary: Path) -> None:
    plain, view = (
        pimsim.run(
            "npu-only", model=rotary, requests="equal:1500+9", batch=2, layers=1,
            overrides=[*SMALL, f"workload.kv_view={each}"],
        )
        for each in ("none", "lambda_mask:window=100,sinks=10")
    )  # fmt: skip
    read = [{o.name: o.bytes for o in each.operators} for each in (plain, view)]
    assert read[0]["score"] / read[1]["score"] == pytest.approx(1509 / 110, rel=0.05)
    assert view.cycles < plain.cycles
    assert {o.unit for o in view.operators if o.name == "rotate_keys"} == {"vector"}
    both = pimsim.run(
        "npu-only", model=rotary, requests="equal:1500+9", batch=2, layers=1,
        overrides=[
            *SMALL, "workload.kv_view=lambda_mask:window=100,sinks=10",
            "workload.decoding=prompt_lookup:tokens=2,drafts=3",
        ],
    )  # fmt: skip
    assert both.decoding is not None and both.tokens_per_s > view.tokens_per_s


@pytest.mark.parametrize(
    ("machine", "text", "words"),
    [
        ("npu-only", "lambda_mask:window=1500,sinks=9", "keeps 1,509 tokens; the longest context"),
        ("npu-pim", "lambda_mask:window=100", "turns keys when they are read"),
        ("npu-pim", "streaming_llm:window=100", "turns keys when they are read"),
        ("npu-pim", "snapkv:budget=1500", "keeps 1,500 tokens of a prompt; the longest has 1,500"),
    ],
)
def test_a_run_that_cannot_read_so_says_why(
    rotary: Path, machine: str, text: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        pimsim.run(
            machine, model=rotary, requests="equal:1500+9", batch=2, layers=1,
            overrides=[*SMALL, f"workload.kv_view={text}"],
        )  # fmt: skip
    assert words in str(caught.value)


def test_pim_reads_what_queries_that_are_turned_need(rotary: Path) -> None:
    text = "lambda_mask:window=100,sinks=10,rotation=queries"
    result = pimsim.run(
        "npu-pim", model=rotary, requests="equal:1500+9", batch=2, layers=1,
        overrides=[*SMALL, f"workload.kv_view={text}"],
    )  # fmt: skip
    score = next(each for each in result.operators if each.name == "score")
    assert score.unit == "pim" and score.flops == 2 * 2 * 110 * 512


def test_gpus_read_so_too(rotary: Path) -> None:
    result = pimsim.run(
        "dgx-h100", model=rotary, requests="equal:1500+9", layers=1,
        overrides=["devices=1", "workload.kv_view=streaming_llm:window=100"],
    )  # fmt: skip
    attention = next(each for each in result.operators if each.name == "attention")
    # keys and values of 104 tokens; GPUs turn keys within the kernel, as they do new ones
    assert attention.bytes == 2 * 104 * 512 * 2


@pytest.mark.parametrize("machine", ["npu-only", "npu-pim", "dgx-h100"])
@pytest.mark.parametrize(
    "more",
    [(), ("workload.steps=3",), ("workload.decoding=prompt_lookup:tokens=2,drafts=3",)],
)
def test_a_prompt_that_is_cut_is_one_that_was_shorter(
    rotary: Path, machine: str, more: tuple[str, ...]
) -> None:
    small = ("devices=1",) if machine == "dgx-h100" else SMALL
    found, short = (
        pimsim.run(
            machine, model=rotary, requests=requests, batch=2, layers=1,
            overrides=[*small, *more, f"workload.kv_view={view}"],
        )
        for requests, view in (("equal:1500+9", "snapkv:budget=100"), ("equal:100+9", "none"))
    )  # fmt: skip
    assert found.iteration_s == short.iteration_s
    assert [(o.name, o.bytes, o.flops) for o in found.operators] == [
        (o.name, o.bytes, o.flops) for o in short.operators
    ]


@pytest.mark.parametrize(
    ("requests", "more", "words"),
    [
        ("equal:1500+9", "workload.phase=prefill", "allowed: workload.phase=decode"),
        ("equal:2049+1", "workload.steps=1", "takes 1 to 2048 (max_context), whatever"),
    ],
)
def test_what_is_read_is_read_as_a_whole(
    rotary: Path, requests: str, more: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        pimsim.run(
            "npu-only", model=rotary, requests=requests, layers=1,
            overrides=[*SMALL, more, "workload.kv_view=snapkv:budget=100"],
        )  # fmt: skip
    assert words in str(caught.value)


def test_requests_that_are_asked_tokens_of_their_own_are_no_prompts_that_were_read() -> None:
    resolved = resolve("npu-only", ["workload.kv_view=snapkv:budget=100"])
    requests = load_requests("equal:1500+9")
    fed = replace(requests, requests=(replace(requests.requests[0], new_tokens=4),))
    assert left_of(resolved.config, LLAMA, requests).contexts == (109,)
    with pytest.raises(InputError, match="requests without new_tokens"):
        left_of(resolved.config, LLAMA, fed)


# Quest ------------------------------------------------------------------------------------------


def chosen_block(trace: OperatorTrace, text: str, asked: Step, tp: int = 1) -> Block:
    """The last kind of block, whose queries choose."""
    return instantiate(load_view(text).model(trace), asked, layers=2, tp=tp).blocks[-1]


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize(("context", "page"), [(1600, 16), (1601, 16), (1600, 32)])
def test_summaries_are_two_of_a_page_and_pages_are_read_whole(
    context: int, page: int, tp: int
) -> None:
    found = chosen_block(LLAMA, f"quest:budget=64,page={page},dense=1", step(context, context), tp)
    pages, product = -(-context // page), found.operator("page_scores")
    # largest and smallest of each element of a page's keys: 2/page of the keys where pages are full
    assert product.weight_bytes == 2 * pages * 2 * DIM * 2 * KV // tp
    if context % page == 0:
        keys = 2 * context * DIM * 2 * KV // tp
        assert product.weight_bytes == keys * 2 // page
    assert (product.m, product.n, product.k) == (H // KV, pages, 2 * DIM)
    assert product.count == 2 * KV // tp
    assert product.flops == 2 * 2 * pages * 2 * DIM * H // tp
    assert product.kv_read_bytes == 0 and "kv_append" not in product.depends_on
    score, value = found.operator("score"), found.operator("value")
    assert score.kv_read_bytes == value.kv_read_bytes == 2 * 64 * DIM * 2 * KV // tp
    assert score.flops == 2 * 2 * 64 * DIM * H // tp
    choice = found.operator("choice")
    assert (choice.rows, choice.width) == (2 * H // tp, pages) and "choice" in score.depends_on


def test_first_blocks_read_all_and_nothing_is_evicted() -> None:
    view = load_view("quest:budget=64,dense=2").model(LLAMA)
    kinds = list(view.phases["decode"].sequence())
    assert kinds == ["decoder"] * 2 + ["decoder-chosen"] * 30
    assert view.facts == LLAMA.facts
    weights, kv = trace_memory_bytes(view, step(1600), 1, 1)
    plain = trace_memory_bytes(LLAMA, step(1600), 1, 1)
    assert kv == plain[1]
    assert weights - plain[0] == 30 * 100 * 2 * DIM * 2 * KV  # summaries lie beside the weights


def test_a_context_within_the_budget_is_read_as_it_is() -> None:
    found = chosen_block(LLAMA, "quest:budget=64,dense=0", step(40, 1000))
    assert found.operator("score").kv_read_bytes == (40 + 64) * DIM * 2 * KV


@pytest.mark.parametrize(
    ("end", "seen", "page"),
    [(1000, 64, 16), (1001, 64, 16), (64, 64, 16), (65, 64, 16), (20, 4, 16), (17, 16, 16),
     (4096, 2048, 1), (999, 40, 7)],
)  # fmt: skip
def test_pages_that_are_chosen_lie_apart(end: int, seen: int, page: int) -> None:
    spans = chosen_spans(end, seen, page)
    tokens = [at for span in spans for at in span]
    assert len(tokens) == len(set(tokens)) == min(seen, end)
    assert tokens == sorted(tokens) and tokens[-1] == end - 1
    assert all(span.start // page == (span.stop - 1) // page for span in spans[:-1])
    assert len({span.start // page for span in spans}) == len(spans)


def test_pages_of_zero_are_the_last_tokens() -> None:
    assert chosen_spans(100, 30, 0) == (range(70, 100),)


@pytest.mark.parametrize("machine", ["npu-only", "npu-pim", "dgx-h100"])
def test_chosen_pages_are_read_where_the_cache_is(rotary: Path, machine: str) -> None:
    small = ("devices=1",) if machine == "dgx-h100" else SMALL
    plain, view = (
        pimsim.run(
            machine, model=rotary, requests="equal:1500+9", batch=2, layers=2,
            overrides=[*small, f"workload.kv_view={each}"],
        )
        for each in ("none", "quest:budget=64,dense=1")
    )  # fmt: skip
    last = {o.name: o for o in view.operators if o.layer == 1}
    unit = {"npu-only": "systolic", "npu-pim": "pim", "dgx-h100": "xpu"}[machine]
    name = "attention" if machine == "dgx-h100" else "score"
    assert last[name].unit == unit and last["page_scores"].unit != "pim"
    before = {o.name: o for o in plain.operators if o.layer == 1}
    assert last[name].bytes < before[name].bytes / 10


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("quest:budget=2048", [], "keeps 2,048 tokens; the longest context has 1,509"),
        ("quest:budget=64,dense=1000", [], "dense is 1000: no block chooses"),
        ("quest:budget=64,dense=1", ["workload.phase=prefill"], "chooses keys for each query"),
        ("quest:budget=64,dense=1", ["workload.decoding=prompt_lookup:tokens=2"],
         "allowed: workload.phase=decode, workload.decoding=none"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_said(
    rotary: Path, text: str, more: list[str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        pimsim.run(
            "npu-only", model=rotary, requests="equal:1500+9", batch=2,
            overrides=[*SMALL, f"workload.kv_view={text}", *more],
        )  # fmt: skip
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_pages_are_read_whole() -> None:
    with pytest.raises(ValueError, match=r"budget is 65, no multiple of page \(16\)"):
        load_view("quest:budget=65")


@pytest.mark.parametrize(
    ("card", "words"), [("deepseek-v3", "keeps latents"), ("gemma-3-27b", "blocks with a window")]
)
def test_pages_of_other_caches_are_refused(card: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_view("quest").model(card_trace(load_card(card)))


# DeepSeek's sparse attention ----------------------------------------------------------------------

DEEPSEEK = card_trace(load_card("deepseek-v3"))


@pytest.mark.parametrize("tp", [1, 8])
def test_an_index_of_64_queries_a_key_chooses_2048_latents(tp: int) -> None:
    view = load_view("deepseek_sparse").model(DEEPSEEK)
    found, plain = (
        instantiate(each, step(32_000, 32_000), layers=2, tp=tp).blocks[0]
        for each in (view, DEEPSEEK)
    )
    index = found.operator("index_scores")
    # 132 B and 2 x 64 x 128 FLOP a key, on every device: 124 FLOP/B
    assert index.weight_bytes == 2 * 32_000 * 132
    assert index.flops == 2 * 32_000 * 2 * 64 * 128
    assert (index.m, index.n, index.k, index.count) == (64, 32_000, 128, 2)
    score = found.operator("score")
    assert score.kv_read_bytes == 2 * 2048 * 576 * 2
    assert score.flops == 2 * 2048 * 2 * 576 * 128 // tp
    assert plain.operator("score").kv_read_bytes == 2 * 32_000 * 576 * 2
    assert found.operator("index_q").weight_bytes == 1536 * 64 * 128 * 2
    assert found.operator("index_k").weight_bytes == 7168 * 128 * 2
    assert found.operator("index_weights").weight_bytes == 7168 * 64 * 2
    choice = found.operator("choice.index_choice")
    assert choice.flops == 2 * 32_000 * 64 * 3
    assert "choice.index_choice" in score.depends_on


def test_an_index_adds_its_weights_and_evicts_nothing() -> None:
    view = load_view("deepseek_sparse").model(DEEPSEEK)
    each = 1536 * 64 * 128 + 7168 * 128 + 7168 * 64 + 2 * 128
    assert view.facts.parameters - DEEPSEEK.facts.parameters == 61 * each
    kv = [trace_memory_bytes(trace, step(32_000), 64, 1)[1] for trace in (view, DEEPSEEK)]
    assert kv[0] == kv[1]


def test_heads_with_keys_of_their_own_have_no_index() -> None:
    with pytest.raises(InputError, match="keeps keys and values of single heads, no latents"):
        load_view("deepseek_sparse").model(LLAMA)


MLA = """
mla: {q_lora: 96, kv_lora: 64, nope_dim: 32, rope_dim: 32, v_dim: 32}
"""


@pytest.fixture
def latent(rotary: Path) -> Path:
    path = rotary.with_name("latent.yaml")
    path.write_text(rotary.read_text() + MLA)
    return path


@pytest.mark.parametrize("machine", ["npu-only", "dgx-h100"])
def test_latents_are_gathered_where_they_are(latent: Path, machine: str) -> None:
    small = ("devices=1",) if machine == "dgx-h100" else SMALL
    result = pimsim.run(
        machine, model=latent, requests="equal:1500+9", batch=2, layers=1,
        overrides=[*small, "workload.kv_view=deepseek_sparse:budget=64,heads=8,dim=32"],
    )  # fmt: skip
    rows = {o.name: o for o in result.operators}
    name = "attention" if machine == "dgx-h100" else "score"
    assert rows[name].bytes == pytest.approx(2 * 64 * 96 * 2, rel=0.35)  # whole bursts
    assert rows["index_scores"].flops == 2 * 1509 * 2 * 8 * 32


def test_banks_do_not_gather_single_tokens(latent: Path) -> None:
    with pytest.raises(InputError, match="gathers single tokens, and the keys of a row"):
        pimsim.run(
            "npu-pim", model=latent, requests="equal:1500+9", batch=2, layers=1,
            overrides=[*SMALL, "workload.kv_view=deepseek_sparse:budget=64"],
        )  # fmt: skip


def test_tokens_that_share_bursts_are_read_once() -> None:
    layout = LinearLayout(kv_heads=2, key_bytes=16, value_bytes=0, burst_bytes=64)
    spans = [range(0, 1), range(2, 4), range(5, 6), range(40, 41)]
    page, found = layout.page_tokens, layout._apart(KEYS[0], spans)
    bursts = {
        ((token // page * 2 + head) * page + token % page) * 16 // 64
        for span in spans for token in span for head in range(2)
    }  # fmt: skip
    read = [at for a, b in zip(found.first, found.end, strict=True) for at in range(a, b)]
    assert len(read) == len(set(read)) and set(read) == bursts
    whole = layout.read(KEYS[0], range(7, 90), None)
    apart = layout._apart(KEYS[0], [range(7, 30), range(30, 90)])
    assert apart.total == whole.total


# GemFilter ----------------------------------------------------------------------------------------


def flops_of(trace: OperatorTrace, tokens: int) -> int:
    """Of all blocks over a prompt."""
    fed = Step((StepEntry(Request(0, 0.0, tokens, 9, 0), tokens, tokens, 1),))
    return instantiate(trace, fed).flops


@pytest.mark.parametrize(
    ("card", "blocks", "layers"), [("llama-3.1-8b", 14, 32), ("llama-2-7b", 20, 32)]
)
def test_a_prompt_is_read_by_the_first_blocks(card: str, blocks: int, layers: int) -> None:
    trace = card_trace(load_card(card))
    chooser = load_view(f"gemfilter:blocks={blocks}").chooser(trace)
    assert chooser is not None and chooser.phases["prefill"].after is None
    assert flops_of(chooser, 3000) * layers == flops_of(trace, 3000) * blocks


@pytest.mark.parametrize(
    ("card", "blocks", "layers"),
    [("llama-3.1-8b", 14, 32), ("mistral-nemo-12b", 20, 40), ("phi-3.5-mini", 20, 32)],
)
def test_the_gain_of_a_long_prompt_is_blocks_over_those_that_choose(
    card: str, blocks: int, layers: int
) -> None:
    """The paper's three models: at most 2.29, 2.0 and 1.6, and within 5 % of it from 32k on."""
    found = {}
    for view in ("none", f"gemfilter:blocks={blocks}"):
        found[view] = pimsim.run(
            "dgx-h100", model=card, requests="equal:32768+0", batch=1, phase="prefill",
            overrides=["devices=1", f"workload.kv_view={view}"],
        )  # fmt: skip
    plain, view = found.values()
    gain = plain.iteration_s / view.iteration_s
    assert layers / blocks * 0.95 < gain < layers / blocks
    assert plain.tokens == view.tokens == 32_768
    assert view.tokens_per_s == pytest.approx(plain.tokens_per_s * gain)
    assert view.tokens_per_j > plain.tokens_per_j


@pytest.mark.parametrize("machine", ["npu-only", "npu-pim"])
def test_prompts_take_both_passes(rotary: Path, machine: str) -> None:
    def seconds(requests: str, view: str, layers: str) -> float:
        return pimsim.run(
            machine, model=rotary, requests=requests, batch=2, phase="prefill",
            overrides=[*SMALL, f"workload.layers={layers}", f"workload.kv_view={view}"],
        ).iteration_s  # fmt: skip

    short, whole = (seconds(f"equal:{n}+0", "none", "2") for n in (100, 600))
    both = seconds("equal:600+0", "gemfilter:blocks=1,budget=100", "2")
    layers = card_trace(load_card(rotary)).facts.layers
    assert both == pytest.approx(short + whole / layers, rel=0.05)


def test_all_blocks_choose_nothing() -> None:
    with pytest.raises(InputError, match="has 32 blocks, blocks is 32; fewer are to choose"):
        load_view("gemfilter:blocks=32").chooser(LLAMA)


@pytest.mark.parametrize(("tp", "intensity"), [(1, 242), (8, 30)])
def test_absorbed_latents_are_shared_by_the_heads_of_a_device(tp: int, intensity: int) -> None:
    found = instantiate(DEEPSEEK, step(8193), layers=2, tp=tp).blocks[0]
    score, value = found.operator("score"), found.operator("value")
    assert score.kv_read_bytes == 8193 * 576 * 2 and value.kv_read_bytes == 0
    flops = score.flops + value.flops
    assert flops == 8193 * 2 * (576 + 512) * 128 // tp
    assert round(flops / score.kv_read_bytes) == intensity
