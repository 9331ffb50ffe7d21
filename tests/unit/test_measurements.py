"""Measurements on a model of three blocks that knows nothing, against laws that hold for any."""

from __future__ import annotations

import json
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
from pimsim.capture.measurements.prompt_lookup import looked_up  # noqa: E402
from pimsim.capture.measurements.trigram import TrigramTable, fitted_law  # noqa: E402
from pimsim.capture.own_attention import (  # noqa: E402
    attending,
    causal,
    softmaxed,
    turning,
)
from pimsim.config.errors import InputError  # noqa: E402
from pimsim.config.plugins import module_names  # noqa: E402
from pimsim.workload.decoding import load_strategy  # noqa: E402
from pimsim.workload.formats import load_format  # noqa: E402
from pimsim.workload.kv_views import load_view  # noqa: E402

WORDS = 40
TEXT = "the cat sat on the mat and the dog sat on the cat; a bird sang in the old tree. " * 60
EXAMPLES = {
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


def test_every_measurement_is_tested() -> None:
    assert set(EXAMPLES) == set(module_names("measurement"))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_is_measured_is_what_a_run_takes(subject: Subject, name: str) -> None:
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


def test_the_law_is_found_again_where_it_holds() -> None:
    half = 10 * 1.1**40
    curve = [(seen, 1 + 1.5 * (1 - 2 ** (-seen / half))) for seen in (100.0, 400.0, 2000.0)]
    tokens, found = fitted_law(curve)
    assert isclose(tokens, 2.5, rel_tol=1e-9) and isclose(found, half)
    assert fitted_law([(10.0, 1.0), (100.0, 1.0)])[0] == 1.0


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
