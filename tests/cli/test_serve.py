"""``pimsim serve`` as a user runs it: what it prints and writes, how it stops, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]

TRACE = "arrival_us,prompt,output\n0,100,3\n1000,200,1\n900000,50,2\n"
SERVICE = """\
requests: {file: ./requests.csv}
scheduler: {name: vllm, max_num_seqs: 4, max_num_batched_tokens: 256}
cache: {blocks: 101}
step_time: {linear: {step_us: 8000, token_us: 20}}
slo: {ttft: 15ms}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    (tmp_path / "requests.csv").write_text(TRACE)
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


def test_json_has_the_figures_of_three_requests_by_hand(service: Path, run_cli: RunCli) -> None:
    done = run_cli("serve", str(service), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # 0: a prompt of 100 in 10 ms, then beside 200 tokens of the other 12.02 ms, then 8.02 ms
    assert found["requests"] == {"asked": 3, "arrived": 3, "finished": 3}
    assert found["steps"]["count"] == 5
    assert found["steps"]["tokens"] == 100 + 201 + 1 + 50 + 1
    assert found["time_s"] == pytest.approx(0.9 + 0.009 + 0.00802)
    assert found["requests_per_s"] == pytest.approx(3 / found["time_s"])
    assert found["tokens_per_s"] == pytest.approx(6 / found["time_s"])
    ttft = [0.010, 0.010 + 0.01202 - 0.001, 0.009]
    assert found["latency_s"]["ttft"]["mean"] == pytest.approx(sum(ttft) / 3)
    assert found["latency_s"]["ttft"]["p50"] == pytest.approx(0.010)
    assert found["latency_s"]["ttft"]["max"] == pytest.approx(ttft[1])
    tpot = [(0.01202 + 0.00802) / 2, 0.00802]  # an output of one token has none
    assert found["latency_s"]["tpot"]["mean"] == pytest.approx(sum(tpot) / 2)
    assert found["latency_s"]["itl"]["mean"] == pytest.approx((0.01202 + 2 * 0.00802) / 3)
    assert found["latency_s"]["itl"]["p50"] == pytest.approx(0.00802, rel=5e-4)
    assert found["latency_s"]["itl"]["max"] == pytest.approx(0.01202)
    assert found["latency_s"]["e2e"]["max"] == pytest.approx(0.03004)
    assert found["slo"] == {"ttft": 0.015}
    assert found["goodput"]["share"] == pytest.approx(2 / 3)
    assert found["kv"]["blocks"] == 100
    assert found["kv"]["peak"] == 7 + 13
    assert found["kv"]["preemptions"] == 0
    assert found["power_w"] is None


def test_out_holds_what_python_and_parquet_read_again(
    service: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    import pandas

    import pimsim

    done = run_cli("serve", str(service), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "TTFT" in done.stdout
    requests = pandas.read_parquet(tmp_path / "out" / "requests.parquet")
    steps = pandas.read_parquet(tmp_path / "out" / "steps.parquet")
    assert steps["tokens"].tolist() == [100, 201, 1, 50, 1]
    assert requests["finish_ps"].tolist() == [30_040_000_000, 22_020_000_000, 917_020_000_000]
    figures = json.loads((tmp_path / "out" / "result.json").read_text())
    again = pimsim.serve(tmp_path / "out" / "config.yaml")
    assert again.table().equals(requests)
    for key in ("latency_s", "steps", "kv", "over_time"):
        assert again.to_dict()[key] == figures[key]
    refused = run_cli("compare", str(tmp_path / "out"), "neupims")
    assert refused.returncode == 2
    assert "the result of a service" in refused.stderr


@pytest.mark.parametrize("limit", [("--max-time", "12ms"), ("--max-requests", "1")])
def test_stops_where_it_is_told_to(service: Path, run_cli: RunCli, limit: tuple[str, str]) -> None:
    done = run_cli("serve", str(service), *limit, "--json")
    found = json.loads(done.stdout)
    assert found["finished"] is False
    assert found["requests"]["finished"] == (0 if limit[0] == "--max-time" else 1)


def test_ctrl_c_writes_what_is_known_and_ends_with_130(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(
        "requests: {count: 2000000, prompt: {fixed: 10}, output: {fixed: 50}, "
        "arrivals: {process: poisson, rate_per_s: 5}}\n"
        "scheduler: {name: vllm}\ncache: {blocks: 1001}\n"
        "step_time: {linear: {step_us: 8000, token_us: 20}}\n"
    )
    command = [sys.executable, "-m", "pimsim.cli.main", "serve", str(path), "--json", "--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
        # what is started in the background of a script has it ignored, and hands that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list(tmp_path.glob("pimsim.*/steps.parquet")):  # some thousand steps are done
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    command = f"pimsim serve {path} --out {tmp_path / 'out'} --resume"
    assert said.strip().splitlines() == [f"to go on: {command}", "interrupted"]
    found = json.loads(out)
    assert found["finished"] is False
    assert 0 < found["requests"]["finished"] < 2_000_000
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == found


def test_overload_ends_with_the_rate_that_is_carried(service: Path, run_cli: RunCli) -> None:
    lines = [f"{at * 1000},100,50" for at in range(400)]
    (service.parent / "requests.csv").write_text("\n".join(["arrival_us,prompt,output", *lines]))
    done = run_cli("serve", str(service))
    assert "overloaded: 1e+03 requests/s come and" in " ".join(done.stdout.split())
    found: dict[str, Any] = json.loads(run_cli("serve", str(service), "--json").stdout)
    assert found["queue"]["overloaded"] is True
    assert found["queue"]["offered_per_s"] == pytest.approx(1000)
    # four at a time, each of 50 steps of some 8.1 ms
    assert found["queue"]["carried_per_s"] < 4 / (50 * 0.00802)


REFUSED = {
    "order": ("100,10,5\n50,10,5\n", [], "requests.csv:3: request 1 arrives at 0.000050 s"),
    "no output": ("0,10,0\n", [], "requests.csv:2: request 0: output is 0 tokens"),
    "no prompt": ("0,0,5\n", [], "requests.csv:2: request 0: prompt is 0 tokens"),
    "cache": ("0,5000,5\n", [], "request 0: 5000 + 5 tokens need 313 blocks of 16"),
    "context": ("0,1500,1000\n", ["model=gpt3-7b", "cache.blocks=999"], "gpt3-7b is 2048"),
    "model_len": ("0,90,20\n", ["scheduler.max_model_len=100"], "max_model_len is 100"),
    "text": ("0,ten,5\n", [], "requests.csv:2: prompt is 'ten'; a whole number is expected"),
    "short line": ("0,10\n", [], "requests.csv:2: 2 fields, where the header names 3"),
    "empty": ("", [], "the request trace is empty"),
    "format": (
        "0,1,1\n", ["requests.format=burstgpt"],
        "'burstgpt', but these are the columns of 'azure'",
    ),
    "scheduler": ("0,1,1\n", ["scheduler.name=vlm"], "did you mean 'vllm'?"),
    "setting": ("0,1,1\n", ["scheduler.max_num_seq=1"], "did you mean 'max_num_seqs'?"),
    "router": ("0,1,1\n", ["replicas.router=lorr"], "did you mean 'lor'?"),
    "process": ("0,1,1\n", ["requests.arrivals.process=gama"], "did you mean 'gamma'?"),
    "no rate": ("0,1,1\n", ["requests.arrivals.process=poisson"], "rate_per_s is missing"),
    "drafts": (
        "0,1,1\n", ["scheduler.name=sarathi", "speculation={drafts: 1, accept: 1}"],
        "verifies no drafts",
    ),
    "stages": (
        "0,1,1\n", ["scheduler.name=lightllm", "cache.block_tokens=1", "replicas.stages=2"],
        "has no pipeline",
    ),
    "tokens": ("0,1,1\n", ["scheduler.name=lightllm"], "counts tokens: 1"),
    "whole prompt": (
        "0,300,1\n", ["scheduler.chunked_prefill=false"], "a prompt of 300 tokens never fits a step"
    ),
    "nothing to send": ("0,1,1\n", ["decode={token_bytes: 3B}"], "links and token_bytes: both or"),
    "unreachable": (
        "0,1,1\n",
        ["decode={token_bytes: 1kB, links: {topology: given, links: [0>1], bandwidth_gb_per_s: 1, "
         "latency_ns: 1}}"],
        "device 1 cannot reach device 0",
    ),
    "no pool": (
        "0,1,1\n", ["scheduler.name=static", "decode={count: 2}"],
        "decode: scheduler static goes on with no request",
    ),
    "no step time": ("0,1,1\n", ["step_time.linear=null"], "either linear or profile"),
    "no profile": (
        "0,1,1\n",
        ["step_time.linear=null", "step_time.profile={folder: ./no, layers: 1}"],
        "no folder with a profile's tables",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_line_and_exit_2(service: Path, run_cli: RunCli, case: str) -> None:
    lines, changes, said = REFUSED[case]
    (service.parent / "requests.csv").write_text("arrival_us,prompt,output\n" + lines)
    options = [word for change in changes for word in ("--set", change)]
    done = run_cli("serve", str(service), *options)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_of_no_known_format_is_told_what_it_has(service: Path, run_cli: RunCli) -> None:
    (service.parent / "requests.csv").write_text("a,b\n1,2\n")
    done = run_cli("serve", str(service))
    assert done.returncode == 2
    assert "columns are a, b; known are azure: TIMESTAMP" in done.stderr


def test_another_scheduler_drops_the_settings_of_the_former(service: Path, run_cli: RunCli) -> None:
    for name in ("sarathi", "vllm-v0", "orca", "static"):
        options = ["--set", f"scheduler.name={name}", "--set", "cache.blocks=1000"]
        done = run_cli("serve", str(service), *options, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["scheduler"] == name.replace("-", "_")
        assert found["requests"]["finished"] == 3


def test_a_quirk_of_a_published_simulator_is_a_warning(service: Path, run_cli: RunCli) -> None:
    done = run_cli("serve", str(service), "--set", "scheduler.name=vidur_sarathi", "--json")
    assert json.loads(done.stdout)["warnings"] == [
        "quirks of a published artifact are on: scheduler.name"
    ]


def test_the_shipped_service_runs_and_is_shown(run_cli: RunCli) -> None:
    done = run_cli("serve", "chat", "--set", "requests.count=20", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"]["finished"] == 20
    assert "max_num_seqs: 256" in run_cli("show", "chat").stdout
