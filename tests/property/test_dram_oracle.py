"""The channel kernel against its oracle on random memories and streams, and its other laws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.dram_controller import OracleResult, simulate

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.config.rules import Rule
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.parameters import make_parameters
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.hardware.dram.rules import Command, compile_rules


def runs(memory: MemoryConfig) -> bool:
    """Whether the kernel has this memory's controller."""
    try:
        make_parameters(memory, None, compile_rules(memory, None))
    except InputError:
        return False
    return True


PRESETS = {name: load_memory(name).config for name in preset_names("memory")}
MEMORIES = {name: memory for name, memory in PRESETS.items() if runs(memory)}
READS, WRITES = (Command.RD, Command.RDA), (Command.WR, Command.WRA)
CARRIES_ROW = (Command.ACT, *READS, *WRITES)
INTERLEAVED = "rorabgbacoch"
"""Channel lowest: consecutive bursts go to consecutive channels."""


@dataclass(frozen=True)
class Stream:
    """Burst numbers, write flags and earliest cycles of requests."""

    bursts: list[int]
    writes: list[int]
    arrivals: list[int]

    def addresses(self, memory: MemoryConfig) -> list[int]:
        """Byte addresses within the memory's capacity."""
        size = memory.organization.burst_bytes
        return [burst * size % memory.organization.capacity_bytes for burst in self.bursts]


def varied(draw: st.DrawFn, timings: dict[str, int], ranks: int) -> dict[str, int]:
    """Other timings that are consistent: what must be longer is longer."""

    def number(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    new = {"nBL": number(1, 4), "CWL": number(2, 8), "tRP": number(2, 16), "tRTP": number(2, 8)}
    new |= {"tRCDRD": number(2, 16), "tRCDWR": number(2, 16), "tRTRS": number(0, 3)}
    new |= {"tRRD_S": number(1, 6), "tCCD_S": number(1, 4), "tWTR_S": number(1, 8)}
    new |= {"tWR": number(2, 16), "CL": new["CWL"] + number(0, 12), "tRFC": number(10, 120)}
    new["tRAS"] = max(new["tRCDRD"], new["tRCDWR"]) + number(2, 20)
    for key in ("tRRD", "tCCD", "tWTR"):
        new[f"{key}_L"] = new[f"{key}_S"] + number(0, 4)
    new["tFAW"] = 4 * new["tRRD_S"] + number(0, 30)
    new |= {"t32AW": new["tFAW"] + number(0, 300), "tPPD": number(0, 4)}
    new |= {"tRFCpb": number(5, new["tRFC"]), "tRREFD": number(1, 20)}
    busy = new["tRFC"] + new["tRAS"] + new["tRP"] + new["tWR"] + new["CWL"] + new["nBL"]
    new["tREFI"] = ranks * (busy + number(50, 300))
    # one bank at a time keeps up as well: REFpb is done before the next is due
    of_bank = busy - new["tRFC"] + max(new["tRFCpb"], new["tRREFD"])
    new["tREFIpb"] = ranks * (of_bank + number(5, 100))
    new["tREFI"] = max(new["tREFI"], new["tREFIpb"])
    known = set(timings) | ({"tREFIpb"} if "tRFCpb" in timings else set())
    return timings | {key: value for key, value in new.items() if key in known}


@st.composite
def memories(draw: st.DrawFn) -> MemoryConfig:
    """A small memory: one of the presets with another organisation, timing and controller."""
    memory = draw(st.sampled_from(list(MEMORIES.values())))
    ranks = draw(st.sampled_from([1, 2]))
    organization = {
        "channels": draw(st.sampled_from([1, 2, 4])),
        "ranks": ranks,
        "bank_groups": draw(st.sampled_from([1, 2, 4])),
        "banks_per_group": draw(st.sampled_from([1, 2, 4])),
        "rows": 16,
        "columns": draw(st.sampled_from([2, 8, 32])),
    }
    refreshes = ["all-bank", "none"] + ["per-bank"] * ("tRFCpb" in memory.timings)
    controller = {
        "scheduler": draw(st.sampled_from(["fr-fcfs", "fr-fcfs", "fcfs"])),
        "page_policy": draw(st.sampled_from(["open", "closed", "auto-precharge"])),
        "row_hit_cap": draw(st.integers(1, 6)),
        "bank_queue_depth": draw(st.integers(1, 10)),
        "read_queue_depth": draw(st.integers(1, 32)),
        "write_queue_depth": draw(st.integers(1, 32)),
        "write_drain_low": draw(st.integers(0, 16)),
        "commands_per_cycle": draw(st.sampled_from([1, 2])),
        "refresh": draw(st.sampled_from(refreshes)),
    }
    high = st.integers(1, controller["write_queue_depth"])
    controller["write_drain_high"] = draw(st.none() | high)
    fields = ["ro", "ra", "bg", "ba", "ch", "co"]
    return memory.model_copy(
        update={
            "organization": memory.organization.model_copy(update=organization),
            "controller": memory.controller.model_copy(update=controller),
            "timings": varied(draw, memory.timings, ranks),
            "address_map": "".join(draw(st.permutations(fields))),
        }
    )


@st.composite
def streams(draw: st.DrawFn, longest: int = 160) -> Stream:
    """Runs of sequential, strided, random and repeated bursts, in bursts of arrivals or none."""
    any_burst = st.integers(0, 2**20)
    hot = draw(st.lists(any_burst, min_size=1, max_size=12))
    bursts: list[int] = []
    total = draw(st.integers(1, longest))
    while len(bursts) < total:
        length = draw(st.integers(1, 60))
        kind = draw(st.sampled_from(["sequential", "strided", "random", "hot"]))
        if kind == "hot":
            bursts += draw(st.lists(st.sampled_from(hot), min_size=1, max_size=length))
        elif kind == "random":
            bursts += draw(st.lists(any_burst, min_size=1, max_size=min(length, 20)))
        else:
            stride = 1 if kind == "sequential" else draw(st.sampled_from([2, 16, 64, 1024]))
            start = draw(any_burst)
            bursts += [start + i * stride for i in range(length)]
    bursts = bursts[:total]
    period = draw(st.integers(1, 6))
    some = st.lists(st.booleans(), min_size=total, max_size=total)
    writes = {
        "reads": lambda: [0] * total,
        "writes": lambda: [1] * total,
        "every n-th": lambda: [int(i % period == 0) for i in range(total)],
        "random": lambda: [int(w) for w in draw(some)],
    }[draw(st.sampled_from(["reads", "writes", "every n-th", "random", "random"]))]()
    arrivals = [0] * total
    if draw(st.booleans()):
        gap = st.sampled_from([0, 0, 0, 0, 1, 3, 40, 400])
        gaps = draw(st.lists(gap, min_size=total, max_size=total))
        arrivals = np.cumsum(gaps).tolist()
    return Stream(bursts, writes, arrivals)


def replayed(memory: MemoryConfig, stream: Stream) -> ReplayResult:
    return replay(
        memory,
        np.array(stream.addresses(memory)),
        np.array(stream.writes),
        np.array(stream.arrivals),
        log_entries=100 * len(stream.bursts) + 10_000,
    )


def simulated(memory: MemoryConfig, stream: Stream) -> OracleResult:
    return simulate(memory, stream.addresses(memory), stream.writes, stream.arrivals)


def log_of(result: ReplayResult) -> list[tuple[int, int, int, int, int | None]]:
    """The log with the row only where the command carries one."""
    return [
        (cycle, channel, command, bank, row if command in CARRIES_ROW else None)
        for cycle, channel, command, bank, row in result.log.tolist()
    ]


@settings(max_examples=150)
@given(memories(), streams())
def test_kernel_is_the_oracle(memory: MemoryConfig, stream: Stream) -> None:
    kernel, oracle = replayed(memory, stream), simulated(memory, stream)
    assert log_of(kernel) == [entry.fields for entry in oracle.log]
    assert kernel.cycles == oracle.cycles
    assert +Counter(kernel.commands) == +oracle.commands
    assert kernel.row_hits == oracle.row_hits
    assert kernel.undrained_writes == oracle.undrained_writes
    assert kernel.active_rank_cycles == oracle.active_rank_cycles
    assert kernel.avg_read_latency_cycles == pytest.approx(oracle.avg_read_latency_cycles)


@given(memories(), streams())
def test_log_is_legal_and_requests_are_conserved(memory: MemoryConfig, stream: Stream) -> None:
    kernel, oracle = replayed(memory, stream), simulated(memory, stream)
    assert check_commands(kernel.log, memory) is None
    writes = sum(stream.writes)
    reads = len(stream.writes) - writes
    issued = Counter(kernel.commands)
    closing = issued["RDA"] + issued["WRA"]
    assert closing == 0 or memory.controller.page_policy == "auto-precharge"
    issued += Counter(RD=issued["RDA"], WR=issued["WRA"])
    assert issued["RD"] + oracle.merged_reads == reads
    assert issued["WR"] + oracle.merged_writes + kernel.undrained_writes == writes
    assert kernel.undrained_writes <= memory.organization.channels * max(
        memory.controller.write_drain_low, 0
    )
    assert issued["RD"] + issued["WR"] - kernel.row_hits <= issued["ACT"]
    assert issued["PRE"] <= issued["ACT"]


def write_after_read(length: int) -> Stream:
    """Writes, a read and a write of the same burst, and more writes: one channel's queue fills
    while the read waits behind it."""
    first = [(i, 1) for i in range(9)]
    requests = [*first, (9, 0), (9, 1), *((i, 1) for i in range(10, length))]
    return Stream([b for b, _ in requests], [w for _, w in requests], [0] * len(requests))


@pytest.mark.parametrize("length", [30, 50, 90])
def test_read_is_not_stuck_behind_a_write_of_its_burst(length: int) -> None:
    """DRAMsim3 itself hangs here (its drain restarts before the read can move)."""
    memory = MEMORIES["hbm2"].model_copy(update={"address_map": "chrorabgbaco"})
    stream = write_after_read(length)
    kernel, oracle = replayed(memory, stream), simulated(memory, stream)
    assert log_of(kernel) == [entry.fields for entry in oracle.log]
    assert kernel.commands["RD"] == 1
    assert kernel.commands["WR"] + kernel.undrained_writes == length


@pytest.mark.parametrize("arrival", [0, 1000])
def test_a_write_that_stays_in_the_queue_is_acknowledged(arrival: int) -> None:
    memory = MEMORIES["hbm2"]
    result = replayed(memory, Stream([0], [1], [arrival]))
    offered, acknowledged = arrival + 1, 1
    assert result.undrained_writes == 1
    assert result.cycles == offered + acknowledged + 1


def preset_stream(memory: MemoryConfig, requests: int, seed: int) -> Stream:
    """Random, sequential and repeated bursts over a whole preset, a third of them writes."""
    random = np.random.default_rng(seed)
    capacity = memory.organization.capacity_bytes // memory.organization.burst_bytes
    anywhere = random.integers(0, capacity, requests)
    hot = random.choice(anywhere[:40], requests)
    kind = random.integers(0, 3, requests)
    bursts = np.choose(kind, [anywhere, hot, np.arange(requests)])
    return Stream(bursts.tolist(), (random.random(requests) < 1 / 3).tolist(), [0] * requests)


def often_refreshed(memory: MemoryConfig) -> MemoryConfig:
    """Refresh ten times as often, for short runs to see it."""
    interval = max(memory.timings["tREFI"] // 10, 2 * memory.timings["tRFC"])
    return memory.model_copy(update={"timings": memory.timings | {"tREFI": interval}})


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES.keys())
def test_log_of_a_preset_is_legal(memory: MemoryConfig, seed: int) -> None:
    memory = often_refreshed(memory)
    # each channel's share takes longer than the first refreshes are apart
    requests = max(4000, 200 * memory.organization.channels)
    result = replayed(memory, preset_stream(memory, requests, seed))
    assert len(result.log) == sum(result.commands.values())
    assert result.commands["REF"] > 0
    assert check_commands(result.log, memory) is None


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES.keys())
def test_preset_equals_the_oracle(memory: MemoryConfig) -> None:
    memory = often_refreshed(memory)
    stream = preset_stream(memory, 600, seed=3)
    assert log_of(replayed(memory, stream)) == [e.fields for e in simulated(memory, stream).log]


@pytest.mark.parametrize("refresh", ["all-bank", "none"])
@pytest.mark.parametrize("level", ["channel", "rank", "other_ranks", "bank_group", "bank"])
@pytest.mark.parametrize("name", ["ddr4-3200", "ddr5-4800-ramulator", "gddr6-aim"])
def test_what_waits_for_a_precharge_waits_for_the_silent_one(
    name: str, level: str, refresh: str
) -> None:
    """It counts from when the bank closes, in which ACT and access both have a say, and an ACT
    alone holds nobody up."""
    memory = MEMORIES[name]
    waits = Rule(level=level, first=["PRE"], then=["ACT", "REF"], delay="2 * tRP")
    control = {"page_policy": "auto-precharge", "refresh": refresh}
    shape = {"channels": 1, "ranks": 2, "bank_groups": 2, "banks_per_group": 2, "rows": 16}
    memory = memory.model_copy(
        update={
            "rules": [*memory.rules, waits],
            "timings": memory.timings | {"tREFI": 6 * memory.timings["tRFC"]},
            "controller": memory.controller.model_copy(update=control),
            "organization": memory.organization.model_copy(update=shape),
        }
    )
    stream = preset_stream(memory, 300, seed=4)
    kernel = replayed(memory, stream)
    assert log_of(kernel) == [entry.fields for entry in simulated(memory, stream).log]
    assert (kernel.commands["REF"] > 0) == (refresh == "all-bank")


@given(memories(), streams())
def test_same_stream_same_run(memory: MemoryConfig, stream: Stream) -> None:
    first, second = replayed(memory, stream), replayed(memory, stream)
    assert first.log.tolist() == second.log.tolist()
    assert (first.cycles, first.commands) == (second.cycles, second.commands)
    assert first.avg_read_latency_cycles == second.avg_read_latency_cycles


@given(memories(), streams())
def test_bursts_share_the_data_bus(memory: MemoryConfig, stream: Stream) -> None:
    """A channel's data bus carries one burst at a time; data of a run's last write may still be
    on its way when the run ends."""
    result = replayed(memory, stream)
    t = memory.timings
    for channel in range(memory.organization.channels):
        held = []
        for cycle, at, command, _, _ in result.log.tolist():
            if at == channel and command in (*READS, *WRITES):
                start = cycle + (t["CL"] if command in READS else t["CWL"])
                held.append((start, start + t["nBL"]))
        held.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(held))
        last_write = t["CWL"] + t["nBL"]
        assert not held or held[0][0] + len(held) * t["nBL"] <= result.cycles + last_write


@pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES.keys())
def test_one_row_streams_at_the_column_rate(memory: MemoryConfig) -> None:
    """A request enters in cycle 1, is opened for in cycle 2, and then bursts follow each other."""
    control = memory.controller.model_copy(update={"refresh": "none"})
    memory = memory.model_copy(update={"controller": control, "address_map": "rorabgbachco"})
    t, columns = memory.timings, memory.organization.columns
    result = replayed(memory, Stream(list(range(columns)), [0] * columns, [0] * columns))
    opened = 2
    last = opened + t["tRCDRD"] + (columns - 1) * max(t["nBL"], t["tCCD_L"])
    assert result.cycles == last + t["CL"] + t["nBL"] + 1
    assert (result.commands["ACT"], result.row_hits) == (1, columns - 1)


def of_channels(memory: MemoryConfig, channels: int) -> MemoryConfig:
    org = memory.organization.model_copy(update={"channels": channels})
    return memory.model_copy(update={"organization": org, "address_map": INTERLEAVED})


def interleaved(stream: Stream, channels: int) -> Stream:
    """The same stream in each channel, a request of each channel in turn."""

    def spread(values: Sequence[int], step: int = 1, times: int = 1) -> list[int]:
        return [value * times + step * c for value in values for c in range(channels)]

    return Stream(
        spread(stream.bursts, 1, channels), spread(stream.writes, 0), spread(stream.arrivals, 0)
    )


@given(memories(), streams(longest=60), st.sampled_from([2, 4]))
def test_channels_work_side_by_side(memory: MemoryConfig, stream: Stream, channels: int) -> None:
    """n channels with n times the requests, interleaved, take what one channel takes alone."""
    capacity = of_channels(memory, 1).organization.capacity_bytes
    bursts = [b % (capacity // memory.organization.burst_bytes) for b in stream.bursts]
    stream = Stream(bursts, stream.writes, stream.arrivals)
    one = replayed(of_channels(memory, 1), stream)
    many = replayed(of_channels(memory, channels), interleaved(stream, channels))
    assert many.cycles == one.cycles
    assert many.commands == {name: channels * count for name, count in one.commands.items()}
    assert many.row_hits == channels * one.row_hits


@given(memories(), st.integers(1, 400))
def test_more_channels_are_never_slower(memory: MemoryConfig, requests: int) -> None:
    """For a sequential read stream interleaved over channels; in general it is only nearly so."""
    org = memory.organization.model_copy(update={"rows": 1024})
    assert org.rows * org.columns > requests  # no burst comes twice
    memory = memory.model_copy(update={"organization": org})
    stream = Stream(list(range(requests)), [0] * requests, [0] * requests)
    cycles = [replayed(of_channels(memory, n), stream).cycles for n in (1, 2, 4, 8)]
    assert cycles == sorted(cycles, reverse=True)
