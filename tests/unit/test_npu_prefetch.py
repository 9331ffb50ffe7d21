"""Weights of the next product that come before it starts."""

from __future__ import annotations

import pytest

import pimsim
from pimsim.config.loader import load_run
from pimsim.engine.npu_side import fetched_early
from pimsim.mapping.tasks import NpuTask
from pimsim.result.types import Result
from pimsim.simulate import device_of

SMALL = ["workload.batch=16", "workload.layers=1", "schedule.sub_batches=false"]


def run(preset: str, *overrides: str) -> Result:
    return pimsim.run(preset, overrides=[*SMALL, *overrides])


def both(preset: str, *overrides: str) -> tuple[Result, Result]:
    """With and without prefetch."""
    keys = ("npu.prefetch_weights=true", "npu.prefetch_weights=false")
    with_it, without = (run(preset, *overrides, key) for key in keys)
    return with_it, without


def moved(result: Result) -> int:
    return sum(operator.bytes for operator in result.operators)


def cycles(result: Result) -> dict[str, int]:
    return {operator.name: operator.cycles for operator in result.operators}


@pytest.mark.parametrize("cores", [1, 2])
def test_same_bytes_in_less_time(cores: int) -> None:
    early, late = both("npu-only", f"npu.cores={cores}", "memory.controller.refresh=none")
    assert moved(early) == moved(late)
    assert early.cycles < late.cycles
    # behind vector work and links, which leave the bus free
    after, before = cycles(early), cycles(late)
    # two tiles a core, which are smaller where there are more cores
    assert after["fc1"] < before["fc1"] - 1000 // cores
    assert after["qkv"] == before["qkv"]  # nothing goes before it


@pytest.mark.parametrize(
    "alone",
    [
        "npu.scratchpad.double_buffered=false",
        "npu.scratchpad.activations=dram",
        "npu.operand_layout=row-major",
    ],
)
def test_without_room_or_without_weights_by_themselves_nothing_comes_early(alone: str) -> None:
    early, late = both("npu-only", alone)
    assert cycles(early) == cycles(late)


def test_inputs_that_spilled_are_not_fetched_before_they_are_there() -> None:
    # the second matrix's inputs come from DRAM with its weights, the activation's stay on chip
    # (and no refresh, which would swallow what two tiles gain)
    narrow = ("parallel.tp=8", "npu.scratchpad.capacity=640KiB", "memory.controller.refresh=none")
    tasks = {task.name: task for task in products("npu-only", *narrow)}
    assert tasks["fc2"].steps[0].inputs_first > 0 and not tasks["act"].streams
    fetched, waiting = both("npu-only", *narrow)
    assert cycles(fetched) == cycles(waiting)


def products(preset: str, *overrides: str) -> tuple[NpuTask, ...]:
    """What the NPU does in a block, in order."""
    device, _ = device_of(load_run(preset, [*SMALL, *overrides]))
    block = device.block(0, 0)
    on_npu = [task for task in block.attention if isinstance(task, NpuTask)]
    on_chip = (*block.after, *block.late)
    return (*block.before, *on_npu, *on_chip)


def early(tasks: tuple[NpuTask, ...]) -> dict[str, str | None]:
    """For each product the one whose weights it lets come."""
    found = {
        task.name: fetched_early(tasks[at + 1 :]) for at, task in enumerate(tasks) if task.steps
    }
    return {name: task.name if task is not None else None for name, task in found.items()}


def test_attention_has_the_buffers_to_itself() -> None:
    assert early(products("npu-only")) == {
        "qkv": None, "proj": "fc1", "fc1": "fc2", "fc2": None,
    }  # fmt: skip


def test_experts_wait_for_the_router() -> None:
    found = early(products("npu-pim", "workload.model=mixtral-8x7b"))
    assert found["proj"] == "router"
    assert found["router"] is None
    assert found["expert_fc1"] == "expert_fc2"


@pytest.mark.parametrize(("predictor", "second"), [("none", None), ("oracle", "fc2")])
def test_active_features_wait_for_the_activation(predictor: str, second: str | None) -> None:
    found = early(
        products(
            "npu-pim",
            "workload.model=llama-3-8b",
            "workload.sparsity=law:relu:tokens=1000",
            f"workload.sparsity_predictor={predictor}",
        )
    )
    assert found["fc1"] == second


def test_spilled_activations_go_first() -> None:
    on_chip, spilled = (
        early(products("npu-pim", f"npu.scratchpad.capacity={size}")) for size in ("32MiB", "1MiB")
    )
    assert on_chip["proj"] == "fc1"
    assert spilled["proj"] is None  # the residual sum between streams its operands
