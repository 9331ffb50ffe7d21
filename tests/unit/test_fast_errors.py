"""Which runs rates are for, and what a run at fast fidelity says of its error."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pimsim.engine.fidelity import (
    LEAST_ROWS,
    MOST_BURSTS,
    STUDENT_T,
    missed_phases,
    rates_hold,
    sampled_errors,
)
from pimsim.simulate import device_of, resolve, simulate


@dataclass
class SomePhase:
    """A phase whose kind is its number of cycles by rates."""

    number: int
    cycles: int
    bursts: int = 0
    by_command: bool = False

    @property
    def kind(self) -> tuple[object, ...]:
        return (self.cycles,)


@dataclass
class SomeMemory:
    """A memory whose phases take ``exact`` cycles by commands."""

    phases: list[SomePhase]
    exact: dict[int, int]
    channels: list[int] = field(default_factory=lambda: [0, 1])

    @property
    def probe(self) -> Any:
        return SimpleNamespace(lag=lambda bursts: bursts * 0, reads=SimpleNamespace(latency=0))

    def cycles_again(self, phase: SomePhase, channel: int) -> tuple[int, int]:
        return self.exact[phase.number], phase.cycles


@pytest.mark.parametrize(
    ("exact", "missed"), [(1000, False), (1111, True), (909, True), (1040, False), (960, False)]
)
def test_phases_that_are_too_fast_miss_a_limit_as_those_that_are_too_slow(
    exact: int, missed: bool
) -> None:
    phases = [SomePhase(0, 1000), SomePhase(1, 500), SomePhase(2, 1000)]
    memory: Any = SomeMemory(phases, {0: exact, 1: 500, 2: exact})
    assert missed_phases(memory, 0.05, 1) == (frozenset({0, 2}) if missed else frozenset())


def test_the_interval_is_that_of_a_phase_and_of_its_edges() -> None:
    memory: Any = SomeMemory([SomePhase(0, 990)], {0: 1000})
    found = sampled_errors(memory, 1100, 0)
    share = 990 / 1100
    assert found.sampled == 4
    assert found.mean == pytest.approx(-0.01 * share)
    assert found.half_width == pytest.approx(STUDENT_T * 0.01 * share)
    assert sampled_errors(memory, 1100, 0) == found
    by_command: Any = SomeMemory([SomePhase(0, 990, by_command=True)], {})
    assert sampled_errors(by_command, 1100, 0).sampled == 0


def test_phases_are_drawn_in_proportion_to_their_length() -> None:
    """A hundred short phases that are twice too long are a ten thousandth of the time."""
    short = [SomePhase(at, 2) for at in range(1, 101)]
    memory: Any = SomeMemory(
        [SomePhase(0, 2_000_000), *short], {0: 2_000_000} | dict.fromkeys(range(1, 101), 1)
    )
    found = [sampled_errors(memory, 2_000_200, seed).mean for seed in range(20)]
    assert found == [0.0] * 20


def small(*overrides: str) -> list[str]:
    return [
        "workload.model=gemma-3-270m", "workload.batch=16", "parallel.tp=1", "workload.layers=2",
        *overrides,
    ]  # fmt: skip


def test_two_sub_batches_on_few_rows_are_run_by_commands() -> None:
    def hold(*overrides: str) -> bool:
        return rates_hold(device_of(resolve("neupims", small(*overrides)))[0])

    assert not hold()
    assert hold("schedule.sub_batches=false")
    # a quarter as many channels hold four times as many rows each
    assert hold("memory.organization.channels=4", "memory.organization.rows=131072")
    assert hold("schedule.attention_placement=npu", "schedule.expert_placement=npu")
    assert not hold("workload.batch=64")
    many = "workload.requests=sharegpt-512"
    assert hold(many, "workload.batch=512", "memory.organization.rows=131072", "workload.layers=18")


def test_small_models_with_sub_batches_are_exact_at_fast_fidelity() -> None:
    # Gemma 3 270M was 10 % off: weights of a hundred rows a channel wait for gaps that PIM leaves
    exact = simulate(resolve("neupims", small("memory=gddr6")))
    fast = simulate(resolve("neupims", small("memory=gddr6", "fidelity=fast")))
    assert fast.cycles == exact.cycles
    assert fast.fidelity.mode == "command"


def test_limits_are_at_their_values() -> None:
    def device(rows: int, blocks: int) -> Any:
        product = SimpleNamespace(weight_bytes=rows * 1024 * 2, kv_read_bytes=0)
        parts = [SimpleNamespace(blocks=[SimpleNamespace(operators=[product])] * blocks)] * 2
        org = SimpleNamespace(channels=2, row_bytes=1024, burst_bytes=64)
        memory = SimpleNamespace(organization=org)
        return SimpleNamespace(passes=parts, uses_pim=True, memory=memory)

    assert rates_hold(device(LEAST_ROWS, 1))
    assert not rates_hold(device(LEAST_ROWS - 1, 1))
    # 16 bursts a row, two channels, two sub-batches
    blocks = MOST_BURSTS // (64 * 100)
    assert not rates_hold(device(100, blocks))
    assert rates_hold(device(100, blocks + 1))
