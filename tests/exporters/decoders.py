"""Tiny random decoders of each architecture, as folders that exporters read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["ARCHITECTURES", "SIZES", "randomise", "save_decoder"]

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
"""Whole blocks of 32 in each product, so that every precision can be written."""

_SHARED: dict[str, Any] = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
"""A dense block, then one with a shared expert beside the routed ones."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral-window": ("mistral", {"sliding_window": 64, "head_dim": 32}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 64}),
    "qwen3-tied": ("qwen3", {"head_dim": 64, "tie_word_embeddings": True}),
    "phi": ("phi", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "phi3": ("phi3", {"original_max_position_embeddings": 1024, "sliding_window": None,
                      "pad_token_id": 0}),
    "gemma": ("gemma", {"head_dim": 64}),
    "gemma2": ("gemma2", {"head_dim": 64, "sliding_window": 64, "query_pre_attn_scalar": 64,
                          "num_hidden_layers": 3}),
    "gemma3": ("gemma3_text", {"head_dim": 64, "sliding_window": 64, "num_hidden_layers": 7,
                               "query_pre_attn_scalar": 64}),
    "olmo": ("olmo", {}),
    "granite": ("granite", {"embedding_multiplier": 12.0, "residual_multiplier": 0.22,
                            "logits_scaling": 8.0, "attention_multiplier": 0.03}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4, "pad_token_id": 0,
                            "no_rope_layers": [1, 1, 1, 0], "layer_types": [
                                "sliding_attention", "sliding_attention", "sliding_attention",
                                "full_attention"],
                            "use_sliding_window": True, "sliding_window": 64}),
    "ernie": ("ernie4_5", {"head_dim": 32, "use_bias": False}),
    "nemotron": ("nemotron", {"head_dim": 32}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 32}),
    "gpt-oss": ("gpt_oss", {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2,
                            "sliding_window": 64}),
    "smollm3-rope": ("smollm3", {"num_hidden_layers": 3, "pad_token_id": 0,
                                 "no_rope_layers": [1, 1, 1], "use_sliding_window": False,
                                 "layer_types": ["full_attention"] * 3}),
    "phimoe": ("phimoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": ("qwen3_moe", {"head_dim": 64, "num_experts": 4, "num_experts_per_tok": 2,
                                "moe_intermediate_size": 64}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": ("qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2,
                                "moe_intermediate_size": 64,
                                "shared_expert_intermediate_size": 96}),
    "deepseek-v3": ("deepseek_v3", {"num_key_value_heads": 4, "kv_lora_rank": 32,
                                    "q_lora_rank": 48, "qk_rope_head_dim": 16,
                                    "qk_nope_head_dim": 32, "v_head_dim": 32} | _SHARED),
    "deepseek-v2": ("deepseek_v2", {"num_key_value_heads": 4, "kv_lora_rank": 32,
                                    "q_lora_rank": None, "qk_rope_head_dim": 16,
                                    "qk_nope_head_dim": 32, "v_head_dim": 32,
                                    "topk_method": "greedy"} | _SHARED),
}  # fmt: skip
"""Name: transformers' model type, and what differs from ``SIZES``."""


def randomise(model: Any) -> None:
    """No gain of ones and no bias of zeros: exporters fold and leave out such numbers."""
    import torch

    with torch.no_grad():
        for each in model.parameters():
            if each.dim() == 1:
                each.uniform_(0.5, 1.5)


def _add_mxfp4(file: Path, config: Any) -> None:
    """Experts as gpt-oss is published, 4 bits in blocks of 32, which the builder reads beside the
    plain ones: shapes alone count here."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    experts, hidden, width = (
        config.num_local_experts, config.hidden_size, config.intermediate_size,
    )  # fmt: skip
    for layer in range(config.num_hidden_layers):
        for name, rows, depth in (("gate_up", 2 * width, hidden), ("down", hidden, width)):
            place = f"model.layers.{layer}.mlp.experts.{name}_proj"
            shape = (experts, rows, depth // 32)
            tensors[f"{place}_blocks"] = torch.randint(0, 255, (*shape, 16), dtype=torch.uint8)
            tensors[f"{place}_scales"] = torch.full(shape, 120, dtype=torch.uint8)
    save_file(tensors, file, metadata={"format": "pt"})


def save_decoder(folder: Path, kind: str, changes: dict[str, Any], dtype: str = "float32") -> int:
    """Write a random decoder with its config and tokenizer; answers its parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**(SIZES | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    randomise(model)
    model.save_pretrained(folder)
    if kind == "gpt_oss":
        _add_mxfp4(folder / "model.safetensors", config)
    size = config.get_text_config().vocab_size
    words = {f"w{at}": at for at in range(size - 2)} | {"<unk>": size - 2, "</s>": size - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(folder)
    return sum(each.numel() for each in model.parameters())
