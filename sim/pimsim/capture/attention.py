"""Attention and the KV cache as single operations, on any device, the meta device too.

``transformers`` lets a model be told which attention to call; ours reports the call and then does
it, window and learned logits included. MLA in decode is run absorbed (DeepSeek-V2, arXiv
2405.04434, section 2.1.2): queries go to the latent's space, so that the cache stays compressed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.masking_utils import AttentionMaskInterface

from pimsim.capture.recorder import AppendEvent, AttentionEvent, OperationRecorder
from pimsim.config.errors import InputError

__all__ = ["TraceCache", "traced_attention"]

NAME = "pimsim_trace"
_MLA_PARTS = {
    "q_proj", "q_a_proj", "q_a_layernorm", "q_b_proj", "kv_a_proj_with_mqa", "kv_a_layernorm",
    "kv_b_proj", "o_proj",
}  # fmt: skip


class TraceCache(DynamicCache):  # type: ignore[misc]
    """Keys and values of all blocks, whole contexts: windows are attention's matter."""

    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def update(
        self, key_states: Any, value_states: Any, layer_idx: int, *arguments: Any, **options: Any
    ) -> Any:
        """Append; answers the whole cache of the block."""
        recorder = self.recorder
        with recorder.pause():
            cached = super().update(key_states, value_states, layer_idx, *arguments, **options)
        heads, dim, values = key_states.shape[1], key_states.shape[-1], value_states.shape[-1]
        # one head of a latent and its rotary key are one vector
        together = heads == 1 and values != dim
        recorder.add(
            AppendEvent(
                recorder.path, layer_idx, heads, heads * (dim + values),
                dim + values if together else dim, recorder.facts([key_states, value_states]),
                recorder.facts(cached), key_states.shape[0] * key_states.shape[2],
            )
        )  # fmt: skip
        return cached


@contextmanager
def traced_attention(model: Any, recorder: OperationRecorder, absorbed: bool) -> Iterator[None]:
    """Have ``model`` call our attention.

    Parameters
    ----------
    model
        Of ``transformers``; it has its own attention again afterwards.
    recorder
        Gets an event for each call.
    absorbed
        Whether MLA blocks work on the latent.

    Raises
    ------
    InputError
        For latent attention of a kind that is not supported.
    """

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None,
        sliding_window: Any = None, s_aux: Any = None, softcap: Any = None, **others: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        _refuse_unknown(module, others)
        with recorder.pause():
            scale = query.shape[-1] ** -0.5 if scaling is None else scaling
            out = attention(query, key, value, scale, sliding_window, s_aux, softcap)
            out = out.transpose(1, 2).contiguous()
        sinks = f"{recorder.path}.sinks" if s_aux is not None else ""
        recorder.add(
            AttentionEvent(
                recorder.path, query.shape[1], key.shape[1], key.shape[-1], value.shape[-1],
                sliding_window, sinks, False, recorder.facts([query, key, value]),
                recorder.facts([out]), query.shape[0] * query.shape[2],
            )
        )  # fmt: skip
        return out, None

    config = model.config.get_text_config()
    before = config._attn_implementation
    own = _own_configs(model, config)
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    patched = []
    if absorbed:
        for module in model.modules():
            if hasattr(module, "kv_b_proj") and hasattr(module, "kv_a_proj_with_mqa"):
                others = {name for name, _ in module.named_children()} - _MLA_PARTS
                if others:
                    raise InputError(
                        f"{type(module).__name__} has {', '.join(sorted(others))}: this kind of "
                        "latent attention is not supported"
                    )
                module.forward = MethodType(_absorbed_forward(recorder), module)
                patched.append(module)
    model.set_attn_implementation(NAME)
    for each in own:
        each._attn_implementation = NAME
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        for each in own:
            each._attn_implementation = before
        for module in patched:
            del module.forward


def _own_configs(model: Any, config: Any) -> list[Any]:
    """Configs of blocks that are not the model's, where blocks differ in their sizes."""
    found = {id(each): each for m in model.modules() if (each := getattr(m, "config", None))}
    return [each for each in found.values() if each is not config and each is not model.config]


def _refuse_unknown(module: Any, others: Mapping[str, Any]) -> None:
    """A bias on scores, or attention to what follows, is not what we compute."""
    for name, value in others.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            raise InputError(
                f"{type(module).__name__} gives attention {name!r}, which is not supported"
            )
    if not getattr(module, "is_causal", True):
        raise InputError(f"{type(module).__name__} is not causal, which is not supported")


def _no_mask(*_: Any, **__: Any) -> None:
    """Attention masks by itself."""


def attention(
    query: Any, key: Any, value: Any, scale: float, window: int | None, sinks: Any = None,
    softcap: float | None = None,
) -> Any:  # fmt: skip
    """Causal attention of the last queries of each context, as ``softmax(q k / scale) v``.

    Shapes (requests, heads, tokens, features); key heads may be fewer. Scores in float32.
    """
    tokens, context = query.shape[2], key.shape[2]
    if query.device.type == "meta":
        return query.new_empty((*query.shape[:3], value.shape[-1]))
    group = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(group, dim=1)
    value = value.repeat_interleave(group, dim=1)
    scores = (query @ key.transpose(2, 3)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    at = torch.arange(context - tokens, context).unsqueeze(1)
    other = torch.arange(context).unsqueeze(0)
    hidden = other > at
    if window is not None:
        hidden |= other <= at - window
    scores = scores.masked_fill(hidden, -math.inf)
    if sinks is not None:
        extra = sinks.float().reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        weights = torch.softmax(torch.cat([scores, extra], dim=-1), dim=-1)[..., :-1]
    else:
        weights = torch.softmax(scores, dim=-1)
    return weights.to(value.dtype) @ value


def _absorbed_forward(recorder: OperationRecorder) -> Any:
    def forward(
        self: Any, hidden_states: Any, position_embeddings: Any, attention_mask: Any = None,
        cache: Any = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        requests, tokens = hidden_states.shape[:-1]
        heads, nope, latent_dim = self.num_heads, self.qk_nope_head_dim, self.kv_lora_rank
        if self.q_lora_rank is None:
            queries = self.q_proj(hidden_states)
        else:
            queries = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)))
        queries = queries.view(requests, tokens, heads, self.qk_head_dim).transpose(1, 2)
        plain, turned = torch.split(queries, [nope, self.qk_rope_head_dim], dim=-1)
        compressed = self.kv_a_proj_with_mqa(hidden_states)
        latent, key_turned = torch.split(compressed, [latent_dim, self.qk_rope_head_dim], dim=-1)
        latent = self.kv_a_layernorm(latent).view(requests, 1, tokens, latent_dim)
        key_turned = key_turned.view(requests, 1, tokens, self.qk_rope_head_dim)
        models = sys.modules[type(self).__module__]
        if hasattr(models, "apply_rotary_emb"):  # angles as complex numbers
            turned, key_turned = models.apply_rotary_emb(turned, key_turned, position_embeddings)
        else:
            interleaved = getattr(self.config, "rope_interleave", False)
            name = "apply_rotary_pos_emb_interleave" if interleaved else "apply_rotary_pos_emb"
            turned, key_turned = getattr(models, name)(turned, key_turned, *position_embeddings)
        latent, key_turned = cache.update(latent, key_turned, self.layer_idx)
        up = self.kv_b_proj.weight.view(heads, nope + self.v_head_dim, latent_dim)
        with recorder.part("absorb_k"):
            # (heads, requests x tokens, nope) by (heads, nope, latent)
            rows = plain.transpose(0, 1).reshape(heads, requests * tokens, nope)
            absorbed = torch.bmm(rows, up[:, :nope])
        absorbed = absorbed.view(heads, requests, tokens, latent_dim).transpose(0, 1)
        with recorder.pause():
            query = torch.cat([absorbed, turned], dim=-1)
            key = torch.cat([latent, key_turned], dim=-1)
            mixed = attention(query, key, latent, self.scaling, None)
            rows = mixed.transpose(0, 1).reshape(heads, requests * tokens, latent_dim)
        recorder.add(
            AttentionEvent(
                recorder.path, heads, 1, latent_dim + self.qk_rope_head_dim, latent_dim, None, "",
                True, recorder.facts([absorbed, turned, latent, key_turned]),
                recorder.facts([rows]), requests * tokens,
            )
        )  # fmt: skip
        with recorder.part("absorb_v"):
            values = torch.bmm(rows, up[:, nope:].transpose(1, 2))
        values = values.view(heads, requests, tokens, self.v_head_dim).permute(1, 2, 0, 3)
        return self.o_proj(values.reshape(requests, tokens, -1)), None

    return forward
