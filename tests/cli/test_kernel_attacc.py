"""``pimsim kernel attention`` on AttAcc, whose stack brings its own memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

SIZES = ("--heads", "16", "--head-dim", "128", "--context", "512")


def attention(run_cli: Any, *arguments: str) -> dict[str, Any]:
    done = run_cli("kernel", "attention", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_stack_reports_cycles_commands_and_energy(run_cli: Any) -> None:
    report = attention(run_cli, "--pim", "attacc-bank", *SIZES)
    # AttAcc's simulator, run afresh: 930 cycles (tests/data/attacc_direct.csv)
    assert report["cycles"] == 930
    assert report["commands"]["MACAB"] == 2048
    assert report["time_s"] == pytest.approx(930 * 0.769e-9)
    # 64 banks x (256 bits x (0.11 + 0.44) pJ + 16 x 0.32 pJ)
    assert report["energy_parts_pj"]["mac"] == pytest.approx(2048 * 64 * (256 * 0.55 + 16 * 0.32))


def test_placements_differ_as_their_units_do(run_cli: Any) -> None:
    cycles = [
        attention(run_cli, "--pim", f"attacc-{name}", *SIZES)["cycles"]
        for name in ("bank", "bg", "buffer")
    ]
    assert cycles[0] < cycles[1] < cycles[2]


def test_knobs_are_set_from_the_command_line(run_cli: Any) -> None:
    sizes = ("--heads", "3", "--head-dim", "128", "--context", "2049")
    knob = ("--set", "attention.stage_rules=[attacc_repeats_softmax]")
    report = attention(run_cli, "--pim", "attacc-bank", *sizes, *knob)
    assert report["commands"]["SFM"] == 30


def test_what_a_stack_does_not_do_is_refused(refused: Callable[..., str]) -> None:
    line = refused("kernel", "gemv", "512", "512", "--pim", "attacc-bank")
    assert "has no 'gemv'" in line and "attention" in line
    many = ("--heads", "100000", "--head-dim", "128", "--context", "512")
    assert "rows of each bank" in refused("kernel", "attention", "--pim", "attacc-bank", *many)
