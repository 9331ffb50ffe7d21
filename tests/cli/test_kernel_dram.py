"""`pimsim kernel dram` as a user types it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Replay = Callable[..., dict[str, Any]]
Refused = Callable[..., str]

HBM2 = load_memory("hbm2").config
T = HBM2.timings
BURST = HBM2.organization.burst_bytes
OFFERED = 1
"""The controller sees a request of cycle 0 in cycle 1, and moves it to its bank."""

ALONE = OFFERED + 1 + T["tRCDRD"] + T["CL"] + T["nBL"] + 1
"""One read on an idle memory: moved, ACT, RD, data; cycles count from 0, so one more."""

REFERENCE_ROWS = list(
    csv.DictReader((Path(__file__).parents[1] / "data" / "dramsim3.csv").read_text().splitlines())
)


def address(memory: MemoryConfig = HBM2, **fields: int) -> int:
    """Byte address of a row, column, channel and bank, by the address map."""
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    burst = sum(value << mapping.position[name] for name, value in fields.items())
    return burst * memory.organization.burst_bytes


@pytest.fixture
def replay(run_cli: RunCli, tmp_path: Path) -> Replay:
    """The JSON of a trace given as lines."""

    def run(lines: Iterable[str], *options: str | Path) -> dict[str, Any]:
        (tmp_path / "t.trc").write_text("".join(f"{line}\n" for line in lines))
        done = run_cli("kernel", "dram", "t.trc", "--json", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    return run


@pytest.fixture
def refused_trace(refused: Refused, tmp_path: Path) -> Refused:
    """The error for a trace given as text."""

    def run(text: str, *options: str | Path) -> str:
        (tmp_path / "t.trc").write_text(text)
        return refused("kernel", "dram", "t.trc", *options)

    return run


def test_one_read_takes_an_activation_a_column_access_and_its_burst(replay: Replay) -> None:
    report = replay(["0x0 READ 0"])
    assert report["cycles"] == ALONE
    assert report["commands"] == {"ACT": 1, "PRE": 0, "RD": 1, "WR": 0, "REF": 0}
    assert report["row_hits"] == 0
    assert report["avg_read_latency_cycles"] == ALONE - 1 - OFFERED
    assert report["bandwidth_gbps"] == pytest.approx(BURST / (ALONE * HBM2.tCK / 1000))


def test_requests_answered_together_move_one_burst(replay: Replay) -> None:
    """1,000 reads of one address: bytes on the bus are those of the RDs, bytes answered all."""
    report = replay(["0x0 R"] * 1000, "--memory", "ddr4-3200")
    memory = load_memory("ddr4-3200").config
    size, time_ns = memory.organization.burst_bytes, report["cycles"] * memory.tCK / 1000
    assert 0 < report["commands"]["RD"] < 1000
    assert report["bytes_moved"] == size * report["commands"]["RD"]
    assert report["bytes_answered"] == size * 1000
    assert report["bandwidth_gbps"] == pytest.approx(report["bytes_moved"] / time_ns)
    assert report["answered_gbps"] == pytest.approx(size * 1000 / time_ns)
    assert report["bandwidth_gbps"] < 25.4 < report["answered_gbps"]
    both = replay(["0x0 W", "0x0 R"] * 500, "--memory", "ddr4-3200")
    assert sum(both["commands"].values()) == both["bytes_moved"] == both["bandwidth_gbps"] == 0


def test_a_row_hit_adds_the_column_to_column_delay(replay: Replay) -> None:
    report = replay(["0x0 READ 0", f"{address(co=1):#x} READ 0"])
    assert report["cycles"] == ALONE + max(T["nBL"], T["tCCD_L"])
    assert report["row_hits"] == 1
    assert report["commands"]["ACT"] == 1


def test_a_row_conflict_waits_for_the_row_to_close(replay: Replay) -> None:
    report = replay(["0x0 READ 0", f"{address(ro=1):#x} READ 0"])
    close = max(T["tRAS"], T["tRCDRD"] + T["tRTP"])
    assert report["cycles"] == ALONE + close + T["tRP"]
    assert report["row_hits"] == 0
    assert (report["commands"]["ACT"], report["commands"]["PRE"]) == (2, 1)


def test_channels_do_not_wait_for_each_other(replay: Replay) -> None:
    assert replay(["0x0 READ 0", f"{address(ch=1):#x} READ 0"])["cycles"] == ALONE


def test_a_request_is_not_offered_before_its_cycle(replay: Replay) -> None:
    assert replay(["0x0 READ 1000"])["cycles"] == 1000 + ALONE


def test_a_lone_write_stays_in_the_queue(replay: Replay) -> None:
    report = replay(["0x0 READ 0", "0x40 WRITE 0"])
    assert report["undrained_writes"] == 1
    assert report["commands"]["WR"] == 0
    assert report["requests"] == 2


def test_set_changes_the_memory(replay: Replay) -> None:
    assert replay(["0x0 READ 0"], "--set", "timings.CL=20")["cycles"] == ALONE + 20 - T["CL"]


def test_refresh_falls_due_every_interval_in_every_channel(replay: Replay) -> None:
    intervals = 3
    late = f"0x0 READ {intervals * T['tREFI'] + T['tREFI'] // 2}"
    assert replay([late])["commands"]["REF"] == intervals * HBM2.organization.channels
    assert replay([late], "--set", "controller.refresh=none")["commands"]["REF"] == 0


def test_energy_is_that_of_the_commands_and_of_the_standby_currents(replay: Replay) -> None:
    report = replay(["0x0 READ 0"])
    idd, ns = HBM2.currents, HBM2.tCK / 1000
    parts = report["energy_parts_pj"]
    assert parts["read"] == pytest.approx(idd.VDD * (idd.IDD4R - idd.IDD3N) * T["nBL"] * ns)
    opened = ALONE - OFFERED - 1  # from ACT to the end, in one rank
    standby = idd.IDD2N * ALONE * HBM2.organization.channels
    standby += (idd.IDD3N - idd.IDD2N) * opened
    assert parts["background"] == pytest.approx(idd.VDD * standby * ns)
    assert report["energy_pj"] == pytest.approx(sum(parts.values()))


def test_all_forms_of_a_trace_say_the_same(replay: Replay) -> None:
    expected = replay(["0x0 READ 0", "0x40 WRITE 0", "0x80 READ 0"])
    assert replay(["0x0 R", "0x40 W", "0X80 r"]) == expected
    assert replay(["LD 0x0", "ST 0x40", "LD 0x80"]) == expected
    decimal = ["# addresses in decimal", "0 read 0", "", "  64\twrite 0  # a comment", "128 RD 0"]
    assert replay(decimal) == expected


def test_an_address_vector_is_an_address(replay: Replay) -> None:
    """Ramulator's ``R channel,pseudo channel,SID,bank group,bank,row,burst`` and our own bytes."""
    memory = load_memory("hbm3-6400").config
    places = [
        {"ch": 3, "pc": 1, "ra": 1, "bg": 2, "ba": 3, "ro": 100, "co": 31},
        {"ch": 0, "pc": 0, "ra": 1, "bg": 0, "ba": 1, "ro": 7, "co": 4},
    ]
    vectors = [
        f"{kind} {','.join(map(str, at.values()))}" for kind, at in zip("RW", places, strict=True)
    ]
    bytes_ = [
        f"{kind} {address(memory, **at):#x}" for kind, at in zip(("LD", "ST"), places, strict=True)
    ]
    option = ("--memory", "hbm3-6400")
    assert replay(vectors, *option) == replay(bytes_, *option)


def test_cycles_of_a_two_edged_bus_are_half_clocks(replay: Replay) -> None:
    report = replay(["LD 0"], "--memory", "hbm3-6400")
    t = load_memory("hbm3-6400").config.timings
    act_to_read = 2 * t["tRCDRD"] + 3 - 2  # an ACT of three ticks, a RD of two
    assert report["cycles"] == 1 + act_to_read + 1 + 2 * (t["CL"] + t["nBL"])  # rising edges: odd
    assert (report["tck_ps"], report["tick_ps"]) == (625, 312.5)
    assert (report["row_misses"], report["row_conflicts"]) == (1, 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("R 0,0,0,1,2,3", "6 numbers; 7 are expected"),
        ("R 0,0,2,1,2,3,4", "rank 2; there are 2"),
        ("R 0,0,1,1,2,3,x", "no address vector"),
    ],
)
def test_a_wrong_address_vector_is_refused(
    line: str, said: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "v.trc").write_text(f"R 0,0,0,0,0,0,0\n{line}\n")
    found = refused("kernel", "dram", str(tmp_path / "v.trc"), "--memory", "hbm3-6400")
    assert "v.trc:2" in found and said in found


def test_a_trace_comes_from_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pimsim.cli.main", "kernel", "dram", "-", "--json"],
        input="0x0 READ 0\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout)["cycles"] == ALONE


def test_without_json_a_table_is_printed(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "t.trc").write_text("0x0 READ 0\n")
    out = run_cli("kernel", "dram", "t.trc", cwd=tmp_path).stdout
    assert "hbm2" in out
    assert f"{ALONE} of 1 ns" in out
    assert "ACT 1, PRE 0, RD 1, WR 0, REF 0" in out


def dramsim3_ini(memory: MemoryConfig) -> str:
    """The memory as DRAMsim3 would be told of it."""
    org, controller = memory.organization, memory.controller
    sections = {
        "dram_structure": {
            "protocol": "HBM",
            "bankgroups": org.bank_groups,
            "banks_per_group": org.banks_per_group,
            "rows": org.rows,
            "columns": org.columns * org.burst_length // 2,
            "device_width": org.bus_width_bits,
            "BL": org.burst_length,
        },
        "timing": {key: value for key, value in memory.timings.items() if key != "nBL"}
        | {"tCK": memory.tCK / 1000},
        "power": memory.currents.model_dump(exclude_none=True),
        "system": {
            "channel_size": org.capacity_bytes // org.channels // 2**20,
            "channels": org.channels,
            "bus_width": org.bus_width_bits,
            "address_mapping": memory.address_map,
            "queue_structure": "PER_BANK",
            "cmd_queue_size": controller.bank_queue_depth,
            "trans_queue_size": controller.read_queue_depth,
        },
    }
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for section, keys in sections.items()
    )


def test_a_dramsim3_ini_is_a_memory(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "stack.ini").write_text(dramsim3_ini(HBM2))
    lines = [f"{i * 3 * BURST:#x} {'WRITE' if i % 3 == 2 else 'READ'} 0" for i in range(200)]
    ours, theirs = replay(lines), replay(lines, "--memory", tmp_path / "stack.ini")
    assert theirs.pop("memory") == "stack"
    assert ours.pop("memory") == "hbm2"
    assert theirs == ours


def test_set_works_on_an_ini_too(replay: Replay, tmp_path: Path) -> None:
    (tmp_path / "stack.ini").write_text(dramsim3_ini(HBM2))
    options = ("--memory", tmp_path / "stack.ini", "--set", "timings.CL=20")
    assert replay(["0x0 READ 0"], *options)["cycles"] == ALONE + 20 - T["CL"]


@pytest.mark.parametrize(
    ("config", "pattern"),
    [("HBM2_8Gb_x128", "seq_read"), ("HBM2_8Gb_x128_1ch", "mix_2r1w")],
)
def test_dramsim3_is_reproduced_from_its_own_ini(
    replay: Replay, reference_dir: Path, config: str, pattern: str
) -> None:
    """Tolerances are those that the DRAM model promises: 2 % in cycles, 1 % in commands."""
    (row,) = (
        row
        for row in REFERENCE_ROWS
        if (row["config"], row["pattern"], row["n"], row["refresh"])
        == (config, pattern, "10000", "1")
    )
    writes = {"seq_read": 0, "mix_2r1w": 3}[pattern]
    lines = (
        f"{i * BURST:#x} {'WRITE' if writes and i % writes == writes - 1 else 'READ'} 0"
        for i in range(int(row["n"]))
    )
    report = replay(lines, "--memory", reference_dir / "dram" / "configs" / f"{config}.ini")
    assert report["cycles"] == pytest.approx(int(row["cycles"]), rel=0.02)
    for command, column in (
        ("ACT", "acts"), ("PRE", "pres"), ("RD", "reads"), ("WR", "writes_issued"), ("REF", "refs"),
    ):  # fmt: skip
        assert report["commands"][command] == pytest.approx(int(row[column]), rel=0.01), command
    assert report["energy_pj"] == pytest.approx(float(row["total_energy_pJ"]), rel=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.trc: holds no request"),
        ("# nothing\n\n", "t.trc: holds no request"),
        ("0x0 READ 0\n0x40 READ\n", "t.trc:2: found '0x40 READ'; 'address kind cycle' such as"),
        ("0x0 READ\n0 0x40 READ 0\n", "t.trc:2: found '0 0x40 READ 0'; 'address kind' such as"),
        ("0x0 READ 0\n# x\n-0x40 READ 0\n", "t.trc:3: address -0x40 is negative"),
        ("0x0 READ -1\n", "t.trc:1: cycle -1 is negative"),
        ("0x0 REED 0\n", "t.trc:1: kind 'REED'; did you mean 'READ'?"),
        ("1a READ 0\n", "t.trc:1: address '1a' is no whole number; hex starts with 0x"),
        ("0x0 READ nan\n", "t.trc:1: cycle 'nan' is no whole number"),
        ("0x0 READ 1e3\n", "t.trc:1: cycle '1e3' is no whole number"),
        ("0x4_0 READ 0\n", "t.trc:1: address '0x4_0' is no whole number"),
        ("0x0 READ 10000000001\n", "t.trc:1: cycle 10000000001 is above 10000000000, the limit"),
        (f"0x0 READ {2**63 - 1}\n", f"t.trc:1: cycle {2**63 - 1} is above"),
        (f"0x1{'0' * 16} READ 0\n", "t.trc:1: address 0x10000000000000000 does not fit 64 bits"),
        pytest.param(f"0 R 0\n0 R {'9' * 5000}\n", "t.trc:2: cycle 9999", id="long number"),
        pytest.param(f"0 R\n{' ' * 1_000_000}x", "t.trc:2: found 'x'", id="long line"),
        pytest.param(f"0 R\n{' ' * 9_000_000}x", "t.trc:2: longer than", id="endless line"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(
    refused_trace: Refused, text: str, message: str
) -> None:
    assert message in refused_trace(text)


def test_an_address_beyond_capacity_is_refused(refused_trace: Refused, replay: Replay) -> None:
    capacity = HBM2.organization.capacity_bytes
    message = refused_trace(f"\n0x0 READ 0\n{capacity} READ 0\n")
    assert f"t.trc:3: address {capacity:#x} is beyond the memory's capacity" in message
    assert replay([f"{capacity - 1} READ 0"])["cycles"] == ALONE


def test_binary_data_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "t.trc").write_bytes(bytes(range(128, 256)) * 4)
    assert "t.trc:1: found " in refused("kernel", "dram", "t.trc")


def test_what_cannot_be_read_is_refused(refused: Refused, tmp_path: Path) -> None:
    assert "none.trc: no such file" in refused("kernel", "dram", "none.trc")
    assert "is a directory; a DRAM trace is expected" in refused("kernel", "dram", tmp_path)


def test_a_wrong_memory_is_refused(refused_trace: Refused, tmp_path: Path) -> None:
    trace = "0x0 READ 0\n"
    assert "did you mean 'hbm2'?" in refused_trace(trace, "--memory", "hmb2")
    assert "none.ini" in refused_trace(trace, "--memory", "none.ini")
    assert "timings.CL" in refused_trace(trace, "--set", "timings.CL=fast")
    assert "did you mean 'timings'?" in refused_trace(trace, "--set", "timing.CL=3")
    (tmp_path / "x.ini").write_text("[dram_structure]\nprotocol = HBM9\n")
    assert "protocol 'HBM9'" in refused_trace(trace, "--memory", "x.ini")
    (tmp_path / "stack.ini").write_text(dramsim3_ini(HBM2))
    options = ("--memory", "stack.ini", "--set", "organization.channels=3")
    assert "power of two" in refused_trace(trace, *options)
