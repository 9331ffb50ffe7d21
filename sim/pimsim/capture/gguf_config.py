"""What the metadata of a GGUF file says of a decoder, in the terms of a ``config.json``.

Keys as ``gguf`` writes them (``gguf/constants.py`` of llama.cpp: ``{arch}.block_count``,
``{arch}.attention.head_count_kv``, ...). Heads and widths may be arrays, one value a block; key and
value lengths may be absent, and are then the width by heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pimsim.capture.missing_features import refuse_gguf
from pimsim.config.errors import InputError, near_miss

__all__ = ["gguf_config"]

Values = dict[str, Any]
_ARCHITECTURES = {
    "arcee": "arcee", "cohere2": "cohere2", "command-r": "cohere", "deci": "llama",
    "deepseek2": "deepseek_v3", "dots1": "dots1", "exaone4": "exaone4", "gemma": "gemma",
    "gemma2": "gemma2", "gemma3": "gemma3_text", "glm4": "glm4", "glm4moe": "glm4_moe",
    "gpt-oss": "gpt_oss", "granite": "granite", "granitemoe": "granitemoe", "internlm2": "llama",
    "llama": "llama", "mistral3": "ministral", "nemotron": "nemotron", "olmo": "olmo",
    "olmo2": "olmo2", "olmoe": "olmoe", "openelm": "qwen3", "phi2": "phi", "phi3": "phi3",
    "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen2vl": "qwen2", "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe", "qwen3vl": "qwen3", "qwen3vlmoe": "qwen3_moe", "seed_oss": "seed_oss",
    "smollm3": "smollm3", "stablelm": "stablelm", "starcoder2": "starcoder2",
}  # fmt: skip
"""GGUF's names, and the types of transformers that do the same."""
_KEYS = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length", "vocab_size": "vocab_size",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length", "sliding_window":
    "attention.sliding_window",
    "first_k_dense_replace": "leading_dense_block_count", "n_shared_experts": "expert_shared_count",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "q_lora_rank": "attention.q_lora_rank", "kv_lora_rank": "attention.kv_lora_rank",
}  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_NEEDED = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size",
)  # fmt: skip


def gguf_config(path: Path) -> Values:
    """The config of the decoder in a GGUF file.

    Parameters
    ----------
    path
        Of the file.

    Returns
    -------
    Values
        By the keys of ``transformers``.

    Raises
    ------
    InputError
        An architecture that is not known or has what is not simulated, a key that is missing.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {name: each.contents() for name, each in reader.fields.items() if _is_small(name)}
    tensors = {str(each.name): [int(n) for n in each.shape] for each in reader.tensors}
    return config_of(str(path), fields, tensors)


def _is_small(name: str) -> bool:
    return not name.startswith("tokenizer.") or name.endswith(".model")


def config_of(where: str, fields: Mapping[str, Any], tensors: Mapping[str, list[int]]) -> Values:
    """The same of metadata and shapes of tensors (GGUF's order: the inner size first)."""
    name = fields.get("general.architecture")
    if not isinstance(name, str):
        raise InputError(f"{where}: general.architecture is missing")
    refuse_gguf(where, name)
    if name not in _ARCHITECTURES:
        raise InputError(
            f"{where}: architecture {name!r} of GGUF is not known"
            f"{near_miss(name, _ARCHITECTURES)}; known: {', '.join(sorted(_ARCHITECTURES))}"
        )
    values: Values = {"model_type": _ARCHITECTURES[name]}
    for key, own in _KEYS.items():
        found = fields.get(f"{name}.{own}")
        if found is not None:
            values[key] = found
    experts = fields.get(f"{name}.expert_count")
    if experts:
        values |= dict.fromkeys(_EXPERTS, experts)
        if name == "llama":
            values["model_type"] = "mixtral"
    values |= _by_tensors(tensors)
    for key in _NEEDED:
        if key not in values:
            raise InputError(f"{where}: {name}.{_KEYS[key]} is missing")
    if "vocab_size" not in values:
        raise InputError(f"{where}: neither {name}.vocab_size nor token_embd.weight is there")
    values.setdefault("num_key_value_heads", values["num_attention_heads"])
    if name in _SPECIAL:
        _SPECIAL[name](where, name, values, fields)
    return values


def _by_tensors(tensors: Mapping[str, list[int]]) -> Values:
    """What only tensors tell: tied tables, biases, the vocabulary's padded size."""
    found: Values = {"tie_word_embeddings": "output.weight" not in tensors} if tensors else {}
    table = tensors.get("token_embd.weight")
    if table and len(table) == 2:
        found["vocab_size"] = table[1]
    found["attention_bias"] = any(name.endswith("attn_q.bias") for name in tensors)
    found["mlp_bias"] = any(name.endswith("ffn_up.bias") for name in tensors)
    return found


def _latent(where: str, name: str, values: Values, fields: Mapping[str, Any]) -> None:
    """DeepSeek's latent attention: key lengths of a head are those of both its parts."""
    turned = fields.get(f"{name}.rope.dimension_count")
    key = fields.get(f"{name}.attention.key_length_mla", fields.get(f"{name}.attention.key_length"))
    value = fields.get(
        f"{name}.attention.value_length_mla", fields.get(f"{name}.attention.value_length")
    )
    sizes = {"rope.dimension_count": turned, "attention.key_length": key,
             "attention.value_length": value}  # fmt: skip
    for own, found in sizes.items():
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise InputError(f"{where}: {name}.{own} is {found!r}, a whole number is expected")
    assert isinstance(turned, int) and isinstance(key, int)
    if key <= turned:
        raise InputError(f"{where}: {name}.attention.key_length {key} is not above {turned}")
    values.pop("head_dim", None)
    values |= {
        "qk_rope_head_dim": turned, "qk_nope_head_dim": key - turned, "v_head_dim": value,
        "num_key_value_heads": values["num_attention_heads"], "n_group": 1, "topk_group": 1,
    }  # fmt: skip
    values.setdefault("q_lora_rank", None)


_SPECIAL: dict[str, Callable[[str, str, Values, Mapping[str, Any]], None]] = {"deepseek2": _latent}
