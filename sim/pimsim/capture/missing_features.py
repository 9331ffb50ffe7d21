"""Features of decoders that have no operators here, told by what their configs say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pimsim.capture.config_values import positive
from pimsim.config.errors import InputError

__all__ = ["refuse_missing"]

Values = dict[str, Any]


def _has(key: str) -> Callable[[str, Values], bool]:
    return lambda _, values: bool(values.get(key))


def _of_kind(*kinds: str) -> Callable[[str, Values], bool]:
    return lambda kind, _: kind.removesuffix("_text") in kinds


def _layer_type(*names: str) -> Callable[[str, Values], bool]:
    def found(_: str, values: Values) -> bool:
        listed = [values.get(key) for key in ("layer_types", "layers_block_type")]
        return any(each in names for kinds in listed if isinstance(kinds, list) for each in kinds)

    return found


_MISSING: tuple[tuple[str, tuple[Callable[[str, Values], bool], ...]], ...] = (
    (
        "Mamba state-space blocks",
        (
            _of_kind(
                "mamba", "mamba2", "falcon_mamba", "falcon_h1", "jamba", "bamba", "zamba", "zamba2",
                "nemotron_h", "granitemoehybrid", "plamo2",
            ),
            _layer_type("mamba", "mamba2"),
            _has("hybrid_override_pattern"),
        ),
    ),
    (
        "gated delta blocks (linear attention)",
        (
            _of_kind("qwen3_next", "qwen3_5", "qwen3_5_moe", "kimi_linear", "olmo_hybrid"),
            _has("linear_num_value_heads"),
            _has("linear_attn_config"),
        ),
    ),
    ("lightning attention (linear)", (_of_kind("minimax", "minimax_text_01"),)),
    ("linear attention", (_layer_type("linear_attention"),)),
    ("recurrent blocks", (_of_kind("recurrent_gemma", "rwkv", "xlstm"), _layer_type("recurrent"))),
    ("short convolutions between tokens", (_layer_type("conv", "short_conv"),)),
    (
        "KV caches that blocks share (num_kv_shared_layers)",
        (lambda _, values: positive(values.get("num_kv_shared_layers")), _has("use_cla")),
    ),
    (
        "a second embedding of each block (hidden_size_per_layer_input)",
        (lambda _, values: positive(values.get("hidden_size_per_layer_input")),),
    ),
    (
        "heads of another width in blocks with full attention (global_head_dim)",
        (_of_kind("gemma4"), lambda _, values: positive(values.get("global_head_dim"))),
    ),
    (
        "sparse attention by an indexer (index_topk)",
        (_of_kind("deepseek_v32", "glm_moe_dsa"), _has("index_topk")),
    ),
    (
        "chunked attention (attention_chunk_size)",
        (_of_kind("llama4"), _layer_type("chunked_attention")),
    ),
    (
        "cross-attention to a picture (cross_attention_layers)",
        (_of_kind("mllama", "mllama_text_model"), _has("cross_attention_layers")),
    ),
    (
        "an encoder beside the decoder",
        (lambda _, values: values.get("is_encoder_decoder") is True,),
    ),
)  # fmt: skip
"""Features that have no operators here, and how a config shows them."""


def refuse_missing(where: str, kind: str, values: Values) -> None:
    """Raise ``InputError`` with the name of the first feature that is not simulated."""
    for feature, signs in _MISSING:
        if any(sign(kind, values) for sign in signs):
            raise InputError(f"{where}: {kind} has {feature}; not supported")
