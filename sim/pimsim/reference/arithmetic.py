"""Dot products, products of matrices and softmax as the hardware rounds them.

All rounding is to nearest, ties to even. Functions take and give float32 tensors whose values the
narrow format can hold; the slow oracles of the tests do the same number by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = [
    "DTYPES",
    "PimDatapath",
    "exp_table",
    "pim_dot",
    "rounded",
    "softmax",
    "systolic_product",
]

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def rounded(values: Any, dtype: str) -> Any:
    """The nearest numbers of a format, ties to even.

    Parameters
    ----------
    values
        Tensor of any shape.
    dtype
        ``bf16``, ``f16`` or ``f32``.

    Returns
    -------
    Tensor
        float32, of the same shape.
    """
    return values.to(DTYPES[dtype]).float()


@dataclass(frozen=True)
class PimDatapath:
    """Multipliers beside a bank: Newton's (MICRO 2020, section III) unless said otherwise."""

    lanes: int = 16
    """Elements that one COMP multiplies."""
    tree: str = "f32"
    """Format of the products and of each level of the adder tree."""
    latch: str = "f32"
    """Format of the accumulator that adds up COMPs."""
    output: str = "bf16"
    """Format of what READRES gives."""


def pim_dot(matrix: Any, vector: Any, path: PimDatapath) -> Any:
    """A matrix times a vector beside the banks.

    For every ``lanes`` elements a tree of pairwise sums, neighbours first, then the accumulator.
    The last COMP's missing lanes are zeros.

    Parameters
    ----------
    matrix
        Shape (rows, n).
    vector
        Shape (n,).
    path
        Lanes, and the formats of tree, accumulator and output.

    Returns
    -------
    Tensor
        Shape (rows,).
    """
    rows, n = matrix.shape
    comps = -(-n // path.lanes)
    padded = torch.zeros(rows, comps * path.lanes)
    padded[:, :n] = rounded(matrix * vector, path.tree)
    level = padded.view(rows, comps, path.lanes)
    while level.shape[2] > 1:
        if level.shape[2] % 2:
            level = torch.cat([level, torch.zeros(rows, comps, 1)], dim=2)
        level = rounded(level[:, :, 0::2] + level[:, :, 1::2], path.tree)
    sums = level[:, :, 0]
    latch = torch.zeros(rows)
    for comp in range(comps):
        latch = rounded(latch + sums[:, comp], path.latch)
    return rounded(latch, path.output)


def systolic_product(
    inputs: Any, weights: Any, rows: int, accumulate: str = "f32", output: str = "f32"
) -> Any:
    """A product on a weight-stationary array.

    A tile of ``rows`` features of k at a time: sums run down the column one product after the
    other, then the tile's sum joins the accumulator.

    Parameters
    ----------
    inputs
        Shape (m, k).
    weights
        Shape (n, k); they are transposed.
    rows
        Of the array.
    accumulate
        Format of sums in a column and of the accumulator.
    output
        Format of what leaves it.

    Returns
    -------
    Tensor
        Shape (m, n).
    """
    m, k = inputs.shape
    total = torch.zeros(m, weights.shape[0])
    for start in range(0, k, rows):
        partial = torch.zeros_like(total)
        for at in range(start, min(start + rows, k)):
            product = inputs[:, at].unsqueeze(1) * weights[:, at].unsqueeze(0)
            partial = rounded(partial + product, accumulate)
        total = rounded(total + partial, accumulate)
    return rounded(total, output)


def exp_table(x: Any, segments: int) -> Any:
    """``exp`` as a power of two times a piecewise linear table over one octave.

    Parameters
    ----------
    x
        Numbers of 0 and below, any shape.
    segments
        Pieces of the table, chords between exact ends.

    Returns
    -------
    Tensor
        float32, of the same shape.
    """
    scaled = x.double() * 1.4426950408889634
    whole = scaled.floor()
    part = scaled - whole
    index = (part * segments).floor().clamp(max=segments - 1)
    low = torch.exp2(index / segments)
    high = torch.exp2((index + 1) / segments)
    value = low + (high - low) * (part * segments - index)
    return (value * torch.exp2(whole)).float()


def softmax(scores: Any, segments: int | None = None) -> Any:
    """Softmax over the last axis: maximum, table or exact exponential, float32 sum, division.

    Parameters
    ----------
    scores
        Any shape; ``-inf`` gives 0.
    segments
        Of the exponential's table; None: it is exact.

    Returns
    -------
    Tensor
        float32, of the same shape.
    """
    shifted = scores.float() - scores.float().amax(dim=-1, keepdim=True)
    if segments is None:
        weights = torch.exp(shifted)
    else:
        finite = torch.where(torch.isfinite(shifted), shifted, torch.full_like(shifted, -200.0))
        weights = torch.where(
            torch.isfinite(shifted), exp_table(finite, segments), torch.zeros_like(shifted)
        )
    return weights / weights.sum(dim=-1, keepdim=True)
