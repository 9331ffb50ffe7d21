"""What a run's inputs say is used, refused, or said not to be used."""

from __future__ import annotations

from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.simulate import device_of, resolve, simulate
from pimsim.workload.requests import load_requests

SMALL = [
    "workload.model=smollm2-135m", "workload.layers=1", "parallel.tp=1", "fidelity=fast",
]  # fmt: skip


def _requests(folder: Path, *lines: str) -> str:
    file = folder / "r.csv"
    file.write_text("\n".join(["seq_len,ch_idx", *lines]) + "\n")
    return f"workload.requests={file}"


@pytest.mark.parametrize("run", ["neupims", "npu-only", "npu-pim"])
@pytest.mark.parametrize("assignment", ["trace", "round-robin", "least-loaded"])
def test_a_channel_beyond_the_memory_is_refused_whether_used_or_not(
    run: str, assignment: str, tmp_path: Path
) -> None:
    overrides = [*SMALL, f"schedule.channel_assignment={assignment}"]
    device_of(resolve(run, [*overrides, _requests(tmp_path, "100,31")]))
    with pytest.raises(InputError, match="channel 32, but the memory has channels 0 to 31"):
        device_of(resolve(run, [*overrides, _requests(tmp_path, "100,31", "100,32")]))


def test_channels_of_a_trace_are_used_or_said_not_to_be(tmp_path: Path) -> None:
    given = [*SMALL, _requests(tmp_path, "300,3", "300,3", "300,3")]
    spread = simulate(resolve("npu-pim", [*given, "schedule.channel_assignment=least-loaded"]))
    assert [note for note in spread.warnings if "channels of the request trace" in note] == [
        "the channels of the request trace are not used: schedule.channel_assignment is "
        "least-loaded; trace takes them"
    ]
    device, _ = device_of(resolve("npu-pim", [*given, "schedule.channel_assignment=trace"]))
    assert device.channel == (3, 3, 3)
    used = simulate(resolve("npu-pim", [*given, "schedule.channel_assignment=trace"]))
    assert not any("channels of the request" in note for note in used.warnings)
    on_npu = simulate(resolve("npu-only", given))
    assert any("only a KV cache in PIM's layout" in note for note in on_npu.warnings)


def test_blocks_beyond_the_model_are_said() -> None:
    result = pimsim.run("npu-only", layers=31, batch=2, overrides=[*SMALL[:1], *SMALL[2:]])
    assert "31 blocks simulated, a device has 30; rates are of 31" in result.warnings


def test_a_layout_beyond_the_banks_is_refused_unless_asked_for() -> None:
    """Rows are those of all blocks, also of those that are not simulated."""
    run = ["workload.model=gpt-oss-120b", "workload.layers=2", "workload.batch=16"]
    device, _ = device_of(resolve("npu-pim", [*run, "workload.beyond_banks=true"]))
    rows = 1
    while rows < device.rows_needed:
        rows *= 2
    fits = f"memory.organization.rows={rows}"
    device_of(resolve("npu-pim", [*run, fits]))
    few = resolve("npu-pim", [*run, f"memory.organization.rows={rows // 2}"])
    with pytest.raises(InputError, match=rf"all blocks need {device.rows_needed} rows"):
        device_of(few)


def test_a_header_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(",".join(f"c{i}" for i in range(10**6)) + "\n")
    with pytest.raises(InputError, match="1000000 columns"):
        load_requests(file)
