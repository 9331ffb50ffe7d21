"""A model with other attention than its own, for as long as it is looked at."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from pimsim.config.errors import InputError

__all__ = ["Attend", "attending", "causal", "softmaxed", "turning"]

NAME = "pimsim_other"
Attend = Callable[[int, Any, Any, Any, float], Any]
"""Of block, queries, keys, values and scale; shapes (1, heads, tokens, features), heads of keys and
values repeated as often as queries share them. Answers as many rows as there are queries."""


@contextmanager
def attending(model: Any, attend: Attend) -> Iterator[None]:
    """Have ``model`` attend in another way.

    Parameters
    ----------
    model
        Of ``transformers``; it has its own attention again afterwards.
    attend
        In place of each block's attention.

    Raises
    ------
    InputError
        For attention that is not plain: windows of its own, sinks, soft caps.
    """

    def call(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None,
        **others: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        for name in ("sliding_window", "s_aux", "softcap"):
            if others.get(name) is not None:
                raise InputError(
                    f"{type(module).__name__} has {name}; models of plain attention are measured"
                )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        out = attend(module.layer_idx, query, key, value, float(scale))
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, call)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def causal(tokens: int) -> Any:
    """What each query sees of as many keys, shape (tokens, tokens).

    Parameters
    ----------
    tokens
        Queries, and keys.
    """
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()


def softmaxed(scores: Any, seen: Any) -> Any:
    """Weights of the keys that are seen.

    Parameters
    ----------
    scores
        Shape (..., queries, keys).
    seen
        Shape (queries, keys).
    """
    return torch.softmax(scores.float().masked_fill(~seen, -math.inf), dim=-1)


def turning(model: Any) -> Callable[..., Any]:
    """What turns queries and keys as the model's rotary embedding does.

    Parameters
    ----------
    model
        Of ``transformers``.

    Returns
    -------
    Callable
        Of features of shape (1, heads, tokens, features), positions of shape (tokens,), and whether
        they are turned back.

    Raises
    ------
    InputError
        For a model without rotary embeddings.
    """
    base = model.base_model
    rotary = getattr(base, "rotary_emb", None)
    apply = getattr(sys.modules[type(base).__module__], "apply_rotary_pos_emb", None)
    if rotary is None or apply is None:
        raise InputError(f"{type(model).__name__} has no rotary embedding to turn keys with")

    def turned(features: Any, positions: Any, back: bool = False) -> Any:
        cos, sin = rotary(features, positions.unsqueeze(0))
        return apply(features, features, cos, -sin if back else sin)[0]

    return turned
