"""Features of decoders that have no operators here: one table of them, and what shows each.

A ``config.json`` shows a feature by its type or by a key; a GGUF by the name of its architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from pimsim.capture.config_values import positive
from pimsim.config.errors import InputError

__all__ = ["GGUF_TYPES", "MODEL_TYPES", "Missing", "refuse_gguf", "refuse_missing"]

Values = Mapping[str, Any]


class Missing(StrEnum):
    """The features, as messages name them."""

    MAMBA = "Mamba state-space blocks"
    GATED_DELTA = "gated delta blocks (linear attention)"
    LIGHTNING = "lightning attention (linear)"
    LINEAR = "linear attention"
    RECURRENT = "recurrent blocks"
    CONVOLUTION = "short convolutions between tokens"
    SHARED_CACHE = "KV caches that blocks share"
    SECOND_EMBEDDING = "a second embedding of each block"
    WIDER_HEADS = "heads of another width in blocks with full attention"
    INDEXER = "sparse attention by an indexer"
    CHUNKED = "chunked attention"
    CROSS_ATTENTION = "cross-attention to a picture"
    ENCODER = "an encoder beside the decoder"


MODEL_TYPES: dict[str, Missing] = {
    **dict.fromkeys(
        ("mamba", "mamba2", "falcon_mamba", "falcon_h1", "jamba", "bamba", "zamba", "zamba2",
         "nemotron_h", "granitemoehybrid", "plamo2"),
        Missing.MAMBA,
    ),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5", "qwen3_5_moe", "kimi_linear", "olmo_hybrid"), Missing.GATED_DELTA
    ),
    **dict.fromkeys(("minimax", "minimax_text_01"), Missing.LIGHTNING),
    **dict.fromkeys(("recurrent_gemma", "rwkv", "xlstm"), Missing.RECURRENT),
    **dict.fromkeys(("gemma4", "gemma4_unified"), Missing.WIDER_HEADS),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), Missing.INDEXER),
    "llama4": Missing.CHUNKED,
    **dict.fromkeys(("mllama", "mllama_text_model"), Missing.CROSS_ATTENTION),
}  # fmt: skip
"""``model_type`` of transformers, without ``_text``."""

GGUF_TYPES: dict[str, Missing] = {
    **dict.fromkeys(
        ("falcon-h1", "granitehybrid", "jamba", "mamba", "mamba2", "nemotron_h", "nemotron_h_moe",
         "plamo2"),
        Missing.MAMBA,
    ),
    **dict.fromkeys(("kimi-linear", "qwen35", "qwen35moe", "qwen3next"), Missing.GATED_DELTA),
    **dict.fromkeys(("arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"), Missing.RECURRENT),
    **dict.fromkeys(("lfm2", "lfm2moe"), Missing.CONVOLUTION),
    "gemma3n": Missing.SHARED_CACHE, "gemma4": Missing.WIDER_HEADS, "glm-dsa": Missing.INDEXER,
    "llama4": Missing.CHUNKED,
}  # fmt: skip
"""``general.architecture`` of a GGUF."""


def _has(key: str) -> Callable[[Values], bool]:
    return lambda values: bool(values.get(key))


def _counts(key: str) -> Callable[[Values], bool]:
    return lambda values: positive(values.get(key))


def _layer_type(*names: str) -> Callable[[Values], bool]:
    def found(values: Values) -> bool:
        listed = [values.get(key) for key in ("layer_types", "layers_block_type")]
        return any(each in names for kinds in listed if isinstance(kinds, list) for each in kinds)

    return found


_KEYS: tuple[tuple[Missing, str, Callable[[Values], bool]], ...] = (
    (Missing.MAMBA, "layer_types", _layer_type("mamba", "mamba2")),
    (Missing.MAMBA, "hybrid_override_pattern", _has("hybrid_override_pattern")),
    (Missing.GATED_DELTA, "linear_num_value_heads", _has("linear_num_value_heads")),
    (Missing.GATED_DELTA, "linear_attn_config", _has("linear_attn_config")),
    (Missing.LINEAR, "layer_types", _layer_type("linear_attention")),
    (Missing.RECURRENT, "layer_types", _layer_type("recurrent")),
    (Missing.CONVOLUTION, "layer_types", _layer_type("conv", "short_conv")),
    (Missing.SHARED_CACHE, "num_kv_shared_layers", _counts("num_kv_shared_layers")),
    (Missing.SHARED_CACHE, "use_cla", _has("use_cla")),
    (Missing.SECOND_EMBEDDING, "hidden_size_per_layer_input",
     _counts("hidden_size_per_layer_input")),
    (Missing.WIDER_HEADS, "global_head_dim", _counts("global_head_dim")),
    (Missing.INDEXER, "index_topk", _has("index_topk")),
    (Missing.CHUNKED, "layer_types", _layer_type("chunked_attention")),
    (Missing.CROSS_ATTENTION, "cross_attention_layers", _has("cross_attention_layers")),
    (Missing.ENCODER, "is_encoder_decoder",
     lambda values: values.get("is_encoder_decoder") is True),
)  # fmt: skip
"""Keys of a config that show a feature whatever its type is."""


def refuse_missing(where: str, kind: str, values: Values) -> None:
    """Refuse the first feature that is not simulated.

    Parameters
    ----------
    where
        The file, for messages.
    kind
        The config's ``model_type``.
    values
        Its other keys.

    Raises
    ------
    InputError
        With the feature's name.
    """
    feature = MODEL_TYPES.get(kind.removesuffix("_text"))
    if feature is not None:
        raise InputError(f"{where}: {kind} has {feature}; not supported")
    for feature, key, shows in _KEYS:
        if shows(values):
            raise InputError(f"{where}: {kind} has {feature} ({key}); not supported")


def refuse_gguf(where: str, architecture: str) -> None:
    """Refuse what is not simulated by the name that a GGUF has.

    Parameters
    ----------
    where
        The file, for messages.
    architecture
        ``general.architecture`` of the file.

    Raises
    ------
    InputError
        With the feature's name.
    """
    feature = GGUF_TYPES.get(architecture)
    if feature is not None:
        raise InputError(f"{where}: {architecture} has {feature}; not supported")
