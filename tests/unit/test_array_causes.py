"""What the arrays do in a product's cycles: multiply, take in the operand that stays, or wait."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

import pimsim
from pimsim.config.loader import load_run
from pimsim.config.npu import SystolicConfig
from pimsim.config.plugins import is_reproduction, module_names
from pimsim.engine.clock import Clock
from pimsim.engine.memory import MemoryPort
from pimsim.engine.npu_records import ARRAY_CAUSES
from pimsim.engine.npu_side import NpuSide
from pimsim.engine.records import Recorder
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.npu.gemm import plan_gemm, utilisation
from pimsim.mapping.tasks import GemmStep, NpuTask

R, C = 8, 4


def systolic(
    dataflow: str, preload: str = "hidden", arrays: int = 1, cols: int = C
) -> SystolicConfig:
    return SystolicConfig(arrays=arrays, rows=R, cols=cols, dataflow=dataflow, preload=preload)  # type: ignore[arg-type]


def causes(
    config: SystolicConfig, *shapes: tuple[int, int, int], cores: int = 1
) -> tuple[dict[str, int], Recorder]:
    """NPU cycles by cause of products whose operands are on chip, a tile each, one core after the
    other in turn."""
    run = load_run("npu-only").config
    npu = run.npu.model_copy(update={"systolic": config, "cores": cores})
    env = simpy.Environment()
    system = make_memory_system(run.memory)
    clock = Clock.of(npu.frequency, system.cycle_ps)
    recorder = Recorder()
    side = NpuSide(env, MemoryPort(env, system, clock), clock, npu, run.memory, recorder)
    steps = tuple(
        GemmStep(plan_gemm(*shape, config), (), (), 0, core=at % cores)
        for at, shape in enumerate(shapes)
    )
    flops = 2 * sum(int(np.prod(shape)) for shape in shapes)
    task = NpuTask("product", "gemm", "systolic", 0, flops, 0, 0, steps=steps)
    env.run(until=env.process(side.run(task)))
    found = {cause: cycles for cause, cycles in recorder.npu_causes.items() if cycles}
    assert sum(found.values()) == clock.npu_cycle(int(env.now))
    return found, recorder


def test_few_rows_leave_the_array_loading() -> None:
    """Two rows stream through each of 6 blocks of weights, which take 8 cycles to come in: the
    first in front of all, each other 8 - 2 cycles longer than the rows that stream meanwhile."""
    found, recorder = causes(systolic("ws"), (2, 3 * C, 2 * R))
    assert found == {
        "computing": 6 * 2,
        "array_loading": R + 5 * (R - 2),
        "array_fill_drain": R + C - 2,
    }
    assert recorder.array_cycles == 6 * R
    assert recorder.operators[0].bound_ps == 6 * R * 1000
    assert recorder.npu_busy_cycles == sum(found.values())


def test_many_rows_hide_the_loading_but_for_the_first() -> None:
    found, recorder = causes(systolic("ws"), (20, C, 2 * R))
    assert found == {"computing": 40, "array_loading": R, "array_fill_drain": R + C - 2}
    assert recorder.array_cycles == 40


def test_exposed_preloads_show_each_time() -> None:
    found, _ = causes(systolic("ws", "exposed"), (20, C, 3 * R))
    assert found == {
        "computing": 60, "array_loading": 3 * R, "array_fill_drain": 3 * (R + C - 2),
    }  # fmt: skip


def test_a_tile_behind_another_shows_what_the_other_does_not_hide() -> None:
    """The next tile's first weights come in while the last rows of this one stream and leave."""
    found, recorder = causes(systolic("ws"), (20, C, R), (20, C, R), (2, C, R))
    assert found == {
        "computing": 20 + 20 + 2, "array_loading": R, "array_fill_drain": R + C - 2,
    }  # fmt: skip
    few, _ = causes(systolic("ws"), (2, C, R), (2, C, R))
    assert few == {
        "computing": 4, "array_loading": R + (R - 2), "array_fill_drain": R + C - 2,
    }  # fmt: skip
    assert recorder.array_cycles == 20 + 20 + R


def test_results_that_grow_in_the_array_load_nothing() -> None:
    """Two of 8 rows of results: streaming takes k cycles, of which a quarter is full work."""
    found, _ = causes(systolic("os"), (2, C, 24))
    assert found == {
        "computing": 6, "array_part": 18, "array_fill_drain": R + C - 2,
    }  # fmt: skip


def test_short_streams_wait_for_results_to_leave() -> None:
    """Two blocks of results, R cycles apart as they leave by rows, and 3 of them stream."""
    found, _ = causes(systolic("os"), (R, 2 * C, 3))
    assert found == {"computing": 6, "array_fill_drain": (R - 3) + R + C - 2}


def test_inputs_are_loaded_too() -> None:
    """Three blocks of inputs stay in turn while 5 columns stream past each."""
    found, _ = causes(systolic("is"), (C, 5, 3 * R))
    assert found == {
        "computing": 15, "array_loading": R + 2 * (R - 5), "array_fill_drain": R + C - 2,
    }  # fmt: skip


def test_cores_are_a_mean() -> None:
    """One of two cores has all the work; the other waits for it."""
    found, recorder = causes(systolic("ws"), (2, C, R), cores=2)
    cycles = 2 * R + C + 2 - 2
    assert found == {
        "computing": 1, "array_loading": R // 2, "array_fill_drain": (R + C - 2) // 2,
        "core_imbalance": cycles - 1 - R // 2 - (R + C - 2) // 2,
    }  # fmt: skip
    assert recorder.array_cycles == R // 2


KINDS = [
    *product(
        (name for name in module_names("dataflow") if not is_reproduction("dataflow", name)),
        ("hidden", "exposed"),
    ),
    ("neupims_overlapped", "exposed"),
    ("neupims_serial", "exposed"),
]
size = st.integers(1, 200)


@given(size, size, size, st.integers(1, 4), st.sampled_from(KINDS))
def test_parts_of_a_plan_add_up(m: int, n: int, k: int, arrays: int, kind: tuple[str, str]) -> None:
    config = systolic(*kind, arrays=arrays, cols=R if "neupims" in kind[0] else C)
    plan = plan_gemm(m, n, k, config)
    assert plan.streamed_cycles >= 1
    assert plan.loading_cycles >= 0
    assert plan.streamed_cycles + plan.loading_cycles <= plan.cycles
    # what streams is enough for the work, the skew is there at least once
    assert plan.streamed_cycles * arrays * R * config.cols >= m * n * k
    assert plan.cycles - plan.streamed_cycles - plan.loading_cycles >= R - 1
    assert plan.taken_cycles <= plan.cycles


@pytest.mark.parametrize("placement", ["pim", "npu"])
@pytest.mark.parametrize(("dataflow", "preload"), [k for k in KINDS if "neupims" not in k[0]])
def test_a_run_computes_as_much_as_it_is_utilised(
    dataflow: str, preload: str, placement: str
) -> None:
    """With few tokens most of the arrays' time is no computing, whatever stays in them."""
    run = pimsim.run(
        "neupims", model="smollm2-135m", batch=6, layers=1, fidelity="fast",
        overrides=[
            "parallel.tp=1", f"npu.systolic.dataflow={dataflow}",
            f"npu.systolic.preload={preload}", f"schedule.attention_placement={placement}",
        ],
    )  # fmt: skip
    stack = run.cycle_stack["npu"]
    tiles = 200  # each rounds a cycle up
    assert (
        run.utilisation.npu * run.cycles
        <= stack["computing"]
        <= (run.utilisation.npu * run.cycles + tiles)
    )
    assert stack["computing"] < run.cycles // 4
    busy = sum(stage.npu_busy_cycles for stage in run.stages)
    assert sum(stack.get(cause, 0) for cause in ARRAY_CAUSES) == busy
    assert run.bound_cycles["npu"] <= run.bound_cycles["array"] <= busy


def test_plans_of_a_plugin_that_does_not_say() -> None:
    """All between lead and drain streams, the lead loads."""
    from pimsim.hardware.npu.plan import make_plan

    plan = make_plan(2, np.array([7, 7]), np.array([1, 2]), 5, 20, 100)
    assert (plan.loading_cycles, plan.streamed_cycles, plan.cycles) == (5, 7, 5 + 7 + 20)
    assert utilisation(plan, systolic("ws")) == 100 / (R * C * 32)
