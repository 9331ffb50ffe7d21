"""Model cards: the shipped ones are the published models, wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.workload.cards import load_card, parallelism
from pimsim.workload.decode import memory_need
from pimsim.workload.requests import Request
from pimsim.workload.step import Step

ONE = (Request(id=0, arrival_s=0.0, prompt_tokens=1, output_tokens=1, generated_tokens=0),)

PARAMETERS = {
    # GPT-3 (arXiv 2005.14165), table 2.1, names its models by the rounded count.
    "gpt3-7b": (6.7e9, 0.01),
    # ... "13.0B" has 5140 hidden features there and 5120 here.
    "gpt3-13b": (13.0e9, 0.02),
    "gpt3-30b": (30.0e9, 0.01),
    "gpt3-175b": (175.0e9, 0.01),
    # LLaMA (arXiv 2302.13971), table 2: 65.2 B.
    "llama-65b": (65.2e9, 0.01),
    # Counted from the published weights (reference/workloads.md, section 2, for the 70B).
    "llama-2-7b": (6_738_415_616, 0.0),
    "llama-2-drafter-115m": (115e6, 0.03),
    "llada-8b": (8.02e9, 0.01),
    "llama-3-8b": (8_030_261_248, 0.0),
    "llama-3-70b": (70_553_706_496, 0.0),
    "llama-3.1-8b": (8_030_261_248, 0.0),
    "llama-3.1-70b": (70_553_706_496, 0.0),
    # As the models' own pages name them: 32.8 B, 235 B, 230 B.
    "qwen3-32b": (32.8e9, 2e-3),
    "qwen3-235b-a22b": (235e9, 2e-3),
    "minimax-m2": (230e9, 0.01),
    "smollm2-135m": (134_515_008, 0.0),
    # Counted by tracing the architecture of transformers (reference/workloads.md, section 2).
    "mixtral-8x7b": (46.70e9, 1e-3),
    "qwen3-30b-a3b": (30.53e9, 1e-3),
    "gpt-oss-120b": (116.83e9, 1e-3),
    "deepseek-v3": (671.03e9, 1e-4),
    # OLMoE (arXiv 2409.02060): "7B" of 6.9 B parameters.
    "olmoe-1b-7b": (6.92e9, 1e-3),
    # Counted from the published weights of openai-community/gpt2-xl.
    "gpt2-xl": (1_557_611_200, 0.0),
    # OPT (arXiv 2205.01068) names it by the rounded count, 66 B.
    "opt-66b": (66e9, 0.01),
    # Gemma 3: table 1 of arXiv 2503.19786, embeddings 1,416 M and others 25,600 M.
    "gemma-3-27b": (27.016e9, 1e-3),
    # Counted from the published weights, whose pages say so.
    "llama-2-13b": (13_015_864_320, 0.0),
    "llama-2-70b": (68_976_648_192, 0.0),
    "vicuna-13b": (13_015_864_320, 0.0),
    "llama-3.2-1b": (1_235_814_400, 0.0),
    "llama-3.2-3b": (3_212_749_824, 0.0),
    "llama-3.3-70b": (70_553_706_496, 0.0),
    "mistral-7b": (7_241_732_096, 0.0),
    "mistral-nemo-12b": (12_247_782_400, 0.0),
    "phi-3.5-mini": (3_821_079_552, 0.0),
    "qwen2-7b": (7_615_616_512, 0.0),
    "qwen2.5-7b": (7_615_616_512, 0.0),
    "qwen2.5-72b": (72_706_203_648, 0.0),
    "nvlm-d-72b": (72_706_203_648, 0.0),
    "deepseek-r1-distill-qwen-14b": (14_770_033_664, 0.0),
    "qwen3-8b": (8_190_735_360, 0.0),
    "gemma-2-2b": (2_614_341_888, 0.0),
    "gemma-2-9b": (9_241_705_984, 0.0),
    "gemma-2-27b": (27_227_128_320, 0.0),
    # Of the same sizes as others.
    "deepseek-r1": (671.03e9, 1e-4),
    "deepseek-v3.2": (671.03e9, 1e-4),
    "minimax-m2.5": (230e9, 0.01),
    # Kimi K2 (arXiv 2507.20534): 1.04 T; 1.026 T in its weights' own headers.
    "kimi-k2": (1.026e12, 1e-3),
    "kimi-k2.5": (1.026e12, 1e-3),
    # With a layer of multi-token prediction, which cards leave out: 355 B and 744 B.
    "glm-4.5": (355e9, 0.01),
    "glm-5": (744e9, 0.015),
    # The package's own metadata: 268.1 M.
    "gemma-3-270m": (268.1e6, 1e-4),
}


def test_every_shipped_card_has_a_parameter_count_to_be_held_against() -> None:
    assert set(PARAMETERS) == set(preset_names("model"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_shipped_card_has_the_parameters_of_the_published_model(name: str) -> None:
    card = load_card(name)
    published, tolerance = PARAMETERS[name]
    parameters = memory_need(card, Step.decode(ONE), tp=1, pp=1).weights_bytes / card.dtype_bytes
    assert parameters == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shipped_card_is_named_after_its_file_and_says_where_it_is_from(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert "arXiv" in card.source or "config.json" in card.source


@pytest.mark.parametrize(
    ("name", "tp", "pp"),
    [("gpt3-7b", 4, 1), ("gpt3-13b", 4, 1), ("gpt3-30b", 4, 2), ("gpt3-175b", 8, 4)],
)
def test_gpt3_cards_are_shared_as_in_neupims(name: str, tp: int, pp: int) -> None:
    card = load_card(name)
    assert (card.tp, card.pp) == (tp, pp)


def _card_file(folder: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "name": "tiny",
        "source": "test",
        "layers": 2,
        "hidden": 64,
        "heads": 8,
        "kv_heads": 4,
        "head_dim": 8,
        "ffn_hidden": 96,
        "ffn_gated": "false",
        "activation": "gelu",
        "norm": "layernorm",
        "bias": "true",
        "rope": "false",
        "vocab": 100,
        "tied_embeddings": "true",
        "max_context": 128,
        "dtype_bytes": 2,
        "kv_dtype_bytes": 2,
    }
    values.update(changes)
    path = folder / "tiny.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    return path


def test_a_card_is_read_from_a_path(tmp_path: Path) -> None:
    assert load_card(_card_file(tmp_path)) == load_card(str(_card_file(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads": 0}, "heads"),
        ({"layers": -1}, "layers"),
        ({"hidden": 1e12}, "hidden"),
        ({"vocab": ".nan"}, "finite"),
        ({"kv_heads": 3}, "heads (8) is no multiple of kv_heads (3)"),
        ({"activation": "tanh"}, "activation"),
        ({"dtype_bytes": 3}, "dtype_bytes"),
        ({"dtype_bytes": "true"}, "dtype_bytes"),
        ({"bias": 1}, "bias"),
        ({"kv_head": 4}, "kv_heads"),
        ({"rope": "true", "head_dim": 7}, "must be even"),
        ({"tp": 3}, "heads (8) cannot be shared by tp 3; tp may be 1, 2, 4, 8"),
        ({"pp": 3}, "layers (2) cannot be cut into pp 3 stages; pp may be 1 to 2"),
    ],
)
def test_wrong_card_is_refused_in_one_line_with_its_file(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_card(_card_file(tmp_path, **changes))
    message = str(caught.value)
    assert "tiny.yaml" in message
    assert expected in message
    assert "\n" not in message


def test_unknown_card_is_answered_with_a_near_miss() -> None:
    with pytest.raises(InputError, match="did you mean 'gpt3-7b'"):
        load_card("gpt3-7B")


def test_parallelism_is_the_cards_unless_given(tmp_path: Path) -> None:
    card = load_card(_card_file(tmp_path, tp=2, pp=2))
    assert (parallelism(card).tp, parallelism(card).pp) == (2, 2)
    assert (parallelism(card, tp=4, pp=1).tp, parallelism(card, tp=4, pp=1).pp) == (4, 1)


@pytest.mark.parametrize(("tp", "pp"), [(3, 1), (0, 1), (-4, 1), (16, 1), (1, 3), (1, 0)])
def test_parallelism_that_does_not_divide_the_model_is_refused(
    tmp_path: Path, tp: int, pp: int
) -> None:
    card = load_card(_card_file(tmp_path))
    with pytest.raises(InputError, match=r"may be 1(, | to )2"):
        parallelism(card, tp=tp, pp=pp)
