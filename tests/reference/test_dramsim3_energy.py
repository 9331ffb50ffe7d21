"""Energy of every DRAMsim3 row from its command counts, without I/O, which that tool lacks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pimsim.config.energy import EnergyConfig
from pimsim.config.loader import load_energy
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.energy.dram import DramCounts, command_energy, dram_energy
from pimsim.validate.dramsim3 import memory_of
from pimsim.validate.types import References

TABLES = Path(__file__).parents[1] / "data"
ROWS = list(csv.DictReader((TABLES / "dramsim3.csv").read_text().splitlines()))
CONFIGS = sorted({row["config"] for row in ROWS})


@pytest.fixture(scope="module")
def energy() -> EnergyConfig:
    return load_energy("default").config


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def memory(config: str) -> MemoryConfig:
    """Our preset for DRAMsim3's .ini; ``test_dramsim3_ini`` holds the two together."""
    return memory_of(References(TABLES, None), config)


def test_energy_of_commands_is_exact(
    config: str, memory: MemoryConfig, energy: EnergyConfig
) -> None:
    rows = [row for row in ROWS if row["config"] == config]
    assert rows
    for row in rows:
        commands = DramCounts(
            act=int(row["acts"]),
            rd=int(row["reads"]),
            wr=int(row["writes_issued"]),
            ref=int(row["refs"]),
            active_rank_ps=0,
            idle_rank_ps=0,
        )
        ours = dram_energy(commands, memory, energy)
        # DRAMsim3 leaves out the factor tCK (NOTES 1.2).
        pj = 1e-12 * memory.tCK / 1000
        for part, column in (
            (ours.activate_j, "act_energy"),
            (ours.read_j, "read_energy"),
            (ours.write_j, "write_energy"),
            (ours.refresh_j, "ref_energy"),
        ):
            assert part == pytest.approx(float(row[column]) * pj, rel=1e-9, abs=0), column


def test_background_lies_between_all_idle_and_all_active(
    config: str, memory: MemoryConfig, energy: EnergyConfig
) -> None:
    """The table has the energy, not the cycles; a whole number of active ones must explain it."""
    one = command_energy(memory, energy)
    per_tck = memory.tCK / 1000
    active_pj, idle_pj = 1000 * one.active_rank_w, 1000 * one.idle_rank_w  # mV x mA, as there
    for row in (row for row in ROWS if row["config"] == config):
        cycles = int(row["cycles"]) * int(row["channels"]) * memory.organization.ranks
        active = (float(row["background_energy"]) - idle_pj * cycles) / (active_pj - idle_pj)
        assert active == pytest.approx(round(active), abs=1e-3)
        assert 0 < round(active) <= cycles
        open_ps, closed_ps = (each * memory.tCK for each in (round(active), cycles - round(active)))
        counts = DramCounts(0, 0, 0, 0, open_ps, closed_ps)
        ours = dram_energy(counts, memory, energy).background_j
        expected = float(row["background_energy"]) * 1e-12 * per_tck
        assert ours == pytest.approx(expected, rel=1e-9)
