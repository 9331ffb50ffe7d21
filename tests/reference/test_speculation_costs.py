"""What a round costs against a plain step, beside Spec-Bench on an A100 (Vicuna-7B, batch 1).

Leaderboard.md of hemingkx/Spec-Bench @fd2c1cd, greedy, FP16: accepted tokens over speed-up is the
cost of a round. Its baseline is an eager framework, so that the device alone is a lower bound; the
rest is the host's. Its smaller model (68 M parameters) is smaller than the drafter here.
"""

from __future__ import annotations

import pytest

import pimsim

MEASURED = {
    "medusa:measured=spec-bench/vicuna-7b": 2.31 / 1.71,
    "eagle:measured=spec-bench/vicuna-7b,nodes=59,depth=5": 4.34 / 2.36,
    "prompt_lookup:measured=spec-bench/vicuna-7b": 1.75 / 1.66,
    "draft_model:model=llama-2-drafter-115m,drafts=5,measured=spec-bench/vicuna-7b": 2.28 / 1.52,
}
"""Cost of a round in plain steps."""


def _iteration_s(decoding: str) -> float:
    overrides = ["devices=1", "workload.outside=true", f"workload.decoding={decoding}"]
    return pimsim.run(
        "dgx-a100", model="llama-2-7b", requests="equal:500+100", batch=1, overrides=overrides
    ).iteration_s


@pytest.fixture(scope="module")
def plain_s() -> float:
    return _iteration_s("none")


@pytest.mark.parametrize("decoding", MEASURED)
def test_the_device_alone_is_never_above_what_was_measured(decoding: str, plain_s: float) -> None:
    assert 1 < _iteration_s(decoding) / plain_s <= MEASURED[decoding]
