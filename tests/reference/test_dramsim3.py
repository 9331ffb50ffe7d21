"""Every run of DRAMsim3: cycles, commands, row hits, energy, latency and command traces, exact."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pimsim.config.loader import load_memory
from pimsim.validate.dram_patterns import PATTERNS, requests
from pimsim.validate.dramsim3 import command_rows, legality_rows, memory_of, run_rows
from pimsim.validate.types import References, Row

TABLES = Path(__file__).parents[1] / "data"
RUNS = 284
"""Rows of the three tables."""
LATENCY_STEP = 1e-3
"""The table's latencies are rounded to this many cycles."""
EXACT_ENERGY = 1e-9


def failed(rows: list[Row], wrong: Callable[[Row], bool]) -> list[str]:
    return [f"{r.case} {r.metric}: {r.reference} {r.ours}" for r in rows if wrong(r)]


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Row]]:
    """Rows of all runs by group, on our presets."""
    found: dict[str, list[Row]] = {}
    for row in run_rows(References(TABLES, None)):
        found.setdefault(row.group, []).append(row)
    return found


def test_cycles_are_exact(runs: dict[str, list[Row]]) -> None:
    assert len(runs["dramsim3.cycles"]) == RUNS
    assert failed(runs["dramsim3.cycles"], lambda row: row.error != 0) == []


def test_counts_are_exact(runs: dict[str, list[Row]]) -> None:
    metrics = Counter(row.metric for row in runs["dramsim3.counts"])
    assert metrics["ACT"] == metrics["REF"] == metrics["row_hits"] == RUNS
    assert metrics["PRE"] == metrics["RD"] == metrics["WR"] == metrics["undrained_writes"]
    assert failed(runs["dramsim3.counts"], lambda row: row.error != 0) == []


def test_energy_is_exact_times_tck(runs: dict[str, list[Row]]) -> None:
    assert len(runs["dramsim3.energy"]) == RUNS
    assert failed(runs["dramsim3.energy"], lambda row: abs(row.error) > EXACT_ENERGY) == []


def test_latency_is_exact(runs: dict[str, list[Row]]) -> None:
    step = LATENCY_STEP / 2 * (1 + 1e-6)
    rows = runs["dramsim3.latency"]
    assert len(rows) > 100
    assert failed(rows, lambda row: abs(row.ours - row.reference) > step) == []


def test_files_of_the_reference_give_the_same(
    reference_dir: Path, runs: dict[str, list[Row]]
) -> None:
    ours = {(row.case, row.metric): row.ours for rows in runs.values() for row in rows}
    read = list(run_rows(References(TABLES, reference_dir), longest=10_000))
    assert len(read) > 500
    assert failed(read, lambda row: row.ours != ours[row.case, row.metric]) == []


def test_command_traces_are_the_same(reference_dir: Path) -> None:
    """Cycle, command, bank, row and column of every command, refresh on and off."""
    rows = list(command_rows(References(TABLES, reference_dir)))
    assert len(rows) == 41
    assert failed(rows, lambda row: row.ours != 0) == []


@pytest.mark.parametrize("part", ["3200.mix", "3200.rand", "GDDR6_8Gb_x16__noref.rand", "1ch.mix"])
def test_golden_traces_are_legal(part: str, reference_dir: Path) -> None:
    rows = list(legality_rows(References(TABLES, reference_dir), part))
    assert len(rows) == 1
    assert failed(rows, lambda row: row.ours != 0) == []


def test_dramsim3s_refresh_per_bank_is_not(reference_dir: Path) -> None:
    """It lets the refreshed bank open at once and bars the others (its issue 24)."""
    rows = list(legality_rows(References(TABLES, reference_dir), "_refpb."))
    assert len(rows) == 6
    for row in rows:
        assert row.ours == 1
        assert "issue 24" in row.known_wrong
        assert "after REFpb" in row.known_wrong and "tRFCpb" in row.known_wrong


@pytest.fixture(scope="module")
def generator(reference_dir: Path) -> ModuleType:
    """The generator of the reference's traces."""
    path = reference_dir / "dram" / "patterns.py"
    spec = importlib.util.spec_from_file_location("dramsim3_patterns", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("config", ["HBM2_8Gb_x128", "DDR4_8Gb_x8_3200", "GDDR6_8Gb_x16"])
def test_patterns_are_those_of_the_reference(
    config: str, pattern: str, generator: ModuleType, reference_dir: Path
) -> None:
    layout = generator.layout(str(reference_dir / "dram" / "configs" / f"{config}.ini"))
    for seed in (1, 7):
        theirs = generator.gen(layout, pattern, 3000, seed)
        memory = memory_of(References(TABLES, None), config)
        addresses, writes = requests(memory, pattern, 3000, seed)
        assert addresses.tolist() == [address for address, _ in theirs]
        assert writes.tolist() == [int(write) for _, write in theirs]


def test_lpddr4_has_two_ranks_and_tppd() -> None:
    memory = load_memory("lpddr4-2400").config
    assert memory_of(References(TABLES, None), "LPDDR4_8Gb_x16_2400") == memory
    assert memory.organization.ranks == 2
    assert np.isclose(memory.organization.capacity_bytes, 2**33)
