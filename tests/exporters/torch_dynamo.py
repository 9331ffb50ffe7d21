"""``torch.onnx.export(dynamo=True)`` of a decoder, with and without a KV cache."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

__all__ = ["export_decoder"]


def export_decoder(model: Any, path: Path, *, cache: bool) -> None:
    """Write the graph of ``model`` (of transformers, eager attention).

    With a cache its inputs and outputs are tensors ``past_key_values.N.key``, as users do it:
    torch cannot take the cache object itself.
    """
    import torch
    from transformers import DynamicCache

    config = model.config.get_text_config()
    layers = config.num_hidden_layers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = inspect.signature(model.forward).parameters
    argument = "cache" if "cache" in names else "past_key_values"

    class Logits(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids=input_ids, use_cache=False).logits

    class Cached(Logits):
        def forward(self, input_ids: Any, past: Any) -> Any:  # type: ignore[override]
            kept = DynamicCache()
            for at in range(layers):
                kept.update(past[2 * at], past[2 * at + 1], at)
            out = self.model(input_ids=input_ids, use_cache=True, **{argument: kept})
            present = [each for layer in kept.layers for each in (layer.keys, layer.values)]
            return (out.logits, *present)

    model.eval().set_attn_implementation("eager")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # the others cannot be exported
    ids = torch.randint(0, config.vocab_size, (2, 9))
    tokens = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if not cache:
            program = torch.onnx.export(
                Logits(), (ids,), dynamo=True, input_names=["input_ids"], verbose=False,
                dynamic_shapes={"input_ids": tokens},
            )  # fmt: skip
        else:
            # latent attention keeps keys and values of other widths
            latent = getattr(config, "kv_lora_rank", None)
            key = config.qk_nope_head_dim + config.qk_rope_head_dim if latent else dim
            widths = (key, config.v_head_dim if latent else dim) * layers
            past = [torch.randn(2, heads, 5, width, dtype=model.dtype) for width in widths]
            held = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
            kinds = [f"{at}.{kind}" for at in range(layers) for kind in ("key", "value")]
            program = torch.onnx.export(
                Cached(), (ids, past), dynamo=True, verbose=False,
                input_names=["input_ids", *(f"past_key_values.{kind}" for kind in kinds)],
                output_names=["logits", *(f"present.{kind}" for kind in kinds)],
                dynamic_shapes={"input_ids": tokens, "past": [held] * (2 * layers)},
            )  # fmt: skip
        program.save(str(path))
