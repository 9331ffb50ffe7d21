"""Fast fidelity against the command engine on random small machines.

The figures over a hundred larger ones are those of ``python -m benchmarks fast``.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.result.types import Result
from pimsim.simulate import resolve, simulate


def run(fidelity: str, preset: str, batch: int, *overrides: str) -> Result:
    small = [
        "workload.layers=1", "npu.systolic.arrays=2", "parallel.tp=4", f"workload.batch={batch}",
        f"fidelity={fidelity}",
    ]  # fmt: skip
    return simulate(resolve(preset, [*small, *overrides]))


@settings(max_examples=8)
@given(
    st.sampled_from(["npu-only", "npu-pim", "neupims"]),
    st.sampled_from(["hbm2-neupims", "hbm2", "ddr4-3200", "lpddr5-6400"]),
    st.integers(8, 40), st.sampled_from(["all-bank", "none"]), st.sampled_from([2, 4]),
)  # fmt: skip
def test_it_is_close_to_commands_and_moves_as_much(
    preset: str, memory: str, batch: int, refresh: str, channels: int
) -> None:
    overrides = [
        f"memory={memory}", f"memory.organization.channels={channels}",
        "memory.organization.rows=65536", f"memory.controller.refresh={refresh}",
        "workload.model=smollm2-135m", "parallel.tp=1",
    ]  # fmt: skip
    exact = run("command", preset, batch, *overrides)
    fast = run("fast", preset, batch, *overrides)
    assert abs(fast.cycles / exact.cycles - 1) < 0.08
    assert fast.bound_cycles == exact.bound_cycles
    assert abs(fast.energy_j.total / exact.energy_j.total - 1) < 0.08
    for stack in fast.cycle_stack.values():
        assert sum(stack.values()) == fast.cycles


@settings(max_examples=4)
@given(st.integers(8, 30), st.sampled_from(["npu-pim", "neupims"]))
def test_more_requests_and_slower_rows_never_take_less(batch: int, preset: str) -> None:
    base = ["workload.model=smollm2-135m", "parallel.tp=1", "memory.organization.channels=2"]
    one = run("fast", preset, batch, *base)
    more = run("fast", preset, batch + 8, *base)
    slow = run("fast", preset, batch, *base, "memory.timings.tFAW=60")
    assert more.cycles >= one.cycles * 0.99
    assert slow.cycles >= one.cycles * 0.99
