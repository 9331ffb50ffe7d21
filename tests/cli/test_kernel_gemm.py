"""`pimsim kernel gemm` as a user types it."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.loader import load_npu_of
from pimsim.hardware.npu.gemm import plan_gemm, utilisation

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]

_ROWS = list(
    csv.DictReader((Path(__file__).parents[1] / "data" / "scalesim.csv").read_text().splitlines())
)
SCALESIM = [
    row
    for dataflow in ("ws", "os", "is")
    for row in [row for row in _ROWS if row["dataflow"] == dataflow][::10]
]
"""Every tenth row of each dataflow; tests/reference has them all, below the command line."""


def gemm(run_cli: RunCli, *arguments: str | int) -> dict[str, Any]:
    done = run_cli("kernel", "gemm", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("row", SCALESIM, ids=lambda row: "{dataflow}-{M}x{N}x{K}".format(**row))
def test_exposed_preload_on_one_array_is_scalesim(run_cli: RunCli, row: dict[str, str]) -> None:
    report = gemm(
        run_cli, row["M"], row["N"], row["K"], "--array", f"{row['rows']}x{row['cols']}",
        "--arrays", 1, "--dataflow", row["dataflow"], "--preload", "exposed",
    )  # fmt: skip
    assert report["cycles"] == int(row["formula_lines"])


def test_one_weight_stationary_fold_is_preload_stream_and_skew(run_cli: RunCli) -> None:
    m, rows, cols = 10, 16, 8
    options = ("--array", f"{rows}x{cols}", "--arrays", 1, "--dataflow", "ws")
    report = gemm(run_cli, m, cols, rows, *options, "--preload", "exposed")
    assert report["cycles"] == rows + m + (rows - 1) + (cols - 1)
    assert report["folds"] == 1
    assert report["macs"] == m * rows * cols
    assert report["utilisation"] == pytest.approx(m / report["cycles"])


@pytest.mark.parametrize("npu", ["neupims", "neupims-artifact-main"])
def test_without_options_the_arrays_are_those_of_the_preset(run_cli: RunCli, npu: str) -> None:
    systolic = load_npu_of(npu).systolic
    plan = plan_gemm(256, 4096, 1024, systolic)
    report = gemm(run_cli, 256, 4096, 1024, "--npu", npu)
    assert report == {
        "cycles": plan.cycles,
        "utilisation": utilisation(plan, systolic),
        "folds": plan.folds,
        "macs": 256 * 4096 * 1024,
        "systolic": systolic.model_dump(),
    }


def test_the_default_preset_is_neupims(run_cli: RunCli) -> None:
    assert gemm(run_cli, 64, 64, 64) == gemm(run_cli, 64, 64, 64, "--npu", "neupims")


def test_an_option_replaces_one_field(run_cli: RunCli) -> None:
    expected = load_npu_of("neupims").systolic.model_dump() | {"arrays": 3}
    assert gemm(run_cli, 64, 64, 64, "--arrays", 3)["systolic"] == expected


def test_hidden_preload_is_never_slower(run_cli: RunCli) -> None:
    hidden = gemm(run_cli, 100, 1000, 1000, "--preload", "hidden")
    exposed = gemm(run_cli, 100, 1000, 1000, "--preload", "exposed")
    assert hidden["cycles"] < exposed["cycles"]


def test_without_json_a_table_is_printed(run_cli: RunCli) -> None:
    out = run_cli("kernel", "gemm", "256", "4096", "4096").stdout
    cycles = gemm(run_cli, 256, 4096, 4096)["cycles"]
    assert f"{cycles:,}" in out
    assert out.splitlines()[0].startswith("256 x 4096 x 4096 on 8 of 128x128, ws")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("0 1 1", "m is 0, allowed 1.."),
        ("1 -1 1", "No such option: -1"),
        ("-- 1 -1 1", "n is -1, allowed 1.."),
        ("1 1 99999999999999999999", "k is 99999999999999999999, allowed 1.."),
        ("1 1 1.5", "'K'"),
        ("1 nan 1", "'N'"),
        ("1 1", "Missing argument 'K'"),
        ("1 1 1 --array 128", "--array expects RxC, e.g. 128x128, found '128'"),
        ("1 1 1 --array 128x", "--array expects RxC, e.g. 128x128, found '128x'"),
        ("1 1 1 --array -1x4", "--array expects RxC, e.g. 128x128, found '-1x4'"),
        ("1 1 1 --array 0x4", "--array: rows 0: input should be greater"),
        ("1 1 1 --array 4x99999", "--array: columns 99999: input should be less"),
        ("1 1 1 --arrays 0", "--arrays: 0: input should be greater"),
        ("1 1 1 --dataflow sw", "--dataflow 'sw'; allowed: ws, os, is"),
        ("1 1 1 --preload hiden", "--preload 'hiden'; did you mean 'hidden'?"),
        ("1 1 1 --npu neupim", "unknown hardware 'neupim'; did you mean 'neupims'?"),
        ("1 1 1 --npu none.yaml", "none.yaml: no such file"),
        ("1 1 1 --npu neupims-artifact-main --dataflow ws", "dataflow must be 'is', found 'ws'"),
        ("2000000000 2000000000 2000000000", "more than 2**62 bytes"),
    ],
)
def test_wrong_input_is_refused(refused: Refused, arguments: str, message: str) -> None:
    assert message in refused("kernel", "gemm", *arguments.split())
