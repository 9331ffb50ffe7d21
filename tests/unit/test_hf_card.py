"""Cards made of configs say what exports of the same configs say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pimsim.capture.hf_card import ARCHITECTURES, card_of_config
from pimsim.capture.known import CONFIGS as CONFIGS_BY_NAME
from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.config.resources import preset_names
from pimsim.workload.cards import load_card

TEXT: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
EXPERTS: dict[str, Any] = TEXT | {
    "num_local_experts": 8, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
}  # fmt: skip
AFTER_DENSE: dict[str, Any] = TEXT | {
    "moe_intermediate_size": 128, "n_shared_experts": 1, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1,
}  # fmt: skip
LATENT: dict[str, Any] = {
    key: value for key, value in AFTER_DENSE.items() if key != "head_dim"
} | {
    "kv_lora_rank": 64, "q_lora_rank": 96, "qk_rope_head_dim": 16, "v_head_dim": 32,
    "qk_nope_head_dim": 32, "n_group": 1, "topk_group": 1, "num_key_value_heads": 8,
}  # fmt: skip
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", TEXT),
    ("llama", TEXT | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", TEXT | {"sliding_window": 64}),
    ("mistral", TEXT | {"sliding_window": None}),
    ("mixtral", EXPERTS | {"sliding_window": None}),
    ("qwen2", TEXT),
    ("qwen3", TEXT),
    ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 256}),
    ("qwen3_moe", EXPERTS),
    ("olmoe", EXPERTS),
    ("gemma", TEXT),
    ("gemma2", TEXT | {"sliding_window": 64}),
    ("gemma3_text", TEXT | {"num_hidden_layers": 7, "sliding_window": 64}),
    ("gemma3_text", TEXT | {"num_hidden_layers": 4, "sliding_window": 64, "layer_types": [
        "sliding_attention", "full_attention", "sliding_attention", "full_attention",
    ]}),
    ("gpt_oss", EXPERTS | {"sliding_window": 64}),
    ("phi3", TEXT | {"sliding_window": None, "pad_token_id": None}),
    ("phi3", TEXT | {"sliding_window": 64, "partial_rotary_factor": 0.5}),
    ("glm4_moe", AFTER_DENSE | {"use_qk_norm": True, "attention_bias": True,
                                "partial_rotary_factor": 0.5}),
    ("glm4_moe", AFTER_DENSE | {"use_qk_norm": False, "attention_bias": False}),
    ("deepseek_v3", LATENT),
    ("kimi_k2", LATENT),
    ("opt", {"vocab_size": 1000, "hidden_size": 256, "ffn_dim": 512, "num_hidden_layers": 2,
             "num_attention_heads": 8, "max_position_embeddings": 512,
             "word_embed_proj_dim": 256, "torch_dtype": "bfloat16"}),
    ("gpt2", {"vocab_size": 1000, "n_embd": 256, "n_layer": 2, "n_head": 8, "n_positions": 512,
              "torch_dtype": "bfloat16"}),
]  # fmt: skip


def test_every_architecture_is_tried() -> None:
    assert {kind for kind, _ in CONFIGS} >= set(ARCHITECTURES)


@pytest.mark.parametrize(("kind", "config"), CONFIGS)
def test_a_card_is_its_export(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import load_model
    from pimsim.workload.agreement import disagreements
    from pimsim.workload.card_trace import card_trace

    path = tmp_path / "m.json"
    path.write_text(json.dumps({"model_type": kind} | config))
    trace = export_trace(load_model(str(path))).trace
    ours = card_trace(card_of_config("m.json", "m", {"model_type": kind} | config).card)
    assert [str(each) for each in disagreements(ours, trace)] == []
    facts = ours.facts
    for key in ("layers", "hidden", "heads", "kv_heads", "vocab", "max_context",
                "kv_bytes_per_token", "dtype_bytes", "kv_dtype_bytes"):  # fmt: skip
        assert getattr(facts, key) == getattr(trace.facts, key), key
    # a router's bias of the choice is a buffer, which an export does not count
    buffers = 8 * 3 * (kind in ("deepseek_v3", "kimi_k2", "glm4_moe"))
    assert facts.parameters == trace.facts.parameters + buffers


@pytest.mark.parametrize("name", sorted(set(CONFIGS_BY_NAME) & set(preset_names("model"))))
def test_shipped_cards_are_those_of_their_configs(name: str) -> None:
    """Written by hand from papers and configs, and made of the config: the same."""
    made = card_of_config(name, name, CONFIGS_BY_NAME[name]).card
    own = {"name", "source", "tp", "pp"}
    assert made.model_dump(exclude=own) == load_card(name).model_dump(exclude=own)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": None}, "model_type is None"),
        ({"model_type": "lama"}, "no card can be made of architecture 'lama'.*llama"),
        ({"attention_bias": True}, "attention_bias and mlp_bias differ"),
        ({"hidden_act": "tanh"}, "hidden_act is 'tanh'"),
        ({"torch_dtype": "int3"}, "dtype 'int3'; allowed: float32"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "no multiple"),
        ({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4},
         "num_experts_per_tok 4 of 2 experts"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window is true"),
        ({"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2,
          "moe_intermediate_size": 64, "mlp_only_layers": [1]}, "mlp_only_layers"),
        ({"model_type": "qwen3_moe", "num_experts_per_tok": 2}, "num_experts is missing"),
        ({"model_type": "gpt_oss", "layer_types": ["full_attention", "sliding_attention",
          "sliding_attention", "full_attention"]}, "layer_types has full attention in blocks"),
        ({"num_key_value_heads": [4, 1, 1, 1]}, "blocks differ"),
        ({"head_dim": 33}, "rope turns pairs"),
        ({"model_type": "mamba2"}, "Mamba"),
    ],
)  # fmt: skip
def test_what_a_card_cannot_say_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=rf"m\.json: .*({words})") as caught:
        card_of_config("m.json", "m", {"model_type": "llama"} | TEXT | change)
    assert "\n" not in str(caught.value)


def test_the_command_writes_a_card_that_runs(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "mini-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | TEXT))
    done = run_cli("card", "mini-llama", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = load_card(str(tmp_path / "mini-llama.yaml"))
    assert (card.name, card.layers, card.kv_heads, card.ffn_gated) == ("mini-llama", 4, 2, True)
    load_run("npu-only", [f"workload.model={tmp_path / 'mini-llama.yaml'}"])
    again = run_cli("card", "mini-llama/config.json", "--name", "b", "--json", cwd=tmp_path)
    report = json.loads(again.stdout)
    assert Path(report["card"]).name == "b.yaml"
    assert report["values"]["hidden"] == 256


def test_the_command_needs_no_torch(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    assert "it is no JSON object" in refused("card", "x.json")
    (tmp_path / "y.json").write_text("{}")
    assert "it has no model_type" in refused("card", "y.json")
    assert "nosuch.json" in refused("card", "nosuch.json")
