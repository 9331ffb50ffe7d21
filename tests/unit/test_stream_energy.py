"""Energy of a command in the banks that it reaches, by hand."""

from __future__ import annotations

import pytest

from pimsim.config.loader import load_energy, load_run, load_stream_pim
from pimsim.hardware.energy.pim import (
    cap_of,
    fullest_stack_w,
    static_stack_w,
    stream_energy_pj,
)
from pimsim.hardware.energy.static import device_static, peak_gb_per_s


@pytest.mark.parametrize(
    ("name", "command", "banks", "each_pj"),
    [
        ("attacc-bank", "MACAB", 64, 145.92),  # 2 pseudo channels x 2 ranks x 4 groups x 4 banks
        ("attacc-bg", "MACSB", 16, 404.48),  # one bank of each of 2 x 2 x 4 groups
        ("attacc-buffer", "MACPB", 2, 847.36),  # one bank of both pseudo channels
        ("duplex", "RDB", 8, 814.1),  # two of four banks of four groups
        ("duplex-bank", "RDB", 32, 112.6),
        ("aim", "MAC16", 16, 82.153),
        ("aim", "MAC", 1, 82.153),
        ("hbm-pim", "RD_AB", 8, 117.8),  # those of a parity
    ],
)
def test_a_broadcast_costs_each_bank_that_it_reaches(
    name: str, command: str, banks: int, each_pj: float
) -> None:
    design = load_stream_pim(name).config
    assert design.banks_reached(command) == banks
    found = stream_energy_pj(design, {command: 3})
    assert sum(found.values()) == pytest.approx(3 * banks * each_pj)


def test_the_fullest_stack_is_what_a_cap_is_of() -> None:
    """AiM: two channels a package; 10 MAC16 in 1 us are 16 x 82.153 pJ x 10 / 1e6 ps."""
    design = load_stream_pim("aim").config
    channels = [{"MAC16": 1}, {"MAC16": 2}, {"MAC16": 10}, {"MAC16": 0}]
    found = fullest_stack_w(design, channels, 1_000_000)
    assert found == pytest.approx(10 * 16 * 82.153 / 1e6)
    assert static_stack_w(design) == pytest.approx(2 * 0.33)
    assert design.power_cap_w is not None
    (limit,) = cap_of(design, found, "key")
    assert (limit.key, limit.found_w, limit.allowed_w) == ("key", found, 30.0)
    assert not cap_of(load_stream_pim("attacc-bank-npc").config, 99.0, "key")


def test_static_power_of_a_device_of_four_cores_by_hand() -> None:
    """ONNXim's TPUv4-like one: 4 x 128 x 128 multipliers, 4 x (32 + 4) MiB, 4 x 4,096 lanes."""
    run = load_run("onnxim-tpuv4").config
    found = device_static(run.npu, run.memory, run.pim, run.link, load_energy("default").config)
    assert found.arrays == pytest.approx(65_536 * 7.46e-5)
    assert found.sram == pytest.approx(144 * 0.170)
    assert found.vector == pytest.approx(run.npu.vector.units * 4096 * 4.17e-4)
    assert found.memory == pytest.approx(peak_gb_per_s(run.memory) * 0.00835)
    assert found.pim == 0
