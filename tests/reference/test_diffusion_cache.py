"""What a cache saves a diffusion model, beside Fast-dLLM (arXiv 2505.22618, table 1) on an A100.

LLaDA-8B, GSM8K of 5 shots, batch 1, a token a pass. The published figures are of an eager
framework: its host takes 25 ms a token of a 7B model where the bytes allow 6.6 (Spec-Bench).
"""

from __future__ import annotations

import pytest

import pimsim

HOST_US = 18_400
PROMPT = 900
"""Tokens of five examples and a question, about: the paper does not say."""


def _iteration_s(length: int, cache: str) -> float:
    text = f"llada:length={length},cache={cache},host_us={HOST_US}"
    return pimsim.run(
        "dgx-a100", model="llada-8b", requests=f"equal:{PROMPT}+0", batch=1, steps=length // 32,
        overrides=["devices=1", "workload.outside=true", f"workload.decoding={text}"],
    ).iteration_s  # fmt: skip


@pytest.mark.parametrize(("length", "measured"), [(256, 21.23 / 6.73), (512, 10.43 / 3.23)])
def test_a_prefix_cache_saves_what_was_measured(length: int, measured: float) -> None:
    found = _iteration_s(length, "none") / _iteration_s(length, "prefix")
    assert found == pytest.approx(measured, rel=0.25)
