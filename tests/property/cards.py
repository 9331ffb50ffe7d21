"""The small card of the tests that walk over keys and resources."""

from __future__ import annotations

__all__ = ["small_card"]


def small_card(**changes: int) -> str:
    """A dense decoder in YAML, its heads as many as its key heads where ``changes``, by key, do
    not say how many these are."""
    sizes = {"layers": 4, "hidden": 512, "heads": 4, "head_dim": 128, "ffn_hidden": 1024, "tp": 2}
    sizes = sizes | changes
    sizes = {"kv_heads": sizes["heads"]} | sizes
    return f"""\
name: small
source: made up for this test
layers: {sizes["layers"]}
hidden: {sizes["hidden"]}
heads: {sizes["heads"]}
kv_heads: {sizes["kv_heads"]}
head_dim: {sizes["head_dim"]}
ffn_hidden: {sizes["ffn_hidden"]}
ffn_gated: false
activation: gelu
norm: layernorm
bias: true
rope: false
vocab: 1000
tied_embeddings: true
max_context: 4096
dtype_bytes: 2
kv_dtype_bytes: 2
tp: {sizes["tp"]}
pp: 1
"""
