"""Schedules: which stages, in which order, with whose work on which side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.plugins import module_names
from pimsim.engine.schedules import load_schedule
from pimsim.mapping.tasks import BlockProgram, NpuTask, PimTask

POLICIES = module_names("policy")


def npu(name: str, layer: int) -> NpuTask:
    return NpuTask(name, "gemm", "systolic", layer, 0, 0, 0)


def pim(name: str, layer: int) -> PimTask:
    return PimTask(name, "attention_score", "pim", layer, 0, 0, 0)


@dataclass(frozen=True)
class FakeMachine:
    """Blocks of three tasks whose names say what they are, of which sub-batch."""

    layers: int
    batches: int
    attention_on_pim: bool = True

    @property
    def parts(self) -> Sequence[int]:
        return range(self.batches)

    def block(self, part: int, layer: int) -> BlockProgram:
        make = pim if self.attention_on_pim else npu
        return BlockProgram(
            (npu(f"qkv{part}", layer),),
            (make(f"attention{part}", layer),),
            (npu(f"rest{part}", layer),),
        )


def stages(policy: str, machine: FakeMachine) -> list[tuple[str, list[str], list[str]]]:
    """Name of each stage, its NPU tasks and its PIM tasks as ``name/layer``."""

    def names(tasks: Sequence[NpuTask | PimTask]) -> list[str]:
        return [f"{task.name}/{task.layer}" for task in tasks]

    return [(name, names(a), names(b)) for name, a, b in load_schedule(policy)().stages(machine)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_one_batch_repeats_a_b_e(policy: str, layers: int) -> None:
    found = stages(policy, FakeMachine(layers, 1))
    assert [name for name, _, _ in found] == ["A", "B", "E"] * layers
    for layer in range(layers):
        assert found[3 * layer : 3 * layer + 3] == [
            ("A", [f"qkv0/{layer}"], []),
            ("B", [], [f"attention0/{layer}"]),
            ("E", [f"rest0/{layer}"], []),
        ]


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_two_sub_batches_repeat_c_d_between_two_blocks(layers: int) -> None:
    found = stages("interleaved", FakeMachine(layers, 2))
    names = [name for name, _, _ in found]
    assert names == ["A", "B", *["C", "D"] * (layers - 1), "E", "F"]


def test_the_stages_of_two_blocks_are_the_papers() -> None:
    # MECHANISMS 4.8
    assert stages("interleaved", FakeMachine(2, 2)) == [
        ("A", ["qkv0/0"], []),
        ("B", ["qkv1/0"], ["attention0/0"]),
        ("C", ["rest0/0", "qkv0/1"], ["attention1/0"]),
        ("D", ["rest1/0", "qkv1/1"], ["attention0/1"]),
        ("E", ["rest0/1"], ["attention1/1"]),
        ("F", ["rest1/1"], []),
    ]


def test_without_pim_attention_is_the_npus_work() -> None:
    found = stages("serial", FakeMachine(1, 1, attention_on_pim=False))
    assert found[1] == ("B", ["attention0/0"], [])
    assert all(not on_pim for _, _, on_pim in found)


policies = st.sampled_from(POLICIES)


@given(policies, st.integers(1, 6), st.integers(1, 2))
def test_every_task_runs_once_and_after_what_it_needs(
    policy: str, layers: int, batches: int
) -> None:
    batches = min(batches, load_schedule(policy).max_parts or batches)
    found = stages(policy, FakeMachine(layers, batches))
    when = {
        task: (stage, at)
        for stage, (_, on_npu, on_pim) in enumerate(found)
        for side in (on_npu, on_pim)
        for at, task in enumerate(side)
    }
    everything = Counter(task for _, a, b in found for task in (*a, *b))
    assert set(everything.values()) == {1}
    assert len(everything) == 3 * layers * batches
    for part in range(batches):
        for layer in range(layers):
            qkv, attention = when[f"qkv{part}/{layer}"], when[f"attention{part}/{layer}"]
            rest = when[f"rest{part}/{layer}"]
            # the sides of a stage run at once: what passes from one to the other needs a barrier
            assert qkv[0] < attention[0] < rest[0]
            if layer + 1 < layers:
                assert rest < when[f"qkv{part}/{layer + 1}"]


def test_naive_schedules_never_use_both_sides_at_once() -> None:
    for policy in (name for name in POLICIES if not load_schedule(name).at_once):
        for _, on_npu, on_pim in stages(policy, FakeMachine(3, 1)):
            assert not (on_npu and on_pim)
