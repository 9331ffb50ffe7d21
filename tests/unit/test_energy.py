"""Energy as formulas over the constants' names; every constant moves a result."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest

from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError
from pimsim.config.loader import load_energy, load_memory, load_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.energy.dram import DramCounts, command_energy, dram_energy
from pimsim.hardware.energy.npu import NpuCounts, gemm_sram_bytes, npu_energy
from pimsim.hardware.energy.pim import pim_energy

PJ = 1e-12
COUNTS = DramCounts(
    act=3,
    rd=40,
    wr=20,
    ref=2,
    refpb=5,
    active_rank_cycles=900,
    idle_rank_cycles=100,
    comp_bank_columns=640,
    gact_banks=8,
    gwrite=1,
    readres=4,
)
NPU_COUNTS = NpuCounts(macs=1000, vector_lane_ops=200, sram_bytes=300, link_bytes=40)
PRESETS = ["default", "pj-per-bit"]


@pytest.fixture(scope="module")
def memory() -> MemoryConfig:
    return load_memory("hbm2").config


@pytest.fixture(scope="module")
def pim() -> PimConfig:
    rules = load_pim("neupims").config.rules
    return PimConfig(
        name="p",
        source="test",
        row_buffers=2,
        composite_gemv=True,
        elements_per_comp=16,
        rules=rules,
    )


def energy(name: str, **changes: float) -> EnergyConfig:
    return load_energy(name).config.model_copy(update=changes)


def test_currents_by_jedec_names(memory: MemoryConfig) -> None:
    idd, t, dies = memory.currents, memory.timings, memory.organization.devices_per_rank
    ns = memory.tCK / 1000
    one = command_energy(memory, energy("default"))
    row = idd.IDD0 * (t["tRAS"] + t["tRP"]) - idd.IDD3N * t["tRAS"] - idd.IDD2N * t["tRP"]
    assert one.activate_pj == pytest.approx(idd.VDD * row * ns * dies)
    assert one.read_pj == pytest.approx(idd.VDD * (idd.IDD4R - idd.IDD3N) * t["nBL"] * ns * dies)
    assert one.write_pj == pytest.approx(idd.VDD * (idd.IDD4W - idd.IDD3N) * t["nBL"] * ns * dies)
    refresh = idd.VDD * (idd.IDD5AB - idd.IDD3N) * t["tRFC"] * ns * dies
    assert one.refresh_pj == pytest.approx(refresh)
    assert one.active_cycle_pj == pytest.approx(idd.VDD * idd.IDD3N * ns * dies)
    assert one.idle_cycle_pj == pytest.approx(idd.VDD * idd.IDD2N * ns * dies)


def test_a_slower_clock_takes_its_share_of_time(memory: MemoryConfig) -> None:
    slow = memory.model_copy(update={"tCK": 2 * memory.tCK})
    for name in PRESETS:
        fast_j = dram_energy(COUNTS, memory, energy(name)).background_j
        slow_j = dram_energy(COUNTS, slow, energy(name)).background_j
        assert slow_j == pytest.approx(2 * fast_j)


def test_pj_per_bit(memory: MemoryConfig) -> None:
    config = energy("pj-per-bit")
    org = memory.organization
    parts = dram_energy(COUNTS, memory, config)
    row_bits, burst_bits = 8 * org.row_bytes, 8 * org.burst_bytes
    seconds = 1000 / org.ranks * memory.tCK * 1e-12
    assert parts.activate_j == pytest.approx(3 * row_bits * config.dram_activate_pj_per_bit * PJ)
    assert parts.read_j == pytest.approx(40 * burst_bits * config.dram_column_pj_per_bit * PJ)
    assert parts.write_j == pytest.approx(20 * burst_bits * config.dram_column_pj_per_bit * PJ)
    refreshes = 2 + 5 / org.banks
    assert parts.refresh_j == pytest.approx(refreshes * config.dram_refresh_pj * PJ)
    assert parts.background_j == pytest.approx(seconds * config.dram_background_w_per_channel)


@pytest.mark.parametrize("name", PRESETS)
def test_io_is_counted_for_what_leaves_the_stack(
    name: str, memory: MemoryConfig, pim: PimConfig
) -> None:
    config = energy(name)
    burst_j = 8 * memory.organization.burst_bytes * config.dram_io_pj_per_bit * PJ
    parts = dram_energy(COUNTS, memory, config)
    assert parts.io_j == pytest.approx((COUNTS.rd + COUNTS.wr) * burst_j)
    assert pim_energy(COUNTS, memory, pim, config).io_j == pytest.approx(COUNTS.readres * burst_j)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))
    assert parts.core_j == pytest.approx(parts.total_j - parts.io_j)


@pytest.mark.parametrize("name", PRESETS)
def test_pim_in_commands_of_the_same_memory(
    name: str, memory: MemoryConfig, pim: PimConfig
) -> None:
    """MECHANISMS, Parameters: G_ACT four ACT, GWRITE the reads of a row, READRES one read."""
    config, one, org = energy(name), command_energy(memory, energy(name)), memory.organization
    parts = pim_energy(COUNTS, memory, pim, config)
    macs = COUNTS.comp_bank_columns * pim.elements_per_comp
    assert parts.activate_j == pytest.approx(COUNTS.gact_banks * one.activate_pj * PJ)
    assert parts.gwrite_j == pytest.approx(COUNTS.gwrite * org.columns * one.read_pj * PJ)
    assert parts.readres_j == pytest.approx(COUNTS.readres * one.read_pj * PJ)
    reads = COUNTS.comp_bank_columns * config.pim_read_factor
    assert parts.array_j == pytest.approx(reads * one.read_pj * PJ)
    assert parts.mac_j == pytest.approx(macs * config.pim_mac_pj * PJ)
    operand_bits = macs / (org.ranks * org.banks) * 16 + COUNTS.gwrite * org.row_bytes * 8
    assert parts.buffer_j == pytest.approx(operand_bits * config.pim_buffer_pj_per_bit * PJ)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))


def test_default_is_the_papers_rule_of_four_reads_for_all_banks(memory: MemoryConfig) -> None:
    """NeuPIMs section 8.2, on its channel of two ranks of 16 banks."""
    banks = 2 * memory.organization.banks
    assert banks == 32
    assert energy("default").pim_read_factor * banks == 4


def test_pj_per_bit_reads_cells_only() -> None:
    """0.44 of the 2.68 pJ/b, over the 32 bytes of a COMP column where a read moves 64."""
    config = energy("pj-per-bit")
    assert config.dram_column_pj_per_bit == pytest.approx(0.44 + 1.01 + 1.23)
    assert config.pim_read_factor == pytest.approx(0.44 / 2.68 * 32 / 64, rel=1e-3)


def test_npu_parts() -> None:
    config = energy("default")
    parts = npu_energy(NPU_COUNTS, 0.5, config)
    assert parts.mac_j == pytest.approx(NPU_COUNTS.macs * config.npu_mac_pj * PJ)
    assert parts.vector_j == pytest.approx(NPU_COUNTS.vector_lane_ops * config.vector_op_pj * PJ)
    assert parts.sram_j == pytest.approx(8 * NPU_COUNTS.sram_bytes * config.sram_pj_per_bit * PJ)
    assert parts.link_j == pytest.approx(8 * NPU_COUNTS.link_bytes * config.link_pj_per_bit * PJ)
    assert parts.static_j == pytest.approx(0.5 * config.npu_static_w)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))
    assert parts.compute_j == parts.mac_j + parts.vector_j


def test_scratchpad_bytes_of_a_product() -> None:
    m, n, k, side = 16, 256, 512, 128
    streamed = 2 * m * n * k // side
    assert gemm_sram_bytes(m, n, k, side) == 2 * (streamed + m * k + k * n + m * n)
    assert gemm_sram_bytes(1, 1, 1, side) == 2 * (2 + 3)


def test_refresh_of_a_bank_takes_its_share_or_its_own_current(memory: MemoryConfig) -> None:
    config, idd, t = energy("default"), memory.currents, memory.timings
    one = command_energy(memory, config)
    assert one.bank_refresh_pj == pytest.approx(one.refresh_pj / memory.organization.banks)
    given = idd.model_copy(update={"IDD5PB": idd.IDD3N + 10})
    own = command_energy(memory.model_copy(update={"currents": given}), config)
    assert own.bank_refresh_pj == pytest.approx(idd.VDD * 10 * t["tRFCpb"])
    low = memory.model_copy(update={"currents": idd.model_copy(update={"IDD5PB": 1.0})})
    with pytest.raises(InputError, match=r"currents\.IDD5PB"):
        command_energy(low, config)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_counted_costs_nothing(name: str, memory: MemoryConfig, pim: PimConfig) -> None:
    nothing = DramCounts(0, 0, 0, 0, 0, 0)
    assert dram_energy(nothing, memory, energy(name)).total_j == 0
    assert pim_energy(nothing, memory, pim, energy(name)).total_j == 0
    assert npu_energy(NpuCounts(0, 0, 0, 0), 0.0, energy(name)).total_j == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("field", list(vars(COUNTS)))
def test_every_count_costs_energy(
    name: str, field: str, memory: MemoryConfig, pim: PimConfig
) -> None:
    def total(counts: DramCounts) -> float:
        config = energy(name)
        return (
            dram_energy(counts, memory, config).total_j
            + pim_energy(counts, memory, pim, config).total_j
        )

    more = replace(COUNTS, **{field: 2 * getattr(COUNTS, field)})
    assert total(more) > total(COUNTS)


PER_BIT_ONLY = {
    "dram_activate_pj_per_bit",
    "dram_column_pj_per_bit",
    "dram_refresh_pj",
    "dram_background_w_per_channel",
}
CONSTANTS = [name for name, field in EnergyConfig.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_no_constant_is_dead(
    name: str, constant: str, memory: MemoryConfig, pim: PimConfig
) -> None:
    def total(config: EnergyConfig) -> float:
        return (
            dram_energy(COUNTS, memory, config).total_j
            + pim_energy(COUNTS, memory, pim, config).total_j
            + npu_energy(NPU_COUNTS, 1e-6, config).total_j
        )

    base = energy(name)
    changed = energy(name, **{constant: 2 * getattr(base, constant)})
    if name == "default" and constant in PER_BIT_ONLY:
        assert total(changed) == total(base)  # as default.yaml says at its head
    else:
        assert total(changed) > total(base)


@pytest.mark.parametrize("name", PRESETS)
def test_every_constant_has_its_source(name: str) -> None:
    sources = energy(name).sources
    assert set(sources) == set(CONSTANTS)
    assert all(len(text) > 20 for text in sources.values())


def test_currents_that_give_negative_energy_are_refused(memory: MemoryConfig) -> None:
    currents = memory.currents.model_copy(update={"IDD4R": memory.currents.IDD3N / 2})
    with pytest.raises(InputError, match=r"currents\.IDD4R .* below the standby"):
        command_energy(memory.model_copy(update={"currents": currents}), energy("default"))
