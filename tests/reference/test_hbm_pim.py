"""Every row of PIMSimulator's tables, with PIM and without: to the cycle."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pimsim.config.loader import load_stream_pim
from pimsim.hardware.pim.designs.hbm_pim import gemv
from pimsim.hardware.pim.stream import run_stream
from pimsim.validate.hbm_pim import PRESET, TABLES, compare

DATA = Path(__file__).parents[1] / "data"
LINES = [line for name in TABLES for line in csv.DictReader((DATA / name).read_text().splitlines())]


def test_the_tables_hold_all_kernels() -> None:
    assert {line["kernel"] for line in LINES} == {"gemv", "add", "mul", "relu"}
    assert len(LINES) >= 32


@pytest.mark.parametrize(
    "line", LINES, ids=lambda line: "{kernel}-{out}x{in}-{batch}".format(**line)
)
def test_cycles_are_those_of_pimsimulator(line: dict[str, str]) -> None:
    for row in compare(load_stream_pim(PRESET).config, line):
        if row.known_wrong:
            assert row.ours > row.reference
        else:
            assert row.ours == row.reference, row


def test_only_what_leaves_elements_out_is_known_wrong() -> None:
    design = load_stream_pim(PRESET).config
    wrong = [
        row.case
        for line in LINES
        if line["kernel"] != "gemv"
        for row in compare(design, line)
        if row.known_wrong
    ]
    assert wrong == ["add 1000000"]


def test_kernels_lose_no_refresh_so_that_the_quirk_does_not_touch_them() -> None:
    honest = load_stream_pim("hbm-pim").config
    quirk = load_stream_pim(PRESET).config
    for outputs, inputs in ((4096, 1024), (8192, 4096)):
        cycles = [run_stream(d, gemv(d, outputs, inputs)).cycles for d in (honest, quirk)]
        assert cycles[0] == cycles[1]
