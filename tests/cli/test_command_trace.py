"""``kernel dram --commands`` writes what ``--check-commands`` finds legal, or names what breaks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.loader import load_memory

RunCli = Callable[..., subprocess.CompletedProcess[str]]
T = load_memory("hbm2").config.timings
TRACE = "".join(f"{64 * i:#x} {'WRITE' if i % 3 == 2 else 'READ'} 0\n" for i in range(900))


def checked(run_cli: RunCli, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    done = run_cli("kernel", "dram", "--json", *options, cwd=folder)
    assert done.stderr == "", done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("memory", "file"),
    [("hbm2", "c.cmd"), ("lpddr4-2400 controller.refresh=per-bank", "c.cmd.gz")],
)
def test_our_own_trace_is_legal(memory: str, file: str, run_cli: RunCli, tmp_path: Path) -> None:
    name, *overrides = memory.split()
    options = ["--memory", name, *(part for text in overrides for part in ("--set", text))]
    (tmp_path / "t.trc").write_text(TRACE)
    code, report = checked(run_cli, tmp_path, "t.trc", *options, "--commands", file)
    assert code == 0
    code, verdict = checked(run_cli, tmp_path, "--check-commands", file, *options)
    assert code == 0 and verdict["legal"] and verdict["violation"] is None
    counted = {command: count for command, count in report["commands"].items() if count}
    # the report's REF counts every refresh, REFpb is the share of single banks
    counted["REF"] = counted.get("REF", 0) - counted.get("REFpb", 0)
    assert verdict["commands"] == {command: n for command, n in counted.items() if n}


def test_one_read_in_dramsim3s_form(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "t.trc").write_text("0x0 READ 0\n")
    run_cli("kernel", "dram", "t.trc", "--commands", "c.cmd", cwd=tmp_path)
    lines = [line.split() for line in (tmp_path / "c.cmd").read_text().splitlines()]
    assert lines == [
        ["2", "activate", "0", "0", "0", "0", "0x0", "0x0"],
        [str(2 + T["tRCDRD"]), "read", "0", "0", "0", "0", "0x0", "0x0"],
    ]


def violation(run_cli: RunCli, folder: Path, lines: list[str]) -> dict[str, Any]:
    (folder / "c.cmd").write_text("\n".join(lines) + "\n")
    code, report = checked(run_cli, folder, "--check-commands", "c.cmd")
    assert code == 1
    assert report["legal"] is False
    found: dict[str, Any] = report["violation"]
    return found


def test_the_first_rule_broken_is_named(run_cli: RunCli, tmp_path: Path) -> None:
    early = 10 + T["tRCDRD"] - 1
    lines = ["# a comment", "10 activate 0 0 3 1 0x5 0x0", f"{early} read 0 0 3 1 0x5 0x2"]
    found = violation(run_cli, tmp_path, [*lines, "30 activate 0 0 3 1 0x5 0x0"])
    assert (found["line"], found["cycle"], found["command"]) == (3, early, "RD")
    assert (found["kind"], found["level"], found["delay"]) == ("rule", "row_buffer", "tRCDRD")
    assert found["rule"].startswith("memory.rules[")
    assert found["earliest_legal_cycle"] == early + 1
    assert (found["earlier_command"], found["earlier_cycle"]) == ("ACT", 10)
    done = run_cli("kernel", "dram", "--check-commands", "c.cmd", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert "c.cmd:3: RD at" in done.stderr
    assert f"earliest legal cycle {early + 1}" in done.stderr


def test_a_row_that_is_not_open(run_cli: RunCli, tmp_path: Path) -> None:
    found = violation(run_cli, tmp_path, ["10 read 0 0 3 1 0x5 0x0"])
    assert (found["kind"], found["line"]) == ("state", 1)


def test_a_refresh_without_channel_belongs_to_the_files_channel(
    run_cli: RunCli, tmp_path: Path
) -> None:
    lines = ["10 activate 3 0 0 0 0x5 0x0", "900 refresh -1 0 -1 -1 -0x1 -0x1"]
    found = violation(run_cli, tmp_path, lines)
    assert (found["kind"], found["line"], found["channel"]) == ("state", 2, 3)
    assert "bank 0 has row 5 open" in found["message"]
