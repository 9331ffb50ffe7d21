"""``pimsim run`` and ``pimsim compare`` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas
import pytest

import pimsim

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]
WriteTrace = Callable[[Sequence[int]], Path]

PRESETS = ("npu-only", "npu-pim", "neupims")
OURS = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens\n"
SMALL = ("--batch", "16", "--layers", "2")


def json_of(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


# run


def test_the_default_run_answers(run_cli: RunCli, tmp_path: Path) -> None:
    result = json_of(run_cli("run", "--json", cwd=tmp_path))
    assert set(result) >= {
        "cycles", "time_s", "tokens_per_s", "iterations", "stages", "operators", "utilisation",
        "latency_s", "energy_j", "cycle_stack", "bound_cycles", "fidelity", "provenance",
    }  # fmt: skip
    assert set(result["stages"][0]) >= {"name", "cycles", "npu_busy_cycles", "pim_busy_cycles"}
    assert set(result["operators"][0]) >= {"name", "kind", "unit", "layer", "cycles"}
    assert set(result["utilisation"]) == {"npu", "vector", "pim", "dram_bus", "command_bus"}
    assert set(result["energy_j"]) == {
        "dram", "pim", "npu", "sram", "link", "host", "static", "total",
    }  # fmt: skip
    assert set(result["fidelity"]) == {"mode", "sampled_phases", "error_mean", "error_ci95"}
    assert set(result["provenance"]) == {
        "config_sha256", "trace_sha256", "content_sha256", "version", "seed", "wall_s",
        "peak_rss_mb",
    }  # fmt: skip
    for stack in result["cycle_stack"].values():
        assert sum(stack.values()) == result["cycles"]
    assert (result["name"], result["model"], result["tokens"]) == ("neupims", "gpt3-7b", 256)
    assert pimsim.load_config("neupims").config.workload.layers == "auto"
    assert (result["layers_simulated"], result["layers_model"]) == (2, 32)
    layers = range(result["layers_simulated"] - 1)
    names = [stage["name"] for stage in result["stages"]]
    assert names == ["A", "B", *[name for _ in layers for name in "CD"], "E", "F"]
    assert list(tmp_path.iterdir()) == []


def test_a_person_reads_tables(run_cli: RunCli) -> None:
    done = run_cli("run", *SMALL)
    assert done.returncode == 0
    assert done.stderr == ""  # no progress where nobody looks
    for expected in ("tokens/s", "stages", "operators", "cycle stack", "What holds it back:"):
        assert expected in done.stdout
    assert "2 simulated of 32" in done.stdout


def test_sub_batches_off_gives_three_stages_a_block(run_cli: RunCli) -> None:
    result = json_of(run_cli("run", *SMALL, "--set", "schedule.sub_batches=false", "--json"))
    assert [stage["name"] for stage in result["stages"]] == ["A", "B", "E"] * 2


def test_options_choose_model_requests_and_layers(
    run_cli: RunCli, tiny_card: Path, write_trace: WriteTrace
) -> None:
    trace = write_trace([100, 20, 300])
    done = run_cli("run", "npu-pim", "--model", tiny_card, "--requests", trace, "--layers", "3",
                   "--batch", "2", "--fidelity", "command", "--json")  # fmt: skip
    result = json_of(done)
    assert (result["model"], result["tokens"], result["layers_simulated"]) == ("tiny", 2, 3)
    assert result["name"] == "npu-pim"
    own = "run", "npu-only", "--model", tiny_card, "--requests", trace, "--json"
    chosen, given = (
        run_cli(*own, "--layers", "auto"),
        run_cli(*own, "--set", "workload.layers=auto"),
    )
    assert json_of(chosen)["layers_simulated"] == 2
    assert json_of(chosen)["cycles"] == json_of(given)["cycles"]


def test_the_artifacts_request_file_is_read_as_it_is(run_cli: RunCli, tmp_path: Path) -> None:
    trace = tmp_path / "artifact.csv"
    trace.write_text("seq_len,ch_idx\n100,31\n70,0\n")
    result = json_of(run_cli("run", "neupims-artifact-main", "--requests", trace, "--json"))
    assert result["tokens"] == 2
    assert any("quirks" in warning for warning in result["warnings"])


def test_out_keeps_config_result_and_tables(
    run_cli: RunCli, tmp_path: Path, tiny_card: Path
) -> None:
    out = tmp_path / "new" / "run"
    printed = json_of(run_cli("run", *SMALL, "--model", tiny_card, "--out", out, "--json"))
    assert sorted(path.name for path in out.iterdir()) == [
        "config.yaml", "operators.parquet", "requests.parquet", "result.json", "stages.parquet",
        "steps.parquet",
    ]  # fmt: skip
    assert json.loads((out / "result.json").read_text()) == printed
    for table in ("operators", "requests", "stages", "steps"):
        frame = pandas.read_parquet(out / f"{table}.parquet")
        assert frame.to_dict("records") == printed[table]
    assert [path.name for path in out.parent.iterdir()] == ["run"]
    # the config that was kept gives the same run again
    again = json_of(run_cli("run", out / "config.yaml", "--json"))
    assert again["provenance"]["config_sha256"] == printed["provenance"]["config_sha256"]
    assert again["cycles"] == printed["cycles"]
    assert pimsim.load(out).cycles == printed["cycles"]


INTERRUPTED = """
import os, signal, sys
# a shell without job control starts what it puts in the background with SIGINT ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from pimsim.engine import iteration
real = iteration.load_schedule
def schedule(name):
    class Stopped(real(name)):
        def order(self, program):
            for at, task in enumerate(super().order(program)):
                if at == 8:
                    os.kill(os.getpid(), signal.SIGINT)
                yield task
    return Stopped
iteration.load_schedule = schedule
sys.argv = ["pimsim", *sys.argv[1:]]
from pimsim.cli.main import main
main()
"""
"""Ctrl-C in the second stage, or before."""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_interrupted_exits_130_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "run", "--batch", "4", "--out", "run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


# compare


def test_compare_puts_presets_side_by_side(run_cli: RunCli) -> None:
    data = json_of(run_cli("compare", *PRESETS, *SMALL, "--json"))
    rows = {row["name"]: row for row in data["runs"]}
    assert list(rows) == list(PRESETS)
    first = rows["npu-only"]
    assert first["speedup"] == first["energy_ratio"] == 1
    assert first["pim"] == 0
    for row in rows.values():
        assert row["speedup"] == pytest.approx(row["tokens_per_s"] / first["tokens_per_s"])
        assert row["holds_back"]
    assert rows["neupims"]["pim"] > 0
    assert data["notes"] == []


def test_compare_reads_folders_and_tells_what_differs(
    run_cli: RunCli, tmp_path: Path, tiny_card: Path
) -> None:
    options = ("--model", tiny_card, "--layers", "1", "--batch")
    for name, batch in (("eight", "8"), ("four", "4")):
        out = tmp_path / name
        assert run_cli("run", "npu-pim", *options, batch, "--out", out).returncode == 0
    done = run_cli("compare", "eight", "four", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "compared with eight" in done.stdout
    assert "four and eight do not run the same model on the same requests" in done.stdout
    mixed = json_of(run_cli("compare", "eight", "npu-pim", *options, "8", "--json", cwd=tmp_path))
    assert mixed["runs"][1]["speedup"] == pytest.approx(1)


def test_compare_wants_two(refused: Refused) -> None:
    assert "two or more" in refused("compare", "neupims")
    assert "compare" in refused("compare")
    assert "did you mean 'neupims'" in refused("compare", "npu-pim", "neupim")


# from Python


def test_python_runs_and_compares(tiny_card: Path, write_trace: WriteTrace, tmp_path: Path) -> None:
    requests = write_trace([50, 60, 70, 80])
    out = tmp_path / "run"
    result = pimsim.run("npu-pim", model=tiny_card, requests=requests, layers=1, out=out)
    assert isinstance(result, pimsim.Result)
    assert pimsim.load(out) == result
    frame = pimsim.compare(
        [result, out, "npu-pim"], model=tiny_card, requests=requests, layers=1
    )  # fmt: skip
    assert frame["cycles"].tolist() == [result.cycles] * 3
    faster = pimsim.run(
        "npu-pim", model=tiny_card, requests=requests, layers=1, batch=2,
        overrides=["npu.frequency=2GHz"],
    )  # fmt: skip
    assert faster.tokens == 2
    assert faster.time_s < result.time_s


# wrong input: one line, exit 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--model", "gpt3-175b", "--set", "parallel.tp=1", "--set", "parallel.pp=1"),
            "model gpt3-175b (tp 1, pp 1, 256 requests) needs",
        ),
        (("--set", "memory.organization.banks_per_group=3"), "needs a power of two"),
        (("--layers", "0"), "'--layers': found '0'; allowed: auto, or 1 to 10,000"),
        (("--layers", "10001"), "'--layers': found '10001'; allowed: auto, or 1 to 10,000"),
        (("--layers", "many"), "'--layers': found 'many'; allowed: auto, or 1 to 10,000"),
        (("--batch", "-3"), "--batch"),
        (("--batch", "100000"), "a batch of 100000 requests was asked for, the trace has 256"),
        (("--max-error", "2%", "--fidelity", "command"), "max_error is for fidelity 'fast'"),
        (("--max-error", "much"), "max_error"),
        (("--max-error", "200%"), "max_error"),
        (("--fidelity", "exact"), "fidelity"),
        (("--model", "gpt3-7"), "did you mean 'gpt3-7b'?"),
        (("--requests", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--set", "npu.frequncy=2GHz"), "did you mean 'frequency'?"),
    ],
)
def test_wrong_options_are_one_line(
    refused: Refused, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("run", *arguments, "--out", "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.csv: a request trace is expected, the file is empty"),
        (OURS, "the request trace is empty (a header, but no requests)"),
        ("request_id,arrival_s,prompt_tokens\n1,0,5\n", "column 'output_tokens' is missing"),
        (OURS + "0,nan,5,5,0\n", "bad.csv:2: arrival_s is 'nan'"),
        (OURS + "0,0,nan,5,0\n", "bad.csv:2: prompt_tokens is 'nan'"),
        (OURS + "0,0,-5,5,0\n", "bad.csv:2: prompt_tokens is '-5'"),
        (OURS + "0,0,5,5,0\n1,0,1000000000,5,0\n", "bad.csv:3: prompt_tokens is '1000000000'"),
        (OURS + "0,0,3000,5,0\n", "request 0 has a context of 3000 tokens; model gpt3-7b takes"),
        ("seq_len,ch_idx\n100,32\n", "request 0: channel 32, but the memory has channels 0 to 31"),
        ("seq_len,ch_idx\n100,-1\n", "bad.csv:2: ch_idx is '-1'"),
    ],
)
def test_wrong_traces_are_one_line(
    refused: Refused, tmp_path: Path, content: str, message: str
) -> None:
    trace = tmp_path / "bad.csv"
    trace.write_text(content)
    run = ("run", "neupims", "--requests", trace, "--out", tmp_path / "run")
    assert message in refused(*run, "--set", "schedule.channel_assignment=trace")
    assert list(tmp_path.iterdir()) == [trace]


def test_a_place_that_cannot_be_written_is_told_before_the_run(
    refused: Refused, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    started = time.perf_counter()
    for out in (file, file / "below"):
        assert f"--out {out}" in refused("run", "--layers", "32", "--out", out)
    assert time.perf_counter() - started < 10  # 32 blocks take longer
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]
