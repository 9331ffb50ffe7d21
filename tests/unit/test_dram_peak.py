"""The peak rate of a memory: one figure, from its rules, wherever it is asked for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pimsim.config.loader import load_memory, load_npu_of, load_run
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.peak import (
    burst_slot_ps,
    column_clocks,
    data_buses,
    peak_bytes_per_s,
)
from pimsim.hardware.dram.replay import replay
from pimsim.mapping.gemm import GemmPlaces, bytes_per_kcycle, gemm_steps, tile_product
from pimsim.result.peaks import device_peaks


def memory_of(name: str, *overrides: str) -> MemoryConfig:
    return load_memory(name, overrides).config


def test_gddr6_is_bound_by_its_column_distance_not_its_burst() -> None:
    """A burst of 256 B in one clock, but a RD every tCCD_S = 3 clocks of 660 ps."""
    memory = memory_of("gddr6")
    assert (memory.timings["nBL"], column_clocks(memory)) == (1, 3)
    assert peak_bytes_per_s(memory) == pytest.approx(256 / (3 * 660e-12))
    assert burst_slot_ps(memory) == 1980


def test_halves_of_a_channel_have_a_bus_each() -> None:
    memory = memory_of("hbm3-6400")
    assert data_buses(memory) == 32
    assert peak_bytes_per_s(memory) == pytest.approx(32 * 32 / (2 * 625e-12))


def test_halves_share_one_slot_of_commands() -> None:
    memory = memory_of("hbm2-onnxim", "timings.nBL=1")
    assert column_clocks(memory) == 1
    assert burst_slot_ps(memory) == 2 * memory.tCK


def test_few_bank_groups_bind_by_the_long_distance() -> None:
    """With one bank group every RD waits tCCD_L; with two, every other one."""
    assert column_clocks(memory_of("hbm2-2000", "organization.bank_groups=1")) == 4
    assert column_clocks(memory_of("hbm2-2000", "organization.bank_groups=2")) == 2
    assert column_clocks(memory_of("ddr5-4800", "organization.bank_groups=1")) == 12
    assert column_clocks(memory_of("ddr5-4800", "organization.bank_groups=1"), "write") == 48


def test_ranks_that_take_turns_may_be_faster_than_one() -> None:
    """tCCD_S of 8 in a rank, 4 + 1 from rank to rank."""
    slow = ("timings.tCCD_S=8", "timings.tCCD_L=8")
    assert column_clocks(memory_of("ddr4-3200", *slow)) == 5
    assert column_clocks(memory_of("ddr4-3200", *slow, "organization.ranks=1")) == 8


@pytest.mark.parametrize("name", preset_names("memory"))
def test_a_sequential_stream_comes_near_the_peak_and_never_above(name: str) -> None:
    memory = memory_of(name, "organization.channels=1", "controller.refresh=none")
    size = memory.organization.burst_bytes
    bursts = np.arange(6000)
    mapped = memory.model_copy(update={"address_map": memory.stream_map})
    result = replay(mapped, bursts * size, np.zeros(6000, int))
    time_ps = result.cycles * memory.tCK / result.ticks_per_clock
    share = result.bytes_moved / (peak_bytes_per_s(memory) * time_ps * 1e-12)
    assert share <= 1
    assert share > 0.3


@pytest.mark.parametrize("name", preset_names("memory"))
def test_tilings_and_the_roofline_take_the_same_peak(name: str) -> None:
    """Bytes in 1000 cycles of 1 GHz; no network in between."""
    npu, memory = load_npu_of("neupims"), memory_of(name)
    assert npu.network is None
    slots = data_buses(memory) * Fraction(1000 * 10**12, npu.frequency) / burst_slot_ps(memory)
    assert bytes_per_kcycle(npu, memory) == int(memory.organization.burst_bytes * slots)


def test_the_roof_of_a_run_is_the_peak() -> None:
    config = load_run("npu-only", ["memory=gddr6"]).config
    peaks = device_peaks(config, config.memory, {})
    assert peaks["dram_bytes_per_s"] == pytest.approx(129.29e9, rel=1e-4)
    assert peaks["npu_bytes_per_s"] == peaks["dram_bytes_per_s"]


def test_a_network_of_cores_lowers_what_reaches_them() -> None:
    """One request a network cycle at each channel."""
    config = load_run("onnxim-tpuv4").config
    network, org = config.npu.network, config.memory.organization
    assert network is not None
    slow = config.npu.model_copy(
        update={"network": network.model_copy(update={"frequency": 10**8})}
    )
    peaks = device_peaks(config.model_copy(update={"npu": slow}), config.memory, {})
    assert peaks["npu_bytes_per_s"] == org.channels * org.burst_bytes * 10**8
    assert peaks["npu_bytes_per_s"] < peaks["dram_bytes_per_s"]


def test_a_second_pass_reads_the_same_weights() -> None:
    """8192 x 4096 x 16384 with rows of activations in several parts: each pass over the weights
    stays in their region, and reads all of it."""
    npu, memory = load_npu_of("neupims"), memory_of("hbm2-neupims")
    dims, size = (8192, 4096, 16384), 2
    tiling = tile_product(*dims, size, npu, memory)
    steps = gemm_steps(dims, tiling, GemmPlaces(1000, None, None), size, npu, memory)
    streams = [s for step in steps for s in step.loads]
    region = dims[1] * dims[2] * size // memory.organization.burst_bytes
    read = sum(s.bursts for s in streams)
    assert read > region and read % region == 0  # several whole passes
    covered = np.zeros(region, int)
    for s in streams:
        assert s.first_burst >= 1000 and s.first_burst + s.bursts <= 1000 + region
        covered[s.first_burst - 1000 : s.first_burst - 1000 + s.bursts] += 1
    assert set(covered) == {read // region}
