"""Energy as formulas over the constants' names; every constant moves a result."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest

from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError
from pimsim.config.loader import load_energy, load_memory, load_pim, load_run
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.energy.counts import energy_j, energy_pj
from pimsim.hardware.energy.dram import DramCounts, command_energy, count_dram, dram_energy
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.pim import PimCounts, pim_energy, stream_costs
from pimsim.hardware.energy.static import device_static

PJ = 1e-12
COUNTS = DramCounts(
    act=3,
    rd=40,
    wr=20,
    ref=2,
    refpb=5,
    active_rank_ps=900_000,
    idle_rank_ps=100_000,
)
PIM_COUNTS = PimCounts(
    gact_banks=8, read_bytes=20_480, macs=10_240, broadcast_bytes=640, gwrite=1, readres=4
)
NPU_COUNTS = NpuCounts(macs=1000, vector_lane_ops=200, sram_bytes=300, link_bytes=40)
PRESETS = ["default", "pj-per-bit"]


@pytest.fixture(scope="module")
def memory() -> MemoryConfig:
    return load_memory("hbm2").config


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
    assert one.active_rank_w == pytest.approx(1e-3 * idd.VDD * idd.IDD3N * dies)
    assert one.idle_rank_w == pytest.approx(1e-3 * idd.VDD * idd.IDD2N * dies)


def test_standby_is_watts_times_time_whatever_the_clock() -> None:
    """HBM2 at 1.2 V: 66 mW with a row open, 48 mW without, by hand; no clock in it."""
    memory = load_memory("hbm2").config
    for picoseconds in (1000, 312, 625):
        slow = memory.model_copy(update={"tCK": picoseconds})
        background = dram_energy(COUNTS, slow, energy("default")).background_j
        assert background == pytest.approx((0.066 * 900_000 + 0.048 * 100_000) * 1e-12)


@pytest.mark.parametrize("edges", [1, 2])
def test_half_clocks_are_no_clocks_and_pseudo_channels_no_channels(edges: int) -> None:
    """HBM3's 16 channels: 0.132 W each for 1 us are 2.112 uJ, whatever the controller counts in."""
    memory = load_memory("hbm3-6400").config
    ranks = 16 * 2 * 2
    ticks = 1600 * edges
    half = ranks * ticks // 2
    counts = count_dram(memory, {"REF": 3, "REFpb": 5}, half, ticks, 1_000_000)
    assert counts.active_rank_ps == counts.idle_rank_ps == ranks * 500_000
    assert counts.ref == 6  # of both SIDs of a pseudo channel
    assert counts.refpb == 5
    per_channel = energy("pj-per-bit", dram_background_w_per_channel=0.132)
    standby = dram_energy(counts, memory, per_channel).background_j
    assert standby == pytest.approx(16 * 0.132 * 1e-6)


def test_no_more_than_all_ranks_are_active() -> None:
    memory = load_memory("hbm2").config
    counts = count_dram(memory, {}, 10**9, 100, 100_000)
    assert (counts.active_rank_ps, counts.idle_rank_ps) == (8 * 100_000, 0)


def test_pj_per_bit(memory: MemoryConfig) -> None:
    config = energy("pj-per-bit")
    org = memory.organization
    parts = dram_energy(COUNTS, memory, config)
    row_bits, burst_bits = 8 * org.row_bytes, 8 * org.burst_bytes
    seconds = 1e6 / org.ranks * 1e-12
    assert parts.activate_j == pytest.approx(3 * row_bits * config.dram_activate_pj_per_bit * PJ)
    assert parts.read_j == pytest.approx(40 * burst_bits * config.dram_column_pj_per_bit * PJ)
    assert parts.write_j == pytest.approx(20 * burst_bits * config.dram_column_pj_per_bit * PJ)
    refreshes = 2 + 5 / org.banks
    assert parts.refresh_j == pytest.approx(refreshes * config.dram_refresh_pj * PJ)
    assert parts.background_j == pytest.approx(seconds * config.dram_background_w_per_channel)


@pytest.mark.parametrize("name", PRESETS)
def test_io_is_counted_for_what_leaves_the_stack(name: str, memory: MemoryConfig) -> None:
    config = energy(name)
    burst_j = 8 * memory.organization.burst_bytes * config.dram_io_pj_per_bit * PJ
    parts = dram_energy(COUNTS, memory, config)
    assert parts.io_j == pytest.approx((COUNTS.rd + COUNTS.wr) * burst_j)
    assert pim_energy(PIM_COUNTS, memory, config).io_j == pytest.approx(4 * burst_j)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))
    assert parts.core_j == pytest.approx(parts.total_j - parts.io_j)


@pytest.mark.parametrize("name", PRESETS)
def test_pim_in_commands_of_the_same_memory(name: str, memory: MemoryConfig) -> None:
    """MECHANISMS, Parameters: G_ACT four ACT, GWRITE the reads of a row, READRES one read."""
    config, one, org = energy(name), command_energy(memory, energy(name)), memory.organization
    parts = pim_energy(PIM_COUNTS, memory, config)
    assert parts.activate_j == pytest.approx(8 * one.activate_pj * PJ)
    assert parts.gwrite_j == pytest.approx(org.columns * one.read_pj * PJ)
    assert parts.readres_j == pytest.approx(4 * one.read_pj * PJ)
    reads = 20_480 / org.burst_bytes
    assert parts.array_j == pytest.approx(reads * config.pim_array_factor * one.read_pj * PJ)
    assert parts.mac_j == pytest.approx(10_240 * config.pim_mac_pj * PJ)
    operand_bits = (640 + org.row_bytes) * 8
    assert parts.buffer_j == pytest.approx(operand_bits * config.pim_buffer_pj_per_bit * PJ)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))


def test_default_is_the_papers_rule_of_four_reads_for_all_banks() -> None:
    """NeuPIMs section 8.2, on its channel of 32 banks that each read 32 B: four reads of 804 pJ."""
    memory = load_memory("hbm2-neupims").config
    all_banks = PimCounts(read_bytes=32 * 32)
    assert pim_energy(all_banks, memory, energy("default")).array_j == pytest.approx(4 * 804 * PJ)


def test_pj_per_bit_reads_cells_only() -> None:
    """0.44 of the 2.68 pJ/b."""
    config = energy("pj-per-bit")
    assert config.dram_column_pj_per_bit == pytest.approx(0.44 + 1.01 + 1.23)
    assert config.pim_array_factor == pytest.approx(0.44 / 2.68, rel=1e-3)


def test_npu_parts() -> None:
    config = energy("default")
    parts = npu_energy(NPU_COUNTS, config)
    assert parts.mac_j == pytest.approx(1000 * config.npu_mac_pj * PJ)
    assert parts.vector_j == pytest.approx(200 * config.vector_op_pj * PJ)
    assert parts.sram_j == pytest.approx(8 * 300 * config.sram_pj_per_bit * PJ)
    assert parts.link_j == pytest.approx(8 * 40 * config.link_pj_per_bit * PJ)
    assert parts.total_j == pytest.approx(sum(astuple(parts)))
    assert parts.compute_j == parts.mac_j + parts.vector_j


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
def test_nothing_counted_costs_nothing(name: str, memory: MemoryConfig) -> None:
    assert dram_energy(DramCounts(0, 0, 0, 0, 0, 0), memory, energy(name)).total_j == 0
    assert pim_energy(PimCounts(), memory, energy(name)).total_j == 0
    assert npu_energy(NpuCounts(0, 0, 0, 0), energy(name)).total_j == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("field", list(vars(COUNTS)))
def test_every_count_costs_energy(name: str, field: str, memory: MemoryConfig) -> None:
    more = replace(COUNTS, **{field: 2 * getattr(COUNTS, field)})
    before, after = (dram_energy(each, memory, energy(name)).total_j for each in (COUNTS, more))
    assert after > before


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("field", list(vars(PIM_COUNTS)))
def test_every_count_of_pim_costs_energy(name: str, field: str, memory: MemoryConfig) -> None:
    more = replace(PIM_COUNTS, **{field: 2 * getattr(PIM_COUNTS, field)})
    before, after = (pim_energy(each, memory, energy(name)).total_j for each in (PIM_COUNTS, more))
    assert after > before


PER_BIT_ONLY = {
    "dram_activate_pj_per_bit",
    "dram_column_pj_per_bit",
    "dram_refresh_pj",
    "dram_background_w_per_channel",
}
CONSTANTS = [name for name, field in EnergyConfig.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_no_constant_is_dead(name: str, constant: str, memory: MemoryConfig) -> None:
    run = load_run("neupims").config

    def total(config: EnergyConfig) -> float:
        return (
            dram_energy(COUNTS, memory, config).total_j
            + pim_energy(PIM_COUNTS, memory, config).total_j
            + npu_energy(NPU_COUNTS, config).total_j
            + 1e-9 * device_static(run.npu, memory, run.pim, run.link, config).total
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


def test_energy_is_counts_times_what_one_costs() -> None:
    """By part, a count in several, one whose cost is not known; sums do not lose digits."""
    costs = {"act": {"row": 2.5}, "rd": {"column": 3.0, "io": 0.5}, "pre": {}, "ps": {"row": 1e-3}}
    found = energy_pj({"act": 4, "rd": 10, "pre": 7, "ps": 500}, costs)
    assert found == {"row": 10.5, "column": 30.0, "io": 5.0}
    assert energy_j({"rd": 10}, costs) == {"column": 30e-12, "io": 5e-12}
    with pytest.raises(KeyError, match="wr"):
        energy_pj({"wr": 1}, costs)
    tenths = {str(at): {"part": 0.1} for at in range(10)}
    assert energy_pj(dict.fromkeys(tenths, 1), tenths) == {"part": 1.0}


@pytest.mark.parametrize("name", preset_names("pim"))
def test_every_command_of_a_stream_costs_what_its_banks_cost(name: str) -> None:
    design = load_pim(name).config
    if design.controller is None:
        return
    costs = stream_costs(design)
    assert costs.keys() == design.all_commands.keys()
    for command, config in design.all_commands.items():
        each = {} if config.energy is None else {config.energy: design.energy_pj[config.energy]}
        banks = design.banks_reached(command)
        assert costs[command] == {part: pj * banks for part, pj in each.items()}
