"""The ``channel-queues`` kernel against its oracle on random memories and streams, and its laws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.channel_queues import simulate

from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.hardware.dram.rules import Command

ALL = {
    name: memory
    for name in preset_names("memory")
    if (memory := load_memory(name).config).controller.model == "channel-queues"
}
MEMORIES = {name: m for name, m in ALL.items() if m.controller.commands_per_cycle == 2}
"""Of a row and a column slot; the single-slot policy has its oracle in test_memory_sources."""
REFRESHES = ("none", "all-bank", "per-bank")


@dataclass(frozen=True)
class Stream:
    """Burst numbers, write flags and earliest ticks of requests."""

    bursts: list[int]
    writes: list[int]
    arrivals: list[int]

    def addresses(self, memory: MemoryConfig) -> list[int]:
        """Byte addresses within the memory's capacity."""
        org = memory.organization
        return [burst * org.burst_bytes % org.capacity_bytes for burst in self.bursts]


def changed(memory: MemoryConfig, **sections: dict[str, object]) -> MemoryConfig:
    """``memory`` with values of some sections replaced, and checked again."""
    values = memory.model_dump()
    for name, new in sections.items():
        values[name] = {**values[name], **new}
    return MemoryConfig.model_validate(values)


def refreshes_of(memory: MemoryConfig) -> list[str]:
    """Those that the memory has a command for."""
    per_bank = "refresh-bank" in memory.commands.values()
    return [refresh for refresh in REFRESHES if refresh != "per-bank" or per_bank]


@st.composite
def memories(draw: st.DrawFn) -> MemoryConfig:
    """One of the presets with another organisation, queues and edges, refreshed often."""
    memory = draw(st.sampled_from(list(MEMORIES.values())))
    t = memory.timings
    depth = draw(st.integers(2, 32))
    high = draw(st.integers(1, depth))
    ranks, groups, per_group = (draw(st.sampled_from([1, 2])) for _ in range(3))
    row_cycle = t["tRAS"] + t["tRP"]
    often = {"tREFI": 2 * t["tRFC"] + row_cycle + draw(st.integers(100, 400))}
    if "per-bank" in refreshes_of(memory):
        # of its own refreshes a bank has time for a row in between
        own = -(-(t["tRFCpb"] + row_cycle) // (ranks * groups * per_group))
        interval = max(t["tRFCpb"] // 4, own) + draw(st.integers(20, 100))
        often["tREFIpb"] = max(interval, t["tRREFD"])
    duration = dict(memory.command_bus.duration)
    duration["ACT"] = draw(st.integers(1, 4))
    return changed(
        memory,
        organization={
            "channels": draw(st.sampled_from([1, 1, 2])),
            "pseudo_channels": draw(st.sampled_from([2, 4])),
            "ranks": ranks,
            "bank_groups": groups,
            "banks_per_group": per_group,
            "rows": 8,
            "columns": draw(st.sampled_from([2, 8])),
        },
        controller={
            "read_queue_depth": draw(st.integers(1, 32)),
            "write_queue_depth": depth,
            "write_drain_high": high,
            "write_drain_low": draw(st.integers(0, high)),
            "refresh": draw(st.sampled_from(refreshes_of(memory))),
            "refresh_pseudo_channels": draw(st.sampled_from(["in-turn", "together"])),
            "page_policy": draw(st.sampled_from(["open", "auto-precharge"])),
        },
        timings={**often, "tFAW": t["tFAW"] + draw(st.integers(0, 20))},
        command_bus={"duration": duration},
    )


@st.composite
def streams(draw: st.DrawFn, longest: int = 120) -> Stream:
    """Runs of sequential, random and repeated bursts, all at once or over time."""
    any_burst = st.integers(0, 2**12)
    hot = draw(st.lists(any_burst, min_size=1, max_size=8))
    bursts: list[int] = []
    total = draw(st.integers(1, longest))
    while len(bursts) < total:
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["sequential", "random", "hot"]))
        if kind == "hot":
            bursts += draw(st.lists(st.sampled_from(hot), min_size=1, max_size=length))
        elif kind == "random":
            bursts += draw(st.lists(any_burst, min_size=1, max_size=min(length, 20)))
        else:
            start = draw(any_burst)
            bursts += range(start, start + length)
    bursts = bursts[:total]
    rate = draw(st.sampled_from([0, 3, 5, 10]))
    writes = [int(draw(st.integers(0, 9)) < rate) for _ in bursts]
    arrivals = [0] * total
    if draw(st.booleans()):
        gaps = draw(st.lists(st.sampled_from([0, 0, 0, 1, 3, 500]), min_size=total, max_size=total))
        arrivals = np.cumsum(gaps).tolist()
    return Stream(bursts, writes, arrivals)


def replayed(memory: MemoryConfig, stream: Stream) -> ReplayResult:
    return replay(
        memory,
        np.array(stream.addresses(memory)),
        np.array(stream.writes),
        np.array(stream.arrivals),
        log_entries=100 * len(stream.bursts) + 20_000,
    )


def same_order(log: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Commands of a tick in a fixed order: which of its two slots is logged first says nothing."""
    carries = (Command.ACT, Command.RD, Command.WR, Command.RDA, Command.WRA)
    return sorted((t, ch, c, bank, row if c in carries else -1) for t, ch, c, bank, row in log)


def assert_equal(memory: MemoryConfig, stream: Stream) -> ReplayResult:
    kernel = replayed(memory, stream)
    oracle = simulate(memory, stream.addresses(memory), stream.writes, stream.arrivals)
    assert same_order(kernel.log.tolist()) == same_order(oracle.log)
    assert kernel.cycles == oracle.cycles
    assert +Counter(kernel.commands) == +oracle.commands
    hits = (kernel.row_hits, kernel.row_misses, kernel.row_conflicts)
    assert hits == (oracle.row_hits, oracle.row_misses, oracle.row_conflicts)
    expected = sum(oracle.latencies) / max(len(oracle.latencies), 1)
    assert kernel.avg_read_latency_cycles == pytest.approx(expected)
    return kernel


@settings(max_examples=60)
@given(memories(), streams())
def test_kernel_is_the_oracle_and_its_log_is_legal(memory: MemoryConfig, stream: Stream) -> None:
    kernel = assert_equal(memory, stream)
    assert check_commands(kernel.log.tolist(), memory) is None


@settings(max_examples=25)
@given(memories(), st.integers(0, 2**32), st.integers(2, 12))
def test_hot_lines_with_full_queues_equal_the_oracle(
    memory: MemoryConfig, seed: int, lines: int
) -> None:
    """As fast as they are taken, with queues of a few places: most requests find a buffered
    write of their burst, or a full queue, or both."""
    memory = changed(
        memory,
        controller={"read_queue_depth": 3, "write_queue_depth": 4, "write_drain_high": 4,
                    "write_drain_low": 1},
    )  # fmt: skip
    draw = np.random.default_rng(seed)
    bursts = draw.integers(0, 2**10, lines)[draw.integers(0, lines, 150)]
    writes = (draw.random(150) < 0.5).astype(int)
    assert_equal(memory, Stream(bursts.tolist(), writes.tolist(), [0] * 150))


def preset_stream(memory: MemoryConfig, requests: int, seed: int) -> Stream:
    """Random, sequential and repeated bursts over a whole preset, a third of them writes."""
    generator = np.random.default_rng(seed)
    capacity = memory.organization.capacity_bytes // memory.organization.burst_bytes
    anywhere = generator.integers(0, capacity, requests)
    kind = generator.integers(0, 3, requests)
    hot = generator.choice(anywhere[:40], requests)
    bursts = np.choose(kind, [anywhere, hot, np.arange(requests)])
    writes = (generator.random(requests) < 1 / 3).astype(int)
    return Stream(bursts.tolist(), writes.tolist(), [0] * requests)


@pytest.mark.parametrize(
    ("name", "refresh"),
    [(name, refresh) for name, memory in ALL.items() for refresh in refreshes_of(memory)],
)
def test_log_of_a_preset_is_legal(name: str, refresh: str) -> None:
    preset = ALL[name]
    memory = changed(
        preset,
        organization={"channels": 1},
        controller={"refresh": refresh},
        timings={"tREFI": 3 * preset.timings["tRFC"]},  # for a short run to see it
    )
    result = replayed(memory, preset_stream(memory, 1500, seed=1))
    assert len(result.log) == sum(result.commands.values())
    refreshes = result.commands["REF"], result.commands["REFpb"]
    assert [count > 0 for count in refreshes] == [refresh == "all-bank", refresh == "per-bank"]
    assert check_commands(result.log.tolist(), memory) is None


@pytest.mark.parametrize("name", MEMORIES)
def test_preset_equals_the_oracle(name: str) -> None:
    memory = changed(MEMORIES[name], organization={"channels": 1})
    assert_equal(memory, preset_stream(memory, 250, seed=2))


@pytest.mark.parametrize("name", ALL)
def test_requests_are_conserved(name: str) -> None:
    """A write may be taken over by a later one, a read answered by a write; none else is lost."""
    memory = changed(ALL[name], organization={"channels": 1})
    unique = np.random.default_rng(3).permutation(4000)[:2000].tolist()
    writes = [i % 3 == 2 for i in range(2000)]
    result = replayed(memory, Stream(unique, [int(w) for w in writes], [0] * 2000))
    assert (result.commands["RD"], result.commands["WR"]) == (2000 - sum(writes), sum(writes))
    counted = (result.row_hits, result.row_misses, result.row_conflicts)
    assert sum(count for count in counted if count is not None) == 2000


@pytest.mark.parametrize("name", MEMORIES)
def test_both_pseudo_channels_stream_at_the_column_rate(name: str) -> None:
    """Row hits of a stream over all bank groups hold both data buses all the time, but for the
    first activations."""
    memory = changed(MEMORIES[name], organization={"channels": 1}, controller={"refresh": "none"})
    t, org, scale = memory.timings, memory.organization, memory.command_bus.ticks_per_clock
    requests = org.pseudo_channels * org.bank_groups * org.columns
    result = replayed(memory, Stream(list(range(requests)), [0] * requests, [0] * requests))
    busy = requests // org.pseudo_channels * t["nBL"] * scale
    lead = (t["tRCDRD"] + t["CL"] + t["nBL"] + org.bank_groups * (t["tRRD_L"] + t["nBL"])) * scale
    assert busy <= result.cycles <= busy + 2 * lead


@settings(max_examples=30)
@given(memories(), streams())
def test_bursts_share_a_pseudo_channel_s_data_bus(memory: MemoryConfig, stream: Stream) -> None:
    t, org, scale = memory.timings, memory.organization, memory.command_bus.ticks_per_clock
    held: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for tick, channel, command, bank, _ in replayed(memory, stream).log.tolist():
        if command in (Command.RD, Command.WR):
            start = tick + scale * (t["CL"] if command == Command.RD else t["CWL"])
            bus = channel, bank // (org.ranks * org.banks)
            held.setdefault(bus, []).append((start, start + scale * t["nBL"]))
    for spans in held.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_more_refreshes_than_time_for_them_are_refused() -> None:
    from pimsim.config.errors import InputError

    memory = changed(
        MEMORIES["hbm2-2000"],
        organization={"channels": 1},
        controller={"refresh": "per-bank"},
        timings={"tREFIpb": 2, "tRREFD": 2},
    )
    with pytest.raises(InputError, match="refreshes fall due faster"):
        replayed(memory, preset_stream(memory, 40_000, seed=1))


KNOBS = {
    "timings": sorted({key for memory in MEMORIES.values() for key in memory.timings}),
    "controller": [
        "read_queue_depth", "write_queue_depth", "write_drain_low", "write_drain_high",
        "refresh_pseudo_channels",
    ],
    "command_bus": ["ticks_per_clock", "duration", "either_edge"],
}  # fmt: skip
OTHER = {"refresh_pseudo_channels": "in-turn", "duration": {"ACT": 5}, "either_edge": []}
"""Another value of what is no number."""


@pytest.mark.parametrize(("section", "knob"), [(s, k) for s, keys in KNOBS.items() for k in keys])
def test_every_knob_moves_a_replay(section: str, knob: str) -> None:
    refreshed = [
        (memory, refresh)
        for memory in MEMORIES.values()
        for refresh in refreshes_of(memory)
        if refresh != "none" and (section != "timings" or knob in memory.timings)
    ]
    for memory, refresh in refreshed:
        base = changed(
            memory,
            organization={"channels": 1, "rows": 64},
            controller={"refresh": refresh},
            timings={"tREFI": 3 * memory.timings["tRFC"]},
        )
        mixed = preset_stream(base, 3000, seed=4)
        stream = Stream(mixed.bursts, mixed.writes[:2000] + [1] * 1000, mixed.arrivals)
        value = base.model_dump()[section].get(knob)
        if value is None:
            continue
        others = [OTHER[knob]] if knob in OTHER else [value + 1, value - 1, value * 2, value * 4, 1]
        for other in others:
            try:
                moved = replayed(changed(base, **{section: {knob: other}}), stream)
            except ValueError:  # contradicts another value
                continue
            if moved.log.tolist() != replayed(base, stream).log.tolist():
                return
    pytest.fail(f"{section}.{knob} changes nothing")


def test_an_empty_write_queue_ends_a_drain() -> None:
    """A low mark of 0 can never be undercut; reads must go all the same."""
    memory = changed(
        MEMORIES["hbm2-2000"],
        organization={"channels": 1},
        controller={"write_drain_low": 0, "write_drain_high": 1},
    )
    assert_equal(memory, Stream(list(range(40)), [i % 2 for i in range(40)], [0] * 40))
