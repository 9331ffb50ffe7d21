"""A run as a Perfetto trace (perfetto.dev, TracePacket protobuf): ui.perfetto.dev opens it.

Tracks: stages, units (arrays, vector, DMA, links, PIM), one a PIM channel, and on demand one a
bank with every command. Arrows go from an operator of a unit to its work in each channel. Counters:
bandwidth of the data buses and of the banks, multiplications of the arrays and power, from the
run's intervals (``Result.series``). Times are rounded to the trace's nanoseconds;
each slice says its picoseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from math import fsum
from typing import TYPE_CHECKING, Any, cast

from pimsim.hardware.dram.rules import COMMANDS
from pimsim.result.metrics import METRICS
from pimsim.result.types import Result
from pimsim.result.words import OPERATOR_UNITS, unit_words

if TYPE_CHECKING:
    from pimsim.engine.iteration import Outcome
    from pimsim.engine.xpu_machine import XpuOutcome

__all__ = ["Builder", "timeline"]

_SEQUENCE = 1


class Builder:
    """Packets of one sequence, with tracks that it numbers."""

    def __init__(self) -> None:
        from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
        from perfetto.trace_builder.proto_builder import TraceProtoBuilder

        self.trace = TraceProtoBuilder()
        self.kinds = TrackEvent
        self._uuid = count(1)

    def track(self, name: str, parent: int = 0, unit: str = "") -> int:
        """A track's number; ``unit``: it is a counter."""
        descriptor = self._packet(0).track_descriptor
        descriptor.uuid = next(self._uuid)
        descriptor.name = name
        if parent:
            descriptor.parent_uuid = parent
        if unit:
            descriptor.counter.unit_name = unit
        return int(descriptor.uuid)

    def _packet(self, at_ns: int) -> Any:
        packet = self.trace.add_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.timestamp = at_ns
        return packet

    def slice(
        self, track: int, name: str, start_ps: int, end_ps: int, facts: dict[str, int | str],
        category: str, flows: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """A span on a track."""
        with self.span(track, name, start_ps, end_ps, facts, category, flows):
            pass

    @contextmanager
    def span(
        self, track: int, name: str, start_ps: int, end_ps: int, facts: dict[str, int | str],
        category: str, flows: tuple[int, ...] = (),
    ) -> Iterator[None]:  # fmt: skip
        """The same, and what is written meanwhile lies within it."""
        event = self._packet(start_ps // 1000).track_event
        event.type, event.track_uuid, event.name = self.kinds.TYPE_SLICE_BEGIN, track, name
        event.categories.append(category)
        event.flow_ids.extend(flows)
        for key, value in {**facts, "start_ps": start_ps, "end_ps": end_ps}.items():
            note = event.debug_annotations.add()
            note.name = key
            if isinstance(value, int):
                note.int_value = value
            else:
                note.string_value = value
        yield
        event = self._packet(max(end_ps // 1000, start_ps // 1000)).track_event
        event.type, event.track_uuid = self.kinds.TYPE_SLICE_END, track

    def sample(self, track: int, at_ps: int, value: float) -> None:
        """A counter's value from ``at_ps`` on."""
        event = self._packet(at_ps // 1000).track_event
        event.type, event.track_uuid = self.kinds.TYPE_COUNTER, track
        event.double_counter_value = value


def timeline(
    outcome: Outcome | XpuOutcome, result: Result, channels: Collection[int] = ()
) -> bytes:
    """The trace of a run.

    Parameters
    ----------
    outcome
        What the engine left behind.
    result
        Of the same run.
    channels
        Whose commands are shown, as the memory system logged them; none of GPUs.

    Returns
    -------
    bytes
        A serialised trace of Perfetto's.
    """
    builder = Builder()
    stages = builder.track("stages")
    for stage in outcome.recorder.stages:
        builder.slice(stages, stage.name, stage.start_ps, stage.end_ps, {}, "stage")
    _operators(builder, outcome)
    _counters(builder, result)
    if channels:
        _commands(builder, cast("Outcome", outcome), channels)
    return bytes(builder.trace.serialize())


def _operators(builder: Builder, outcome: Outcome | XpuOutcome) -> None:
    records = outcome.recorder.operators
    units = [unit for unit in OPERATOR_UNITS if any(o.unit == unit for o in records)]
    tracks = {unit: builder.track(unit_words(unit)) for unit in units}
    channels: dict[int, int] = {}
    flow = count(1)
    for o in records:
        if o.unit not in tracks:
            continue
        facts: dict[str, int | str] = {
            "kind": o.kind, "block": o.layer, "stage": o.stage, "flop": o.flops, "bytes": o.bytes,
            "bound_ps": o.bound_ps,
        }  # fmt: skip
        busy = [(c, end) for c, end in enumerate(o.channel_end_ps) if end > o.start_ps]
        flows = tuple(next(flow) for _ in busy)
        builder.slice(tracks[o.unit], o.name, o.start_ps, o.end_ps, facts, "operator", flows)
        for (channel, end), arrow in zip(busy, flows, strict=True):
            if channel not in channels:
                channels[channel] = builder.track(f"PIM channel {channel}", tracks["pim"])
            own: dict[str, int | str] = {"block": o.layer, "channel": channel}
            builder.slice(channels[channel], o.name, o.start_ps, end, own, "task", (arrow,))


def _counters(builder: Builder, result: Result) -> None:
    """The run's intervals: rates of the data buses, of the banks, of arrays and vector units, and
    power."""
    series = result.series
    assert series is not None  # of a run that was simulated just now
    peak = result.peaks["npu_flop_per_s"] / 2
    shares = [100 * rate / peak for rate in series.rates(series.npu_macs)]
    joules = [fsum(parts) for parts in zip(*series.energy_j.values(), strict=True)]
    rows = [
        ("DRAM bandwidth", "GB/s", [rate / 1e9 for rate in series.rates(series.dram_bytes)]),
        (METRICS["npu"].words, METRICS["npu"].unit, shares),
        ("power of the device", "W", series.rates(joules)),
    ]
    lanes = result.peaks.get("vector_ops_per_s")
    if lanes is not None:
        shares = [100 * rate / lanes for rate in series.rates(series.vector_lane_ops)]
        rows.insert(2, (unit_words("vector"), "% of peak", shares))
    if any(series.pim_bytes):
        banks = [rate / 1e9 for rate in series.rates(series.pim_bytes)]
        rows.insert(1, ("PIM bandwidth in the banks", "GB/s", banks))
    starts = (0, *series.end_ps)
    for name, unit, values in rows:
        track = builder.track(name, unit=unit)
        for at, value in zip(starts, (*values, values[-1]), strict=True):
            builder.sample(track, at, value)


def _commands(builder: Builder, outcome: Outcome, shown: Collection[int]) -> None:
    """Every logged command on its bank's track; those of a whole channel or rank on its own."""
    board = outcome.board
    kept = min(int(board["logged"][0]), int(board["log_limit"][0]))
    clock = outcome.clock.memory
    root = builder.track("DRAM commands")
    channels: dict[int, int] = {}
    banks: dict[tuple[int, int], int] = {}
    for cycle, channel, command, bank, row in board["log"][0, :kept].tolist():
        if channel not in shown:
            continue
        if channel not in channels:
            channels[channel] = builder.track(f"channel {channel}", root)
        if (channel, bank) not in banks:
            name = f"bank {bank}" if bank >= 0 else "all banks"
            banks[channel, bank] = builder.track(name, channels[channel])
        facts: dict[str, int | str] = {"cycle": cycle, "row": row}
        start, end = clock.edge_ps(cycle), clock.edge_ps(cycle + 1)
        builder.slice(banks[channel, bank], COMMANDS[command], start, end, facts, "command")
