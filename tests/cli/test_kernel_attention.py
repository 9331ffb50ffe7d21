"""`pimsim kernel attention` as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]


def attention(run_cli: RunCli, *options: str | int, pim: str = "neupims") -> dict[str, Any]:
    done = run_cli("kernel", "attention", "--pim", pim, *map(str, options), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(
    ("pim", "memory"),
    [
        ("neupims", "hbm2-neupims"),
        ("newton", "hbm2-neupims"),
        ("neupims-artifact", "hbm2-neupims-artifact"),
        ("newton-artifact", "hbm2-neupims-artifact"),
    ],
)
def test_every_design_runs_on_its_devices_memory_whatever_its_name(
    run_cli: RunCli, pim: str, memory: str, tmp_path: Path
) -> None:
    options = ("--heads", 2, "--head-dim", 128, "--context", 512)
    report = attention(run_cli, *options, pim=pim)
    assert report["score_cycles"] > 0
    assert report["value_cycles"] > 0
    assert report["commands"]["G_ACT"] > 0
    assert report["memory"] == memory
    assert report["pim"] == pim
    for name in ("mine", "my-artifact"):
        own = tmp_path / f"{name}.yaml"
        own.write_text(f"extends: {pim}\nname: {name}\n")
        renamed = attention(run_cli, *options, pim=str(own))
        assert renamed == {**report, "pim": name}


def test_a_design_brings_its_memory_and_its_device_vector_units(run_cli: RunCli) -> None:
    """A context of several rows, whose partial sums the artifact's units add in no time."""
    options = ("--heads", 2, "--head-dim", 128, "--context", 2048)
    own = attention(run_cli, *options)
    artifact = attention(run_cli, *options, "--set", "device=neupims-artifact-main",
        "--set", "memory=hbm2-neupims-artifact")  # fmt: skip
    assert artifact["memory"] == "hbm2-neupims-artifact"
    same = attention(
        run_cli, *options, "--set", "device=neupims-artifact-main", "--memory", "hbm2-neupims"
    )
    assert same["memory"] == own["memory"]
    assert same != own


def test_a_device_that_is_none_is_refused(refused: Refused) -> None:
    options = "--pim neupims --set device=neupim --heads 2 --head-dim 128 --context 8"
    line = refused("kernel", "attention", *options.split())
    assert line.startswith("error: neupims: device: unknown hardware 'neupim'")
    assert "did you mean 'neupims'?" in line


def test_a_design_with_composite_commands_uses_them(run_cli: RunCli) -> None:
    options = ("--heads", 2, "--head-dim", 128, "--context", 512)
    dual = attention(run_cli, *options)["commands"]
    single = attention(run_cli, *options, pim="newton")["commands"]
    assert dual["GEMV"] > 0
    assert dual.get("COMP", 0) == 0
    assert single["COMP"] > 0
    assert single.get("GEMV", 0) == 0


def test_contexts_of_several_requests_are_all_computed(run_cli: RunCli) -> None:
    options = ("--heads", 2, "--head-dim", 128)
    one = attention(run_cli, *options, "--context", 512)
    two = attention(run_cli, *options, "--context", 512, "--context", 512)
    assert two["commands"]["G_ACT"] == 2 * one["commands"]["G_ACT"]
    assert two["score_cycles"] > one["score_cycles"]


def test_a_longer_context_is_not_faster(run_cli: RunCli) -> None:
    options = ("--heads", 2, "--head-dim", 128)
    short = attention(run_cli, *options, "--context", 256)
    long = attention(run_cli, *options, "--context", 2048)
    for key in ("score_cycles", "value_cycles", "softmax_cycles"):
        assert long[key] > short[key], key


def test_a_memory_of_ones_own_is_used(run_cli: RunCli) -> None:
    options = ("--heads", 2, "--head-dim", 128, "--context", 512)
    named = attention(run_cli, *options, "--memory", "hbm2-neupims")
    assert named == attention(run_cli, *options)


def test_without_json_a_table_is_printed(run_cli: RunCli) -> None:
    options = ("--heads", "2", "--head-dim", "128", "--context", "512")
    out = run_cli("kernel", "attention", "--pim", "neupims", *options).stdout
    report = attention(run_cli, *options)
    assert out.splitlines()[0].startswith("1 request, 2 heads of 128, on neupims")
    assert f"{report['score_cycles']:,} cycles" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--heads 2 --head-dim 128 --context 8", "attention runs on --pim, on the NPU of"),
        ("--gpu h10 --heads 2 --head-dim 128 --context 8", "'h100'"),
        (
            "--gpu h100 --pim neupims --heads 2 --head-dim 128 --context 8",
            "found --pim neupims and",
        ),
        ("--gpu h100 --heads 2 --head-dim 128 --context 8 --memory hbm2", "--gpu h100 brings its"),
        ("--gpu h100 --heads 2 --head-dim 128 --context 8 --new-tokens 9", "8 tokens has fewer"),
        ("--gpu h100 --heads 3 --kv-heads 2 --head-dim 128 --context 8", "share them evenly"),
        ("--gpu h100 --heads 2 --head-dim 9999 --context 8", "xpu.l1_per_core"),
        ("--pim neupims --heads 2 --head-dim 128", "Missing option '--context'"),
        ("--pim neupim --heads 2 --head-dim 128 --context 8", "did you mean 'neupims'?"),
        ("--pim neupims --heads 0 --head-dim 128 --context 8", "'--heads'"),
        ("--pim neupims --heads 2 --head-dim -1 --context 8", "'--head-dim'"),
        ("--pim neupims --heads 2 --head-dim 128 --context 0", "'--context'"),
        ("--pim neupims --heads 2 --head-dim 128 --context 8 --context nan", "'--context'"),
        ("--pim neupims --heads 2 --head-dim 128 --context 99999999999", "'--context'"),
        ("--pim neupims --heads 2 --head-dim 128 --context 8 --memory hmb2", "'hbm2'"),
        (
            "--hardware npu-only --heads 4 --head-dim 64 --context 300 --new-tokens 301",
            "300 tokens has fewer",
        ),
        (
            "--pim neupims --heads 4 --head-dim 64 --context 300 --new-tokens 301",
            "300 tokens has fewer",
        ),
        (
            "--hardware npu-only --heads 4 --head-dim 64 --context 300 --kv-heads 3",
            "must divide the 4 heads",
        ),
        (
            "--hardware npu-only --heads 4 --head-dim 64 --context 300 --memory hbm2",
            "--hardware npu-only has one",
        ),
        (
            "--pim neupims --heads 4 --head-dim 64 --context 300 --window 9",
            "it is for --hardware and --gpu",
        ),
        (
            "--pim aim --heads 4 --head-dim 64 --context 300 --new-tokens 2",
            "aim takes one token at a time",
        ),
    ],
)
def test_wrong_input_is_refused(refused: Refused, arguments: str, message: str) -> None:
    assert message in refused("kernel", "attention", *arguments.split())


def test_a_context_beyond_the_channel_is_refused(refused: Refused) -> None:
    options = "--pim neupims --heads 32 --head-dim 128 --context 2000000000"
    assert "channel" in refused("kernel", "attention", *options.split())


def test_a_gpu_runs_a_chunk_alone(run_cli: RunCli) -> None:
    """Two tiles of 64 queries over 160 keys: 124 in one tile of 128, 160 in two; 8 heads each."""
    options = "--gpu a100 --heads 8 --kv-heads 2 --head-dim 128 --context 160 --new-tokens 100"
    done = run_cli("kernel", "attention", *options.split(), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    pairs = 100 * 60 + 100 * 101 // 2
    assert report["flops"] == 4 * 128 * pairs * 8
    assert report["executed_flops"] == 4 * 128 * 64 * 128 * 3 * 8
    assert (report["blocks"], report["tile"], report["bound"]) == (16, [64, 128], "launch")
    assert report["memory_bytes"] == 8 * 100 * 512 + 2 * 160 * 512
    # 16 blocks at once, as long as the one of two tiles: its multiply-adds, what softmax adds,
    # loads and stores; beside them the launch, and all bytes, those of the new keys twice more
    block_s = 4 * 128 * 64 * 128 * 2 / (312e12 * 0.963 / 108)
    block_s += 2.3 * 64 * 128 * 2 / (2.436e12 / 108) + 89.1e-9
    moved_s = (report["memory_bytes"] + 2 * 2 * 100 * 512) / (2039e9 * 0.709)
    assert report["time_s"] == pytest.approx(10.5e-6 + block_s + moved_s)
    table = run_cli("kernel", "attention", *options.split(), "--window", "32").stdout
    assert "on a100" in table
    assert f"{4 * 128 * 32 * 100 * 8:,} needed" in table
