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
        (
            "1 1 1 --dataflow sw",
            "--dataflow 'sw'; allowed: is, os, ws",
        ),
        ("1 1 1 --preload hiden", "--preload 'hiden'; did you mean 'hidden'?"),
        ("1 1 1 --npu neupim", "unknown hardware 'neupim'; did you mean 'neupims'?"),
        ("1 1 1 --npu none.yaml", "none.yaml: no such file"),
        ("1 1 1 --npu onnxim-tpuv4 --dataflow neupims_serial", "systolic.fetch_cycles is 127"),
        ("2000000000 2000000000 2000000000", "more than 2**62 bytes"),
    ],
)
def test_wrong_input_is_refused(refused: Refused, arguments: str, message: str) -> None:
    assert message in refused("kernel", "gemm", *arguments.split())


# with its traffic --------------------------------------------------------------------------------
SMALL = ("--array", "16x16", "--arrays", 1, "--set", "npu.scratchpad.capacity=64KiB")


def traffic(run_cli: RunCli, *arguments: str | int) -> dict[str, Any]:
    return gemm(run_cli, 64, 256, 256, *SMALL, "--memory", "hbm2", *arguments)


def test_with_memory_the_answer_has_traffic_tiles_and_a_reason(run_cli: RunCli) -> None:
    report = traffic(run_cli)
    assert report["cycles"] >= max(report["compute_cycles"], report["memory_cycles"])
    assert report["traffic_bytes"]["least"] == (64 * 256 + 256 * 256 + 64 * 256) * 2
    assert sum(report["causes"].values()) == report["cycles"]
    tiling = report["tiling"]
    assert tiling["policy"] == "least-time"
    assert "least estimated time" in tiling["why"]
    chosen = tiling["chosen"]["estimated_cycles"]
    assert all(other["estimated_cycles"] >= chosen for other in tiling["others"])
    moved = report["traffic_bytes"]["read"] + report["traffic_bytes"]["written"]
    assert moved == tiling["chosen"]["traffic_bytes"]


def test_more_cores_and_a_smaller_scratchpad_tell(run_cli: RunCli) -> None:
    one, two = traffic(run_cli, "--cores", 1), traffic(run_cli, "--cores", 2)
    assert two["cycles"] < one["cycles"]
    assert len(two["core_folds"]) == 2
    less = traffic(run_cli, "--set", "npu.scratchpad.capacity=8KiB")
    assert less["traffic_bytes"]["read"] > one["traffic_bytes"]["read"]


def test_edge_folds_cost_as_much_as_full_ones(run_cli: RunCli) -> None:
    options = ("--memory", "hbm2", "--array", "16x16", "--arrays", 1)
    full, edge = (gemm(run_cli, 64, n, 256, *options) for n in (64, 63))
    assert edge["compute_cycles"] == full["compute_cycles"]
    assert edge["utilisation"] < full["utilisation"]


def test_an_onnxim_machine_and_a_table(run_cli: RunCli) -> None:
    out = run_cli(
        "kernel", "gemm", "2", "300", "100", "--npu", "onnxim-transformer",
        "--memory", "ddr4-onnxim",
    ).stdout  # fmt: skip
    assert out.splitlines()[0] == "2 x 300 x 100 on 4 cores of 1 8x8, ws, over ddr4-onnxim"
    assert "Gemmini's rule" in out
    assert "why these tiles" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("1 1 1 --cores 2", "--cores needs --memory: without it the product is compute only"),
        ("1 1 1 --tiling least-time", "--tiling needs --memory"),
        ("1 1 1 --element-bytes 1", "--element-bytes needs --memory"),
        ("1 1 1 --memory hbm9", "unknown memory 'hbm9'"),
        ("1 1 1 --memory hbm2 --cores 0", "--cores 0: input should be greater"),
        ("1 1 1 --memory hbm2 --tiling best", "--tiling 'best'; allowed: least-traffic"),
        ("1 1 1 --memory hbm2 --tiling gemmini", "needs scratchpad.accumulator"),
        ("0 1 1 --memory hbm2", "m is 0; allowed: at least 1"),
        ("1 1 1 --memory hbm2 --set npu.scratchpad.capacity=4B", "no room for one element"),
        ("99999 999999 99999 --memory hbm2", "memory hbm2 has"),
        ("1 1 1 --memory hbm2 --element-bytes 9", "less than or equal to 8"),
    ],
)
def test_wrong_input_with_memory_is_refused(refused: Refused, arguments: str, message: str) -> None:
    assert message in refused("kernel", "gemm", *arguments.split())
