"""Tiles of a product as fewer steps: the same work, in the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimsim.config.run import MachineConfig
from pimsim.engine.device_building import build_device
from pimsim.engine.iteration import Outcome, run_devices
from pimsim.hardware.dram.fast import SAMPLED_CHANNELS, operations
from pimsim.hardware.dram.fast.phased import PhasedMemory
from pimsim.hardware.dram.fast.pieces import PieceRates
from pimsim.hardware.dram.transfers import Scatter, Stream
from pimsim.hardware.npu.plan import GemmPlan, make_plan
from pimsim.mapping.joined_tiles import HIDDEN, LONG, MOST_PARTS, joined_tiles
from pimsim.mapping.tasks import GemmBlock, GemmStep
from pimsim.result.step_cost import StepCosts
from pimsim.services import prepare
from pimsim.serving.step_times.anchors import Anchor
from pimsim.simulate import on_npu, resolve
from pimsim.workload.batch import load_model


def plan(steps: int = 3, lead: int = 5) -> GemmPlan:
    needed = (np.arange(steps) + 1) * 640
    return make_plan(steps, np.full(steps, 10), needed, lead, 7, 100 * steps)


def tile(at: int, steps: int = 3, core: int = 0, **more: object) -> GemmStep:
    """One whose weights are 30 bursts, behind those of the one before."""
    load = Stream(1000 + 30 * at, 30, track_blocks=True, weight_bytes=1920)
    step = GemmStep(plan(steps), (load,), (), 0, core=core)
    return replace(step, **more)  # type: ignore[arg-type]


def joined(steps: Sequence[GemmStep]) -> tuple[GemmStep, ...]:
    """By a memory that is slow and answers at once, so that all tiles are long."""
    return joined_tiles(steps, 1e6, 0.0)


def test_ends_stay_and_what_is_between_is_one() -> None:
    steps = [tile(at) for at in range(6)]
    first, middle, last = joined(steps)
    assert first is steps[0]
    assert last is steps[-1]
    assert middle.loads == (Stream(1030, 120, track_blocks=True, weight_bytes=4 * 1920),)
    own = middle.plan
    assert own.interval_cycles.tolist() == [10, 10, 15, 10, 10, 15, 10, 10, 15, 10, 10, 10]
    assert own.weight_bytes_needed.tolist() == [640 * (at + 1) for at in range(12)]
    assert (own.macs, own.folds, own.lead_cycles, own.drain_cycles) == (1200, 12, 5, 7)
    one = plan()
    assert own.streamed_cycles == 4 * one.streamed_cycles
    assert own.loading_cycles == 4 * one.loading_cycles
    # as long as one after the other, each from when the one before lets go of the arrays
    assert own.cycles == 3 * (one.lead_cycles + one.taken_cycles) + one.cycles


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_tiles_stay(count: int) -> None:
    steps = tuple(tile(at) for at in range(count))
    assert joined(steps) == steps


def test_what_moves_activations_is_joined_in_parts() -> None:
    store = Stream(5, 9, write=True)
    steps = [tile(at, stores=(store,)) for at in range(42)]
    found = joined(steps)
    assert len(found) == 2 + MOST_PARTS
    assert [len(step.stores) for step in found] == [1, *[5] * MOST_PARTS, 1]
    inputs = Stream(0, 4)
    steps = [replace(step, loads=(inputs, *step.loads), stores=()) for step in steps]
    found = joined(steps)
    assert len(found) == 2 + MOST_PARTS
    assert found[1].loads[:-1] == (inputs,) * 5
    assert found[1].loads[-1].total == 150


@pytest.mark.parametrize(
    "odd",
    [
        {"loads": (Stream(1090, 30, track_blocks=True), Stream(0, 3, track_blocks=True))},
        {"loads": (Stream(1091, 30, track_blocks=True),)},  # not behind the one before
        {"loads": (Stream(1090, 30, track_blocks=True, delay=3),)},
        {"loads": ()},
        {"scale": 2.0},
        {"scatters": (Scatter(0, 0, 1),)},
        {"needed": np.zeros((1, 1, 2), np.int64)},
        {"softmax_cycles": np.zeros(3, np.int64)},
        {"stored_after": (0,)},
        {"blocks": (GemmBlock(plan(), (), ()),)},
    ],
)
def test_what_is_of_one_tile_alone_stays(odd: dict[str, object]) -> None:
    steps = [tile(at) for at in range(7)]
    steps[3] = replace(steps[3], **odd)  # type: ignore[arg-type]
    found = joined(steps)
    assert any(step is steps[3] for step in found)
    assert sum(step.plan.steps for step in found) == 21


def test_short_tiles_wait_for_memory_one_by_one() -> None:
    steps = [tile(at) for at in range(6)]  # of 30 bursts, 30 cycles, which take 7 to leave
    for cycles_per_burst, latency, count in (
        (LONG * 9 / 30, 2.0, 3), (LONG * 9 / 30 - 0.01, 2.0, 6), (LONG * 9 / 30, 2.1, 6),
        # multiplying hides all of it
        (0.5, 30 / HIDDEN - 22, 3), (0.5, 30 / HIDDEN - 21.9, 6), (0.51, 30 / HIDDEN - 22, 6),
    ):  # fmt: skip
        assert len(joined_tiles(steps, cycles_per_burst, latency)) == count
    steps = [tile(at, 6) for at in range(6)]  # 60 cycles: neither memory nor arrays are ahead
    for cycles_per_burst, count in ((4.0, 3), (3.9, 6), (1.6, 6), (1.3, 3)):
        assert len(joined_tiles(steps, cycles_per_burst, -5.0)) == count


def test_each_core_has_its_own() -> None:
    steps = [tile(at % 5 + 100 * core, core=core) for at in range(5) for core in range(2)]
    found = joined(steps)
    assert [(step.core, step.plan.steps) for step in found] == [
        (core, count) for core in range(2) for count in (3, 9, 3)
    ]


def _outcomes(card: Path, machine: str, anchor: Anchor, pad: str) -> Sequence[Outcome]:
    """With each tile a step, and joined; scratchpads that make a product many tiles."""
    config = on_npu(
        resolve(
            machine,
            [
                f"workload.model={card}", "workload.layers=2", "workload.beyond_banks=true",
                "memory.organization.channels=1", "fidelity=fast",
                "npu.systolic={rows: 32, cols: 16, arrays: 2}", f"npu.scratchpad.capacity={pad}",
            ],
        )
    ).config  # fmt: skip
    model, step = load_model(config.workload), anchor.step(1, config.schedule.parts)
    return [
        run_devices((build_device(config, model, step, brief=brief),), over_time=False)
        for brief in (False, True)
    ]


@pytest.mark.parametrize("machine", ["neupims", "npu-only"])
@pytest.mark.parametrize("anchor", [Anchor(8, 90), Anchor(0, 0, 16)])
def test_a_step_takes_as_long(tiny_card: Path, machine: str, anchor: Anchor) -> None:
    one, joined = _outcomes(tiny_card, machine, anchor, "256KiB")
    assert joined.time_ps == pytest.approx(one.time_ps, rel=0.004)
    for name in ("macs", "sram_bytes", "bytes_moved", "bytes_needed"):
        assert getattr(joined.recorder, name) == getattr(one.recorder, name)
    transfers = [_transfers(each) for each in (one, joined)]
    assert transfers[1] < 0.8 * transfers[0]


def _transfers(outcome: Outcome) -> int:
    assert isinstance(outcome.system, PhasedMemory)
    return sum(len(phase.asked) for phase in outcome.system.phases)


def test_one_channel_shows_what_pim_does_in_one_of_many_steps(
    tiny_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    run = operations.time_pieces

    def counted(*args: Any) -> PieceRates:
        seen.append(args[-1])
        return run(*args)

    monkeypatch.setattr(operations, "time_pieces", counted)
    one, brief = _outcomes(tiny_card, "npu-pim", Anchor(3, 90), "256KiB")
    assert set(seen) == {1, SAMPLED_CHANNELS}
    assert (one.device.brief, brief.device.brief) == (False, True)
    path = tmp_path / "service.yaml"
    for fidelity, short in (("fast", True), ("command", False)):
        path.write_text(
            "requests: {count: 1, arrivals: {process: at_once}, prompt: {fixed: 9},"
            " output: {fixed: 2}}\nscheduler: {name: vllm}\n"
            f"machine: {{extends: npu-only, workload: {{model: {tiny_card}, layers: 2}},"
            f" fidelity: {fidelity}}}\n"
        )
        machine = prepare(path).config.machine
        assert isinstance(machine, MachineConfig)
        assert StepCosts(machine)._first.brief == short
