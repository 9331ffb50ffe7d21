"""``pimsim kernel collective`` and ``pimsim calibrate-nccl``: what they print, and bad input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]

LINK = ("--bandwidth", "100GB/s", "--latency", "500ns")


def test_one_level(run_cli: RunCli) -> None:
    done = run_cli(
        "kernel", "collective", "--bytes", "8kB", "--devices", "8", "--topology", "switch",
        "--algorithm", "direct", *LINK, "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["time_ns"] == 2 * (80 + 1000)
    assert (found["sent_bytes"], found["carried_bytes"]) == (14_000, 28_000)
    assert (found["messages"], found["queued_messages"], found["rounds"]) == (14, 12, 2)
    assert found["algorithm_gb_per_s"] == pytest.approx(8000 / 2160)
    assert found["levels"] == [
        {"devices": 8, "topology": "switch", "algorithm": "direct", "bandwidth_gb_per_s": 100,
         "latency_ns": 500}
    ]  # fmt: skip


def test_two_levels_as_astra_sim_counts_them(run_cli: RunCli) -> None:
    done = run_cli(
        "kernel", "collective", "--bytes", "1MiB", "--devices", "8,4", "--topology",
        "fully_connected,switch", "--algorithm", "direct,ring", "--bandwidth", "450GiB/s,50GiB/s",
        "--latency", "500ns,2us", "--congestion", "unaware", "--timing", "astra_sim", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["time_ns"] == 29_213


def test_the_links_of_a_preset(run_cli: RunCli) -> None:
    """A ring of 300 GB/s and 500 ns; one value of two levels is of both."""
    done = run_cli("kernel", "collective", "--bytes", "30000B", "--devices", "2", "--json")
    assert json.loads(done.stdout)["time_ns"] == 2 * (500 + 50)
    done = run_cli(
        "kernel", "collective", "--bytes", "30000", "--devices", "2,2", "--operation",
        "reduce_scatter", "--latency", "1us", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["time_ns"] == (1000 + 50) + (1000 + 25)


def test_given_links(run_cli: RunCli) -> None:
    """Two devices at a switch of one's own."""
    done = run_cli(
        "kernel", "collective", "--bytes", "1000B", "--devices", "2", "--topology", "given",
        "--links", "0-2,2-1", "--operation", "send", *LINK, "--json",
    )  # fmt: skip
    assert json.loads(done.stdout)["time_ns"] == 2 * (500 + 10)


def test_nccl_says_its_protocol(run_cli: RunCli) -> None:
    """An all-gather's bytes are one device's part: 8 x 128 KiB is 1 MiB in all."""
    part = run_cli(
        "kernel", "collective", "--bytes", "128KiB", "--devices", "8", "--operation",
        "all_gather", "--nccl", "h100", "--json",
    )  # fmt: skip
    found = json.loads(part.stdout)
    assert found["protocol"] == "ll"
    assert found["sent_bytes"] == 7 * 2**17
    assert found["time_ns"] == pytest.approx(1e3 * (4.755 + 7 * 0.8772 + 2**20 / 192.4e3), abs=1e-2)
    shown = run_cli("kernel", "collective", "--bytes", "1GiB", "--devices", "8", "--nccl", "h100")
    assert "simple, as NCCL's own model chooses it" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "swich"), "--topology 'swich'; did you mean 'switch'?"),
        (("--algorithm", "rings"), "--algorithm 'rings'; did you mean 'ring'?"),
        (("--operation", "allreduce"), "--operation 'allreduce'; did you mean 'all_reduce'?"),
        (("--timing", "astrasim"), "link.timing: found 'astrasim'; did you mean 'astra_sim'?"),
        (("--congestion", "awar"), "link.congestion: found 'awar'; did you mean 'aware'?"),
        (("--topology", "given"), "link.topology 'given' needs links"),
        (
            ("--topology", "given", "--links", "0-1,1-2"),
            "device 0 cannot reach device 3; each of the 6 devices must reach each other one",
        ),
        (("--links", "0-1"), "link.links are for topology 'given'; 'ring' knows its own"),
        (("--topology", "given", "--links", "0-1,2"), "link.links: found '2'"),
        (("--algorithm", "halving_doubling"), "power of two of devices, found 6"),
        (("--topology", "ring,ring"), "--topology ring,ring: 1 values are expected"),
        (("--bandwidth", "100"), "--bandwidth '100': a rate with its unit is expected"),
        (("--bandwidth", "100XB/s"), "--bandwidth '100XB/s': unit 'XB'"),
        (("--latency", "5"), "--latency: a time needs its unit"),
        (("--bandwidth", "0GB/s"), "link.bandwidth_gb_per_s: found 0.0; allowed: at least 0.001"),
        (("--devices", "0"), "--devices '0': N, or N,M of two levels, is expected"),
        (("--devices", "1,4"), "a group of two levels has two devices or more"),
        (("--devices", "2,2,2"), "--devices '2,2,2'"),
        (("--devices", "2000"), "each 1 to 1024"),
        (("--bytes", "x"), "--bytes: a size expected"),
        (("--nccl", "h10"), "unknown nccl 'h10'; did you mean 'h100'?"),
        (("--nccl", "h100", "--topology", "ring"), "--topology ring: --nccl has links"),
        (("--nccl", "h100", "--devices", "2,2"), "--nccl is for the devices of one node"),
        (("--nccl", "h100", "--operation", "all_to_all"), "NCCL's rings do all_reduce"),
    ],
)
def test_bad_input_is_one_line(run_cli: RunCli, arguments: tuple[str, ...], message: str) -> None:
    done = run_cli("kernel", "collective", "--bytes", "1KiB", "--devices", "6", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_calibration_prints_constants(run_cli: RunCli, tmp_path: Path) -> None:
    """Rows of 2 GPUs at 5 + 1 us a step and 100 GB/s below 1 MB, 10 + 4 and 400 above."""
    lines = ["device,op_name,num_gpus,message_size,version,latency_us"]
    for operation, steps in (("all_gather", 1), ("all_reduce", 2)):
        for power in (9, 12, 15, 18, 25, 26, 27, 28):
            size = 2 * 2**power
            base, hop, rate = (5, 1, 100e3) if power < 20 else (10, 4, 400e3)
            time = base + hop * steps + (steps + 1) * size / 2 / rate
            lines.append(f"h100_sxm,{operation},2,{2**power},1,{time!r}")
            lines.append(f"h100_sxm,{operation},8,{2**power},1,1")  # tests only
            lines.append(f"a100_sxm,{operation},2,{2**power},1,1")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    done = run_cli("calibrate-nccl", str(table), "--device", "h100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "# 16 of 32 rows of h100: 2 GPUs",
        "ll: {base_us: 5, hop_us: 1, gb_per_s: 100}",
        "simple: {base_us: 10, hop_us: 4, gb_per_s: 400}",
    ]
    found = json.loads(run_cli("calibrate-nccl", str(table), "--json").stdout)
    assert found["ll"] == {"base_us": 5.0, "hop_us": 1.0, "gb_per_s": 100.0}
    missing = run_cli("calibrate-nccl", str(table), "--device", "b200")
    assert missing.returncode == 2
    assert "no rows of b200" in missing.stderr


def test_a_table_that_is_none_is_named(run_cli: RunCli, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("device,op_name,num_gpus,message_size,latency_us\nh10_sxm,all_gather,2,1,1\n")
    done = run_cli("calibrate-nccl", str(table))
    assert done.returncode == 2
    assert f"{table}:2: device: unknown 'h10_sxm'; did you mean 'h100_sxm'?" in done.stderr
