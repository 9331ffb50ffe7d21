"""From simulated blocks to the model's: each kind by its own time and energy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import pimsim
from pimsim.engine.records import StageRecord
from pimsim.result.scale import block_factors, missing_ps, model_blocks, steady_block_ps

MODEL = (("dense", 3), ("moe", 58))


def stages(*timed: tuple[str, int, int]) -> list[StageRecord]:
    """Records of (name, layer, duration)."""
    records, now = [], 0
    for name, layer, duration in timed:
        records.append(StageRecord(name, now, now + duration, 0, 0, 0, layer))
        now += duration
    return records


def test_each_kind_of_block_stands_for_its_own() -> None:
    simulated = ["dense", "moe", "moe"]
    run = stages(
        *[(name, 0, 10) for name in "ABE"], *[(name, 1, 100) for name in "ABE"],
        *[(name, 2, 300) for name in "ABE"],
    )  # fmt: skip
    assert steady_block_ps(run, simulated, "dense") == 30
    assert steady_block_ps(run, simulated, "moe") == 3 * 200
    assert missing_ps(run, simulated, MODEL) == 2 * 30 + 56 * 600
    assert block_factors(simulated, MODEL) == {"dense": (3, 1), "moe": (58, 2)}


def test_with_sub_batches_a_stage_counts_for_the_block_whose_end_it_runs() -> None:
    simulated = ["dense", "moe", "moe"]
    run = stages(
        ("A", 0, 1), ("B", 0, 2), ("C", 0, 10), ("D", 0, 20), ("C", 1, 100), ("D", 1, 200),
        ("E", 2, 7), ("F", 2, 8),
    )  # fmt: skip
    assert steady_block_ps(run, simulated, "dense") == 10 + 20
    assert steady_block_ps(run, simulated, "moe") == 100 + 200


def test_a_kind_that_is_only_the_last_block_is_put_together() -> None:
    run = stages(("A", 0, 5), ("B", 0, 40), ("C", 0, 50), ("D", 0, 60), ("E", 1, 70), ("F", 1, 30))
    # its end beside attention with the next block's start, then the same of the other sub-batch
    assert steady_block_ps(run, ["dense", "moe"], "moe") == 70 + 5 + max(30 + 5, 40)


def test_more_blocks_than_the_model_has_are_their_own_model() -> None:
    assert model_blocks(["decoder"] * 5, [("decoder", 3)]) == {"decoder": 5}


CARD = """\
name: mixed
source: made up
layers: 8
hidden: 512
heads: 4
kv_heads: 2
head_dim: 64
ffn_hidden: 1024
ffn_gated: true
activation: silu
norm: rmsnorm
bias: false
rope: true
vocab: 1000
tied_embeddings: true
max_context: 2048
dtype_bytes: 2
kv_dtype_bytes: 2
moe: {experts: 8, experts_per_token: 2, expert_hidden: 512, dense_layers: 2}
window: {size: 100, full_every: 2}
"""


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
def test_few_blocks_of_each_kind_predict_all(
    preset: str, tmp_path: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(CARD)
    requests = write_trace([40, 700, 3, 260, 128, 33, 610, 512])

    def run(layers: int) -> pimsim.Result:
        small = ["memory.organization.channels=4"]
        return pimsim.run(preset, model=card, requests=requests, layers=layers, overrides=small)

    few, whole = run(5), run(8)
    assert few.layers_model == whole.layers_model == 8
    assert whole.iteration_s == whole.time_s
    # blocks of one kind differ in where their tokens go
    assert few.iteration_s == pytest.approx(whole.iteration_s, rel=0.1)
    assert few.tokens_per_j == pytest.approx(whole.tokens_per_j, rel=0.1)
