"""Decoding strategies against the closed forms of their papers: weights, FLOPs, rows, keys, bytes,
steps; and how a run adds its rounds up."""

from __future__ import annotations

from functools import partial
from math import isclose
from pathlib import Path

import pytest

import pimsim
from pimsim.config.decoding import NO_DECODING
from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.config.run import StepsConfig
from pimsim.explore.spec import placed
from pimsim.result.types import Result
from pimsim.simulate import resolve
from pimsim.workload.arithmetic import SOFTMAX_FLOPS
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.decoding import load_strategy
from pimsim.workload.extra_operators import maker_of, with_operators_behind
from pimsim.workload.instantiate import instantiate
from pimsim.workload.operators import Operator, OperatorKind
from pimsim.workload.outside import outside_work
from pimsim.workload.requests import Request
from pimsim.workload.rounds import Rounds, plan_rounds
from pimsim.workload.speculation import DraftTree
from pimsim.workload.step import Mask, StepEntry
from pimsim.workload.trace import OperatorTrace, Shard

TARGET = card_trace(load_card("llama-2-7b"))
D, V, L, KV = 4096, 32_000, 32, 2 * 4096 * 2
"""Width, vocabulary, blocks, and bytes of a token's keys and values in a block."""
EXAMPLES = {
    "medusa": "medusa:tokens=2.31",
    "draft_model": "draft_model:model=llama-2-drafter-115m,drafts=3,acceptance=0.6",
    "eagle": "eagle:measured=spec-bench/vicuna-7b",
    "early_exit": "early_exit:blocks=8,drafts=3,acceptance=0.6",
    "trigram": "trigram:tree=1/4/4,tokens=2",
    "llada": "llada:length=64,block=16,tokens=4",
    "learn2pd": "learn2pd:length=64,block=16,tokens=4,text=20",
    "constrained": "constrained:host_us=50,states=64",
    "mtp": "mtp:drafts=2,acceptance=0.85",
    "prompt_lookup": "prompt_lookup:tokens=1.75",
}
"""One valid text for each strategy, so that the laws below hold for every one."""


def requests(count: int, context: int = 100) -> list[Request]:
    return [Request(i, 0.0, context - 1, 50, 1) for i in range(count)]


def plan(text: str, count: int = 3, context: int = 100, steps: int | None = None) -> Rounds:
    workload = StepsConfig(requests="equal:1+1", decoding=text, steps=steps)
    return plan_rounds(workload, TARGET, requests(count, context), True)


def head_of(trace: OperatorTrace, rounds: Rounds, tp: int = 1) -> dict[str, Operator]:
    """What runs behind the blocks in the first round, by name, on one of ``tp`` devices."""
    *_, last = outside_work(trace, rounds.steps[0], tp, 1, True)
    return {each.name: each for each in last.block.operators}


def test_every_strategy_is_tested() -> None:
    assert set(EXAMPLES) == set(module_names("decoding"))


# closed forms -------------------------------------------------------------------------------------


def test_medusa_adds_heads_of_d_by_d_and_d_by_v() -> None:
    rounds = plan("medusa:tokens=2.31,heads=4", count=3)
    assert rounds.added_bytes == 2 * 4 * (D * D + D * V)
    assert round(rounds.added_bytes / 2 / 1e9, 2) == 0.59  # of Vicuna-7B, as published
    head, rows = head_of(rounds.model, rounds), 3 * 64
    assert head["lm_head"].m == rows and head["lm_head"].flops == 2 * rows * D * V
    block, heads = head["medusa_block"], head["medusa_head"]
    assert (block.m, block.n, block.k) == (rows, 4 * D, D)
    assert block.flops == 2 * rows * 4 * D * D
    assert (heads.m, heads.n, heads.k, heads.count) == (rows, V, D, 4)
    assert heads.flops == 4 * 2 * rows * D * V and heads.weight_bytes == 4 * 2 * D * V
    assert head["medusa_act"].rows == head["medusa_residual"].rows == 4 * rows
    assert head["medusa_accept"].flops == SOFTMAX_FLOPS * rows * V
    kept = head["medusa_keep"]
    assert kept.input_bytes == kept.output_bytes == round(3 * 2.31) * L * KV


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_medusa_has_weights_for_each_head(heads: int) -> None:
    tree = "/".join("1" for _ in range(heads + 1))
    rounds = plan(f"medusa:tokens=1.5,heads={heads},tree={tree}")
    assert rounds.added_bytes == 2 * heads * (D * D + D * V)
    assert rounds.steps[0].new_tokens == (heads + 1,) * 3


def test_medusa_over_devices_cuts_the_heads_words_and_gathers_both_logits() -> None:
    head = head_of(plan("medusa:tokens=2").model, plan("medusa:tokens=2"), tp=4)
    assert head["medusa_head"].n == V // 4 and head["medusa_block"].n == 4 * D
    assert head["lm_head_allgather"].output_bytes == 4 * head["lm_head"].output_bytes
    assert head["medusa_head_allgather"].output_bytes == 4 * head["medusa_head"].output_bytes
    assert head["medusa_accept"].depends_on == ("lm_head_allgather",)


def test_logits_that_are_worked_on_in_their_cut_are_gathered_once_behind_it() -> None:
    make = maker_of(TARGET)
    cap = make.vector(
        "cap", OperatorKind.ELEMENTWISE, {"L": 1}, V, 1, ("lm_head",), shard=Shard.COLUMNS
    )
    rounds = plan("prompt_lookup:tokens=1.75")
    found = list(head_of(with_operators_behind(TARGET, [cap]), rounds, tp=4))
    assert found[-4:] == ["final_norm", "lm_head", "cap", "cap_allgather"]


def test_a_tree_is_verified_with_all_its_nodes_and_their_mask() -> None:
    rounds = plan("medusa:tokens=2.31", count=2, context=100)
    (step,) = rounds.steps
    for entry in step.entries:
        assert (entry.new_tokens, entry.logits, entry.cached) == (64, 64, 99)
        assert entry.mask is Mask.TREE and entry.context == 99 + 64
        assert entry.pairs() == 64 * (99 + 64) and entry.keys() == 99 + 64
        assert entry.ends == (163,) * 64
    block = instantiate(rounds.model, step, layers=1).blocks[0]
    pairs, keys, rows = 2 * 64 * 163, 2 * 163, 2 * 64
    assert block.operator("score").flops == 2 * pairs * D
    assert block.operator("score").kv_read_bytes == keys * KV // 2
    assert block.operator("kv_append").kv_write_bytes == rows * KV
    assert block.operator("qkv").m == rows


def test_drafts_in_a_row_see_what_is_before_them() -> None:
    (entry,) = plan("prompt_lookup:tokens=1.75,drafts=4", count=1, context=100).steps[0].entries
    assert (entry.new_tokens, entry.logits, entry.cached) == (5, 5, 99)
    assert entry.pairs() == sum(range(100, 105)) and list(entry.ends) == list(range(100, 105))


def test_a_draft_model_runs_once_for_each_draft() -> None:
    rounds = plan("draft_model:model=llama-2-drafter-115m,drafts=3,acceptance=0.6", count=2)
    assert rounds.drafter is not None
    facts = rounds.drafter.trace.facts
    d, f = 1024, 2816
    norms = (2 * 4 + 1) * d
    assert facts.parameters == 4 * (4 * d * d + 3 * d * f) + 2 * V * d + norms
    assert rounds.added_bytes == 2 * facts.parameters
    assert facts.kv_bytes_per_token == 2 * 8 * 128 * 4 * 2
    assert [step.contexts for step in rounds.draft_steps] == [(100,) * 2, (101,) * 2, (102,) * 2]
    assert all(step.new_tokens == (1, 1) for step in rounds.draft_steps)
    assert rounds.steps[0].new_tokens == (4, 4)
    a = 0.6
    assert isclose(rounds.made, (1 - a**4) / (1 - a))


def test_an_early_exit_is_the_first_blocks_of_the_model() -> None:
    rounds = plan("early_exit:blocks=8,drafts=3,acceptance=0.6", count=2)
    drafter = rounds.drafter
    assert drafter is not None and drafter.shares_cache and rounds.added_bytes == 0
    first, whole = drafter.trace.phases["decode"], TARGET.phases["decode"]
    blocks = list(whole.sequence())
    assert list(first.sequence()) == blocks[:8] and len(blocks) == L
    assert (first.before, first.after) == (whole.before, whole.after)
    assert [step.contexts for step in rounds.draft_steps] == [(100,) * 2, (101,) * 2, (102,) * 2]
    assert rounds.steps[0].new_tokens == (4, 4) and rounds.model == TARGET
    with pytest.raises(InputError, match=r"llama-2-7b has 32 blocks, blocks is 32; fewer"):
        plan("early_exit:blocks=32,tokens=2")


def test_eagle_runs_one_block_for_each_depth_of_the_tree() -> None:
    rounds = plan("eagle:tokens=4.34", count=2)
    drafter = rounds.drafter
    assert drafter is not None
    assert len(rounds.draft_steps) == 7 and rounds.steps[0].new_tokens == (60, 60)
    for at, step in enumerate(rounds.draft_steps):
        assert step.new_tokens == (10, 10) and step.contexts == (99 + 10 * (at + 1),) * 2
        assert {entry.mask for entry in step.entries} == {Mask.TREE}
    block = 4 * D * D + 3 * D * 11_008 + 2 * D
    assert rounds.added_bytes == 2 * (block + 2 * D * D)  # and the model's tables
    assert drafter.trace.facts.layers == 1
    assert drafter.trace.facts.kv_bytes_per_token == KV
    before, after = (
        outside_work(drafter.trace, rounds.draft_steps[0], 1, 1, True)[0],
        head_of(drafter.trace, Rounds(rounds.strategy, TARGET, rounds.draft_steps, 1, 0)),
    )
    fuse = before.block.operator("fuse")
    assert fuse.flops == 2 * 20 * 2 * D * D and after["lm_head"].n == V


def test_eagle_3_fuses_three_states_and_has_words_of_its_own() -> None:
    rounds = plan("eagle:tokens=5.7,fused=3,vocab=8000")
    assert rounds.drafter is not None
    block = 4 * D * D + 3 * D * 11_008 + 2 * D
    assert rounds.added_bytes == 2 * (block + 3 * D * D + 8000 * D)
    assert rounds.drafter.trace.facts.vocab == 8000


def test_mtp_has_one_more_block_and_a_projection() -> None:
    rounds = plan("mtp:drafts=2,acceptance=0.85", count=2)
    block = 4 * D * D + 3 * D * 11_008 + 2 * D
    assert rounds.added_bytes == 2 * (block + 2 * D * D)
    assert len(rounds.draft_steps) == 2 and rounds.steps[0].new_tokens == (3, 3)
    assert isclose(rounds.made, 1 + 0.85 + 0.85**2)


def test_mtp_of_experts_has_all_of_them() -> None:
    trace = card_trace(load_card("mixtral-8x7b"))
    drafter = load_strategy("mtp:acceptance=0.9").drafter(trace)
    assert drafter is not None
    d, f, q, kv = 4096, 14_336, 4096, 1024
    block = 2 * d * q + 2 * d * kv + d * 8 + 8 * 3 * d * f + 2 * d
    assert drafter.held_bytes == 2 * (block + 2 * d * d)
    assert (drafter.trace.facts.experts, drafter.trace.facts.experts_per_token) == (8, 2)


def test_what_is_measured_is_that_of_the_table() -> None:
    made = {
        name: load_strategy(f"{text}:measured=spec-bench/vicuna-7b{more}").made
        for name, text, more in (
            ("medusa", "medusa", ""), ("eagle", "eagle", ""),
            ("draft", "draft_model", ",model=llama-2-drafter-115m"),
            ("lookup", "prompt_lookup", ""),
        )
    }  # fmt: skip
    assert made == {"medusa": 2.31, "eagle": 4.34, "draft": 2.28, "lookup": 1.75}


@pytest.mark.parametrize("a", [0.0, 0.5, 1.0])
def test_independent_acceptance_is_a_geometric_sum(a: float) -> None:
    made = load_strategy(f"prompt_lookup:drafts=4,acceptance={a}").made
    assert isclose(made, 5.0 if a == 1 else (1 - a**5) / (1 - a))


def test_rounds_follow_one_another_by_whole_tokens() -> None:
    rounds = plan("prompt_lookup:tokens=1.75,drafts=3", count=1, context=100, steps=5)
    assert [step.entries[0].cached for step in rounds.steps] == [99, 100, 102, 104, 106]
    assert [step.made for step in rounds.steps] == [1, 2, 2, 2, 1]
    drafts = plan("mtp:tokens=1.75", count=1, context=100, steps=3).draft_steps
    assert [step.entries[0].cached for step in drafts] == [99, 100, 102]


def test_masked_pairs_of_a_window() -> None:
    entry = StepEntry(requests(1)[0], 4, 100, 4, 1, Mask.TREE)
    assert entry.pairs(10) == 4 * 13 and entry.pairs(200) == 400


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("medusa:acceptance=1.5", "acceptance: found 1.5; allowed: at least 0, at most 1"),
        ("medusa:acceptance=-0.1", "acceptance: found -0.1"),
        ("medusa:tokens=2,tree=10/28", "a tree without a root"),
        ("medusa:tokens=2,tree=1/0/3", "depth 1 has no node"),
        ("medusa:tokens=2,tree=1/9999", "at most 4096"),
        ("medusa:tokens=2,tree=x", "expected nodes by depth"),
        ("medusa:tokens=2,heds=3", "unknown key 'heds'; did you mean 'heads'"),
        ("medusa", "one of tokens, acceptance and measured says what is right; none is given"),
        ("medusa:tokens=2,acceptance=0.5", "found tokens and acceptance"),
        ("medusa:tokens=2,tokens=3", "tokens is given twice"),
        ("medusa:tokens=[2]", "a number, a word or true or false is expected"),
        ("medusa:tokens=.inf", "a finite number is expected"),
        ("medusa:tokens", "expected NAME or NAME:KEY=VALUE"),
        ("medus:tokens=2", "did you mean 'medusa'"),
        ("none:tokens=2", "'none' has no keys"),
        ("eagle:tokens=3,nodes=9,depth=9", "make trees of 10 to"),
        ("eagle:tokens=3,nodes=12,depth=1", "1 passes of top_k 10 make trees of 2 to 11 nodes"),
        ("draft_model:tokens=2", "model is missing"),
        ("mtp:tokens=2,host_us=-1", "host_us: found -1"),
    ],
)
def test_a_wrong_text_is_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        load_strategy(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("medusa:tokens=6", "makes at most 5 tokens a step with drafts of depth 4; found 6"),
        ("medusa:tokens=2,heads=2", "is 4 deep, 2 heads guess as many tokens"),
        ("draft_model:model=smollm2-135m,tokens=2", "of 49,152, llama-2-7b one of 32,000"),
        ("eagle:tokens=3,vocab=32001", "vocab is 32,001"),
        ("mtp:measured=spec-bench/vicuna-7b", "spec-bench.csv has no row of mtp"),
        ("eagle:measured=spec-bench/vicuna-7c", "did you mean 'vicuna-7b'"),
        ("eagle:measured=vicuna", "expected TABLE/MODEL"),
        ("eagle:measured=spec-bunch/vicuna-7b", "did you mean 'spec-bench'"),
    ],
)  # fmt: skip
def test_what_does_not_suit_the_model_is_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("method,model\n", "its columns must be method,model,tokens"),
        ("method,model,tokens\neagle,m\n", "row 2"),
        ("method,model,tokens\neagle,m,0.5\n", "tokens is 0.5; allowed: 1 to 1000"),
        ("method,model,tokens\neagle,m,nan\n", "tokens is nan; allowed: 1 to 1000"),
    ],
)
def test_a_table_of_ones_own(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "own.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        plan(f"eagle:measured={tmp_path}/own.csv/m")
    assert words in str(caught.value)
    (tmp_path / "own.csv").write_text("# mine\nmethod,model,tokens\neagle,m,3.5\n")
    assert plan(f"eagle:measured={tmp_path}/own.csv/m").made == 3.5


def test_a_tree_is_its_levels() -> None:
    tree = DraftTree.of("1/10/28/23/2")
    assert (tree.nodes, tree.depth) == (64, 4)


def test_requests_that_are_asked_something_else_are_refused() -> None:
    workload = StepsConfig(requests="equal:1+1", decoding="prompt_lookup:tokens=2")
    with pytest.raises(InputError, match="is asked 3 new tokens"):
        plan_rounds(workload, TARGET, [Request(0, 0.0, 99, 50, 1, new_tokens=3)], True)


# runs ---------------------------------------------------------------------------------------------

SMALL = (
    "memory.organization.channels=2", "npu.systolic.rows=32", "npu.systolic.cols=16",
    "npu.systolic.arrays=2", "workload.outside=true", "parallel.tp=1",
)  # fmt: skip


@pytest.fixture
def run(tiny_card: Path) -> partial[Result]:
    return partial(pimsim.run, model=tiny_card, requests="equal:60+4", batch=2, layers=1)


@pytest.fixture
def drafter(tiny_card: Path, tmp_path: Path) -> Path:
    path = tmp_path / "drafter.yaml"
    text = tiny_card.read_text().replace("name: tiny", "name: drafter")
    path.write_text(text.replace("layers: 4", "layers: 1"))
    return path


def test_rounds_of_a_run_add_up(run: partial[Result], drafter: Path) -> None:
    text = f"draft_model:model={drafter},drafts=3,acceptance=0.5"
    plain, apart, beside = (
        run("npu-only", overrides=[*SMALL, f"workload.decoding={each}"])
        for each in (text, f"{text},host_us=20", f"{text},host_us=20,host_overlapped=true")
    )
    found = [each.decoding for each in (plain, apart, beside)]
    assert found[0] is not None and found[1] is not None and found[2] is not None
    first = found[0]
    assert first.made == 2 * (1 + 0.5 + 0.25 + 0.125) and first.rows == 4
    assert plain.iteration_s == first.verify_s + first.draft_s
    assert plain.tokens_per_s == first.made / plain.iteration_s
    assert isclose(apart.iteration_s, plain.iteration_s + 20e-6)
    assert beside.iteration_s == plain.iteration_s and found[2].host_s == found[1].host_s == 2e-5
    waited = 20e-6 * plain.idle_w
    spent = [each.token_j["total"] * first.made for each in (plain, apart, beside)]
    assert isclose(spent[1], spent[0] + waited) and spent[2] == spent[0]
    for each in (plain, apart, beside):
        assert isclose(1 / each.tokens_per_j, each.token_j["total"])
        assert isclose(sum(v for k, v in each.token_j.items() if k != "total"),
                       each.token_j["total"])  # fmt: skip
        low, high = each.tokens_per_s_interval or (0.0, 0.0)
        assert low <= each.tokens_per_s <= high
    assert isclose(sum(first.flops_share.values()), 1)


def test_the_drafter_is_the_run_of_its_card(run: partial[Result], drafter: Path) -> None:
    """A draft is a token of each request on the same device."""
    text = f"draft_model:model={drafter},drafts=1,acceptance=0.5"
    found = run("npu-only", overrides=[*SMALL, f"workload.decoding={text}"]).decoding
    alone = pimsim.run(
        "npu-only", model=drafter, requests="equal:60+4", batch=2, layers=1, overrides=SMALL
    )
    assert found is not None and found.draft_s == alone.iteration_s


def test_an_exit_takes_what_a_model_of_so_many_blocks_does(
    run: partial[Result], tiny_card: Path, tmp_path: Path
) -> None:
    shorter = tmp_path / "shorter.yaml"
    shorter.write_text(tiny_card.read_text().replace("layers: 4", "layers: 3"))
    exits, drafts = (
        run("npu-only", overrides=[*SMALL, f"workload.decoding={each},drafts=1,tokens=1.5"])
        for each in ("early_exit:blocks=3", f"draft_model:model={shorter}")
    )
    assert exits.decoding is not None and drafts.decoding is not None
    assert exits.decoding.draft_s == drafts.decoding.draft_s > 0
    assert exits.iteration_s == drafts.iteration_s
    assert exits.decoding.added_bytes == 0 < drafts.decoding.added_bytes


def test_an_exit_has_no_cache_of_its_own(
    run: partial[Result], drafter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "pimsim.technique_runs._check_room", lambda config, trace, needs, own: seen.append(own)
    )
    for text in ("early_exit:blocks=3", f"draft_model:model={drafter}"):
        run("npu-only", overrides=[*SMALL, f"workload.decoding={text},drafts=1,tokens=1.5"])
    assert seen[0] == 0 < seen[1]


def test_without_drafts_that_are_right_a_round_makes_a_token(run: partial[Result]) -> None:
    result = run(
        "npu-only", overrides=[*SMALL, "workload.decoding=prompt_lookup:drafts=2,tokens=1"]
    )
    assert result.tokens_per_s == 2 / result.iteration_s
    plain = run("npu-only", overrides=SMALL)
    assert result.iteration_s >= plain.iteration_s and plain.decoding is None


@pytest.mark.parametrize("tokens", [1, 8])
def test_attention_of_a_tree_runs_where_the_schedule_says(
    run: partial[Result], tokens: int
) -> None:
    result = run(
        "npu-pim", overrides=[
            *SMALL, f"schedule.attention_pim_tokens={tokens}",
            "workload.decoding=medusa:tokens=2,tree=1/3/4,heads=2",
        ]
    )  # fmt: skip
    assert result.decoding is not None
    assert ("pim" in result.decoding.flops_share) is (tokens == 8)
    if tokens == 8:
        score = next(each for each in result.operators if each.name == "score")
        # of every node the whole context, each for itself: 2 requests, 8 rows, 63 + 8 keys
        assert score.flops == 2 * 2 * 8 * 71 * 512
        assert score.bytes == 2 * 8 * 71 * 512 * 2


def test_gpus_decode_so_too(run: partial[Result]) -> None:
    result = run(
        "dgx-h100", overrides=[
            "devices=1", "workload.outside=true", "workload.decoding=mtp:acceptance=0.5"
        ]
    )  # fmt: skip
    assert result.decoding is not None and result.decoding.draft_s > 0
    assert (
        isclose(result.iteration_s, result.decoding.verify_s + result.decoding.draft_s)
        and result.decoding.made == 3
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("workload.outside=false",), "workload.outside=true takes it in"),
        (("parallel.pp=2",), "parallel.pp is 2 beside workload.decoding"),
        (("workload.phase=prefill",), "phase is 'prefill' beside decoding"),
        (("workload.chunk=4",), "chunk is 4 beside decoding"),
        (("workload.decoding=medusa:tokens=0.5",), "tokens: found 0.5; allowed: at least 1"),
    ],
)
def test_a_run_that_cannot_decode_so_says_why(
    run: partial[Result], overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        run("npu-only", overrides=[*SMALL, "workload.decoding=medusa:tokens=2", *overrides])
    assert words in str(caught.value) and "workload" in str(caught.value)


def test_a_drafter_that_has_no_room_beside_the_model_is_refused(
    run: partial[Result], tiny_card: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.yaml"
    text = tiny_card.read_text().replace("layers: 4", "layers: 12")
    large.write_text(text.replace("name: tiny", "name: large"))
    rows = [*SMALL, "memory.organization.rows=2048", "memory.organization.channels=1"]
    pimsim.run("npu-only", model=large, requests="equal:60+4", layers=1, overrides=rows)
    with pytest.raises(InputError, match=r"model and drafter \(large\) need 0.0. GiB"):
        run(
            "npu-only",
            overrides=[*rows, f"workload.decoding=draft_model:model={large},tokens=2"],
        )


def test_nothing_is_asked_of_a_run_that_decodes_as_ever() -> None:
    assert StepsConfig(requests="equal:1+1").decoding == NO_DECODING


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("eagle:measured=own.csv/m", "eagle:measured={}/own.csv/m"),
        ("draft_model:tokens=2, model=own.yaml", "draft_model:tokens=2, model={}/own.yaml"),
        ("eagle:measured=spec-bench/vicuna-7b", "eagle:measured=spec-bench/vicuna-7b"),
        ("draft_model:model=/a/own.yaml,tokens=2", "draft_model:model=/a/own.yaml,tokens=2"),
        ("medusa:tokens=2,tree=1/3/4", "medusa:tokens=2,tree=1/3/4"),
        ("medsa:measured=own.csv/m", "medsa:measured=own.csv/m"),
        ("own.csv", "{}/own.csv"),
    ],
)
def test_files_of_a_strategy_count_from_the_yaml_that_names_them(text: str, there: str) -> None:
    assert placed(text, Path("/f")) == there.format("/f")


def test_a_run_in_another_folder_finds_its_table(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("method,model,tokens\nprompt_lookup,m,3.5\n")
    path = tmp_path / "own.yaml"
    path.write_text(
        "extends: npu-only\nname: own\nworkload:\n"
        "  decoding: prompt_lookup:measured=own.csv/m\n"
    )  # fmt: skip
    resolved = resolve(path)
    text = resolved.config.workload.decoding
    assert text == f"prompt_lookup:measured={tmp_path}/own.csv/m"
    assert load_strategy(text).made == 3.5
    assert resolved.references[2] == ("workload", "decoding")


# diffusion, grammars, tables ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "behind"), [("none", [164] * 3), ("prefix", [48] * 3), ("dual", [16] * 3)]
)
def test_passes_of_a_block_feed_what_the_cache_does_not_keep(cache: str, behind: list[int]) -> None:
    strategy = load_strategy(f"llada:length=64,block=16,tokens=4,cache={cache}")
    request = Request(0, 0.0, 100, 64, 0)
    passes = strategy.passes(request, 16, 16)  # the second block
    assert [each.new_tokens for each in passes] == [164, *behind]
    assert {each.context for each in passes} == {164}
    assert all(each.logits == each.new_tokens and each.mask is Mask.FULL for each in passes)
    assert sum(each.made for each in passes) == 16
    # a bidirectional pass has all pairs, twice as many as a causal one
    assert passes[0].pairs() == 164 * 164
    first = strategy.passes(request, 64, 16)
    rows = {"none": 164, "prefix": 64, "dual": 16}[cache]  # the next answer's first block
    assert [each.new_tokens for each in first][1:] == [rows] * 3


def test_an_answer_takes_its_length_over_tokens_passes() -> None:
    rounds = plan("llada:length=64,block=16,tokens=1", steps=4, count=2)
    assert len(rounds.steps) == 64 and rounds.count == 4 and rounds.made == 16
    assert sum(step.made for step in rounds.steps) == 2 * 64


def test_what_is_behind_the_end_of_text_does_not_count_and_learn2pd_does_not_make_it() -> None:
    own = "length=64,block=16,tokens=1,text=20"
    llada, filtered = load_strategy(f"llada:{own}"), load_strategy(f"learn2pd:{own}")
    assert (llada.made, filtered.made) == (20 / 4, 20 / 2)
    rounds = plan(f"learn2pd:{own}", steps=2)
    assert rounds.added_bytes == 2 * 16 * 16 * 2  # two layers of 16 neurons


def test_a_table_learns_from_what_it_has_seen() -> None:
    made = [
        load_strategy(f"trigram:tree=1/4/4,tokens=2.6,half=100,seen={seen}").made
        for seen in (0, 100, 200, 1e6)
    ]
    assert made == pytest.approx([1, 1.8, 2.2, 2.6])
    assert load_strategy("trigram:tree=1/4/4,tokens=2.6").rows == 9


def test_a_grammars_model_is_states_by_states_and_states_by_words() -> None:
    rounds = plan("constrained:states=64", count=3)
    found = {o.name: o for o in rounds.model.phases["decode"].blocks["head"]}
    assert found["states"].flops == {"L": 2 * 64 * 64}
    assert found["format_logits"].flops == {"L": 2 * 64 * 32_000}
    assert rounds.added_bytes == 2 * (64 * 64 + 64 * 32_000)
    assert plan("constrained:host_us=50").added_bytes == 0
    assert plan("constrained:host_us=50", steps=4).host_s == pytest.approx(200e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llada:length=65", "length is 65, no multiple of block (32)"),
        ("llada:tokens=33", "tokens is 33, a block has 32"),
        ("llada:text=300", "text is 300, the answer has 256 tokens"),
        ("llada:acceptance=0.5", "one of tokens, acceptance and measured"),
        ("llada:cache=dul", "did you mean 'dual'"),
        ("constrained:tokens=2", "tokens: found 2"),
        ("trigram:tokens=2,tree=4/4", "a tree without a root"),
        ("trigram:tokens=2", "tree"),
    ],
)
def test_wrong_blocks_grammars_and_tables_are_one_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        load_strategy(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("machine", ["npu-only", "npu-pim", "dgx-h100"])
def test_a_cache_saves_passes_over_the_prompt(machine: str, tiny_card: Path) -> None:
    small = ["devices=1"] if machine == "dgx-h100" else SMALL
    found = [
        pimsim.run(
            machine, model=tiny_card, requests="equal:200+0", batch=2, layers=1,
            overrides=[
                *small, "workload.outside=true",
                f"workload.decoding=llada:length=32,block=16,tokens=8,cache={cache}",
            ],
        )
        for cache in ("none", "dual")
    ]  # fmt: skip
    assert found[1].iteration_s < found[0].iteration_s
    assert [each.decoding.made for each in found if each.decoding] == [32, 32]
