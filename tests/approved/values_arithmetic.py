"""Rounding of the datapaths, on numbers whose sums are exact or nearly so."""

from __future__ import annotations

from collections.abc import Iterator

from cases import values
from facts import facts


@values("parts/arithmetic", "torch")
def _arithmetic() -> Iterator[str]:
    import torch

    from pimsim.reference.arithmetic import (
        PimDatapath,
        exp_table,
        pim_dot,
        rounded,
        softmax,
        systolic_product,
    )

    numbers = torch.arange(-20, 20).float() * 0.37 + 0.011
    for dtype in ("bf16", "f16", "f32"):
        yield from facts(rounded(numbers, dtype).tolist(), dtype)
    matrix, vector = numbers.view(2, 20) * 100, numbers[:20] * 3
    for path in (
        PimDatapath(), PimDatapath(lanes=5), PimDatapath(tree="bf16"), PimDatapath(latch="bf16"),
        PimDatapath(lanes=4, output="f16"),
    ):  # fmt: skip
        exact = pim_dot(rounded(matrix, "bf16"), rounded(vector, "bf16"), path)
        yield from facts(exact.tolist(), str(path))
    inputs, weights = rounded(numbers.view(4, 10), "bf16"), rounded(matrix.view(4, 10), "bf16")
    for rows, accumulate in ((4, "f32"), (16, "f32"), (3, "bf16")):
        found = systolic_product(inputs, weights, rows, accumulate, "bf16")
        yield from facts(found.tolist(), f"{rows} {accumulate}")
    for segments in (1, 4, 64):
        found = rounded(exp_table(-numbers.abs(), segments), "bf16")
        yield from facts(found.tolist(), f"exp {segments}")
        yield from facts(
            rounded(softmax(numbers.view(4, 10), segments), "bf16").tolist(), f"softmax {segments}"
        )
