"""Controller policies over the registry: legal on every memory, and each does what it says."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.parameters import make_parameters
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.hardware.dram.rules import Command, compile_rules
from pimsim.hardware.dram.system import MemorySystem, Stream

NAMES = preset_names("memory")
REFRESHES = ("all-bank", "per-bank", "none")
SCHEDULERS = ("fr-fcfs", "fcfs")
PAGES = ("open", "closed", "auto-precharge")
PER_BANK = ["hbm2", "gddr6", "lpddr4-2400"]
READ, WRITE = 0, 1


@cache
def memory_of(name: str, *overrides: str) -> MemoryConfig:
    """A preset that our kernel runs; the test is skipped, with the reason, for others."""
    try:
        memory = load_memory(name, overrides).config
        make_parameters(memory, None, compile_rules(memory, None))
    except InputError as refusal:
        pytest.skip(str(refusal))
    return memory


def run(memory: MemoryConfig, bursts: list[int], writes: list[int]) -> ReplayResult:
    size = memory.organization.burst_bytes
    entries = 60 * len(bursts) + 20_000
    return replay(memory, np.array(bursts) * size, np.array(writes), log_entries=entries)


def traffic(memory: MemoryConfig, seed: int, count: int) -> tuple[list[int], list[int]]:
    """Runs of neighbours, random bursts and a hot spot; a third are writes. No burst twice."""
    draw = np.random.default_rng(seed)
    space = memory.organization.capacity_bytes // memory.organization.burst_bytes
    bursts: dict[int, int] = {}
    while len(bursts) < count:
        kind, write = draw.integers(3), int(draw.random() < 0.35)
        start = int(draw.integers(64 * memory.organization.columns if kind == 2 else space))
        for step in range(int(draw.integers(1, 30)) if kind == 0 else 1):
            bursts.setdefault((start + step) % space, write)
    chosen = list(bursts.items())[:count]
    return [burst for burst, _ in chosen], [write for _, write in chosen]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(
    scheduler=st.sampled_from(SCHEDULERS), page=st.sampled_from(PAGES),
    refresh=st.sampled_from(REFRESHES), cap=st.integers(1, 8), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_legal_and_conserving_on_random_traffic(
    name: str, scheduler: str, page: str, refresh: str, cap: int, seed: int
) -> None:
    base = memory_of(name)
    if refresh == "per-bank" and "tRFCpb" not in base.timings:
        refresh = "none"
    memory = memory_of(
        name, f"controller.scheduler={scheduler}", f"controller.page_policy={page}",
        f"controller.refresh={refresh}", f"controller.row_hit_cap={cap}",
    )  # fmt: skip
    bursts, writes = traffic(memory, seed, 400)
    result = run(memory, bursts, writes)
    assert check_commands(result.log, memory) is None
    sent = result.commands
    assert sent["RD"] + sent["RDA"] == writes.count(READ)
    assert sent["WR"] + sent["WRA"] + result.undrained_writes == writes.count(WRITE)
    assert result.commands["REF"] == 0 or refresh == "all-bank"
    assert result.commands["REFpb"] == 0 or refresh == "per-bank"
    if page == "closed":
        assert result.commands["PRE"] == result.commands["ACT"]
    if page == "auto-precharge":
        accesses = sent["RDA"] + sent["WRA"]
        assert sent["RD"] == sent["WR"] == result.row_hits == 0
        # a refresh may close a row before the access for which it was opened
        assert sent["ACT"] == accesses + sent["PRE"]
        assert sent["PRE"] <= (sent["REF"] + sent["REFpb"]) * memory.organization.banks


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_over_bank_groups_reaches_the_peak(name: str) -> None:
    """Neighbours in other bank groups: a column command every max(nBL, tCCD_S)."""
    memory = memory_of(
        name, "organization.channels=1", "controller.refresh=none", "address_map=rorabacobgch"
    )
    t, count = memory.timings, 20_000
    result = run(memory, list(range(count)), [READ] * count)
    slots = count * max(t["nBL"], t.get("tCCD_S", 1))
    # where rows and columns share the slot of a cycle, each ACT and PRE may delay a column by one
    shared = memory.controller.commands_per_cycle == 1
    rows = result.commands["ACT"] + result.commands["PRE"] if shared else 0
    assert slots <= result.cycles <= 1.01 * slots + rows + t["tRCDRD"] + t["CL"] + 100


@pytest.mark.parametrize("name", NAMES)
def test_refresh_takes_no_more_than_its_share(name: str) -> None:
    memory = memory_of(name, "organization.channels=1", "address_map=rorabacobgch")
    count = 20_000
    quiet = memory.model_copy(
        update={"controller": memory.controller.model_copy(update={"refresh": "none"})}
    )
    without = run(quiet, list(range(count)), [READ] * count).cycles
    with_it = run(memory, list(range(count)), [READ] * count)
    t = memory.timings
    each = t["tRFC"] + t["tRAS"] + 2 * t["tRP"] + t["tRTP"] + t["tRCDRD"] + t["CL"]
    assert 0 < with_it.cycles - without <= (with_it.commands["REF"] + 1) * each
    assert with_it.commands["REF"] == with_it.cycles // (t["tREFI"] // memory.organization.ranks)


@pytest.mark.parametrize("name", PER_BANK)
def test_every_bank_refreshes_once_in_trefi_while_others_work(name: str) -> None:
    memory = memory_of(name, "organization.channels=1", "controller.refresh=per-bank")
    org, t = memory.organization, memory.timings
    bursts, writes = traffic(memory, 3, 12_000)
    result = run(memory, bursts, writes)
    log = result.log.tolist()
    times = defaultdict(list)
    for cycle, _, command, bank, _ in log:
        if command == Command.REFpb:
            times[bank].append(cycle)
    assert len(times) == org.ranks * org.banks
    assert max(map(len, times.values())) - min(map(len, times.values())) <= 1
    # a refresh may be late by the PRE that it waits for, never by another one
    late = t["tRAS"] + t["tRP"] + t["CWL"] + t["nBL"] + t["tWR"] + t["tRFCpb"]
    for cycles in times.values():
        assert np.all(np.abs(np.diff(cycles) - t["tREFI"]) <= late + org.banks)
    # while one bank refreshes, none of its commands, but those of its neighbours go on
    beside: Counter[str] = Counter()
    for bank, cycles in times.items():
        for at in cycles[:4]:
            for cycle, _, command, other, _ in log:
                if at < cycle < at + t["tRFCpb"]:
                    assert other != bank or command == Command.REFpb
                    same_rank = other // org.banks == bank // org.banks
                    beside[Command(command).name] += same_rank and other != bank
    assert beside["RD"] > 0 and beside["ACT"] > 0


@pytest.mark.parametrize("name", PER_BANK)
@pytest.mark.parametrize("pattern", ["stream", "random"])
def test_refresh_per_bank_costs_less_than_all_bank(name: str, pattern: str) -> None:
    def cycles(refresh: str) -> int:
        memory = memory_of(name, "organization.channels=1", f"controller.refresh={refresh}")
        space = memory.organization.capacity_bytes // memory.organization.burst_bytes
        bursts = list(range(20_000))
        if pattern == "random":
            bursts = np.random.default_rng(2).integers(0, space, 20_000).tolist()
        return run(memory, bursts, [READ] * len(bursts)).cycles

    assert cycles("none") <= cycles("per-bank") <= cycles("all-bank")


def test_refresh_per_bank_in_the_device(refresh: str = "per-bank") -> None:
    memory = memory_of("hbm2", "organization.channels=2", f"controller.refresh={refresh}")
    system = MemorySystem(memory, log_entries=200_000)
    group = system.submit(0, [Stream(0, 40_000), Stream(100_000, 20_000, write=True)])
    while system.advance(INFINITY) is not group:
        pass
    log = system.board["log"][0, : int(system.board["logged"][0])]
    assert check_commands(log[np.argsort(log[:, 1], kind="stable")], memory) is None
    refreshes = log[log[:, 2] == Command.REFpb]
    interval = memory.timings["tREFI"] // memory.organization.banks
    for channel in (0, 1):
        due = int(log[log[:, 1] == channel][-1, 0]) // interval
        assert abs(int((refreshes[:, 1] == channel).sum()) - due) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_fcfs_serves_reads_in_their_order(name: str) -> None:
    memory = memory_of(
        name, "organization.channels=1", "controller.scheduler=fcfs",
        "controller.bank_queue_depth=200",
    )  # fmt: skip
    bursts, _ = traffic(memory, 5, 200)  # no more than a bank's queue holds
    result = run(memory, bursts, [READ] * len(bursts))
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    where = mapping.decode(np.array(bursts))
    asked = list(zip(where.bank.tolist(), where.row.tolist(), where.column.tolist(), strict=True))
    reads = result.log[:, 2] == Command.RD
    served = [
        (bank, row, column)
        for (_, _, _, bank, row), column in zip(
            result.log[reads].tolist(), result.log_columns[reads].tolist(), strict=True
        )
    ]
    assert served == asked
    ready_first = run(memory_of(name, "organization.channels=1"), bursts, [READ] * len(bursts))
    assert ready_first.cycles < result.cycles


def test_closed_pages_save_the_precharge_of_a_lone_conflict() -> None:
    """Two rows of a bank, far apart in time: the second ACT finds the bank closed."""
    latencies = {}
    for page in PAGES[:2]:
        memory = memory_of("hbm2", f"controller.page_policy={page}")
        size, org = memory.organization.burst_bytes, memory.organization
        row = org.columns * org.channels * org.banks * size
        result = replay(memory, np.array([0, row]), np.zeros(2, int), np.array([0, 500]))
        latencies[page] = result.avg_read_latency_cycles * 2
        if page == "open":
            assert result.commands["PRE"] == 1
        else:
            assert result.commands["PRE"] == result.commands["ACT"] == 2
    t = memory.timings
    assert latencies["open"] - latencies["closed"] == t["tRP"]


def test_closed_pages_wait_for_queued_hits() -> None:
    memory = memory_of("hbm2", "organization.channels=1", "controller.page_policy=closed")
    columns = memory.organization.columns
    result = run(memory, list(range(columns)), [READ] * columns)
    assert result.commands["ACT"] == 1
    assert result.row_hits == columns - 1


@pytest.mark.parametrize("high", [1, 4, 20])
def test_writes_drain_at_the_high_watermark(high: int) -> None:
    """One write a cycle: the first may leave its queue when ``high`` are there."""
    memory = memory_of(
        "hbm2", "organization.channels=1", f"controller.write_drain_high={high}",
        "controller.write_drain_low=64",
    )  # fmt: skip
    result = run(memory, list(range(40)), [WRITE] * 40)
    # writes arrive from cycle 1 on, the last of them moves to its bank in its own cycle
    assert int(result.log[0, 0]) == high + 1
    assert result.undrained_writes < high


def test_refreshes_that_cannot_keep_up_are_refused() -> None:
    memory = memory_of("hbm2", "organization.channels=1", "timings.tREFI=262")
    with pytest.raises(InputError, match=r"refreshes .* fall due faster than they can be done"):
        run(memory, list(range(5000)), [READ] * 5000)


def two_reads_of_a_row(memory: MemoryConfig) -> ReplayResult:
    org = memory.organization
    mapping = AddressMap.parse(memory.address_map, org)
    one = int(mapping.encode({"co": np.array([1])})[0])
    return replay(memory, np.array([0, one]), np.zeros(2, int), log_entries=100)


@pytest.mark.parametrize("name", preset_names("memory"))
def test_every_access_opens_and_closes_its_row(name: str) -> None:
    """Two reads of one row: the second ACT waits until the first row, closed as soon as a PRE
    could, is closed (in DRAMsim3's presets also for the burst), or for the ACT's own distance."""
    memory = load_memory(
        name,
        ["organization.channels=1", "controller.page_policy=auto-precharge",
         "controller.refresh=none"],
    ).config  # fmt: skip
    result = two_reads_of_a_row(memory)
    log = [(cycle, Command(command)) for cycle, _, command, _, _ in result.log.tolist()]
    assert [command for _, command in log] == [Command.ACT, Command.RDA] * 2
    t, ticks = memory.timings, result.ticks_per_clock
    rd_act = t["tRTP"] + t["tRP"]
    if any("RDA" in rule.first and "ACT" in rule.then for rule in memory.rules):
        rd_act += t["nBL"]
    bus = memory.command_bus
    longer = bus.ticks("RD") - bus.ticks("ACT")  # delays count from the ends of commands
    if ticks < bus.ticks_per_clock:
        longer = -(-longer // bus.ticks_per_clock)
    again = log[2][0] - log[0][0]
    own = max(t.get("tRC", 0), t["tRAS"] + t["tRP"]) * ticks
    after = log[1][0] - log[0][0] + rd_act * ticks + longer
    assert max(own, after) <= again <= max(own, after) + ticks  # perhaps the next rising edge
    assert check_commands(result.log, memory) is None
    assert (result.row_hits, result.commands["ACT"], result.commands["RDA"]) == (0, 2, 2)


@pytest.mark.parametrize("name", preset_names("memory"))
def test_strictly_closed_pages_are_legal(name: str) -> None:
    """Traffic of all kinds, refreshed often; rows that are opened too early are found."""
    memory = load_memory(
        name, ["organization.channels=1", "controller.page_policy=auto-precharge"]
    ).config
    bursts, writes = traffic(memory, 11, 600)
    result = run(memory, bursts, writes)
    assert check_commands(result.log, memory) is None
    for at, (_, _, command, _, _) in enumerate(result.log.tolist()):
        if command == Command.ACT and at > 300:
            early = result.log.copy()
            same = np.flatnonzero(early[:at, 3] == early[at, 3])
            if len(same) == 0:
                continue
            early[at, 0] = early[same[-1], 0] + 1
            moved = early[np.argsort(early[:, 0], kind="stable")]
            assert check_commands(moved, memory) is not None
            break
