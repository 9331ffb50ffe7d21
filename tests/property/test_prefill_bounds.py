"""Prefill against closed forms: two prompts of 2048 of GPT3-7B on the NPU alone."""

from __future__ import annotations

import pytest

from pimsim.config.npu import NpuConfig
from pimsim.hardware.npu.vector import VectorKind, vector_cycles
from pimsim.result.types import Result
from pimsim.simulate import resolve, simulate

TOKENS, PROMPT, HIDDEN, HEADS, DIM, FFN = 4096, 2048, 4096, 32, 128, 16384
PRODUCTS = {
    "qkv": HIDDEN * 3 * HIDDEN, "proj": HIDDEN * HIDDEN, "fc1": HIDDEN * FFN, "fc2": HIDDEN * FFN,
}  # fmt: skip


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, NpuConfig]:
    trace = tmp_path_factory.mktemp("prompts") / "two.csv"
    rows = "".join(f"{at},0,{PROMPT},1,0\n" for at in range(2))
    trace.write_text(
        "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens\n" + rows
    )  # fmt: skip
    resolved = resolve(
        "npu-only",
        [f"workload.requests={trace}", "workload.phase=prefill", "parallel.tp=1",
         "workload.layers=1", "fidelity=fast"],
    )  # fmt: skip
    return simulate(resolved), resolved.config.npu


def cycles(result: Result, name: str) -> int:
    (found,) = [o.cycles for o in result.operators if o.name == name]
    return found


def test_each_product_is_within_a_twentieth_of_the_arrays_bound(
    prompts: tuple[Result, NpuConfig],
) -> None:
    result, npu = prompts
    elements = npu.cores * npu.systolic.arrays * npu.systolic.rows * npu.systolic.cols
    for name, weights in PRODUCTS.items():
        bound = TOKENS * weights // elements
        assert bound <= cycles(result, name) <= 1.05 * bound, name


def test_the_block_is_within_a_twentieth_of_the_busier_side_of_each_operator(
    prompts: tuple[Result, NpuConfig],
) -> None:
    result, npu = prompts
    elements = npu.cores * npu.systolic.arrays * npu.systolic.rows * npu.systolic.cols

    def vector(kind: VectorKind, width: int) -> int:
        return TOKENS * vector_cycles(kind, width, npu.vector) // npu.vector.units

    softmax = sum(vector_cycles("softmax", width, npu.vector) for width in range(1, PROMPT + 1))
    softmax = 2 * HEADS * softmax // npu.vector.units
    scores = 2 * 2 * HEADS * DIM * PROMPT * (PROMPT + 1) // 2 // elements
    sums = sum(TOKENS * weights // elements for weights in PRODUCTS.values())
    sums += max(softmax, scores)
    sums += 2 * vector("layernorm", HIDDEN) + vector("gelu", FFN) + 2 * vector("add", HIDDEN)
    assert sums <= result.cycles <= 1.05 * sums


def test_arithmetic_is_that_of_the_triangle_and_what_is_done_stands_beside_it(
    prompts: tuple[Result, NpuConfig],
) -> None:
    result, _ = prompts
    (attention,) = [o for o in result.operators if o.kind == "attention"]
    assert attention.flops == 2 * 2 * 2 * HEADS * DIM * PROMPT * (PROMPT + 1) // 2
    tiles = PROMPT // 128 * (PROMPT // 128 + 1) // 2
    assert attention.executed_flops == 2 * 2 * 2 * HEADS * DIM * tiles * 128 * 128


def test_keys_and_values_of_all_tokens_are_written(prompts: tuple[Result, NpuConfig]) -> None:
    result, _ = prompts
    (append,) = [o for o in result.operators if o.kind == "kv_append"]
    assert append.bytes == TOKENS * 2 * HEADS * DIM * 2
