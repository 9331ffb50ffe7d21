"""Area: parts by count, and what the published designs say of their own."""

from __future__ import annotations

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_area, load_pim, load_run, load_stream_pim
from pimsim.config.resources import preset_names
from pimsim.hardware.area import DeviceArea, device_area

AREA = load_area().config


def area_of(preset: str, *overrides: str) -> DeviceArea:
    config = load_run(preset, overrides).config
    return device_area(config.npu, config.memory, config.pim, AREA)


def test_a_second_row_buffer_is_neupims_share_of_the_banks() -> None:
    dual, single = area_of("neupims"), area_of("npu-pim")
    assert dual.row_buffers == pytest.approx(0.0311 * dual.dram)
    assert single.row_buffers == 0
    assert (dual.dram, dual.pim) == (single.dram, single.pim)
    assert area_of("npu-only", "pim=null").pim == 0


def test_arrays_and_sram_go_with_their_counts() -> None:
    one, two = (area_of("neupims", f"npu.systolic.arrays={n}") for n in (8, 16))
    assert two.arrays == 2 * one.arrays
    assert two.total - one.total == pytest.approx(one.arrays)
    small, large = (area_of("neupims", f"npu.scratchpad.capacity={n}MiB") for n in (16, 32))
    assert large.sram == 2 * small.sram


def test_bits_decide_what_dram_takes() -> None:
    config = load_run("neupims").config
    bits = config.memory.organization.capacity_bytes * 8
    assert area_of("neupims").dram == pytest.approx(AREA.bank_mm2 * bits / AREA.bank_bits)


def test_every_number_has_a_source() -> None:
    numbers = set(type(AREA).model_fields) - {"name", "sources"}
    assert numbers == set(AREA.sources)


def on_own_memory(design: str, *overrides: str) -> DeviceArea:
    found = load_stream_pim(design, overrides).config
    return device_area(load_run("npu-only").config.npu, found.memory, found, AREA)


def test_duplex_is_its_papers_part_of_the_logic_die() -> None:
    area = on_own_memory("duplex")  # a stack
    plain = area_of("npu-only", "pim=null")
    assert area.pim == pytest.approx(17.80)
    assert area.dram_dies == area.dram
    assert area.logic_dies == pytest.approx(plain.logic_dies + 17.80)
    assert area.total == pytest.approx(area.dram + plain.logic_dies + 17.80)


@pytest.mark.parametrize(
    ("design", "multipliers"),
    [
        ("attacc-bank", 16 * 64 * 16),  # channels, banks or what has a unit, lanes
        ("attacc-bg", 16 * 16 * 16),
        ("attacc-bg-npc", 16 * 16 * 16),
        ("duplex-bank", 16 * 64 * 16),
        ("duplex-bank-group", 32 * 512),
        ("aim", 32 * 16 * 16),
    ],
)
def test_units_on_dram_dies_by_their_number(design: str, multipliers: int) -> None:
    found = load_stream_pim(design).config
    area = on_own_memory(design)
    assert found.multipliers(found.memory) == multipliers
    assert area.pim == pytest.approx(multipliers * AREA.pim_lane_mm2)
    assert area.dram_dies == pytest.approx(area.dram + area.pim)
    assert area.logic_dies == area.arrays + area.vector + area.sram


def test_hbm_pims_units_are_of_one_rank_and_as_large_as_published() -> None:
    found = load_stream_pim("hbm-pim").config
    assert found.multipliers(found.memory) == 64 * 8 * 16  # channels, units of a rank, lanes
    area = on_own_memory("hbm-pim")
    assert area.pim == pytest.approx(64 * 8 * 0.712)  # ISCA 2021
    assert area.dram_dies == pytest.approx(area.dram + area.pim)


def test_units_on_a_buffer_die_are_of_the_logic_process() -> None:
    area = on_own_memory("attacc-buffer")
    assert area.pim == pytest.approx(16 * 2 * 16 * AREA.mac_um2 * 1e-6)
    assert area.dram_dies == area.dram


def test_area_a_channel_goes_with_the_channels() -> None:
    sources = ("units.mm2_per_channel=2", "memory.organization.channels=8")
    assert on_own_memory("duplex", *sources).pim == pytest.approx(16)


def test_parts_and_sums_are_told_once() -> None:
    parts = on_own_memory("duplex").by_part()
    assert list(parts) == [
        "dram", "pim", "row_buffers", "arrays", "vector", "sram", "dram_dies", "logic_dies",
        "total",
    ]  # fmt: skip
    assert sum(list(parts.values())[:6]) == pytest.approx(parts["total"])
    assert parts["dram_dies"] + parts["logic_dies"] == pytest.approx(parts["total"])


@pytest.mark.parametrize("design", sorted(preset_names("pim")))
def test_no_design_has_fewer_multipliers_than_one_command_uses(design: str) -> None:
    found = load_pim(design).config
    if found.controller is None or found.peak is None:
        pytest.skip("no controller of its own")
    on_memory = load_stream_pim(design).config
    have = on_memory.multipliers(on_memory.memory) // on_memory.organization.channels
    assert on_memory.peak_macs <= have


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("units.die=buffer", "units.die"),
        ("units.mm2_per_channel=-1", "units.mm2_per_channel"),
        ("units.multipliers_per_channel=0", "units.multipliers_per_channel"),
        ("units.mm2=1", "units"),
    ],
)
def test_units_that_cannot_be_is_refused(override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_stream_pim("duplex", [override])


def test_units_without_a_source_are_refused() -> None:
    with pytest.raises(InputError, match=r"units\.source"):
        load_stream_pim("aim", ["units={die: logic}"])


def test_units_is_of_designs_with_a_controller() -> None:
    with pytest.raises(InputError, match="units is of designs with a controller"):
        load_run("npu-pim", ["pim.units={source: none, die: logic}"])
