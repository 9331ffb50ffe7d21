"""Vector unit: formulas over its latencies, and the in-order schedule against its plain run."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.npu import VectorConfig
from pimsim.hardware.npu.vector import (
    VectorKind,
    add_tree_levels,
    schedule_in_order,
    vector_cycles,
    vector_lane_ops,
)
from pimsim.hardware.npu.vector_timing import vector_timing

LANES = 128


def vector(**more: Any) -> VectorConfig:
    return VectorConfig.model_validate({"units": 8, "lanes": LANES} | more)


def test_add_tree_recurs_over_the_partial_sums() -> None:
    assert [add_tree_levels(w, LANES) for w in (0, 1, LANES)] == [1, 1, 1]
    assert add_tree_levels(LANES + 1, LANES) == 2 + 1
    assert add_tree_levels(LANES * LANES, LANES) == LANES + 1
    assert add_tree_levels(LANES * LANES + 1, LANES) == (LANES + 1) + 2 + 1
    assert [add_tree_levels(w, 1) for w in (0, 1, 5)] == [1, 1, 5]


@pytest.mark.parametrize("width", [1, LANES, 512, 1024, 4096, 50_000])
def test_unit_latencies_give_the_artifacts_formulas(width: int) -> None:
    """MECHANISMS 4.11."""
    tree, passes = add_tree_levels(width, LANES), -(-width // LANES)
    assert vector_cycles("layernorm", width, vector()) == 2 * tree + 3 + 5 * passes
    assert vector_cycles("softmax", width, vector()) == 2 * tree + 3 * passes
    assert vector_cycles("add", width, vector()) == passes
    assert vector_cycles("gelu", width, vector()) == passes
    assert vector_cycles("rmsnorm", width, vector()) == tree + 2 + 3 * passes


def test_artifact_softmax_over_the_bytes_of_512_logits() -> None:
    """MECHANISMS 4.11: observed 42 cycles a head."""
    free = vector(timing="neupims_free")
    assert vector_timing(free).pim_scores(512, 2) == 512 * 2
    assert vector_cycles("softmax", 512 * 2, free) == 42


def test_artifact_free_leaves_trees_and_scalars() -> None:
    """MECHANISMS B3: a layernorm row costs 5 cycles, add and gelu nothing."""
    free = vector(timing="neupims_free")
    assert vector_cycles("layernorm", 4096, free) == 5
    assert vector_cycles("add", 4096, free) == vector_cycles("gelu", 4096, free) == 0
    assert vector_timing(free).npu_softmax_cycles(42) == 0
    assert not vector_timing(free).queues


def test_vectors_take_the_time_of_all_their_elements_and_queue() -> None:
    usual = vector_timing(vector())
    assert usual.elements("add", 4096) == 4096
    assert usual.pim_scores(512, 2) == 512
    assert usual.npu_softmax_cycles(42) == 42
    assert usual.queues


@pytest.mark.parametrize(
    ("latency", "kinds"),
    [
        ("add_latency", {"softmax", "layernorm", "add", "silu", "rope"}),
        ("mul_latency", {"softmax", "layernorm", "rmsnorm", "mul", "silu", "rope"}),
        ("exp_latency", {"softmax", "silu"}),
        ("gelu_latency", {"gelu"}),
        ("sqrt_latency", {"layernorm", "rmsnorm"}),
        ("add_tree_latency", {"softmax", "layernorm", "rmsnorm"}),
    ],
)
def test_each_latency_moves_the_operations_that_use_it(latency: str, kinds: set[str]) -> None:
    slow = vector(**{latency: 3})
    moved = {
        kind
        for kind in get_args(VectorKind)
        if vector_cycles(kind, 1000, slow) > vector_cycles(kind, 1000, vector())
    }
    assert moved == kinds


@pytest.mark.parametrize("kind", get_args(VectorKind))
def test_more_lanes_are_never_slower_and_work_is_counted(kind: VectorKind) -> None:
    wide = vector(lanes=4 * LANES)
    for width in (1, 100, 129, 5000):
        assert vector_cycles(kind, width, wide) <= vector_cycles(kind, width, vector())
        assert vector_lane_ops(kind, 2 * width) == 2 * vector_lane_ops(kind, width) > 0


def test_unknown_operation_is_named_with_a_near_miss() -> None:
    with pytest.raises(InputError, match=r"'softmx' is none of .*did you mean 'softmax'"):
        vector_cycles("softmx", 1, vector())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="width -1 is negative"):
        vector_cycles("add", -1, vector())


def finish(ready: list[int], duration: list[int], units: int) -> list[int]:
    arrays = np.array(ready, dtype=np.int64), np.array(duration, dtype=np.int64)
    return [int(cycle) for cycle in schedule_in_order(*arrays, units)]


def test_one_issue_per_cycle() -> None:
    assert finish([0, 0, 0], [10, 10, 10], 3) == [10, 11, 12]


def test_operations_queue_for_a_free_unit() -> None:
    assert finish([0] * 4, [10] * 4, 2) == [10, 11, 20, 21]
    assert finish([0] * 4, [10] * 4, 0) == [10, 11, 12, 13]


def test_program_order_is_kept_when_a_later_operation_is_ready_first() -> None:
    assert finish([50, 0], [5, 5], 8) == [55, 56]


def test_empty_schedule() -> None:
    assert finish([], [], 8) == []


def test_artifact_units_never_queue() -> None:
    assert finish([0] * 20, [100] * 20, -1)[-1] == 19 + 100
