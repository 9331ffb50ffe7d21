"""Area: parts by count, and what the published designs say of their own."""

from __future__ import annotations

import pytest

from pimsim.config.loader import load_area, load_run
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
