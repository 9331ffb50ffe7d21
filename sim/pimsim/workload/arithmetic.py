"""How arithmetic is counted: one place for cards, traces and their comparison.

A multiply-add counts as 2, a transcendental function as 1. A bias is the accumulator's start value
and a collective's sums belong to the fabric: both are free.
"""

from __future__ import annotations

__all__ = [
    "ACTIVATION_FLOPS", "COMBINE_FLOPS", "GATE_FLOPS", "NORM_FLOPS", "RESIDUAL_FLOPS",
    "ROPE_FLOPS", "ROUTE_FLOPS", "SOFTMAX_FLOPS",
]  # fmt: skip

NORM_FLOPS = {"layernorm": 7, "rmsnorm": 4}
"""Per element. LayerNorm: sum, subtract mean, square, sum, times 1/sigma, gain, shift. RMSNorm:
square, sum, times 1/rms, gain."""

ACTIVATION_FLOPS = {"gelu": 9, "silu": 4, "relu": 1}
"""Per element. GELU as tanh: x/2 (1 + tanh(c (x + 0.044715 x^3))). SiLU: x / (1 + exp(-x))."""

GATE_FLOPS = 1
"""Per element: the product with the gate."""

SOFTMAX_FLOPS = 5
"""Per element: maximum, subtract, exponential, sum, divide."""

ROPE_FLOPS = 3
"""Per element: two products and a sum."""

RESIDUAL_FLOPS = 1
"""Per element."""

ROUTE_FLOPS = {"softmax": 5, "sigmoid": 3}
"""Per expert's score: softmax as above; sigmoid: exponential, sum, divide. Finding the largest
compares, which is not counted."""

COMBINE_FLOPS = 2
"""Per element of each expert's output: times its weight, added up."""
