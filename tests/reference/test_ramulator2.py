"""Every run of Ramulator 2.1's table: cycles and all counts exact, latency to its last digit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.validate.ramulator2 import memory_of, pattern, rows
from pimsim.validate.types import References, Row

FOLDER = Path(__file__).parents[1] / "data"
LATENCY_STEP = 1e-3
"""The table's latencies are single precision, rounded to this many ticks."""
RUNS = 104


@pytest.fixture(scope="module")
def compared() -> list[Row]:
    return list(rows(References(FOLDER, None)))


def test_all_runs_are_compared(compared: list[Row]) -> None:
    assert len({row.case for row in compared}) == RUNS
    assert {row.group for row in compared} == {
        "ramulator2.cycles", "ramulator2.counts", "ramulator2.latency"
    }  # fmt: skip


@pytest.mark.parametrize("group", ["ramulator2.cycles", "ramulator2.counts"])
def test_cycles_and_counts_are_exact(compared: list[Row], group: str) -> None:
    differ = [row for row in compared if row.group == group and row.ours != row.reference]
    assert differ == []


def test_latency_is_the_table_s(compared: list[Row]) -> None:
    found = [row for row in compared if row.group == "ramulator2.latency"]
    far = [row for row in found if abs(row.ours - row.reference) > LATENCY_STEP]
    assert far == []


# Runs that the notes beside the table report, not the table itself: n = 100,000.
NOTED = [
    ("HBM2_8Gb_2000", "rand_mix_2r1w", "0", 321054, 99995, 5, 0),
    ("HBM2_8Gb_2000", "rand_mix_2r1w", "1", 354728, 99994, 6, 180),
    ("HBM2_8Gb_2000", "samebg_stride_read", "0", 403933, 10157, 89843, 0),
    ("HBM2_8Gb_2000", "samebg_stride_read", "1", 447764, 10568, 89432, 228),
    ("HBM2_8Gb_2000", "act_stream_read", "0", 400028, 100000, 0, 0),
    ("HBM2_8Gb_2000", "act_stream_read", "1", 444550, 100000, 0, 226),
    ("HBM3_8Gb_8hi_6400", "rand_mix_2r1w", "0", 680435, 99985, 13, 0),
    ("HBM3_8Gb_8hi_6400", "rand_mix_2r1w", "1", 737419, 99983, 15, 118),
    ("HBM3_8Gb_8hi_6400", "samebg_stride_read", "0", 817307, 5471, 94529, 0),
    ("HBM3_8Gb_8hi_6400", "samebg_stride_read", "1", 885667, 5799, 94201, 140),
    ("HBM3_8Gb_8hi_6400", "act_stream_read", "0", 1200085, 100000, 0, 0),
    ("HBM3_8Gb_8hi_6400", "act_stream_read", "1", 1299525, 100000, 0, 208),
]


@pytest.mark.parametrize("run", NOTED, ids=lambda run: f"{run[0]}-{run[1]}-{run[2]}")
def test_runs_of_the_notes_are_exact(run: tuple[str, str, str, int, int, int, int]) -> None:
    from pimsim.hardware.dram.replay import replay

    config, name, refresh, cycles, acts, hits, refs = run
    memory = memory_of(config, refresh)
    result = replay(memory, *pattern(name, memory, 100_000))
    found = (result.cycles, result.commands["ACT"], result.row_hits, result.commands["REF"])
    assert found == (cycles, acts, hits, refs)
