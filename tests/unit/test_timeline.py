"""The Perfetto trace of a run, read back packet by packet, and by the trace processor."""

from __future__ import annotations

import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pimsim.engine.iteration import Outcome
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.result.types import Result
from pimsim.simulate import observe, overrides_of, resolve

perfetto = pytest.importorskip("perfetto.trace_builder.proto_builder")

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent  # noqa: E402

from pimsim.report.timeline import timeline  # noqa: E402

CHANNEL = 3


@pytest.fixture(scope="module")
def observed(tiny_card: Path) -> tuple[Outcome, Result]:
    options = overrides_of(model=tiny_card, batch=8, layers=2)
    return observe(resolve("neupims", options), log_entries=2_000_000)


@pytest.fixture(scope="module")
def written(observed: tuple[Outcome, Result]) -> bytes:
    return timeline(*observed, channels=[CHANNEL])


@pytest.fixture(scope="module")
def packets(written: bytes) -> Any:
    trace = Trace()
    trace.ParseFromString(written)
    return trace.packet


def track_names(packets: Any) -> dict[int, str]:
    found = (p.track_descriptor for p in packets if p.HasField("track_descriptor"))
    return {each.uuid: each.name for each in found}


def begins(packets: Any) -> list[Any]:
    events = [p.track_event for p in packets if p.HasField("track_event")]
    return [e for e in events if e.type == TrackEvent.TYPE_SLICE_BEGIN]


def test_every_operator_is_on_its_unit_with_its_time(
    observed: tuple[Outcome, Result], packets: Any
) -> None:
    records = observed[0].recorder.operators
    shown = [e for e in begins(packets) if "operator" in e.categories]
    notes = [{n.name: n.int_value for n in e.debug_annotations} for e in shown]
    assert [(e.name, n["start_ps"], n["end_ps"]) for e, n in zip(shown, notes, strict=True)] == [
        (o.name, o.start_ps, o.end_ps) for o in records
    ]
    names = track_names(packets)
    assert {names[e.track_uuid] for e in shown} >= {"NPU arrays", "PIM", "links"} - {"links"}


def test_arrows_lead_from_each_pim_operator_to_its_channels(packets: Any) -> None:
    ends: dict[int, list[str]] = defaultdict(list)
    for event in begins(packets):
        for flow in event.flow_ids:
            ends[flow].append(next(iter(event.categories)))
    assert ends
    assert all(kinds == ["operator", "task"] for kinds in ends.values())


def test_slices_of_a_track_begin_and_end_in_turn(packets: Any) -> None:
    depth: dict[int, int] = defaultdict(int)
    for packet in packets:
        event = packet.track_event
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            depth[event.track_uuid] += 1
            assert depth[event.track_uuid] == 1
        elif event.type == TrackEvent.TYPE_SLICE_END:
            depth[event.track_uuid] -= 1
    assert set(depth.values()) == {0}


def test_commands_of_the_channel_are_all_there(
    observed: tuple[Outcome, Result], packets: Any
) -> None:
    board = observed[0].system.board
    logged = int(board["logged"][0])
    assert logged <= int(board["log_limit"][0])
    log = board["log"][0, :logged]
    expected = [COMMANDS[row[2]] for row in log.tolist() if row[1] == CHANNEL]
    assert [e.name for e in begins(packets) if "command" in e.categories] == expected


def test_counters_integrate_to_what_was_moved_and_used(
    observed: tuple[Outcome, Result], packets: Any
) -> None:
    outcome, result = observed
    names = track_names(packets)
    samples: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for packet in packets:
        event = packet.track_event
        if event.type == TrackEvent.TYPE_COUNTER:
            at = packet.timestamp, event.double_counter_value
            samples[names[event.track_uuid]].append(at)

    def integral(name: str) -> float:
        steps = samples[name]
        return sum(v * (b - a) for (a, v), (b, _) in pairwise(steps))

    series = result.series
    assert series is not None
    moved = {"DRAM bandwidth": series.dram_bytes, "PIM bandwidth in the banks": series.pim_bytes}
    for name, amounts in moved.items():  # GB/s x ns, rounded times
        assert integral(name) == pytest.approx(sum(amounts), rel=1e-3)
    assert integral("power of the device") * 1e-9 == pytest.approx(result.energy_j.total, rel=1e-3)
    share = integral("multiply-accumulates") * 1e-9 / 100
    assert share * result.peaks["npu_flop_per_s"] / 2 == pytest.approx(
        outcome.recorder.macs["npu"], rel=1e-3
    )
    lanes = integral("vector units") * 1e-9 / 100 * result.peaks["vector_ops_per_s"]
    assert lanes == pytest.approx(outcome.recorder.vector_lane_ops, rel=1e-3)
    for name, most in (
        ("DRAM bandwidth", result.peaks["dram_bytes_per_s"] / 1e9), ("multiply-accumulates", 100),
        ("vector units", 100),
    ):  # fmt: skip
        assert 0 < max(value for _, value in samples[name]) <= most * (1 + 1e-9)


def test_the_trace_processor_answers_sql(written: bytes, tmp_path: Path, packets: Any) -> None:
    """With Perfetto's own trace processor, whose binary no package registry has."""
    binary = os.environ.get("PIMSIM_TRACE_PROCESSOR")
    if not binary:
        pytest.skip("no trace_processor_shell; set PIMSIM_TRACE_PROCESSOR to its path")
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    path = tmp_path / "run.pftrace"
    path.write_bytes(written)
    with TraceProcessor(str(path), config=TraceProcessorConfig(bin_path=binary)) as processor:
        rows = list(processor.query("select count(*) as n from slice where category = 'operator'"))
        flows = list(processor.query("select count(*) as n from flow"))
    expected = [e for e in begins(packets) if "operator" in e.categories]
    assert rows[0].n == len(expected)
    assert flows[0].n > 0
