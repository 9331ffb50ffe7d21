"""A model's ``config.json`` as people have it, to the plain config of a decoder that is built.

Text models inside multimodal configs, types that are another's architecture, sizes that differ by
block, wrong values, and features that are not simulated: each is settled here, on the raw mapping,
so that a message names a key of the file and never another library's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pimsim.capture.config_values import MOST_LAYERS, MOST_SIZE, positive, shown, whole
from pimsim.capture.missing_features import refuse_missing
from pimsim.capture.unlike_blocks import TRANSLATED, Blocks, by_block
from pimsim.config.errors import InputError

__all__ = ["DecoderConfig", "decoder_config", "longest_context"]

Values = dict[str, Any]
_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")
_SAME_AS = {
    "Yi": "llama",
    "deepseek_vl_v2": "deepseek_v2",
    "glm4v_moe_text": "glm4_moe",
    "glm4v_text": "glm4",
    "internlm2": "llama",
    "kimi_k2": "deepseek_v3",
    "mimo": "qwen2",
    "phi4mm": "phi3",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
}
"""Types whose decoder does what another's does, operator by operator: the same products, norms and
attention; rotary sections of a picture's positions (mrope) turn the same elements."""


@dataclass(frozen=True)
class DecoderConfig:
    """What is built."""

    kind: str
    """``model_type`` of the architecture."""
    values: Values
    """Its config, without ``model_type``."""
    blocks: Blocks = ()
    """Sizes of each block that are not the config's; none where all blocks are alike."""
    notes: tuple[str, ...] = field(default=())
    quantisation: Any = None
    """Its ``quantization_config``: shapes are those of the plain weights."""


def decoder_config(where: str, data: Mapping[str, Any]) -> DecoderConfig:
    """Settle a config.

    Parameters
    ----------
    where
        The file, for messages.
    data
        Its JSON object.

    Raises
    ------
    InputError
        A value that is none, or a feature that is not simulated, by its key.
    """
    values, notes = _text(where, dict(data), [])
    kind = values.pop("model_type", None)
    quantisation = values.pop("quantization_config", None)
    if not isinstance(kind, str) or not kind:
        raise InputError(
            f"{where}: model_type is {kind!r}; the name of an architecture is expected"
        )
    for key in ("auto_map", "architectures", "transformers_version", "vision_config"):
        values.pop(key, None)  # no code from a model's folder is run
    refuse_missing(where, kind, values)
    blocks: Blocks = ()
    if kind in TRANSLATED:
        kind, values, blocks = TRANSLATED[kind](where, values)
        notes.append(f"read as {kind}, block by block")
    elif kind in _SAME_AS:
        notes.append(f"{kind} is {_SAME_AS[kind]}'s architecture")
        kind = _SAME_AS[kind]
        values = _without_picture_positions(values)
    if not blocks:
        values, blocks = by_block(where, values)
    _check(where, kind, values)
    values["pad_token_id"] = None  # of a class's default, often beyond the vocabulary
    return DecoderConfig(kind, values, blocks, tuple(notes), quantisation)


def _text(where: str, data: Values, notes: list[str]) -> tuple[Values, list[str]]:
    """The text model's own section; what it leaves out is the whole's (the type, tied tables)."""
    for key in _TEXT_SECTIONS:
        section = data.get(key)
        if section is None:
            continue
        if not isinstance(section, Mapping):
            raise InputError(f"{where}: {key} is {type(section).__name__}, an object is expected")
        inner = dict(section)
        outer = {
            name: data[name]
            for name in ("tie_word_embeddings", "torch_dtype", "dtype", "quantization_config")
            if name in data and name not in inner
        }
        kind = inner.get("model_type", data.get("model_type"))
        return _text(
            where, outer | inner | {"model_type": kind}, [*notes, f"the text model ({key})"]
        )
    return data, notes


def _without_picture_positions(values: Values) -> Values:
    """Rotary sections of pictures left out: they say which position turns an element."""
    kept = dict(values)
    for key in ("rope_scaling", "rope_parameters"):
        section = kept.get(key)
        if isinstance(section, Mapping):
            rest = {
                name: value
                for name, value in section.items()
                if name not in ("mrope_section", "mrope_interleaved")
            }
            for name in ("type", "rope_type"):
                if rest.get(name) == "mrope":
                    rest[name] = "default"
            kept[key] = rest if set(rest) - {"type", "rope_type"} else None
            if kept[key] is None:
                del kept[key]
    return kept


_SIZES = {
    "hidden_size": MOST_SIZE, "n_embd": MOST_SIZE, "intermediate_size": MOST_SIZE,
    "moe_intermediate_size": MOST_SIZE, "num_hidden_layers": MOST_LAYERS,
    "n_layer": MOST_LAYERS, "num_attention_heads": 100_000, "n_head": 100_000,
    "num_key_value_heads": 100_000, "head_dim": 1_000_000, "vocab_size": MOST_SIZE,
    "max_position_embeddings": 2**40, "n_positions": 2**40, "num_experts_per_tok": 65_536,
    "num_local_experts": 65_536, "num_experts": 65_536, "n_routed_experts": 65_536,
    "kv_lora_rank": MOST_SIZE, "qk_rope_head_dim": 1_000_000, "qk_nope_head_dim": 1_000_000,
    "v_head_dim": 1_000_000,
}  # fmt: skip
"""Counts and widths, and the most that is taken."""
_MAY_BE_NULL = {
    "num_key_value_heads", "head_dim", "num_experts_per_tok", "num_local_experts", "num_experts",
    "n_routed_experts", "moe_intermediate_size",
}  # fmt: skip
_MAY_BE_ZERO = {"num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok"}
_SWITCHES = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window")


def _check(where: str, kind: str, values: Values) -> None:
    """Sizes that are whole numbers in their range, and heads that share what they share."""
    for key, most in _SIZES.items():
        if key not in values or (values[key] is None and key in _MAY_BE_NULL):
            continue
        value = values[key]
        if isinstance(value, list):
            raise InputError(
                f"{where}: {key} is a list, one value by block; of {kind} one number is expected"
            )
        least = 0 if key in _MAY_BE_ZERO else 1
        if not whole(value) or not least <= value <= most:
            raise InputError(
                f"{where}: {key} is {shown(value)}; a whole number of {least} to {most:,} is "
                "expected"
            )
    for key in _SWITCHES:
        value = values.get(key)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{where}: {key} is {shown(value)}; true or false is expected")
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    keys, width = values.get("num_key_value_heads"), values.get("head_dim")
    if hidden and heads and not width and "kv_lora_rank" not in values and hidden % heads:
        raise InputError(
            f"{where}: hidden_size {hidden} is no multiple of num_attention_heads {heads}, and "
            "there is no head_dim"
        )
    if heads and keys and heads % keys:
        raise InputError(
            f"{where}: num_attention_heads {heads} is no multiple of num_key_value_heads {keys}"
        )
    experts = values.get("num_local_experts") or values.get("num_experts")
    experts = experts or values.get("n_routed_experts")
    chosen = values.get("num_experts_per_tok")
    if experts and chosen and chosen > experts:
        raise InputError(f"{where}: num_experts_per_tok {chosen} of {experts} experts")


_CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
_DEFAULT_CONTEXT = 2048
_ALREADY_SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def longest_context(config: Any) -> tuple[int, str | None]:
    """The longest context that a server would take without being asked, and what is to be said.

    The least of the keys that say one, ``model_max_length`` before all others; times the factor of
    a
    rotary scaling that does not leave the key scaled already (linear, dynamic), but for Gemma 3;
    LongRoPE's original length; 2048 where nothing says one.

    Parameters
    ----------
    config
        Of ``transformers``.

    Returns
    -------
    longest : int
        Tokens.
    note : str | None
        Why, where no key says one.

    References
    ----------
    vLLM 0.33, ``config/model.py`` (``_get_and_verify_max_len``) and
    ``transformers_utils/model_arch_config_convertor.py``.
    """
    said = [getattr(config, key, None) for key in _CONTEXT_KEYS]
    lengths = [int(each) for each in said if each is not None and positive(each)]
    own = getattr(config, "model_max_length", None)
    lengths = [int(own)] if own is not None and positive(own) else lengths
    longest, note = min(lengths, default=_DEFAULT_CONTEXT), None
    if not lengths:
        note = (
            f"its config says no longest context ({', '.join(_CONTEXT_KEYS)}); {longest} is taken, "
            "as servers do"
        )
    original = getattr(config, "original_max_position_embeddings", None)
    factor = 1.0
    for rope in _rope_sections(config):
        kind = rope.get("rope_type", rope.get("type"))
        if kind == "longrope" and original is not None and positive(original):
            return int(original), note
        scale = rope.get("factor")
        if kind not in _ALREADY_SCALED and isinstance(scale, (int, float)) and scale > 0:
            factor = float(scale)
    if "gemma3" not in str(getattr(config, "model_type", "")):
        longest = int(longest * factor)
    return int(longest), note


def _rope_sections(config: Any) -> list[Mapping[str, Any]]:
    """Rotary parameters, of all blocks or of each kind of them."""
    found = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(found, Mapping):
        return []
    inner = [each for each in found.values() if isinstance(each, Mapping)]
    return inner or [found]
