"""A run as a Perfetto trace (perfetto.dev, TracePacket protobuf): ui.perfetto.dev opens it.

Tracks: stages, units (arrays, vector, DMA, links, PIM), one a PIM channel, and on demand one a
bank with every command. Arrows go from an operator of a unit to its work in each channel. Counters:
bandwidth of the data buses and of the banks, power. Times are rounded to the trace's nanoseconds;
each slice says its picoseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from pimsim.hardware.dram.rules import COMMANDS
from pimsim.result.types import Result

if TYPE_CHECKING:
    from pimsim.engine.iteration import Outcome
    from pimsim.engine.records import OperatorRecord

__all__ = ["timeline"]

_UNITS = {"systolic": "NPU arrays", "vector": "vector units", "dma": "DMA", "link": "links",
          "pim": "PIM"}  # fmt: skip
_SEQUENCE = 1


class _Builder:
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
        event = self._packet(max(end_ps // 1000, start_ps // 1000)).track_event
        event.type, event.track_uuid = self.kinds.TYPE_SLICE_END, track

    def sample(self, track: int, at_ps: int, value: float) -> None:
        """A counter's value from ``at_ps`` on."""
        event = self._packet(at_ps // 1000).track_event
        event.type, event.track_uuid = self.kinds.TYPE_COUNTER, track
        event.double_counter_value = value


def timeline(outcome: Outcome, result: Result, channels: Collection[int] = ()) -> bytes:
    """The trace of a run, with the commands that the memory system logged of ``channels``."""
    builder = _Builder()
    stages = builder.track("stages")
    for stage in outcome.recorder.stages:
        builder.slice(stages, stage.name, stage.start_ps, stage.end_ps, {}, "stage")
    _operators(builder, outcome)
    _counters(builder, outcome, result)
    if channels:
        _commands(builder, outcome, channels)
    return bytes(builder.trace.serialize())


def _operators(builder: _Builder, outcome: Outcome) -> None:
    records = outcome.recorder.operators
    units = [unit for unit in _UNITS if any(o.unit == unit for o in records)]
    tracks = {unit: builder.track(_UNITS[unit]) for unit in units}
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


def _counters(builder: _Builder, outcome: Outcome, result: Result) -> None:
    """Rates of the operators under way, each spread evenly over its time."""
    records = outcome.recorder.operators
    rows = (
        ("DRAM bandwidth", "GB/s", [o for o in records if o.unit != "pim"], "bytes", 1e3),
        ("PIM bandwidth in the banks", "GB/s", [o for o in records if o.unit == "pim"], "bytes",
         1e3),
    )  # fmt: skip
    for name, unit, mine, what, scale in rows:
        if mine:
            amounts = [(o, getattr(o, what) * scale) for o in mine]
            _write_steps(builder, builder.track(name, unit=unit), amounts, 0.0, outcome.time_ps)
    power = builder.track("power of the device", unit="W")
    energy = result.energy_j
    watts = list(_dynamic(records, result))
    floor = energy.static / result.time_s
    _write_steps(builder, power, watts, floor, outcome.time_ps)


def _dynamic(
    records: list[OperatorRecord], result: Result
) -> Iterator[tuple[OperatorRecord, float]]:
    """Picojoule of each operator: each part of the energy by the work that causes it."""
    energy = result.energy_j
    flops = {"pim": 0, "npu": 0}
    moved = 0
    for o in records:
        flops["pim" if o.unit == "pim" else "npu"] += o.flops
        moved += o.bytes if o.unit != "pim" else 0
    linked = sum(o.end_ps - o.start_ps for o in records if o.unit == "link")
    for o in records:
        joule = 0.0
        if o.unit == "pim":
            joule += energy.pim * o.flops / flops["pim"] if flops["pim"] else 0.0
        elif o.unit == "link":
            joule += energy.link * (o.end_ps - o.start_ps) / linked if linked else 0.0
        else:
            joule += energy.npu * o.flops / flops["npu"] if flops["npu"] else 0.0
            joule += (energy.dram + energy.sram) * o.bytes / moved if moved else 0.0
        yield o, joule * 1e12


def _write_steps(
    builder: _Builder, track: int, amounts: list[tuple[OperatorRecord, float]], floor: float,
    end_ps: int,
) -> None:  # fmt: skip
    """A counter that is the sum of ``amount / duration`` of what is under way, and ``floor``."""
    changes: dict[int, float] = defaultdict(float)
    for o, amount in amounts:
        if o.end_ps > o.start_ps and amount:
            rate = amount / (o.end_ps - o.start_ps)
            changes[o.start_ps] += rate
            changes[o.end_ps] -= rate
    level = 0.0
    for at in sorted({0, end_ps, *changes}):
        level += changes.get(at, 0.0)
        builder.sample(track, at, floor + max(level, 0.0))


def _commands(builder: _Builder, outcome: Outcome, shown: Collection[int]) -> None:
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
