"""Every HBM2 run of DRAMsim3: cycles, commands, row hits, latency and command traces, exact."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini
from pimsim.hardware.dram.replay import replay
from pimsim.hardware.dram.rules import Command

TABLE = Path(__file__).parents[1] / "data" / "dramsim3.csv"
ROWS = [row for row in csv.DictReader(TABLE.read_text().splitlines()) if "HBM2" in row["config"]]
NEVER = 2 * 10**9
"""tREFI of the runs without refresh."""
LATENCY_STEP = 1e-3
"""The table's latencies are rounded to this many cycles."""

GOLDEN_CONFIGS = [
    "HBM2_8Gb_x128_1ch",
    "HBM2_8Gb_x128_1ch__noref",
    "HBM2_8Gb_x128_1ch_bgint__noref",
    "HBM2_8Gb_x128_1ch_nodual__noref",
]
"""The per-bank refresh traces are left out: DRAMsim3's is broken (its issue 24)."""
GOLDEN_PATTERNS = [
    "bg_stride_read", "conflict_read", "mix_2r1w", "rand_read", "seq_read", "seq_write",
]  # fmt: skip
GOLDEN_REQUESTS = 2000
NAMES = {
    "activate": Command.ACT,
    "precharge": Command.PRE,
    "read": Command.RD,
    "write": Command.WR,
    "refresh": Command.REF,
}


@cache
def patterns(path: Path) -> ModuleType:
    """The generator of the reference's traces."""
    spec = importlib.util.spec_from_file_location("dramsim3_patterns", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trace(folder: Path, config: str, pattern: str, requests: int) -> tuple[np.ndarray, np.ndarray]:
    """Addresses and write flags of one of the reference's patterns."""
    source = patterns(folder / "patterns.py")
    layout = source.layout(str(folder / "configs" / f"{config}.ini"))
    generated = source.gen(layout, pattern, requests)
    return np.array([a for a, _ in generated]), np.array([int(w) for _, w in generated])


def memory_of(folder: Path, config: str, refresh: bool) -> MemoryConfig:
    memory = read_dramsim3_ini(folder / "configs" / f"{config}.ini")
    if refresh:
        return memory
    return memory.model_copy(update={"timings": memory.timings | {"tREFI": NEVER}})


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{row['config']}-{row['pattern']}-{row['n']}-refresh{row['refresh']}")
        for row in ROWS
    ],
)
def test_run_is_exact(row: dict[str, str], reference_dir: Path) -> None:
    folder = reference_dir / "dram"
    memory = memory_of(folder, row["config"], row["refresh"] == "1")
    addresses, writes = trace(folder, row["config"], row["pattern"], int(row["n"]))
    result = replay(memory, addresses, writes)
    found = {
        "cycles": result.cycles,
        "row_hits": result.row_hits,
        "undrained_writes": result.undrained_writes,
        "acts": result.commands["ACT"],
        "pres": result.commands["PRE"],
        "refs": result.commands["REF"],
        "reads": result.commands["RD"],
        "writes_issued": result.commands["WR"],
    }
    assert found == {key: int(row[key]) for key in found}
    latency = float(row["avg_read_latency"])
    assert abs(result.avg_read_latency_cycles - latency) <= LATENCY_STEP / 2 * (1 + 1e-6)


@pytest.mark.parametrize("pattern", GOLDEN_PATTERNS)
@pytest.mark.parametrize("config", GOLDEN_CONFIGS)
def test_command_trace_is_the_same(config: str, pattern: str, reference_dir: Path) -> None:
    folder = reference_dir / "dram"
    golden = folder / "commands" / f"{config}.{pattern}.n{GOLDEN_REQUESTS}.cmd.gz"
    ini, _, without = config.partition("__")
    memory = memory_of(folder, ini, refresh=not without)
    org = memory.organization
    expected = []
    for line in gzip.decompress(golden.read_bytes()).decode().splitlines():
        cycle, name, _, rank, group, bank, row, _ = line.split()
        command = NAMES[name]
        place = int(rank) * org.banks
        if command != Command.REF:
            place += int(group) * org.banks_per_group + int(bank)
        opened = int(row, 16) if command in (Command.ACT, Command.RD, Command.WR) else -1
        expected.append((int(cycle), command.name, place, opened))
    addresses, writes = trace(folder, ini, pattern, GOLDEN_REQUESTS)
    log = replay(memory, addresses, writes, log_entries=2 * len(expected)).log
    found = [
        (int(cycle), Command(command).name, int(bank),
         int(row) if Command(command) in (Command.ACT, Command.RD, Command.WR) else -1)
        for cycle, _, command, bank, row in log
    ]  # fmt: skip
    assert found == expected
