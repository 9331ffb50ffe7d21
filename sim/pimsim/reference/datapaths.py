"""Ways in which a whole model may be computed, each one choice away from float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from pimsim.config.errors import InputError, near_miss
from pimsim.reference.arithmetic import rounded, softmax

__all__ = ["DATAPATHS", "Datapath", "chosen", "linear", "running"]

NAME = "pimsim_numerics"
_BLOCK = 4096
"""Output features at a time, so that partial sums of a large vocabulary fit."""


@dataclass(frozen=True)
class Datapath:
    """What is narrow; all else is float32."""

    name: str
    words: str
    inputs: str = "f32"
    """Format of activations and weights of matrix products."""
    lanes: int = 0
    """The accumulator is rounded to bf16 after so many features; 0: never."""
    output: str = "f32"
    scores: str = "f32"
    segments: int | None = None
    """Pieces of the exponential's table; None: exact."""
    kv_int8: bool = False
    """Keys and values are int8 with a scale for each head and token."""
    whole: str = ""
    """The whole model in this format, as PyTorch does it."""


DATAPATHS = {
    path.name: path
    for path in (
        Datapath("fp32", "linear: bf16 in, fp32 accumulate, fp32 out", inputs="bf16"),
        Datapath("bf16-out", "linear: bf16 in, fp32 accumulate, bf16 out", "bf16", output="bf16"),
        Datapath("bf16-16", "linear: bf16 accumulate every 16 lanes", "bf16", 16, "bf16"),
        Datapath("bf16-128", "linear: bf16 accumulate every 128", "bf16", 128, "bf16"),
        Datapath("scores-bf16", "attention scores bf16", scores="bf16"),
        Datapath("exp-64", "exp table of 64 segments", segments=64),
        Datapath("exp-8", "exp table of 8 segments", segments=8),
        Datapath("exp-2", "exp table of 2 segments", segments=2),
        Datapath("kv-int8", "keys and values int8", kv_int8=True),
        Datapath("torch-bf16", "torch bf16 whole model", whole="bf16"),
    )
}


def chosen(names: list[str] | None) -> list[Datapath]:
    """The datapaths of these names.

    Parameters
    ----------
    names
        Keys of ``DATAPATHS``; None or empty: all.

    Raises
    ------
    InputError
        For an unknown name.
    """
    for name in names or []:
        if name not in DATAPATHS:
            raise InputError(
                f"unknown datapath {name!r}{near_miss(name, DATAPATHS)}; "
                f"known: {', '.join(DATAPATHS)}"
            )
    return [DATAPATHS[name] for name in names] if names else list(DATAPATHS.values())


def linear(inputs: Any, weights: Any, bias: Any, path: Datapath) -> Any:
    """A product as a datapath does it.

    Parameters
    ----------
    inputs
        Shape (..., k).
    weights
        Shape (n, k); they are transposed.
    bias
        Shape (n,); None: none.
    path
        Formats, and lanes of the units.

    Returns
    -------
    Tensor
        Shape (..., n).
    """
    if path.inputs != "f32":
        inputs, weights = rounded(inputs, path.inputs), rounded(weights, path.inputs)
    if not path.lanes:
        out = torch.nn.functional.linear(inputs, weights, bias)
    else:
        flat = inputs.reshape(-1, inputs.shape[-1])
        parts = [_chunked(flat, part, path.lanes) for part in weights.split(_BLOCK)]
        out = torch.cat(parts, dim=1).view(*inputs.shape[:-1], weights.shape[0])
        out = out if bias is None else out + bias
    return out if path.output == "f32" else rounded(out, path.output)


def _chunked(flat: Any, weights: Any, lanes: int) -> Any:
    total = torch.zeros(flat.shape[0], weights.shape[0])
    for start in range(0, flat.shape[1], lanes):
        stop = start + lanes
        total += flat[:, start:stop] @ weights[:, start:stop].T
        total = rounded(total, "bf16")
    return total


def _int8(values: Any) -> Any:
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return (values / scale).round().clamp(-127, 127) * scale


@contextmanager
def running(model: Any, path: Datapath) -> Iterator[Any]:
    """The model as it computes on a datapath.

    Parameters
    ----------
    model
        Of ``transformers``; it is as before afterwards.
    path
        Formats of products, scores and cache.

    Yields
    ------
    Any
        A model that may be called.
    """
    if path.whole:
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[path.whole]
        yield _copied(model, dtype)
        return

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None,
        sliding_window: Any = None, **_: Any,
    ) -> tuple[Any, None]:  # fmt: skip
        if path.kv_int8:
            key, value = _int8(key), _int8(value)
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = (query @ key.transpose(2, 3)) * scale
        if path.scores != "f32":
            scores = rounded(scores, path.scores)
        tokens, context = scores.shape[-2:]
        at = torch.arange(context - tokens, context).unsqueeze(1)
        other = torch.arange(context).unsqueeze(0)
        hidden = other > at
        if sliding_window is not None:
            hidden |= other <= at - sliding_window
        weights = softmax(scores.masked_fill(hidden, float("-inf")), path.segments)
        return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    before = model.config.get_text_config()._attn_implementation
    replaced: list[Any] = []
    if path.inputs != "f32" or path.lanes or path.output != "f32":
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.forward = _forward(module, path)
                replaced.append(module)
    model.set_attn_implementation(NAME)
    try:
        yield model
    finally:
        model.set_attn_implementation(before)
        for module in replaced:
            del module.forward


def _forward(module: Any, path: Datapath) -> Callable[[Any], Any]:
    return lambda inputs: linear(inputs, module.weight, module.bias, path)


def _copied(model: Any, dtype: Any) -> Any:
    from copy import deepcopy

    return deepcopy(model).to(dtype).eval()
