"""Measurements on a model of three blocks that knows nothing, against laws that hold for any."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import pimsim  # noqa: E402
from pimsim.capture.greedy import continued, tokens_per_round  # noqa: E402
from pimsim.capture.likelihood import perplexity  # noqa: E402
from pimsim.capture.loading import LoadedModel  # noqa: E402
from pimsim.capture.measurements import (  # noqa: E402
    Measured,
    MeasuredRow,
    Subject,
    load_measurement,
    smallest_within,
)
from pimsim.capture.measurements.gemfilter import pooled_choice  # noqa: E402
from pimsim.capture.measurements.prompt_lookup import looked_up  # noqa: E402
from pimsim.capture.measurements.quest import page_scores  # noqa: E402
from pimsim.capture.measurements.trigram import TrigramTable, fitted_law  # noqa: E402
from pimsim.capture.narrow import (  # noqa: E402
    narrowed,
    narrowed_cache,
    narrowed_weights,
    relative_error,
)
from pimsim.capture.own_attention import (  # noqa: E402
    attending,
    causal,
    softmaxed,
    turning,
)
from pimsim.capture.text import tokenizer_of  # noqa: E402
from pimsim.config.errors import InputError  # noqa: E402
from pimsim.config.plugins import module_names  # noqa: E402
from pimsim.workload.decoding import load_strategy  # noqa: E402
from pimsim.workload.formats import load_format  # noqa: E402
from pimsim.workload.kv_views import load_view  # noqa: E402
from pimsim.workload.stored_weights import WeightFormat  # noqa: E402

WORDS = 40
TEXT = "the cat sat on the mat and the dog sat on the cat; a bird sang in the old tree. " * 60
EXAMPLES = {
    "constrained": "constrained:objects=2",
    "gemfilter": "gemfilter:text=a,tokens=48,budget=12,prompts=1,blocks=1/2,recall=0.1",
    "kv_format": "kv_format:text=a,tokens=48,formats=int8/int4/kivi:group=8+residual=4",
    "quest": "quest:text=a,tokens=64,budgets=16/32,page=8,dense=1,queries=4,recall=0.1",
    "weight_format": "weight_format:text=a,tokens=48,formats=int8/fp8/nvfp4/semi_structured",
    "early_exit": "early_exit:texts=a,prompts=1,prompt=12,made=30,blocks=1/2",
    "lambda_mask": "lambda_mask:text=a,tokens=48,windows=8/16",
    "prompt_lookup": "prompt_lookup:texts=a/b,prompts=2,prompt=12,made=30,drafts=4",
    "streaming_llm": "streaming_llm:text=a,tokens=48,windows=8/16",
    "trigram": "trigram:texts=a,prompts=1,prompt=12,made=30,tree=1/4/4,seen=0/60",
}
"""One valid text for each measurement."""
LOADERS = {
    "decoding": load_strategy, "kv_view": load_view, "kv_format": load_format,
    "weight_format": load_format,
}  # fmt: skip


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():  # scores that differ, so that masks change something
        parameter.data *= 4 if parameter.dim() > 1 else 1
    loaded = LoadedModel("tiny", model, True, "made up")
    texts = {"a": ("a text", lambda: TEXT), "b": ("another", lambda: TEXT[7:])}
    return Subject(loaded, lambda text: [ord(each) % WORDS for each in text], texts, lambda _: None)


def in_bytes(subject: Subject) -> Subject:
    """The subject with a vocabulary of bytes, and its tokenizer in a folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: at for at, each in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    folder = Path(tempfile.mkdtemp())
    tokenizer.save(str(folder / "tokenizer.json"))
    loaded = replace(subject.loaded, folder=folder)
    return replace(subject, loaded=loaded, encode=tokenizer_of(loaded))


def test_every_measurement_is_tested() -> None:
    assert set(EXAMPLES) == set(module_names("measurement"))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_is_measured_is_what_a_run_takes(subject: Subject, name: str) -> None:
    if name == "constrained":
        pytest.importorskip("llguidance")
        subject = in_bytes(subject)
    asked = load_measurement(EXAMPLES[name])
    found = asked.measure(subject)
    assert found.rows and found.why and found.text
    for row in found.rows:
        assert set(row.figures) == set(asked.FIGURES)
        for key, (_, form) in asked.FIGURES.items():
            form.format(row.figures[key])
        for key, value in row.workload.items():
            if key in LOADERS:
                LOADERS[key](value)
    if found.chosen is not None:
        assert found.rows[found.chosen].workload
    again = asked.measure(subject)
    steady = [k for k in asked.FIGURES if not k.endswith("_us")]
    for one, other in zip(found.rows, again.rows, strict=True):
        assert [one.figures[k] for k in steady] == [other.figures[k] for k in steady]


def measured(subject: Subject, text: str) -> Measured:
    return load_measurement(text).measure(subject)


# attention ----------------------------------------------------------------------------------------


def test_attention_of_ours_is_the_models_own(subject: Subject) -> None:
    ids = torch.tensor([subject.piece("a", 40)])

    def plain(_: int, query: Any, key: Any, value: Any, scale: float) -> Any:
        scores = (query @ key.transpose(2, 3)) * scale
        return softmaxed(scores, causal(key.shape[2])) @ value

    before = perplexity(subject.loaded, ids)
    with attending(subject.loaded.model, plain):
        assert isclose(perplexity(subject.loaded, ids), before, rel_tol=1e-5)
    assert perplexity(subject.loaded, ids) == before


def test_what_is_turned_back_is_where_it_was(subject: Subject) -> None:
    turned, keys = turning(subject.loaded.model), torch.randn(1, 2, 9, 16)
    at = torch.arange(9)
    assert torch.allclose(turned(turned(keys, at + 3), at + 3, back=True), keys, atol=1e-5)
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)
    place = torch.tensor
    scores = [
        float((turned(query, place([q])) * turned(key, place([k]))).sum())
        for q, k in ((30, 25), (7, 2), (7, 3))
    ]
    assert isclose(scores[0], scores[1], abs_tol=1e-4)
    assert not isclose(scores[0], scores[2], abs_tol=1e-4)


@pytest.mark.parametrize("view", ["lambda_mask", "streaming_llm"])
def test_a_window_over_nearly_all_costs_nearly_nothing(subject: Subject, view: str) -> None:
    found = measured(subject, f"{view}:text=a,tokens=48,windows=4/46,sinks=1/0,rise=1")
    ratio = {row.name.partition(":")[2]: row.figures["ratio"] for row in found.rows}
    # one token is beyond the window, and both views see it where it is
    assert isclose(ratio.pop("window=46,sinks=1"), 1, rel_tol=1e-6)
    assert 0 < abs(ratio["window=46,sinks=0"] - 1) < 0.01
    assert len({round(value, 6) for value in ratio.values()}) == len(ratio)
    assert found.rows[0].figures["ratio"] == 1 and not found.rows[0].workload
    read = [row.figures["read"] for row in found.rows]
    assert read == [1.0, 5 / 48, 4 / 48, 47 / 48, 46 / 48]


def test_views_differ_in_where_first_tokens_stand(subject: Subject) -> None:
    """Beyond the window a first token is a window back, or where it is in the cache."""
    texts = [f"{view}:text=a,tokens=48,windows=8,sinks=2" for view in (
        "lambda_mask", "streaming_llm")]  # fmt: skip
    one, other = (measured(subject, text).rows[1].figures["perplexity"] for text in texts)
    assert one != other
    same = [f"{view}:text=a,tokens=48,windows=8,sinks=0" for view in (
        "lambda_mask", "streaming_llm")]  # fmt: skip
    one, other = (measured(subject, text).rows[1].figures["perplexity"] for text in same)
    assert one == other


@pytest.mark.parametrize("view", ["lambda_mask", "streaming_llm"])
def test_first_tokens_stand_where_the_papers_put_them(subject: Subject, view: str) -> None:
    """Token by token: a window's distance away, or in their places of a cache without gaps."""
    torch.manual_seed(11)
    window, sinks, tokens = 5, 3, 12
    turned, at = turning(subject.loaded.model), torch.arange(tokens)
    query, key, value = (torch.randn(1, 2, tokens, 16) for _ in range(3))
    asked = load_measurement(f"{view}:windows=5,sinks=3")
    attend = asked._attend(turned, window, sinks)  # type: ignore[attr-defined]
    found = attend(0, turned(query, at), turned(key, at), value, 0.25)
    for i in range(tokens):
        kept = [j for j in range(i + 1) if j < sinks or i - j < window]
        if view == "streaming_llm":
            where, mine = list(range(len(kept))), [len(kept) - 1] * len(kept)
        else:
            where, mine = [0] * len(kept), [min(i - j, window) for j in kept]
        scores = torch.stack(
            [
                (turned(query[:, :, [i]], torch.tensor([m])) *
                 turned(key[:, :, [j]], torch.tensor([w]))).sum(-1)[0, :, 0] * 0.25
                for j, w, m in zip(kept, where, mine, strict=True)
            ], dim=-1,
        )  # fmt: skip
        expected = torch.einsum("hk,hkd->hd", torch.softmax(scores, -1), value[0, :, kept])
        assert torch.allclose(found[0, :, i], expected, atol=1e-5), i


# guesses ------------------------------------------------------------------------------------------


def test_the_published_code_takes_the_first_place_of_the_longest_ngram() -> None:
    known = [5, 1, 2, 7, 7, 7, 1, 2, 8, 8, 8, 1, 2]
    assert looked_up(known, 3, 3) == [7, 7, 7]  # (8, 1, 2) was not there, (1, 2) was
    assert looked_up(known, 2, 1) == [7, 7]
    assert looked_up([1, 2, 3], 2, 3) == []
    assert looked_up([4, 9, 4], 1, 3) == [9]
    assert looked_up([4, 9, 4], 2, 3) == [9, 4]
    assert looked_up([4, 9, 4], 3, 3) == []  # no whole draft behind it


def test_rounds_make_right_guesses_and_one_more() -> None:
    text = list(range(20))
    assert tokens_per_round(text, 4, 3, lambda known, ahead: 0) == [1] * 13
    assert tokens_per_round(text, 4, 3, lambda known, ahead: 3) == [4, 4, 4, 4]
    assert tokens_per_round(text, 19, 3, lambda known, ahead: 0) == []
    seen: list[tuple[int, ...]] = []
    tokens_per_round(text, 17, 2, lambda known, ahead: seen.append((known[-1], *ahead)) or 2)
    assert seen == [(16, 17, 18)]


def test_a_text_is_what_the_model_makes_itself(subject: Subject) -> None:
    model, prompt = subject.loaded.model, torch.tensor([subject.piece("a", 12)])
    text = continued(model, prompt, 5)
    assert text.shape == (1, 17) and torch.equal(text[:, :12], prompt)
    with torch.no_grad():
        said = model(input_ids=text, use_cache=False).logits.argmax(-1)
    assert torch.equal(said[:, 11:-1], text[:, 12:])


def test_all_blocks_but_none_more_are_an_exit(subject: Subject) -> None:
    """An exit's tokens a round lie between what acceptance alone says for none and for all."""
    found = measured(subject, EXAMPLES["early_exit"])
    for row in found.rows:
        assert 0 <= row.figures["acceptance"] <= 1 <= row.figures["tokens"] <= 5
        gain = row.figures["tokens"] * 3 / (4 * row.figures["blocks"] + 3)
        assert isclose(row.figures["gain"], gain)
    with pytest.raises(InputError, match="the model has 3, fewer"):
        measured(subject, "early_exit:texts=a,blocks=3")


def test_the_last_block_but_one_is_the_model_where_the_last_does_nothing(subject: Subject) -> None:
    layers = subject.loaded.model.model.layers
    kept = {name: value.clone() for name, value in layers[2].state_dict().items()}
    try:
        for part in (layers[2].self_attn.o_proj, layers[2].mlp.down_proj):
            part.weight.data.zero_()
        row = measured(subject, "early_exit:texts=a,prompts=1,prompt=12,made=30,blocks=2").rows[0]
    finally:
        layers[2].load_state_dict(kept)
    assert (row.figures["acceptance"], row.figures["tokens"]) == (1.0, 5.0)


def test_a_table_guesses_what_followed_most_often() -> None:
    table = TrigramTable()
    table.read([1, 2, 3, 1, 2, 3, 1, 2, 4, 9])
    assert table.paths((1, 2), [1]) == {(3,)}
    assert table.paths((1, 2), [2]) == {(3,), (4,)}
    assert table.paths((1, 2), [2, 1]) == {(3,), (4,), (3, 1)}  # twice as likely as (4, 9)
    assert table.paths((1, 2), [2, 2]) == {(3,), (4,), (3, 1), (4, 9)}
    assert table.paths((8, 8), [4, 4]) == set()
    likelier = TrigramTable()
    likelier.read([1, 2, 9, 5, 1, 2, 9, 5, 1, 2, 9, 5, 1, 2, 4, 7])
    assert likelier.paths((1, 2), [2, 1]) == {(9,), (4,), (9, 5)}  # 3/4 of all, not 1/4


def test_the_law_is_found_again_where_it_holds() -> None:
    half = 10 * 1.1**40
    curve = [(seen, 1 + 1.5 * (1 - 2 ** (-seen / half))) for seen in (100.0, 400.0, 2000.0)]
    tokens, found = fitted_law(curve)
    assert isclose(tokens, 2.5, rel_tol=1e-9) and isclose(found, half)
    assert fitted_law([(10.0, 1.0), (100.0, 1.0)])[0] == 1.0


# what is chosen of a cache -----------------------------------------------------------------------


def test_a_page_scores_what_no_key_of_it_exceeds() -> None:
    torch.manual_seed(3)
    query, keys = torch.randn(3, 16), torch.randn(3, 21, 16)
    scores = page_scores(query, keys, 8)
    products = (keys @ query.unsqueeze(2))[..., 0]
    assert scores.shape == (3, 3)
    for page in range(3):
        inside = products[:, 8 * page : 8 * page + 8].amax(dim=1)
        assert bool((scores[:, page] >= inside - 1e-5).all())
    assert torch.allclose(page_scores(query, keys, 1), products, atol=1e-5)


def test_pages_of_a_token_are_the_best_tokens(subject: Subject) -> None:
    """Bounds of a page of one key are its products: what is read is what is looked at most."""
    found = measured(subject, "quest:text=a,tokens=64,budgets=1/8/32,page=1,dense=0,queries=4")
    assert found.rows[2].figures["top"] > 0.95  # but for the last page, which is read in any case
    recalls = [row.figures["recall"] for row in found.rows]
    assert recalls == sorted(recalls) and 0 < recalls[0] < recalls[2] < 1
    assert [row.figures["read"] for row in found.rows] == [1 / 64 + 1, 8 / 64 + 1, 32 / 64 + 1]
    wider = measured(subject, "quest:text=a,tokens=64,budgets=32,page=8,dense=0,queries=4").rows[0]
    assert wider.figures["recall"] < recalls[2]


def test_the_last_page_is_read_whatever_it_scores() -> None:
    asked = load_measurement("quest:budgets=8,page=8,tokens=64,queries=4")
    keys, query = torch.zeros(1, 21, 4), torch.ones(1, 4)
    keys[0, :8], keys[0, 16:] = 1.0, -1.0
    weights = torch.full((1, 21), 0.04)
    weights[0, 16:] = 0.072
    found: dict[int, list[tuple[float, float]]] = {8: []}
    asked._look(query, keys, weights, found)  # type: ignore[attr-defined]
    ((recall, top),) = found[8]
    assert isclose(recall, 5 * 0.072, rel_tol=1e-5) and top == 5 / 8


def test_choice_is_of_pooled_sums_over_heads() -> None:
    scores = torch.zeros(2, 20)
    scores[0, 3], scores[1, 12], scores[0, 17] = 1.0, 3.0, 2.0
    chosen = pooled_choice(scores, 5)
    assert chosen.nonzero().flatten().tolist() == [10, 11, 12, 13, 14]
    assert int(pooled_choice(scores, 8).sum()) == 8 and int(pooled_choice(scores, 99).sum()) == 20


def test_what_is_kept_has_more_attention_with_more_of_it(subject: Subject) -> None:
    rows = [
        measured(subject, f"gemfilter:text=a,tokens=48,budget={each},prompts=2,blocks=1").rows[0]
        for each in (6, 24, 47)
    ]
    recalls = [row.figures["recall"] for row in rows]
    assert 0 < recalls[0] < recalls[1] < recalls[2] < 1
    assert rows[2].figures["top"] >= 46 / 47
    with pytest.raises(InputError, match="the model has 3, fewer are to choose"):
        measured(subject, "gemfilter:text=a,tokens=48,budget=6,blocks=3")


def test_blocks_behind_the_one_that_chooses_are_asked(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own attention, here on what is not chosen, is not counted."""
    scores = torch.zeros(2, 48)
    scores[:, 10:14] = 5.0
    inside, outside = torch.zeros(2, 48), torch.zeros(2, 48)
    inside[:, 11], outside[:, 40] = 1.0, 1.0
    made = ([scores] * 3, [outside, outside, inside])
    monkeypatch.setattr("pimsim.capture.measurements.gemfilter._last_queries", lambda *_: made)
    found = measured(subject, "gemfilter:text=a,tokens=48,budget=6,prompts=1,blocks=1/2")
    assert [row.figures["recall"] for row in found.rows] == [0.5, 1.0]


# formats ------------------------------------------------------------------------------------------


def test_integers_lose_half_a_step_at_most() -> None:
    torch.manual_seed(5)
    groups = torch.randn(50, 32)
    most = groups.abs().amax(dim=1, keepdim=True)
    spread = groups.amax(dim=1, keepdim=True) - groups.amin(dim=1, keepdim=True)
    for bits in (8, 4, 3, 2):
        off = (narrowed(groups, f"int{bits}") - groups).abs()
        assert bool((off <= most / (2 ** (bits - 1) - 1) * 0.501).all())
        off = (narrowed(groups, f"int{bits}", zero_bits=16) - groups).abs()
        assert bool((off <= spread / (2**bits - 1) * 0.51 + 2e-3).all())
        off = (narrowed(groups, f"int{bits}", zero_bits=bits) - groups).abs()
        assert bool((off <= spread / (2**bits - 1) * 1.01).all())


def test_numbers_that_a_format_has_stay() -> None:
    fours = torch.tensor([[0.0, 0.5, -1.0, 1.5, 2.0, -3.0, 4.0, 6.0]])
    for scale_dtype in ("f32", "f8e8m0", "f16"):
        assert torch.equal(narrowed(fours * 4, "f4e2m1", scale_dtype), fours * 4)
    odd = torch.tensor([[1.2, 5.1, 6.9, 0.3]])
    # 6.9 asks for a scale of 1 of e8m0: 2^(2 - 2); what is above 6 is 6
    assert narrowed(odd, "f4e2m1", "f8e8m0").tolist() == [[1.0, 6.0, 6.0, 0.5]]
    eights = torch.tensor([[448.0, -416.0, 0.875, 2.0]])
    assert torch.equal(narrowed(eights, "f8e4m3fn", "f32"), eights)
    integers = torch.tensor([[-7.0, 3.0, 0.0, 7.0]])
    assert torch.equal(narrowed(integers, "int4", "f32"), integers)
    with pytest.raises(InputError, match="elements of f6 are not known"):
        narrowed(fours, "f6")


def test_groups_and_blocks_share_their_own_scales() -> None:
    matrix = torch.ones(4, 8)
    matrix[:, 4:] = 1e-3
    apart = narrowed_weights(matrix, WeightFormat("int4", 4, 4))
    assert torch.allclose(apart, matrix, rtol=1e-3)
    together = narrowed_weights(matrix, WeightFormat("int4", 4, 0))
    assert float(together[:, 4:].abs().max()) == 0
    assert torch.allclose(together[:, :4], matrix[:, :4], rtol=1e-3)
    matrix[2:] *= 1e-4
    blocks = narrowed_weights(matrix, WeightFormat("int4", 4, 4, 2, "f32", 32))
    assert torch.allclose(blocks, matrix, rtol=1e-3)
    wide = narrowed_weights(matrix, WeightFormat("int4", 4, 3, 3, "f32", 32))
    assert wide.shape == matrix.shape and not torch.allclose(wide, matrix, rtol=1e-3)


def test_the_largest_weights_of_each_run_stay() -> None:
    matrix = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, -0.4, 0.3]])
    fmt = load_format("semi_structured:keeps=2,of=4").weights(16)
    assert narrowed_weights(matrix, fmt).tolist() == [pytest.approx([0, -4, 3, 0, 0, 0, -0.4, 0.3])]
    fmt = load_format("unstructured:zeros=0.5").weights(16)
    assert narrowed_weights(matrix, fmt).tolist() == [[1, -4, 3, 2, 0, 0, 0, 0]]
    packed = narrowed_weights(matrix, load_format("semi_structured:bits=8,group=0").weights(16))
    assert int((packed != 0).sum()) == 4 and relative_error(packed, matrix) < 0.5
    with pytest.raises(InputError, match="runs of 5 do not divide 8"):
        narrowed_weights(matrix, load_format("semi_structured:of=5").weights(16))


def test_kivi_groups_keys_by_channel_and_values_by_token() -> None:
    """A channel that is large everywhere costs other channels nothing of the keys."""
    torch.manual_seed(7)
    cached = torch.randn(1, 2, 64, 32)
    cached[..., 5] += 50
    fmt = load_format("kivi:bits=2,group=32").cache()
    others = [at for at in range(32) if at != 5]
    keys, values = (narrowed_cache(cached, fmt, keys=each)[..., others] for each in (True, False))
    exact = cached[..., others]
    assert relative_error(keys, exact) < 0.5 < relative_error(values, exact)


def test_fewer_bits_lose_more_and_leave_the_model_as_it_was(subject: Subject) -> None:
    ids = torch.tensor([subject.piece("a", 48)])
    before = perplexity(subject.loaded, ids)
    rows = measured(
        subject, "weight_format:text=a,tokens=48,formats=int8/int4/int3/int4:group=16,rise=1000"
    ).rows
    assert perplexity(subject.loaded, ids) == before
    errors = [row.figures["error"] for row in rows]
    assert errors[0] < errors[3] < errors[1] < errors[2]
    assert rows[0].figures["bits"] == pytest.approx(8 + 16 / 64, abs=0.1)
    rows = measured(subject, "kv_format:text=a,tokens=48,formats=int8/int4/int3").rows
    for key in ("keys", "values"):
        errors = [row.figures[key] for row in rows]
        assert errors[0] < errors[1] < errors[2]
    assert abs(rows[0].figures["rise"]) < abs(rows[2].figures["rise"])
    assert [row.figures["bits"] for row in rows] == [9.0, 5.0, 4.0]


def test_the_last_tokens_are_not_packed(subject: Subject) -> None:
    rises = [
        measured(subject, f"kv_format:text=a,tokens=48,formats=kivi:residual={each}").rows[0]
        for each in (48, 4)
    ]
    assert abs(rises[0].figures["rise"]) < 1e-3 < abs(rises[1].figures["rise"])
    assert min(row.figures["keys"] for row in rises) > 0.01  # of what is packed, all of it


# choice and bad input -----------------------------------------------------------------------------


def test_the_cheapest_row_within_the_limit_is_chosen() -> None:
    rows = [
        MeasuredRow(str(at), {"read": read, "rise": rise}, {"kv_view": "x"} if at else {})
        for at, (read, rise) in enumerate([(0.0, 0.0), (0.5, 5.0), (0.2, 20.0), (0.3, 9.0)])
    ]
    assert smallest_within(rows, "read", "rise", 10) == 3
    assert smallest_within(rows, "read", "rise", 20) == 2
    assert smallest_within(rows, "read", "rise", 1) is None
    assert smallest_within(rows, "read", "rise", 20, at_least=True) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4/x", "whole numbers"), ("4/4", "given once"), ("4/-1", "whole numbers"),
        ("9/0", "found 0 in '9/0'; allowed: 1 to 1,000,000"), ("true", "text is expected"),
    ],
)  # fmt: skip
def test_numbers_are_told_what_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        load_measurement(f"lambda_mask:windows={text}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lambda_mask:tokens=64,windows=64", "leave nothing out of 64 tokens"),
        ("lambda_mask:text=c", "text is 'c'; allowed: a, b"),
        (
            "weight_format:text=a,tokens=48,formats=int8/int5",
            "weight_format: found 'int5'",
        ),
        ("weight_format:text=a,tokens=48,formats=kivi", "of KV caches"),
        ("kv_format:text=a,tokens=48,formats=semi_structured", "of weights"),
        ("weight_format:text=a,formats=unstructured:index=none", "keeps every weight as it is"),
        ("gemfilter:text=a,tokens=48,budget=48", "nothing would be left out"),
        ("quest:text=a,dense=3", "the model has 3 blocks"),
        ("prompt_lookup:texts=a/c", "text is 'c'; allowed: a, b"),
        ("lambda_mask:text=a,tokens=99999", "tokens, 99999 are needed"),
        ("prompt_lookup:texts=a,prompt=2000,made=2200", "the model takes 4096"),
    ],
)
def test_what_cannot_be_measured_is_refused(subject: Subject, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        measured(subject, text)


def test_a_run_takes_what_was_measured(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_card: Path
) -> None:
    from typer.testing import CliRunner

    from pimsim.cli.commands import app

    monkeypatch.setattr("pimsim.capture.loading.load_model", lambda _: subject.loaded)
    monkeypatch.setattr("pimsim.capture.text.tokenizer_of", lambda _: subject.encode)
    text, out = tmp_path / "a.txt", tmp_path / "out.yaml"
    text.write_text(TEXT)
    invoke = partial(CliRunner().invoke, app, catch_exceptions=False)
    asked = ["measure", EXAMPLES["prompt_lookup"], "tiny", "--text", str(text)]
    found = invoke([*asked, "--out", str(out), "--json"])
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    row = report["rows"][report["chosen"]]
    result = pimsim.run(
        out, model=tiny_card, requests="equal:60+4", batch=2, layers=1,
        overrides=["fidelity=fast"],
    )  # fmt: skip
    assert result.decoding is not None and isclose(
        result.decoding.made / 2, row["tokens"], rel_tol=1e-3
    )
    shown = invoke(asked)
    assert f"workload.decoding: {row['workload']['decoding']}" in shown.stdout


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["promt_lookup"], "did you mean 'prompt_lookup'"),
        (["prompt_lookup:draft=3"], "did you mean 'drafts'"),
        (["prompt_lookup:drafts=0"], "drafts"),
        (["prompt_lookup", "--out", "x.yaml", "--run", "npu-onl"], "did you mean 'npu-only'"),
        (["prompt_lookup", "llama-3-8b"], "has no weights to measure"),
        (["prompt_lookup", "--text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_commands_are_told(asked: list[str], expected: str) -> None:
    from typer.testing import CliRunner

    from pimsim.cli.commands import app

    with pytest.raises(InputError, match=expected):
        CliRunner().invoke(app, ["measure", *asked], catch_exceptions=False)
