"""``pimsim kernel gemv``, ``elementwise``, ``pim-trace``, and PIM designs elsewhere on the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def test_gemv_reports_cycles_commands_shares_and_energy(run_cli: Callable[..., object]) -> None:
    done = run_cli("kernel", "gemv", "512", "1024", "--pim", "aim", "--json")
    report = json.loads(done.stdout)  # type: ignore[attr-defined]
    assert report["commands"]["MAC16"] == 32 * 64
    assert report["time_s"] == pytest.approx(report["cycles"] * 0.5e-9)
    # 64 MACs of two cycles each; the matrix fills every bank
    assert report["utilisation"]["banks"] == pytest.approx(64 * 2 / report["cycles"])
    assert report["utilisation"]["macs"] == pytest.approx(report["utilisation"]["banks"])
    assert report["energy_pj"] == pytest.approx(sum(report["energy_parts_pj"].values()))
    assert report["energy_parts_pj"]["mac"] > 0


def test_a_table_is_printed_for_people(run_cli: Callable[..., object], tmp_path: Path) -> None:
    trace = tmp_path / "t.trace"
    trace.write_text("AiM MAC_ABK 4 0xffffffff 1\nAiM EOC\n")
    shown = run_cli("kernel", "pim-trace", trace).stdout  # type: ignore[attr-defined]
    assert "MAC16 128" in shown
    assert "channel 0" in shown
    both = run_cli("kernel", "elementwise", "multiply", "2048", "--pim", "aim").stdout  # type: ignore[attr-defined]
    assert "EWMUL16 32" in both


def test_a_changed_value_moves_the_result(run_cli: Callable[..., object]) -> None:
    def cycles(*options: str) -> int:
        done = run_cli("kernel", "gemv", "64", "64", "--pim", "aim", "--json", *options)
        return int(json.loads(done.stdout)["cycles"])  # type: ignore[attr-defined]

    assert cycles("--set", "timings.nRCDRDMAC=66") == cycles() + 10


def test_presets_are_listed_and_resolved(run_cli: Callable[..., object]) -> None:
    listed = json.loads(run_cli("list", "pim", "--json").stdout)["pim"]  # type: ignore[attr-defined]
    assert {"aim", "aim-refresh", "neupims"} <= set(listed)
    shown = json.loads(run_cli("show", "aim-refresh", "--json").stdout)  # type: ignore[attr-defined]
    refresh = shown["config"]["controller"]["refresh"]
    assert (refresh["command"], refresh["interval"]) == ("REFab", "tREFI")
    assert shown["origins"]["memory.timings.tRFC"].startswith("configs/memory/gddr6-aim.yaml:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--set", "pim=aim", "--set", "pim.operations=[elementwise]"),
         "schedule.attention_placement 'pim': aim has no attention and no gemv"),
        (("kernel", "gemv", "4", "4", "--pim", "neupims"), "has no controller of its own"),
        (("kernel", "gemv", "4", "4", "--pim", "aimm"), "unknown pim 'aimm'; did you mean 'aim'"),
        (("kernel", "gemv", "0", "4", "--pim", "aim"), "Invalid value for 'OUT'"),
        (
            ("kernel", "gemv", "4", "4", "--pim", "aim", "--set", "timings.nMODH=1"),
            "unknown key 'timings.nMODH'; did you mean 'nMODCH'",
        ),
        (
            ("show", "aim", "--set", "commands.MAC16.activate=ACT61"),
            "commands.MAC16.activate: unknown command 'ACT61'; did you mean 'ACT16'",
        ),
        (
            ("show", "aim", "--set", "commands.MAC16.latency=nBBL"),
            "no timing 'nBBL'; did you mean 'nBL'",
        ),
        (("show", "aim", "--set", "family=stream"), "unknown key 'family'"),
        (
            ("kernel", "attention", "--pim", "aim", "--heads", "1", "--head-dim", "64",
             "--context", "64"),
            "aim has no 'attention'",
        ),
        (
            ("kernel", "attention", "--pim", "aim", "--heads", "1", "--head-dim", "64",
             "--context", "64", "--memory", "hbm2"),
            "aim brings its own memory",
        ),
        (("kernel", "pim-trace", "no.trace"), "no.trace: no such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line(
    refused: Callable[..., str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(*arguments)


def test_a_rule_that_names_an_unknown_command_is_found_by_its_line(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: aim\nname: mine\nrules:\n"
        "  - {level: channel, first: [ACT16], then: [MAC16], delay: nRCDRDMAC}\n"
        "  - {level: channel, first: [ACT16], then: [MAK16], delay: nRCDRDMAC}\n"
    )
    line = refused("kernel", "gemv", "4", "4", "--pim", path)
    assert "mine.yaml:5: rules.1.then.0: unknown command 'MAK16'; did you mean 'MAC16'" in line
