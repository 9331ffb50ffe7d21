"""What steps write to the KV cache is what their tokens are, on every machine, and a run in which
it is not is refused as a bug."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cards import small_card

from pimsim.config.resources import preset_names
from pimsim.engine.device import Device
from pimsim.hardware.dram.transfers import Rows, Scatter
from pimsim.mapping import attention_tasks, kv
from pimsim.mapping.kv_lanes import KvLanes
from pimsim.mapping.linear_kv import LinearLayout
from pimsim.mapping.tasks import NpuTask
from pimsim.result.invariants import InvariantError
from pimsim.result.kv_writes import kv_writes
from pimsim.simulate import devices_of, observe, resolve, simulate
from pimsim.workload import instantiate

HEAD = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
CARD = small_card(hidden=128, heads=6, kv_heads=3, head_dim=64, ffn_hidden=384, tp=3)


def given(folder: Path, *rows: str, **workload: object) -> list[str]:
    """Overrides for requests with these rows, of a small model with 64 elements a head."""
    trace = folder / "requests.csv"
    trace.write_text(HEAD + "".join(f"{at},0,{row}\n" for at, row in enumerate(rows)))
    card = folder / "card.yaml"
    card.write_text(CARD)
    keys = {"model": card, "requests": trace, "layers": 1, **workload}
    return [*(f"workload.{key}={value}" for key, value in keys.items()), "parallel.tp=3"]


# sums by hand -------------------------------------------------------------------------------


def test_lanes_that_wait_hold_what_fills_no_burst() -> None:
    """Two heads of 40 bytes a token: 8 tokens fill 5 bursts of 64 bytes."""
    lanes = KvLanes(2, 40, 64)
    assert lanes.brought_bytes(3) == 2 * 120
    assert [lanes.held_bytes(each, None) for each in (0, 1, 2, 3, 8, 9)] == [
        0, 2 * 40, 2 * 16, 2 * 56, 0, 2 * 40,
    ]  # fmt: skip
    assert lanes.empty_bytes(0, 9, None) == 0
    # a ring of 5: 200 bytes, the last of four bursts with 56 empty; twice in 11 tokens
    assert [lanes.held_bytes(each, 5) for each in (4, 5, 6)] == [2 * 32, 0, 2 * 40]
    assert lanes.empty_bytes(0, 11, 5) == 2 * 2 * 56
    assert lanes.empty_bytes(4, 5, 5) == 2 * 56


def test_lanes_that_do_not_wait_leave_a_part_of_each_burst_empty() -> None:
    lanes = KvLanes(3, 100, 64, waits=False)
    assert lanes.held_bytes(7, None) == 0
    assert lanes.empty_bytes(4, 9, None) == 3 * 5 * 28
    assert KvLanes(3, 128, 64, waits=False).empty_bytes(4, 9, None) == 0


# the law ------------------------------------------------------------------------------------

ROWS = ("70,9,2,1", "40,9,0,40", "90,9,6,5", "33,9,1,")


@pytest.mark.parametrize("preset", preset_names("hardware"))
def test_every_machine_writes_what_its_tokens_are(preset: str, tmp_path: Path) -> None:
    """Of a token 2 x 64 elements of 2 bytes; a machine that appends nothing says so."""
    resolved = resolve(preset, given(tmp_path, *ROWS, steps=3))
    outcome, _ = observe(resolved)
    found = list(kv_writes(outcome))
    assert [(each.step, each.layer) for each in found] == [(0, 0), (1, 0), (2, 0)]
    appends = resolved.config.schedule.kv_append
    tokens = [47, 4, 4] if appends else [0, 0, 0]
    assert [each.brought for each in found] == [each.needed for each in found]
    assert [each.brought for each in found] == [256 * each for each in tokens]
    assert any(each.written for each in found) == appends
    for before, after in pairwise(found):
        assert before.held_after == after.held_before


Broken = Callable[[pytest.MonkeyPatch], None]


def _appends(change: Callable[[tuple[Rows, ...]], tuple[Rows, ...]]) -> Broken:
    """``LinearLayout.appends`` whose transfers are changed."""
    whole = LinearLayout.appends

    def broken(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(LinearLayout, "appends", lambda *given: change(whole(*given)))

    return broken


def _scatters(name: str, change: Callable[[list[Scatter]], list[Scatter]]) -> Broken:
    """``kv.name`` whose scatters are changed."""
    whole = getattr(kv, name)

    def broken(patch: pytest.MonkeyPatch) -> None:
        def changed(*given: Any, **named: Any) -> list[Scatter]:
            return change(whole(*given, **named))

        patch.setattr(kv, name, changed)
        if hasattr(attention_tasks, name):
            patch.setattr(attention_tasks, name, changed)

    return broken


def _without_append(patch: pytest.MonkeyPatch) -> None:
    """The pass of a step has no operator that appends."""
    whole = instantiate.block_share

    def broken(operators: Any, tp: int, load: Any, append_kv: bool = True, ep: int = 1) -> Any:
        del append_kv
        return whole(operators, tp, load, False, ep)

    patch.setattr(instantiate, "block_share", broken)


def _one_token_each(patch: pytest.MonkeyPatch) -> None:
    whole = LinearLayout.appends

    def broken(self: LinearLayout, tokens: Any, rows: Any, rings: Any) -> Any:
        return whole(self, [range(each.stop - 1, each.stop) for each in tokens], rows, rings)

    patch.setattr(LinearLayout, "appends", broken)


SLIPS = {
    "nothing is written": ("npu-only", _appends(lambda found: ())),
    "twice": ("npu-only", _appends(lambda found: found + found)),
    "not the last run": (
        "npu-only",
        _appends(lambda found: tuple(Rows(r.first_burst[:-1], r.bursts[:-1], True) for r in found)),
    ),
    "one burst of each run": (
        "npu-only",
        _appends(lambda found: tuple(Rows(r.first_burst, 0 * r.bursts + 1, True) for r in found)),
    ),
    "read instead": (
        "npu-only", _appends(lambda found: tuple(Rows(r.first_burst, r.bursts) for r in found))
    ),
    "the last token of each request": ("npu-only", _one_token_each),
    "no operator": ("npu-only", _without_append),
    "no operator on PIM": ("neupims", _without_append),
    "no values": ("neupims", _scatters("value_scatters", lambda found: [])),
    "one tile of values": ("neupims", _scatters("value_scatters", lambda found: found[:1])),
    "no keys": ("neupims", _scatters("key_scatters", lambda found: [])),
    "a burst too many of each key": (
        "neupims",
        _scatters(
            "key_scatters", lambda found: [Scatter(s.channel, s.first, s.count + 1) for s in found]
        ),
    ),
    "not the last request": ("neupims", _scatters("append_scatters", lambda found: found[:-1])),
}  # fmt: skip


@pytest.mark.parametrize("preset", sorted({preset for preset, _ in SLIPS.values()}))
def test_a_run_of_these_requests_is_no_bug(preset: str, tmp_path: Path) -> None:
    simulate(resolve(preset, given(tmp_path, *ROWS)))


@pytest.mark.parametrize("slip", SLIPS)
def test_a_run_that_writes_something_else_is_a_bug(
    slip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, broken = SLIPS[slip]
    keys = given(tmp_path, *ROWS)
    broken(monkeypatch)
    with pytest.raises(InvariantError, match=r"keys and values written|of kv_written moved"):
        simulate(resolve(preset, keys))


# chunks and steps ---------------------------------------------------------------------------


def written(device: Device) -> Counter[tuple[int, int]]:
    """Channel, -1 of a linear cache, and burst of all that a step's tasks append."""
    tasks = [t for part in device.parts for t in device.block(part, 0).before]
    appends = [t for t in tasks if t.kind == "kv_append"]
    assert appends
    found: Counter[tuple[int, int]] = Counter()
    for task in appends:
        assert isinstance(task, NpuTask)
        for run in task.streams:
            assert isinstance(run, Rows)
            for first, count in zip(run.first_burst.tolist(), run.bursts.tolist(), strict=True):
                found.update((-1, burst) for burst in range(first, first + count))
        for s in task.scatters:
            found.update((s.channel, s.first + at * s.stride) for at in range(s.count))
    return found


WORK = ("gemm", "attention_score", "attention_value")


def flops(device: Device) -> int:
    return sum(o.flops for o in device.whole.blocks[0].operators if o.kind in WORK)


@pytest.mark.parametrize("preset", ["npu-only", "onnxim-tpuv4", "neupims"])
def test_a_prompt_in_chunks_is_written_where_the_whole_one_is(preset: str, tmp_path: Path) -> None:
    """In 1, 2 and 8 chunks: to the same rows of the cache, each burst once, with the same
    arithmetic."""
    rows = ("320,9,0,320", "256,9,0,256", "64,9,0,64")
    runs = []
    for chunk in (320, 160, 40):
        devices, _ = devices_of(resolve(preset, given(tmp_path, *rows, chunk=chunk)))
        assert len(devices) == 320 // chunk
        places = sum(map(written, devices), Counter())
        # a whole prompt has more activations, behind which the cache begins
        first = min(burst for _, burst in places)
        shifted = Counter({(c, burst - first): n for (c, burst), n in places.items()})
        runs.append((shifted, sum(map(flops, devices))))
    assert runs[0] == runs[1] == runs[2]
    places = runs[0][0]
    assert set(places.values()) == {1}
    burst_bytes = devices[0].config.memory.organization.burst_bytes
    assert len(places) * burst_bytes == (320 + 256 + 64) * 2 * 64 * 2


@pytest.mark.parametrize("preset", ["npu-only", "neupims"])
def test_steps_write_where_a_longer_prompt_does(preset: str, tmp_path: Path) -> None:
    """A prompt of 60 tokens and four more, one a step, and a prompt of 64."""
    fed, _ = devices_of(resolve(preset, given(tmp_path, "60,9,0,60", "28,9,0,28", steps=5)))
    whole, _ = devices_of(resolve(preset, given(tmp_path, "64,9,0,64", "32,9,0,32")))
    assert [each.whole.tokens for each in fed] == [88, 2, 2, 2, 2]
    assert sum(map(written, fed), Counter()) == sum(map(written, whole), Counter())


def test_a_step_reads_what_the_steps_before_it_wrote(tmp_path: Path) -> None:
    """On the NPU: all of the cache of each request, where it was written, and nothing else."""
    rows = ("60,9,0,60", "28,9,0,28", "7,9,0,7")
    devices, _ = devices_of(resolve("npu-only", given(tmp_path, *rows, steps=40)))
    so_far: Counter[tuple[int, int]] = Counter()
    for number, device in enumerate(devices):
        so_far += written(device)
        if number:
            tasks = [t for t in device.block(0, 0).attention if t.kind in WORK]
            reads = [run for t in tasks if isinstance(t, NpuTask) for run in t.streams]
            read = Counter(
                (-1, burst)
                for run in reads if isinstance(run, Rows)
                for at, count in zip(run.first_burst.tolist(), run.bursts.tolist(), strict=True)
                for burst in range(at, at + count)
            )  # fmt: skip
            assert read == so_far
    assert len(so_far) == (60 + 28 + 7 + 3 * 39) * 256 // 64
