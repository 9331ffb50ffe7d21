"""Routing and sparsity captured from small random models of each architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pimsim.capture import sparsity  # noqa: E402
from pimsim.capture.loading import LoadedModel  # noqa: E402
from pimsim.capture.routing import _by_weight, capture_routing  # noqa: E402
from pimsim.capture.sparsity import measure_sparsity  # noqa: E402
from pimsim.config.errors import InputError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

COMMON: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MOE: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {
        "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 8},
    "deepseek_v3": {
        "n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8, "v_head_dim": 8, "moe_intermediate_size": 32,
        "num_key_value_heads": 4,
    },
}  # fmt: skip


def loaded(kind: str, **values: Any) -> LoadedModel:
    config = transformers.CONFIG_MAPPING[kind](**COMMON | values)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return LoadedModel(kind, model, True, "random weights")


@pytest.mark.parametrize("kind", MOE)
def test_every_routers_choice_is_seen_for_every_token_and_block(kind: str) -> None:
    ids = torch.randint(3, 96, (48,), generator=torch.Generator().manual_seed(1)).tolist()
    trace = capture_routing(loaded(kind, **MOE[kind]), ids, 16, "test")
    first = 1 if kind == "deepseek_v3" else 0
    assert (trace.experts, trace.experts_per_token, trace.layers) == (6, 2, 2)
    assert trace.moe_layers == tuple(range(first, 2))
    assert trace.chosen.shape == (2 - first, 48, 2)
    assert trace.token.tolist() == ids
    assert all(len(set(pair)) == 2 for pair in trace.chosen.reshape(-1, 2).tolist())
    assert 0 <= trace.chosen.min() <= trace.chosen.max() < 6
    assert len(np.unique(trace.chosen)) > 2


def test_a_dense_model_has_no_routers() -> None:
    with pytest.raises(InputError, match="no router"):
        capture_routing(loaded("llama"), [1] * 32, 16, "test")


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_masks_keep_perplexity_where_they_were_chosen(kind: str) -> None:
    values = {"ffn_dim": 64, "word_embed_proj_dim": 32} if kind == "opt" else {}
    model = loaded(kind, **values)
    generator = torch.Generator().manual_seed(2)
    texts = [torch.randint(3, 96, (2, 32), generator=generator) for _ in range(2)]
    trace, measured = measure_sparsity(model, *texts, [0.5, 5.0], 8, "test", lambda _: None)
    tight, loose = measured
    assert 0 < loose.ratio <= tight.ratio <= 1
    assert loose.cett >= tight.cett
    assert trace.active.shape == (2, 8, 64)
    if kind == "opt":  # what ReLU made zero never works
        assert tight.ratio < 0.7
    with pytest.raises(InputError, match="no dense feed-forward"):
        measure_sparsity(loaded("mixtral", **MOE["mixtral"]), *texts, [1.0], 8, "t", lambda _: None)


def test_nan_is_told() -> None:
    model = loaded("mixtral", **MOE["mixtral"])
    with torch.no_grad():
        model.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        capture_routing(model, [4] * 32, 16, "test")


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_the_first_choice_has_the_largest_score(kind: str) -> None:
    """Choices are in falling weight: the first one is the argmax of what its router scores."""
    model = loaded(kind, **MOE[kind])
    ids = torch.randint(3, 96, (16,), generator=torch.Generator().manual_seed(1)).tolist()
    trace = capture_routing(model, ids, 16, "test")
    with torch.no_grad():
        scores = model.model(
            input_ids=torch.tensor([ids]), use_cache=False, output_router_logits=True
        ).router_logits
    for layer, each in enumerate(scores):
        assert trace.chosen[layer, :, 0].tolist() == each.reshape(16, 6).argmax(-1).tolist()


def test_choices_are_put_in_falling_weight() -> None:
    chosen = torch.tensor([[4, 1, 7], [0, 2, 3]])
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    assert _by_weight(chosen, (weights, chosen)).tolist() == [[1, 7, 4], [3, 0, 2]]
    assert _by_weight(chosen, (chosen,)).tolist() == chosen.tolist()


@pytest.mark.parametrize("share", [0.0, 0.301, 0.3, 0.4999, 0.0021])
def test_the_threshold_is_the_largest_of_seven_halvings(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexity that rises once the error of truncation exceeds ``share``."""
    asked = [0.0]

    def thresholds(inputs: Any, norms: Any, lasts: Any, cett: float) -> list[float]:
        asked.append(cett)
        return [0.0 for _ in lasts]

    monkeypatch.setattr(sparsity, "_thresholds", thresholds)
    monkeypatch.setattr(sparsity, "_inputs", lambda *_: [])
    model = loaded("llama")
    whole = sparsity.perplexity
    first = torch.full((1, 4), 5)

    def perplexity(given: LoadedModel, ids: Any) -> float:
        if ids is not first:
            return whole(given, ids)
        return 8.0 if asked[-1] <= share else 9.0

    monkeypatch.setattr(sparsity, "perplexity", perplexity)
    (found,) = measure_sparsity(
        model, first, torch.full((1, 6), 7), [1.0], 4, "test", lambda _: None
    )[1]
    step = 0.5 / 2**7
    assert found.cett == pytest.approx(int(share / step) * step)
    assert asked[-1] == found.cett
