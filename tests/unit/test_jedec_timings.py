"""Every preset's timings against its standard: figures in nanoseconds and in clocks, from JEDEC.

A figure is at least so many clocks and at least so many nanoseconds, rounded up to clocks (JESD79-5
section 13.2 first takes 0.3 % off, as tCK is itself rounded). A preset that says otherwise is
listed with the reason; that list may hold nothing that has become right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names


@dataclass(frozen=True)
class Figure:
    """At least ``clocks`` and ``ns``."""

    clocks: int = 0
    ns: float = 0.0

    def cycles(self, tck_ps: int) -> int:
        return max(self.clocks, math.ceil(self.ns * 1000 / tck_ps * 0.997 - 1e-9))


# JESD79-4: x8 devices of 1 KiB pages at 3200; 8 Gb
DDR4_3200 = {
    "tFAW": Figure(20, 21), "tRRD_S": Figure(4, 2.5), "tRRD_L": Figure(4, 4.9),
    "tWTR_S": Figure(2, 2.5), "tWTR_L": Figure(4, 7.5), "tRTP": Figure(4, 7.5),
    "tWR": Figure(0, 15), "tCCD_S": Figure(4), "tCCD_L": Figure(5, 5), "tRFC": Figure(0, 350),
    "tREFI": Figure(0, 7800), "tRCDRD": Figure(0, 13.75), "tRP": Figure(0, 13.75),
    "tRAS": Figure(0, 32), "CL": Figure(0, 13.75),
}  # fmt: skip
# JESD79-4: x4 devices of 512 B pages at 1600 (bin J: 10-10-10); 16 Gb
DDR4_1600 = {
    "tFAW": Figure(16, 20), "tRRD_S": Figure(4, 5), "tRRD_L": Figure(4, 6),
    "tWTR_S": Figure(2, 2.5), "tWTR_L": Figure(4, 7.5), "tRTP": Figure(4, 7.5),
    "tWR": Figure(0, 15), "tCCD_S": Figure(4), "tCCD_L": Figure(5, 6.25), "tRFC": Figure(0, 550),
    "tREFI": Figure(0, 7800), "tRCDRD": Figure(0, 12.5), "tRP": Figure(0, 12.5),
    "tRAS": Figure(0, 35), "CL": Figure(0, 12.5),
}  # fmt: skip
# JESD79-5: x8 devices of 1 KiB pages at 4800, bin B (40-39-39); 16 Gb
DDR5_4800 = {
    "tFAW": Figure(32, 13.333), "tRRD_S": Figure(8), "tRRD_L": Figure(8, 5),
    "tWTR_S": Figure(4, 2.5), "tWTR_L": Figure(16, 10), "tRTP": Figure(12, 7.5),
    "tWR": Figure(0, 30), "tCCD_S": Figure(8), "tCCD_L": Figure(8, 5), "tCCD_S_WR": Figure(8),
    "tCCD_L_WR": Figure(32, 20), "tRFC": Figure(0, 295), "tREFI": Figure(0, 3900),
    "tRCDRD": Figure(0, 16), "tRP": Figure(0, 16), "tRAS": Figure(0, 32), "tRC": Figure(0, 48),
    "CL": Figure(40, 16.666), "CWL": Figure(38), "tPPD": Figure(2),
}  # fmt: skip
# JESD209-4: x16 channels at 2400; 8 Gb (4 Gb a channel)
LPDDR4_2400 = {
    "tFAW": Figure(0, 40), "tRRD_S": Figure(4, 10), "tWTR_S": Figure(8, 10), "tRTP": Figure(8, 7.5),
    "tWR": Figure(6, 18), "tCCD_S": Figure(8), "tRFC": Figure(0, 180), "tRFCpb": Figure(0, 90),
    "tREFI": Figure(0, 3904), "tRCDRD": Figure(4, 18), "tRP": Figure(4, 18), "tRAS": Figure(3, 42),
    "tPPD": Figure(4),
}  # fmt: skip
# JESD209-5B: x16 in bank group mode at 6400; 16 Gb
LPDDR5_6400 = {
    "tFAW": Figure(0, 20), "tRRD_S": Figure(2, 5), "tRRD_L": Figure(2, 5),
    "tWTR_S": Figure(4, 6.25), "tWTR_L": Figure(4, 12), "tWR": Figure(3, 34),
    "tCCD_S": Figure(2), "tCCD_L": Figure(4), "tRFC": Figure(0, 280), "tREFI": Figure(0, 3906),
    "tRCDRD": Figure(2, 18), "tRP": Figure(2, 18), "tRAS": Figure(3, 42), "tPPD": Figure(2),
}  # fmt: skip
# JESD235D: per pseudo channel or legacy channel of 8 Gb
HBM2 = {
    "tREFI": Figure(0, 3900), "tRFC": Figure(0, 350), "tRFCpb": Figure(0, 160),
    "tRREFD": Figure(0, 8), "tRRD_S": Figure(0, 4), "tRRD_L": Figure(0, 4), "tWR": Figure(0, 15),
    "tRAS": Figure(0, 33), "tRP": Figure(0, 14), "tRCDRD": Figure(0, 14),
    "tRTP": Figure(0, 5), "tCCD_S": Figure(1), "tCCD_L": Figure(2),
}  # fmt: skip
# JESD238: of 4 Gb a channel and SID (8 Gb dies: 260 ns), or 8 Gb (16 Gb dies: 350 ns)
HBM3 = {
    "tREFI": Figure(0, 3900), "tRFC": Figure(0, 260), "tRFCpb": Figure(0, 200),
    "tRREFD": Figure(0, 8), "tRP": Figure(0, 14), "tRAS": Figure(0, 28), "tCCD_S": Figure(2),
    "tCCD_L": Figure(4), "tPPD": Figure(2),
}  # fmt: skip
# JESD250: bank groups off
GDDR6 = {
    "tCCD_S": Figure(2), "tREFI": Figure(0, 1900), "tRFC": Figure(0, 65), "tPPD": Figure(2),
    "tRFCpb": Figure(0, 60), "tRREFD": Figure(0, 16), "tRP": Figure(0, 15), "tRAS": Figure(0, 28),
}  # fmt: skip
STANDARDS = {
    "DDR4": DDR4_3200, "DDR5": DDR5_4800, "LPDDR4": LPDDR4_2400, "LPDDR5": LPDDR5_6400,
    "HBM2": HBM2, "HBM2E": HBM2, "HBM3": HBM3, "HBM3E": HBM3, "GDDR6": GDDR6,
}  # fmt: skip
OTHER_GRADES = {"ddr4-onnxim": DDR4_1600}
"""Presets of another speed or width than their standard's first."""

SHORTER = {
    ("ddr5-4800-ramulator", "CL"): "Ramulator 2.1's 4800BN",
    ("ddr5-4800-ramulator", "CWL"): "Ramulator 2.1's 4800BN",
    ("ddr5-4800-ramulator", "tRCDRD"): "Ramulator 2.1's 4800BN",
    ("ddr5-4800-ramulator", "tRP"): "Ramulator 2.1's 4800BN",
    ("ddr5-4800-ramulator", "tRC"): "Ramulator 2.1's 4800BN",
    ("hbm2", "tRFC"): "DRAMsim3's HBM2_8Gb_x128.ini: 260 ns",
    ("lpddr4-2400", "tRP"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 12.45 ns",
    ("lpddr4-2400", "tRCDRD"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 12.45 ns",
    ("lpddr4-2400", "tRAS"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 26.6 ns",
    ("lpddr4-2400", "tRRD_S"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 6.6 ns",
    ("lpddr4-2400", "tFAW"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 26.6 ns",
    ("lpddr4-2400", "tWTR_S"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini",
    ("lpddr4-2400", "tCCD_S"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini; nBL of 8 binds",
    ("lpddr4-2400", "tPPD"): "DRAMsim3's LPDDR4_8Gb_x16_2400.ini",
    ("hbm3-6400", "tRREFD"): "Ramulator 2.1's preset: 8 clocks",
    ("hbm3-6400-16gb", "tRREFD"): "Ramulator 2.1's preset: 8 clocks",
    ("gddr6-aim", "tRAS"): "CENT's simulator of AiM: 27 ns",
    ("hbm2-pimsimulator", "tRTP"): "PIMSimulator's READ_TO_PRE_DELAY: 3 cycles",
    ("hbm2-onnxim", "tRCDRD"): "ONNXim has Ramulator 2.0's HBM2_2.5Gbps: half the cycles",
    ("hbm2-onnxim", "tRP"): "the same",
    ("hbm2-onnxim", "tRAS"): "the same",
    ("hbm2-onnxim", "tWR"): "the same",
    ("hbm2-onnxim", "tRTP"): "the same",
    ("hbm2-onnxim", "tRRD_S"): "the same",
    ("hbm2-onnxim", "tRRD_L"): "the same",
}  # fmt: skip
"""What is shorter than the standard has it, in a preset and in what extends it, and why."""
LATER = {
    "ddr4-3200": (1.01, "7.8 us in clocks of 625 ps, which DRAMsim3's file rounds up to 630"),
    "gddr6": (4.2, "DRAMsim3's GDDR6_8Gb_x16.ini: 7.8 us"),
    "lpddr4-2400": (1.85, "DRAMsim3's LPDDR4_8Gb_x16_2400.ini: 7.2 us"),
}
"""Refreshes that come so many times later, and why."""


def figures(name: str, memory: MemoryConfig) -> dict[str, Figure]:
    return OTHER_GRADES.get(name, STANDARDS[memory.standard])


def shorter(name: str) -> dict[str, tuple[int, int]]:
    """Timings below the standard's: found, and the least."""
    memory = load_memory(name).config
    # ONNXim clocks DDR4-1600's cycles at 400 MHz
    tck_ps = 1250 if name in OTHER_GRADES else memory.tCK
    return {
        key: (memory.timings[key], figure.cycles(tck_ps))
        for key, figure in figures(name, memory).items()
        if key != "tREFI" and memory.timings.get(key, figure.cycles(tck_ps)) < figure.cycles(tck_ps)
    }


@pytest.mark.parametrize("name", preset_names("memory"))
def test_timings_are_no_shorter_than_the_standard_has_them(name: str) -> None:
    excused = {key for of, key in SHORTER if of == name or name.startswith(f"{of}-neupims")}
    found = shorter(name)
    assert found.keys() <= excused, found


def test_nothing_is_excused_that_is_right() -> None:
    assert [(name, key) for name, key in SHORTER if key not in shorter(name)] == []


@pytest.mark.parametrize("name", preset_names("memory"))
def test_refreshes_come_no_later_than_the_standard_allows(name: str) -> None:
    memory = load_memory(name).config
    tck_ps = 1250 if name in OTHER_GRADES else memory.tCK
    late = memory.timings["tREFI"] * tck_ps / 1000 / figures(name, memory)["tREFI"].ns
    most, _ = LATER.get(name, (1.002, ""))
    assert late <= most
    assert most == 1.002 or late > 1.002


LONGER_ROW_CYCLES = {"gddr6-aim": (3, "CENT's simulator: 89 for 54 and 32 (GDDR6_AiM_timing)")}
"""Clocks of a row cycle beyond its two parts, and why."""


@pytest.mark.parametrize("name", preset_names("memory"))
def test_a_row_cycle_is_its_two_parts(name: str) -> None:
    """tRC = tRAS + tRP, to the clock that rounding may add."""
    t = load_memory(name).config.timings
    if "tRC" in t:
        beyond, rounded = t["tRC"] - t["tRAS"] - t["tRP"], name not in LONGER_ROW_CYCLES
        assert 0 <= beyond <= 1 if rounded else beyond == LONGER_ROW_CYCLES[name][0]


def test_ddr5_4800_is_a_jedec_bin_with_1_kib_pages() -> None:
    t = load_memory("ddr5-4800").config.timings
    assert (t["CL"], t["tRCDRD"], t["tRCDWR"], t["tRP"], t["tFAW"]) == (40, 39, 39, 39, 32)
    tool = load_memory("ddr5-4800-ramulator").config.timings
    assert (tool["CL"], tool["tRCDRD"], tool["tRP"], tool["tFAW"]) == (36, 36, 36, 48)
