"""ASTRA-sim's collectives: every row to the nanosecond, through the same function as ``validate``;
NCCL's rows: which group each is in, and what the limits ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_nccl
from pimsim.hardware.fabric.nccl import nccl_time
from pimsim.hardware.fabric.schedule import Operation
from pimsim.validate.fabric import astra_rows, nccl_rows
from pimsim.validate.judge import judge, verdict_of
from pimsim.validate.types import References, Row

TABLES = Path(__file__).resolve().parents[1] / "data"
HEAD = "device,op_name,num_gpus,message_size,version,latency_us"
ASTRA_HEAD = (
    "backend,topology,npus,bandwidth_GiBps,latency_ns,collective,algorithm,size_bytes,chunks,"
    "time_ns"
)


def test_every_collective_to_the_nanosecond() -> None:
    rows = list(astra_rows(References(TABLES, None)))
    assert len(rows) == 210
    assert [row for row in rows if row.error] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("aware,Rng,4,450.0,1000.0,all_reduce,ring,65536,1,1", "unknown 'Rng'.*'Ring'"),
        ("aware,Ring,4,450.0,1000.0,all_reduce,rig,65536,1,1", "unknown 'rig'.*'ring'"),
        ("aware,Ring,4x2,450.0,1000.0,all_reduce,ring,65536,1,1", "one part for each level"),
        ("aware,Ring,4,x50,1000.0,all_reduce,ring,65536,1,1", "one part for each level"),
        ("aware,Ring,4,fast,1000.0,all_reduce,ring,65536,1,1", "a number is expected"),
        ("aware,Ring,4,450.0,1000.0,all_reduce,ring,65536,2,1", "chunks: 1 is expected, found 2"),
        ("awar,Ring,4,450.0,1000.0,all_reduce,ring,65536,1,1", "unknown 'awar'.*'aware'"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "fabric").mkdir()
    (tmp_path / "fabric" / "collectives.csv").write_text(f"{ASTRA_HEAD}\n{line}\n")
    with pytest.raises(InputError, match=rf"collectives\.csv:2.*{message}"):
        list(astra_rows(References(TABLES, tmp_path)))


def nccl(folder: Path, factor: float) -> list[Row]:
    """Rows of an H100 as ours are, but those of 8 GPUs ``factor`` times as long."""
    (folder / "gpu").mkdir()
    config = load_nccl("h100").config
    lines = [HEAD]
    for devices in (2, 8):
        for operation in (Operation.ALL_REDUCE, Operation.ALL_GATHER):
            for power in range(8, 29):
                found = nccl_time(operation, 2 * 2**power, devices, config)
                time = found.time_ps * 1e-6 * (factor if devices == 8 else 1)
                lines.append(f"h100_sxm,{operation},{devices},{2**power},2.29.2,{time!r}")
    (folder / "gpu" / "nccl_half.csv").write_text("\n".join(lines) + "\n")
    return list(nccl_rows(References(TABLES, folder)))


def test_rows_of_two_gpus_calibrate_and_the_others_test(tmp_path: Path) -> None:
    rows = nccl(tmp_path, 1.25)
    groups = {group.group: group for group in judge(rows)}
    assert {name: group.rows for name, group in groups.items()} == {
        "fabric.nccl_calibrates": 42,
        "fabric.nccl_tests_small": 22,  # below 1 MiB of bytes, 2^19 elements
        "fabric.nccl_tests_large": 20,
        "fabric.nccl_constants": 9,
    }
    assert groups["fabric.nccl_tests_small"].worst == pytest.approx(-0.2)
    assert verdict_of(groups["fabric.nccl_tests_small"]) == "ok"
    assert verdict_of(groups["fabric.nccl_tests_large"]) == "ok"
    assert groups["fabric.nccl_constants"].failures == ()


def test_too_many_rows_outside_fail(tmp_path: Path) -> None:
    groups = {group.group: group for group in judge(nccl(tmp_path, 1.3))}
    assert verdict_of(groups["fabric.nccl_tests_small"]) == "ok"
    (line,) = groups["fabric.nccl_tests_large"].failures
    assert line == "0 of 20 rows are within 20.00%, allowed 95.00%"


def test_without_a_folder_there_are_no_rows_of_nccl() -> None:
    assert list(nccl_rows(References(TABLES, None))) == []


@pytest.mark.parametrize(("outside", "verdict"), [(0, "ok"), (1, "ok"), (2, "FAILED")])
def test_a_share_of_rows_may_be_outside(outside: int, verdict: str) -> None:
    """95 % of twenty are nineteen."""
    errors = outside * [0.21] + (20 - outside) * [-0.2]
    rows = [Row("fabric.nccl_tests_large", str(n), "us", 1, 1 + e) for n, e in enumerate(errors)]
    (group,) = judge(rows)
    assert verdict_of(group) == verdict
    assert len(group.failures) == (verdict == "FAILED")
