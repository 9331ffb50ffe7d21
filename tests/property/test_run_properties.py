"""Laws of whole runs, on small machines and random batches. Every run checks the invariants (time
bounds, bytes and multiplications conserved, cycle stacks that add up) and fails where one breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pimsim
from pimsim.result.types import Result

PRESETS = ("npu-only", "npu-pim", "neupims")
BLOCKED = ("schedule.policy=blocked", "schedule.sub_batches=false")
NO_REFRESH = ("memory.controller.refresh=none",)
"""A change that saves a few cycles can push later work into a refresh: laws of "never slower" are
about what the design does, so they are held without."""
CHANNELS = (2, 4, 8)

contexts = st.lists(st.integers(1, 900), min_size=1, max_size=12)
few = settings(max_examples=15)

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]) -> Run:
    """``run("neupims", [30, 500], "key=value", layers=2)`` on four channels."""

    def simulate(preset: str, batch: Sequence[int], *overrides: str, layers: int = 2) -> Result:
        small = "memory.organization.channels=4"
        return pimsim.run(
            preset, model=tiny_card, requests=write_trace(batch), layers=layers,
            overrides=[small, *overrides],
        )  # fmt: skip

    return simulate


def comparable(result: Result) -> dict[str, Any]:
    """All of a result but what the machine that simulates has to do with it."""
    same = replace(result.provenance, wall_s=0.0, peak_rss_mb=0.0)
    return replace(result, provenance=same).to_dict()


@pytest.mark.parametrize("preset", PRESETS)
@few
@given(batch=contexts)
def test_same_input_same_output(run: Run, preset: str, batch: list[int]) -> None:
    first = run(preset, batch)
    assert first.tokens == len(batch)
    assert comparable(first) == comparable(run(preset, batch))


@pytest.mark.parametrize("preset", PRESETS)
@few
@given(batch=contexts)
def test_every_operator_runs_in_every_block(run: Run, preset: str, batch: list[int]) -> None:
    layers = 3
    result = run(preset, batch, layers=layers)
    sub_batches = 2 if preset == "neupims" and len(batch) > 1 else 1
    on_pim = preset != "npu-only"
    block = ["ln1", "qkv", "kv_append", "score", "softmax", "value", "proj", "res1", "ln2"]
    block += ["fc1", "act", "fc2", "res2"]
    expected = {name for name in block if not (on_pim and name == "softmax")}
    for layer in range(layers):
        names = [op.name for op in result.operators if op.layer == layer]
        assert sorted(names) == sorted(sub_batches * list(expected))
    assert sum(stage.cycles for stage in result.stages) == result.cycles


@few
@given(batch=contexts)
def test_flops_do_not_depend_on_the_machine(run: Run, batch: list[int]) -> None:
    vector = {"softmax"}  # on PIM machines part of the score
    done = {
        preset: sum(op.flops for op in run(preset, batch).operators if op.name not in vector)
        for preset in PRESETS
    }
    assert len(set(done.values())) == 1, done


@few
@given(batch=contexts)
def test_a_second_row_buffer_is_never_slower(run: Run, batch: list[int]) -> None:
    dual = run("neupims", batch, *BLOCKED, *NO_REFRESH)
    single = run("neupims", batch, "pim=newton", *BLOCKED, *NO_REFRESH)
    assert dual.cycles <= single.cycles


@pytest.mark.parametrize("preset", PRESETS)
@few
@given(batch=contexts)
def test_more_channels_are_never_slower(run: Run, preset: str, batch: list[int]) -> None:
    options = (
        "schedule.sub_batches=false",
        "schedule.channel_assignment=least-loaded",
        *NO_REFRESH,
    )
    cycles = [
        run(preset, batch, *options, f"memory.organization.channels={count}").cycles
        for count in CHANNELS
    ]
    assert cycles == sorted(cycles, reverse=True)


@few
@given(batch=contexts, extra=st.integers(1, 900))
def test_another_request_takes_energy(run: Run, batch: list[int], extra: int) -> None:
    """Where work is counted; the static part follows the time."""
    less = run("neupims", batch, *BLOCKED, *NO_REFRESH).energy_j
    more = run("neupims", [*batch, extra], *BLOCKED, *NO_REFRESH).energy_j
    assert more.pim > less.pim
    assert more.npu > less.npu
