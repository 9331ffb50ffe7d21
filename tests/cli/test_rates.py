"""``pimsim rates`` as a user runs it: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]

# a server of a second for each request: half of all do not wait at a load of a half
SERVICE = """\
requests:
  count: 100
  arrivals: {process: poisson, rate_per_s: 0.4}
  prompt: {fixed: 8}
  output: {fixed: 1}
scheduler: {name: vllm, max_num_seqs: 1, max_num_batched_tokens: 64}
cache: {blocks: 101}
step_time: {linear: {step_us: 1000000, token_us: 0}}
slo: {ttft: 1s}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(SERVICE)
    return path


def test_the_highest_rate_is_said_with_why_the_next_is_not(service: Path, run_cli: RunCli) -> None:
    done = run_cli("rates", str(service), "--share", "50%", "--tolerance", "50%", "--seeds", "2")
    assert done.returncode == 0, done.stderr
    assert "server: SLO ttft 1 s; 2 seeds at each rate" in done.stdout
    assert "requests/s 50% keep the SLO" in done.stdout
    assert "95 % of their mean" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("the next, 0.") and "50% have to (each limit: ttft " in last


def test_a_curve_is_written_and_read_again(service: Path, run_cli: RunCli, tmp_path: Path) -> None:
    import pandas

    out = tmp_path / "out"
    done = run_cli(
        "rates", str(service), "--at", "0.2,0.4,9", "--seeds", "2", "--share", "0.5", "--json",
        "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "rates.json").read_text())
    assert found["highest"] is None and found["share"] == 0.5
    assert [point["rate_per_s"] for point in found["points"]] == [0.2, 0.4, 9]
    assert [point["keeps"] for point in found["points"]] == [True, True, False]
    table = pandas.read_csv(out / "rates.csv")
    assert table["latency_s.ttft.p99"][:2].is_monotonic_increasing
    assert table["shares.ttft"][0] == found["points"][0]["share"]
    assert {path.name for path in out.iterdir()} == {
        "rates.json", "rates.csv", "rates_ttft.svg", "rates_ttft.png", "rates_e2e.svg",
        "rates_e2e.png",
    }  # fmt: skip


def test_no_rate_that_is_kept_ends_with_1(service: Path, run_cli: RunCli) -> None:
    done = run_cli("rates", str(service), "--at", "30", "--seeds", "1")
    assert done.returncode == 1 and not done.stderr
    assert "30 requests/s: the queue grows with 1 of 1 seeds (Mann and Kendall: +" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--at", "1,x"], "--at: found 'x'; allowed: requests per second, as in 1,2.5,4"),
        (["--at", ""], "--at: found ''"),
        (["--at", "1,-2"], "rates: found -2.0; allowed: requests per second above 0"),
        (["--at", "nan"], "rates: found nan"),
        (["--at", "1e9"], "requests.rate_scale"),
        (["--share", "99 per cent"], "--share: found '99 per cent'; allowed: a share (0.02 or 2%)"),
        (["--share", "0"], "share: found 0.0; allowed: above 0 to 1 (99%)"),
        (["--tolerance", "0.01%"], "tolerance: found 0.0001; allowed: 0.001 to 1 (2%)"),
        (["--seeds", "0"], "--seeds"),
        (["--set", "requests.arrivals={process: at_once}"], "there is no rate to be set"),
        (["--set", "requests.arrivals={process: closed, users: 3}"], "no rate that could be set"),
        (["--set", "slo.ttfd=1s"], "ttft"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(
    service: Path, run_cli: RunCli, tmp_path: Path, given: list[str], said: str
) -> None:
    done = run_cli("rates", str(service), *given, "--out", str(tmp_path / "out"))
    assert done.returncode == 2, done.stdout
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not done.stdout
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_refused_before_anything_runs(
    service: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli("rates", str(service), "--out", str(tmp_path / "file"))
    assert done.returncode == 2 and "is not a folder that can be written" in done.stderr
