"""What is known of blocks before they are simulated tells them apart as their times do."""

from __future__ import annotations

from fractions import Fraction
from statistics import pstdev

import pytest

from pimsim.config.loader import load_npu_of, load_run
from pimsim.config.resources import preset_names
from pimsim.engine.device import Device
from pimsim.engine.estimates import block_estimates
from pimsim.engine.iteration import run_iteration
from pimsim.hardware.dram.sustained import sustained_share
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.result.steady import block_times
from pimsim.simulate import device_of, resolve

ROUTED = [
    "workload.trace=mixtral-8x7b", "workload.routing=uniform", "workload.batch=32",
    "schedule.sub_batches=false", "fidelity=fast",
]  # fmt: skip


def _device(*given: str) -> Device:
    return device_of(resolve("neupims", [*ROUTED, *given]))[0]


def test_a_stream_gets_what_refresh_leaves() -> None:
    """12,000 bursts of two cycles on each channel; a rank of two refreshes every 1,950 cycles."""
    device = load_run("neupims", []).config.memory
    share = sustained_share(device)
    never = device.model_copy(update={"timings": device.timings | {"tREFI": 10**6}})
    assert sustained_share(never) > Fraction(98, 100)
    stopped = 24_000 / float(share) - 24_000 / float(sustained_share(never))
    refreshes = 24_000 / float(share) // 1950
    # no longer than a whole refresh each, and most of it
    assert 0.6 * 260 * refreshes < stopped < 1.1 * 260 * refreshes


@pytest.mark.parametrize("name", preset_names("memory"))
def test_no_memory_sustains_more_than_its_peak(name: str) -> None:
    memory = load_run("npu-only", [f"memory={name}"]).config.memory
    assert Fraction(1, 2) < sustained_share(memory) <= 1


def test_what_streams_takes_as_much_longer_and_what_the_arrays_bound_does_not() -> None:
    npu, memory = load_npu_of("neupims"), load_run("neupims", []).config.memory
    peak, half = ExpertCosts(npu, memory, None), ExpertCosts(npu, memory, None, Fraction(1, 2))
    # 1,024 bytes a cycle
    assert (peak.product_cycles(1, 4096, 4096, 2**25), 2**25) == (32_768, 32_768 * 1024)
    assert half.product_cycles(1, 4096, 4096, 2**25) == 2 * 32_768
    assert peak.product_cycles(4096, 4096, 4096, 2**25) > 2 * 32_768
    assert half.product_cycles(4096, 4096, 4096, 2**25) == peak.product_cycles(
        4096, 4096, 4096, 2**25
    )


def test_estimates_leave_little_of_what_blocks_differ_by() -> None:
    """Blocks that wait for PIM and blocks that wait for weights are told apart: by the peak rate
    the former would be 70 us too long, a tenth, and a sample without them far off."""
    estimates = block_estimates(_device())["decoder"]
    outcome = run_iteration(_device("workload.layers=null"))
    times = block_times(
        outcome.recorder.operators, [stage.end_ps for stage in outcome.recorder.stages],
        [block.kind for block in outcome.device.whole.blocks],
    )  # fmt: skip
    left = [times[number] - estimates[number] for number in times]
    assert len(left) == 31
    assert pstdev(left) < 0.2 * pstdev(times.values())
