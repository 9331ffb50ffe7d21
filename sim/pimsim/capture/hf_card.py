"""A model card from a Hugging Face ``config.json``, without PyTorch.

What a config does not say is the architecture's: one entry of ``ARCHITECTURES`` each. A card is
as exact as an export or it is refused: tests hold each architecture to its export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from pimsim.capture.config_values import shown
from pimsim.capture.hf_config import decoder_config, longest_context
from pimsim.config.errors import InputError, near_miss
from pimsim.workload.cards import ModelCard

__all__ = ["ARCHITECTURES", "Architecture", "HfCard", "card_of_config"]

Values = Mapping[str, Any]
Facts = dict[str, Any]
_ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu", "gelu_new": "gelu",
    "gelu_fast": "gelu", "gelu_pytorch_tanh": "gelu",
}  # fmt: skip
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class Architecture:
    """What the decoders of a ``model_type`` have in common."""

    facts: Facts
    """Keys of the card that no key of the config says."""
    defaults: Facts
    """Of the config, where its class has one that published files leave out."""
    more: Callable[[str, Values], Facts] | None = None
    """Keys of the card that follow from the config, and refusals; given the file and the config."""
    names: Mapping[str, str] | None = None
    """Of the config's keys, where they are not the usual ones: the usual name to this one's."""


@dataclass(frozen=True)
class HfCard:
    """What was made of a config."""

    card: ModelCard
    notes: tuple[str, ...]
    """What was read as something else, or taken where the file is silent."""


_GATED: Facts = {"ffn_gated": True, "norm": "rmsnorm", "rope": True, "bias": False}


def card_of_config(where: str, name: str, data: Values) -> HfCard:
    """The card of a config's model.

    Parameters
    ----------
    where
        The file, for messages.
    name
        What the card is called.
    data
        The JSON object of ``config.json``.

    Raises
    ------
    InputError
        An architecture that is not known here, a key that is missing or wrong, and what a card
        cannot say, by its key.

    References
    ----------
    ``configuration_*.py`` and ``modeling_*.py`` of transformers 5.24 by ``model_type``.
    """
    if "model_type" not in data:
        raise InputError(f"{where}: no model's config: it has no model_type")
    found = decoder_config(where, data)
    if found.blocks:
        raise InputError(f"{where}: its blocks differ in size; a card has blocks alike, "
                         f"`pimsim export {where}` traces each")  # fmt: skip
    kind = found.kind
    architecture = ARCHITECTURES.get(kind)
    if architecture is None:
        raise InputError(
            f"{where}: no card can be made of architecture {kind!r}"
            f"{near_miss(kind, list(ARCHITECTURES))}; `pimsim export {where}` traces it"
        )
    values = _Config(where, architecture, found.values)
    notes = list(found.notes)
    heads = values.size("num_attention_heads")
    hidden = values.size("hidden_size")
    longest, note = longest_context(SimpleNamespace(model_type=kind, **values.all))
    notes += [note] if note else []
    facts: Facts = {
        "name": name,
        "source": f"config.json of {name} ({kind}); tp and pp are the run's",
        "layers": values.size("num_hidden_layers"), "hidden": hidden, "heads": heads,
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_dim": values.get("head_dim") or hidden // heads,
        "ffn_hidden": values.size("intermediate_size"), "vocab": values.size("vocab_size"),
        "activation": values.activation(),
        "tied_embeddings": bool(values.get("tie_word_embeddings", True)),
        "max_context": longest, **_element_bytes(where, values, notes), **architecture.facts,
    }  # fmt: skip
    if found.quantisation is not None:
        notes.append("the weights are quantised; the card has the elements of the config's dtype")
    if architecture.more is not None:
        facts |= architecture.more(where, values.all)
    try:
        return HfCard(ModelCard.model_validate(facts), tuple(notes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = str(first["msg"]).removeprefix("Value error, ")
        raise InputError(f"{where}: {f'{key} of the card: ' if key else ''}{said}") from None


class _Config:
    """The config's values by their usual names, with the architecture's defaults."""

    def __init__(self, where: str, architecture: Architecture, values: Values) -> None:
        usual = {own: name for name, own in (architecture.names or {}).items()}
        self.where = where
        self.own = architecture.names or {}
        self.all: Facts = dict(architecture.defaults)
        self.all |= {usual.get(key, key): value for key, value in values.items()}

    def get(self, key: str, otherwise: Any = None) -> Any:
        value = self.all.get(key)
        return otherwise if value is None else value

    def size(self, key: str) -> int:
        return _needed(self.where, self.all, key, self.own.get(key))

    def activation(self) -> str:
        for key in ("hidden_activation", "hidden_act", "activation_function"):
            if (value := self.get(key)) is not None:
                if value not in _ACTIVATIONS:
                    raise InputError(
                        f"{self.where}: {key} is {shown(value)}; a card has "
                        f"{', '.join(_ACTIVATIONS)}"
                    )
                return _ACTIVATIONS[value]
        raise InputError(f"{self.where}: hidden_act is missing")


def _element_bytes(where: str, values: _Config, notes: list[str]) -> Facts:
    dtype = values.get("dtype", values.get("torch_dtype"))
    if dtype is None:
        notes.append("its config says no dtype; bfloat16 is taken")
        dtype = "bfloat16"
    if dtype not in _BYTES:
        raise InputError(f"{where}: dtype {shown(dtype)}; allowed: {', '.join(_BYTES)}")
    return {"dtype_bytes": _BYTES[dtype], "kv_dtype_bytes": _BYTES[dtype]}


# what follows from keys ---------------------------------------------------------------------------


def _needed(where: str, values: Values, key: str, own: str | None = None) -> int:
    """A size. ``own``: what the file calls it, where that is another name."""
    value = values.get(key)
    if value is None:
        raise InputError(f"{where}: {own or key} is missing; a whole number is expected")
    return int(value)


def _all_biased(where: str, values: Values) -> Facts:
    """Llama's two switches; a card has both or none."""
    both = {bool(values.get("attention_bias")), bool(values.get("mlp_bias"))}
    if len(both) > 1:
        raise InputError(
            f"{where}: attention_bias and mlp_bias differ; a card has biases in all products, or "
            "in none"
        )
    return {"bias": both.pop()}


def _no_attention_bias(where: str, values: Values) -> Facts:
    if values.get("attention_bias"):
        raise InputError(f"{where}: attention_bias is true; a card has no bias of attention alone")
    return {}


def _window(values: Values, default_every: int = 0) -> Facts:
    """A window of all blocks, or of those that ``layer_types`` or a pattern leaves."""
    size = values.get("sliding_window")
    if not size:
        return {}
    every = values.get("sliding_window_pattern") or values.get("_sliding_window_pattern")
    return {"window": {"size": size, "full_every": every or default_every}}


def _listed_window(where: str, values: Values, default_every: int) -> Facts:
    """As ``layer_types`` lists the blocks; full attention must come at even distances."""
    found = _window(values, default_every)
    kinds = values.get("layer_types")
    if not found or not isinstance(kinds, list):
        return found
    full = [number for number, kind in enumerate(kinds, 1) if kind == "full_attention"]
    every = full[0] if full else 0
    if len(full) == len(kinds):
        return {}
    if every and full != list(range(every, len(kinds) + 1, every)):
        raise InputError(
            f"{where}: layer_types has full attention in blocks {full}; a card has it in each n-th"
        )
    found["window"]["full_every"] = every
    return found


def _windowed(where: str, values: Values) -> Facts:
    """Mistral's and Mixtral's window of all blocks."""
    return _no_attention_bias(where, values) | _window(values)


def _qwen(where: str, values: Values) -> Facts:
    """Windows that ``use_sliding_window`` turns on are of the blocks from ``max_window_layers``."""
    if values.get("use_sliding_window"):
        raise InputError(f"{where}: use_sliding_window is true; a card has no such blocks")
    return _no_attention_bias(where, values)


def _experts(
    count: str, width: str = "moe_intermediate_size", **more: Any
) -> Callable[[str, Values], Facts]:
    """The section ``moe`` of a card where every block has experts."""

    def section(where: str, values: Values) -> Facts:
        for key, expected in (("decoder_sparse_step", 1), ("mlp_only_layers", [])):
            if values.get(key, expected) not in (expected, None):
                raise InputError(
                    f"{where}: {key} is {shown(values[key])}; a card has experts in all blocks "
                    "but the first"
                )
        return {
            "moe": {
                "experts": _needed(where, values, count),
                "experts_per_token": _needed(where, values, "num_experts_per_tok"),
                "expert_hidden": _needed(where, values, width), **more,
            }
        }  # fmt: skip

    return section


def _both(*parts: Callable[[str, Values], Facts]) -> Callable[[str, Values], Facts]:
    def all_of(where: str, values: Values) -> Facts:
        found: Facts = {}
        for part in parts:
            found |= part(where, values)
        return found

    return all_of


def _qwen2_moe(where: str, values: Values) -> Facts:
    found = _experts("num_experts", shared_gate=True)(where, values)
    found["moe"]["shared_hidden"] = values.get("shared_expert_intermediate_size", 0)
    return _qwen(where, values) | found


def _gemma3(where: str, values: Values) -> Facts:
    return _no_attention_bias(where, values) | _listed_window(where, values, 6)


def _gpt_oss(where: str, values: Values) -> Facts:
    found = _experts(
        "num_local_experts", "intermediate_size", scoring="softmax-chosen", router_bias=True
    )
    return found(where, values) | _listed_window(where, values, 2)


def _experts_after_dense(where: str, values: Values) -> Facts:
    """DeepSeek's experts: the first blocks dense, a shared expert of so many experts' width."""
    if values.get("moe_layer_freq", 1) != 1:
        raise InputError(f"{where}: moe_layer_freq is not 1; a card has experts in all blocks "
                         "but the first")  # fmt: skip
    width = _needed(where, values, "moe_intermediate_size")
    return {
        "moe": {
            "experts": _needed(where, values, "n_routed_experts"),
            "experts_per_token": _needed(where, values, "num_experts_per_tok"),
            "expert_hidden": width, "shared_hidden": (values.get("n_shared_experts") or 0) * width,
            "dense_layers": values.get("first_k_dense_replace") or 0,
        }
    }  # fmt: skip


def _latent(where: str, values: Values) -> Facts:
    """DeepSeek's attention; the card's head is that of a value, which the output product sees."""
    width = _needed(where, values, "v_head_dim")
    return _no_attention_bias(where, values) | {
        "head_dim": width,
        "mla": {
            "q_lora": values.get("q_lora_rank") or 0, "v_dim": width,
            "kv_lora": _needed(where, values, "kv_lora_rank"),
            "nope_dim": _needed(where, values, "qk_nope_head_dim"),
            "rope_dim": _needed(where, values, "qk_rope_head_dim"),
        },
    }  # fmt: skip


def _deepseek_v3(where: str, values: Values) -> Facts:
    found = _latent(where, values) | _experts_after_dense(where, values)
    found["moe"] |= {"scoring": "sigmoid", "router_bias": True}
    return found


def _glm4_moe(where: str, values: Values) -> Facts:
    found = _experts_after_dense(where, values) | _partly_rotated(values, 0.5)
    found["moe"] |= {"scoring": "sigmoid", "router_bias": True}
    return found | {
        "qkv_bias": bool(values.get("attention_bias")),
        "qk_norm": "head" if values.get("use_qk_norm") else "none",
    }


def _partly_rotated(values: Values, usual: float) -> Facts:
    """Of a head, the features that are rotated, where they are not all."""
    share = values.get("partial_rotary_factor", usual)
    width = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    return {} if share == 1 else {"rope_dim": int(width * share)}


def _phi3(where: str, values: Values) -> Facts:
    return _windowed(where, values) | _partly_rotated(values, 1.0)


def _gemma2(where: str, values: Values) -> Facts:
    return _no_attention_bias(where, values) | _listed_window(where, values, 2)


def _opt(where: str, values: Values) -> Facts:
    """Two rows of the position table stand before the first (``OPTLearnedPositionalEmbedding``)."""
    if values.get("word_embed_proj_dim", values["hidden_size"]) != values["hidden_size"]:
        raise InputError(f"{where}: word_embed_proj_dim differs from hidden_size; a card has none")
    if values.get("do_layer_norm_before") is False:
        raise InputError(f"{where}: do_layer_norm_before is false; a card has norms before")
    return {"positions": values["max_position_embeddings"] + 2}


def _gpt2(_where: str, values: Values) -> Facts:
    return {"ffn_hidden": values.get("n_inner") or 4 * values["hidden_size"]}


_OPT_NAMES = {"intermediate_size": "ffn_dim"}
_GPT2_NAMES = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions", "intermediate_size": "n_inner",
}  # fmt: skip
_TIED: Facts = {"tie_word_embeddings": True}
_UNTIED: Facts = {"tie_word_embeddings": False, "hidden_act": "silu"}
_GEMMA: Facts = _TIED | {"hidden_activation": "gelu_pytorch_tanh", "head_dim": 256}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(_GATED, _UNTIED, _all_biased),
    "mistral": Architecture(_GATED, _UNTIED | {"sliding_window": 4096}, _windowed),
    "mixtral": Architecture(
        _GATED, _UNTIED | {"num_local_experts": 8, "num_experts_per_tok": 2},
        _both(_windowed, _experts("num_local_experts", "intermediate_size")),
    ),
    "qwen2": Architecture(_GATED | {"qkv_bias": True}, _UNTIED, _qwen),
    "qwen3": Architecture(_GATED | {"qk_norm": "head"}, _UNTIED | {"head_dim": 128}, _qwen),
    "qwen2_moe": Architecture(_GATED | {"qkv_bias": True}, _UNTIED, _qwen2_moe),
    "qwen3_moe": Architecture(
        _GATED | {"qk_norm": "head"}, _UNTIED | {"head_dim": 128},
        _both(_qwen, _experts("num_experts")),
    ),
    "olmoe": Architecture(
        _GATED | {"qk_norm": "all"}, _UNTIED | {"num_experts": 64, "num_experts_per_tok": 8},
        _both(_no_attention_bias, _experts("num_experts", "intermediate_size")),
    ),
    "gemma": Architecture(
        _GATED | {"embed_scale": True, "activation": "gelu"}, _GEMMA, _no_attention_bias
    ),
    "gemma3_text": Architecture(
        _GATED | {"qk_norm": "head", "post_norms": True, "embed_scale": True},
        _GEMMA | {"sliding_window": 4096}, _gemma3,
    ),
    "gpt_oss": Architecture(
        _GATED | {"bias": True, "attention_sinks": True, "activation": "silu"},
        _UNTIED | {"head_dim": 64, "sliding_window": 128, "num_local_experts": 128,
                   "num_experts_per_tok": 4},
        _gpt_oss,
    ),
    "phi3": Architecture(_GATED, _UNTIED, _phi3),
    "glm4_moe": Architecture(_GATED, _UNTIED, _glm4_moe),
    "gemma2": Architecture(
        _GATED | {"post_norms": True, "embed_scale": True},
        _GEMMA | {"sliding_window": 4096}, _gemma2,
    ),
    "deepseek_v3": Architecture(_GATED, _UNTIED | {"v_head_dim": 128}, _deepseek_v3),
    "opt": Architecture(
        {"ffn_gated": False, "norm": "layernorm", "rope": False, "bias": True},
        _TIED | {"activation_function": "relu"}, _opt, _OPT_NAMES,
    ),
    "gpt2": Architecture(
        {"ffn_gated": False, "norm": "layernorm", "rope": False, "bias": True},
        _TIED | {"activation_function": "gelu_new", "intermediate_size": 1,
                 "max_position_embeddings": 1024, "vocab_size": 50257},
        _gpt2, _GPT2_NAMES,
    ),
}  # fmt: skip
"""By ``model_type``."""
