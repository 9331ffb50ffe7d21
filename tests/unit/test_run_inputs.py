"""What a run's inputs say is used, refused, or said not to be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.simulate import device_of, resolve, simulate
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import Parallelism, load_card
from pimsim.workload.degrees import larger_degrees
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
    run.append("parallel.tp=8")
    device, _ = device_of(resolve("npu-pim", [*run, "workload.beyond_banks=true"]))
    rows = 1
    while rows < device.rows_needed:
        rows *= 2
    fits = f"memory.organization.rows={rows}"
    device_of(resolve("npu-pim", [*run, fits]))
    few = resolve("npu-pim", [*run, f"memory.organization.rows={rows // 2}"])
    with pytest.raises(InputError, match=rf"all blocks need {device.rows_needed} rows"):
        device_of(few)


def test_a_full_cache_names_the_first_request_without_room() -> None:
    """In the order of the batch: those before it fit, with all blocks that are not simulated."""
    run = ["workload.model=gpt3-7b", "workload.batch=256", "parallel.tp=4"]
    few = resolve("neupims", [*run, "memory.organization.rows=16384"])
    with pytest.raises(InputError, match=r"request \d+ .* first without room") as caught:
        device_of(few)
    found = re.search(
        r"need (\d+) rows .*; request (\d+) with (\d+) tokens is the first without room: its cache "
        r"takes (\d+) rows in channel (\d+), (\d+) are left: raise parallel.tp", str(caught.value),
    )  # fmt: skip
    assert found is not None
    need, request, tokens, takes, channel, left = map(int, found.groups())
    device, _ = device_of(resolve("neupims", [*run, "memory.organization.rows=32768"]))
    assert device.rows_needed == need
    kv = device.kv[0]
    assert kv.shape is not None
    rows = {
        each.id: kv.shape.kv_sections.rows(each.context) * 32 for each in device.whole.requests
    }  # 32 blocks
    where = dict(zip(rows, device.channel, strict=True))
    assert (where[request], rows[request]) == (channel, takes)
    assert tokens == next(e.context for e in device.whole.requests if e.id == request)
    before = sum(
        size for each, size in rows.items() if where[each] == channel and each < request
    )  # fmt: skip
    beside = need - max(sum(rows[e] for e in rows if where[e] == c) for c in set(where.values()))
    assert left == 16384 - beside - before < takes


@pytest.mark.parametrize("what", ["model", "trace"])
def test_the_degree_left_open_is_one_that_holds_the_layout(what: str) -> None:
    """gpt-oss-120b on eight devices needs 46,898 rows; the next degrees are 16 and 32."""
    run = [f"workload.{what}=gpt-oss-120b", "workload.batch=128"]
    rows = {}
    for tp in (8, 16, 32):
        at = [*run, f"parallel.tp={tp}", "workload.beyond_banks=true"]
        rows[tp] = device_of(resolve("neupims", at))[0].rows_needed
    assert rows[8] == 46_898 and rows[16] > 32_768 > rows[32]
    device, _ = device_of(resolve("neupims", run))
    assert (device.whole.tp, device.narrow_tp, device.rows_needed) == (32, 8, rows[32])
    asked, _ = device_of(resolve("neupims", [*run, "parallel.tp=32"]))
    assert asked.narrow_tp is None
    taken_for_larger, _ = device_of(resolve("neupims", [*run, "workload.beyond_banks=true"]))
    assert taken_for_larger.whole.tp == 8
    refused = r"\(tp 8, ep 1, pp 1\).*46898 rows.* has 32768; request 0 .*: raise"
    with pytest.raises(InputError, match=refused):
        device_of(resolve("neupims", [*run, "parallel.tp=8"]))


def test_a_layout_that_no_degree_holds_is_refused_with_a_way_out() -> None:
    run = ["workload.model=deepseek-v3", "workload.batch=16"]
    with pytest.raises(
        InputError, match=r"\(tp 128, ep 1, pp 1\).*no larger parallel\.tp holds it, raise parallel"
    ):
        device_of(resolve("neupims", run))
    device, _ = device_of(resolve("neupims", [*run, "parallel.ep=16"]))
    assert (device.whole.tp, device.narrow_tp) == (64, None)


def test_larger_degrees_are_those_that_suit_model_and_experts() -> None:
    card = load_card("gpt-oss-120b")
    for model in (card, card_trace(card)):
        assert list(larger_degrees(model, Parallelism(8, 1), 1)) == [16, 32, 64]
        assert list(larger_degrees(model, Parallelism(8, 1), 32)) == [32, 64]
        assert list(larger_degrees(model, Parallelism(64, 1), 1)) == []


def test_a_run_says_which_degree_it_took_and_why() -> None:
    result = pimsim.run(
        "npu-pim", model="gpt-oss-120b", batch=64, layers=2, overrides=["fidelity=fast"]
    )
    assert result.devices == 32
    assert any(
        note.startswith("tp 32: the least that holds the layout of PIM too; without it tp 8")
        for note in result.warnings
    )


def test_a_header_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text(",".join(f"c{i}" for i in range(10**6)) + "\n")
    with pytest.raises(InputError, match="1000000 columns"):
        load_requests(file)
