"""Which operator of the cards' vocabulary each recorded operation is a part of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pimsim.capture.recorder import OpEvent

__all__ = ["GEMM_OPS", "Place", "is_movement", "layer_of", "place"]

GEMM_OPS = {"mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "grouped_mm_fallback"}

_MOVEMENT = {
    "t", "transpose", "view", "_unsafe_view", "reshape", "expand", "slice", "select", "split",
    "split_with_sizes", "chunk", "cat", "stack", "clone", "copy", "_to_copy", "unsqueeze",
    "squeeze", "permute", "index", "gather", "index_select", "empty", "empty_like", "new_empty",
    "empty_strided", "new_empty_strided", "zeros", "zeros_like", "ones", "ones_like", "full",
    "full_like", "new_zeros", "new_ones", "arange", "detach", "alias", "unbind", "contiguous",
    "lift_fresh", "index_put", "scatter", "masked_fill", "fill", "zero", "as_strided", "repeat",
    "repeat_interleave", "sort", "topk", "argsort", "unfold", "flip", "constant_pad_nd",
    "native_dropout", "bernoulli", "embedding", "clamp", "clamp_min", "clamp_max", "rsub",
    "histc", "cumsum", "one_hot", "where", "_local_scalar_dense", "view_as_complex",
    "view_as_real", "scalar_tensor", "select_scatter", "slice_scatter",
}  # fmt: skip
"""Operations that move, choose or compare: no arithmetic by our conventions."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)(?:\.(.*))?$")

_NORMS = {
    "input_layernorm": "ln1", "self_attn_layer_norm": "ln1", "ln_1": "ln1", "norm1": "ln1",
    "post_attention_layernorm": "ln2", "final_layer_norm": "ln2", "ln_2": "ln2", "norm2": "ln2",
    "attention_norm": "ln1", "ffn_norm": "ln2", "attention_layernorm": "ln1",
    "feedforward_layernorm": "ln2", "post_self_attn_layernorm": "post_ln1",
    "post_mlp_layernorm": "post_ln2",
    "pre_feedforward_layernorm": "ln2", "pre_mlp_layernorm": "ln2",
    "post_feedforward_layernorm": "post_ln2",
    "q_norm": "qk_norm", "k_norm": "qk_norm", "q_layernorm": "qk_norm", "k_layernorm": "qk_norm",
    "query_layernorm": "qk_norm", "key_layernorm": "qk_norm",
    "q_a_layernorm": "q_a_norm", "kv_a_layernorm": "kv_a_norm",
}  # fmt: skip
_ROPE_OPS = {"mul", "add", "sub", "neg", "div"}
"""What is left in attention's module beside its products: turning, and factors on queries."""
_GEMMS = {
    "q_proj": ("qkv", "q"), "k_proj": ("qkv", "k"), "v_proj": ("qkv", "v"),
    "qkv_proj": ("qkv", "qkv"), "c_attn": ("qkv", "qkv"), "query_key_value": ("qkv", "qkv"),
    "o_proj": ("proj", "proj"), "out_proj": ("proj", "proj"), "dense": ("proj", "proj"),
    "gate_proj": ("fc1", "gate"), "up_proj": ("fc1", "up"), "gate_up_proj": ("fc1", "fc1"),
    "fc1": ("fc1", "fc1"), "c_fc": ("fc1", "fc1"), "fc_in": ("fc1", "fc1"),
    "dense_h_to_4h": ("fc1", "fc1"),
    "down_proj": ("fc2", "fc2"), "fc2": ("fc2", "fc2"), "dense_4h_to_h": ("fc2", "fc2"),
    "fc_out": ("fc2", "fc2"), "gate": ("router", "router"), "router": ("router", "router"),
    "wg": ("router", "router"), "output_projection": ("lm_head", "lm_head"),
    "q_a_proj": ("q_a", "q_a"), "q_b_proj": ("q_b", "q_b"), "kv_b_proj": ("kv_b", "kv_b"),
    "kv_a_proj_with_mqa": ("kv_a", "kv_a"), "absorb_k": ("absorb_k", "absorb_k"),
    "absorb_v": ("absorb_v", "absorb_v"),
    "shared_expert_gate": ("shared_gate", "shared_expert_gate"),
    "lm_head": ("lm_head", "lm_head"), "embed_out": ("lm_head", "lm_head"),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Group and name of the operator that an operation belongs to."""

    group: str
    name: str


def layer_of(path: str) -> tuple[int | None, str]:
    """Number of the decoder block that a module belongs to, and its path within.

    Parameters
    ----------
    path
        Of the module, with dots.

    Returns
    -------
    layer : int | None
        None: it is beside the blocks.
    inner : str
        The path within the block; all of it beside the blocks.
    """
    found = _LAYER.search(path)
    return (None, path) if found is None else (int(found.group(1)), found.group(2) or "")


def is_movement(event: OpEvent) -> bool:
    """Whether it does no arithmetic on real numbers.

    Parameters
    ----------
    event
        One operation.
    """
    return event.op in _MOVEMENT or not event.floating


def place(event: OpEvent) -> Place | None:
    """Where an operation belongs.

    Parameters
    ----------
    event
        One operation.

    Returns
    -------
    Place | None
        None: nowhere that we know.
    """
    layer, inner = layer_of(event.path)
    parts = inner.split(".") if inner else []
    leaf = parts[-1] if parts else ""
    if layer is None:
        return _outside(event, leaf)
    if event.op in GEMM_OPS:
        return _gemm(parts, leaf, event)
    if leaf in _GEMMS and event.op == "add" and event.weights and event.owner == "Linear":
        return _gemm(parts, leaf, event)  # a bias that is added apart
    if "norm" in event.owner.lower():
        return _norm(leaf) if leaf in _NORMS else None
    if not parts:
        return Place("res", "res") if event.op in ("add", "mul") else None
    if "experts" in parts:
        if "act" in leaf or event.op in ("silu", "gelu", "relu", "sigmoid"):
            return Place("expert_act", "expert_act")
        return Place("experts", "experts")  # told apart by what comes before and after
    shared = "shared_" if any(part.startswith("shared_expert") for part in parts) else ""
    if "gate" in parts or "router" in parts:
        return Place("route", "route")
    if parts[0] in ("self_attn", "attn", "attention", "self_attention"):
        return Place("rope", "rope") if event.op in _ROPE_OPS and not event.weights else None
    if parts[0] in ("mlp", "feed_forward", "block_sparse_moe", "activation_fn", "ffn"):
        if len(parts) == 1 and parts[0] != "activation_fn" and "MLP" not in event.owner:
            return Place("combine", "combine")
        return Place(f"{shared}act", f"{shared}act")
    return None


def _outside(event: OpEvent, leaf: str) -> Place | None:
    if "rotary" in event.path:
        return Place("angles", "angles")
    if event.op in GEMM_OPS or (leaf in _GEMMS and event.op == "add" and event.weights):
        return Place("lm_head", "lm_head") if _GEMMS.get(leaf, ("",))[0] == "lm_head" else None
    if "norm" in event.owner.lower():
        return Place("final_norm", "final_norm")
    if "embed" in leaf or event.op in ("add", "mul", "sub"):
        return Place("embed", "embed")
    if event.op in ("div", "tanh"):
        return Place("lm_head", "lm_head")  # a cap or a factor on the logits
    return None


def _gemm(parts: list[str], leaf: str, event: OpEvent) -> Place | None:
    if "experts" in parts and leaf not in ("gate", "router") and event.op in GEMM_OPS:
        second = any("down_proj" in w.weight or ".w2" in w.weight for w in event.weights)
        name = "expert_fc2" if second else "expert_fc1"
        return Place(name, name)
    if leaf == "c_proj":  # GPT-2 has two
        name = "fc2" if parts[0] == "mlp" else "proj"
        return Place(name, name)
    if leaf not in _GEMMS:
        return None
    group, name = _GEMMS[leaf]
    if any(part.startswith("shared_expert") and part != "shared_expert_gate" for part in parts):
        return Place(f"shared_{group}", f"shared_{name}")
    return Place(group, name)


def _norm(leaf: str) -> Place:
    group = _NORMS[leaf]
    return Place(group, f"{leaf[0]}_norm" if group == "qk_norm" else group)
