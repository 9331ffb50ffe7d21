"""The memory system: streams at the bus's rate, groups in order, windows that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import C_COMMANDS, INFINITY, N_INSTRUCTION
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.rules import COMMANDS, Command
from pimsim.hardware.dram.system import (
    BLOCK_BYTES,
    Group,
    MemorySystem,
    ResultWork,
    Scatter,
    Stream,
)
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape, score_program

CHANNELS = 4
OVERRIDES = [f"organization.channels={CHANNELS}"]
MEMORY = load_memory("hbm2-neupims", OVERRIDES).config
QUIET = load_memory("hbm2-neupims", [*OVERRIDES, "controller.refresh=none"]).config
PIMS = {name: load_pim(name).config for name in ("neupims", "newton")}
T = MEMORY.timings
ORG = MEMORY.organization
FRONT = 3
"""Cycles from a submission to the first command that it can cause: the stream is read, the
request moves to its bank, the bank is looked at."""


def finish(system: MemorySystem, group: Group) -> int:
    """Run until ``group`` is complete."""
    while (done := system.advance(INFINITY)) is not group:
        assert done is not None
    return group.done_cycle


def count(system: MemorySystem, command: Command) -> int:
    return int(system.channels["counter"][:, C_COMMANDS + int(command)].sum())


# streams ------------------------------------------------------------------------------------


def test_the_first_burst_takes_activation_read_and_transfer() -> None:
    system = MemorySystem(QUIET)
    done = finish(system, system.submit(0, [Stream(0, 1)]))
    latency = T["tRCDRD"] + T["CL"] + T["nBL"]
    assert latency <= done <= latency + FRONT


@pytest.mark.parametrize("each", [2, ORG.columns, ORG.columns * ORG.banks])
def test_a_stream_within_a_rank_keeps_the_data_bus_busy(each: int) -> None:
    # every further burst of a channel takes one slot of its bus: rows are opened ahead, but an
    # ACT may take a read's turn on the command bus
    one, many = MemorySystem(QUIET), MemorySystem(QUIET)
    first = finish(one, one.submit(0, [Stream(0, CHANNELS)]))
    last = finish(many, many.submit(0, [Stream(0, each * CHANNELS)]))
    rows = -(-each // ORG.columns)
    assert 0 <= last - first - (each - 1) * T["nBL"] < rows
    assert count(many, Command.RD) == each * CHANNELS
    assert count(many, Command.ACT) == rows * CHANNELS


@given(st.integers(0, 5000), st.integers(1, 4000), st.booleans())
def test_a_stream_is_never_faster_than_the_bus(first: int, bursts: int, write: bool) -> None:
    system = MemorySystem(MEMORY)
    done = finish(system, system.submit(0, [Stream(first, bursts, write=write)]))
    # writes are posted: a channel takes one a cycle
    slot = 1 if write else T["nBL"]
    assert done >= -(-bursts // CHANNELS) * slot
    if not write:
        assert count(system, Command.RD) == bursts


def test_blocks_arrive_in_order_and_the_last_with_the_group() -> None:
    system = MemorySystem(MEMORY)
    blocks = 5
    bursts = (blocks - 1) * BLOCK_BYTES // ORG.burst_bytes + 1
    group = system.submit(0, [Stream(0, bursts, track_blocks=True)])
    done = finish(system, group)
    assert len(group.block_cycles) == blocks
    assert (np.diff(group.block_cycles) > 0).all()
    assert group.block_cycles[-1] == done


def test_groups_of_the_same_kind_complete_in_the_order_of_submission() -> None:
    system = MemorySystem(MEMORY)
    groups = [system.submit(0, [Stream(2000 * i, 1000 + 100 * i)]) for i in range(3)]
    done = [system.advance(INFINITY) for _ in groups]
    assert [id(group) for group in done] == [id(group) for group in groups]
    cycles = [group.done_cycle for group in groups]
    assert cycles == sorted(set(cycles))
    assert not system.active


def test_a_submission_waits_for_its_start() -> None:
    early, late = MemorySystem(QUIET), MemorySystem(QUIET)
    delay = 500
    at_once = finish(early, early.submit(0, [Stream(0, 64)]))
    assert finish(late, late.submit(delay, [Stream(0, 64)])) == at_once + delay


def test_advance_stops_at_the_time_it_is_given() -> None:
    system = MemorySystem(MEMORY)
    group = system.submit(0, [Stream(0, 4000)])
    assert system.advance(100) is None
    assert system.now == 100
    assert group.done_cycle == -1
    assert system.active


# windows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Submission:
    """Something that is asked of the memory at ``at``."""

    at: int
    streams: tuple[Stream, ...] = ()
    scatters: tuple[Scatter, ...] = ()
    contexts: tuple[int, ...] = ()
    """Not empty: scores of a request of each context on PIM, softmax and its writes after it."""
    softmax: int = 0
    writes: int = 0
    units: int = 0
    spread: bool = False
    overlap: bool = True


Step = Callable[[MemorySystem, int], Group | None]


def replay(
    memory: MemoryConfig, pim: PimConfig, plan: Sequence[Submission], step: Step, log: int = 0
) -> tuple[list[tuple[int, int, list[int]]], list[list[int]]]:
    """What completes when, and every counter of every channel at the end."""
    system = MemorySystem(memory, pim, log_entries=log)
    waiting = sorted(plan, key=lambda one: one.at)
    submitted: list[Group] = []
    events = []
    while waiting or system.active:
        if waiting and waiting[0].at <= system.now:
            submitted.append(_submit(system, memory, pim, waiting.pop(0)))
            continue
        until = waiting[0].at if waiting else INFINITY
        if not system.active:
            system.advance(until)
            continue
        done = step(system, until)
        if done is not None:
            at = next(i for i, group in enumerate(submitted) if group is done)
            events.append((at, done.done_cycle, done.block_cycles.tolist()))
    return events, system.channels["counter"].tolist()


def _submit(system: MemorySystem, memory: MemoryConfig, pim: PimConfig, one: Submission) -> Group:
    if not one.contexts:
        return system.submit(one.at, one.streams, one.scatters)
    shape = AttentionShape.of(2, 2, 128, memory, pim, 2)
    programs = [np.zeros((0, N_INSTRUCTION), dtype=np.int64) for _ in range(CHANNELS)]
    row = 1000
    for i, context in enumerate(one.contexts):
        rows = KvRows.from_row(row, shape.kv_sections, context)
        made = score_program(shape, context, rows, 900, 2 * i, pim.composite_gemv, (900, 8))
        programs[i % CHANNELS] = np.concatenate([programs[i % CHANNELS], made])
        row += shape.key_rows(context)
    marks = 2 * len(one.contexts)
    after = ResultWork(
        np.full(marks, one.softmax, dtype=np.int64),
        np.full(marks, one.writes, dtype=np.int64),
        np.array([i // 2 % CHANNELS for i in range(marks)], dtype=np.int64),
        one.units,
        one.spread,
        one.overlap,
    )
    return system.submit_pim(one.at, programs, marks, after)


def in_one_go(system: MemorySystem, until: int) -> Group | None:
    return system.advance(until)


def in_steps(sizes: Sequence[int]) -> Step:
    """Stop again and again, after each of ``sizes`` cycles in turn."""
    taken = 0

    def step(system: MemorySystem, until: int) -> Group | None:
        nonlocal taken
        taken += 1
        return system.advance(min(until, system.now + sizes[taken % len(sizes)]))

    return step


streams = st.builds(
    Stream,
    first_burst=st.integers(0, 10_000),
    bursts=st.integers(1, 1500),
    write=st.booleans(),
    track_blocks=st.booleans(),
)
scatters = st.builds(
    Scatter,
    channel=st.integers(0, CHANNELS - 1),
    first=st.integers(0, 10_000),
    count=st.integers(1, 40),
    stride=st.sampled_from([1, ORG.columns]),
)
transfers = st.builds(
    Submission,
    at=st.integers(0, 3000),
    streams=st.lists(streams, min_size=1, max_size=2).map(tuple),
    scatters=st.lists(scatters, max_size=2).map(tuple),
)
attention = st.builds(
    Submission,
    at=st.integers(0, 2000),
    contexts=st.lists(st.integers(1, 300), min_size=1, max_size=5).map(tuple),
    softmax=st.integers(0, 60),
    writes=st.integers(0, 6),
    units=st.sampled_from([0, 1, 3]),
    spread=st.booleans(),
    overlap=st.booleans(),
)
step_sizes = st.lists(st.integers(1, 700), min_size=1, max_size=5)


# a group that reads and writes can complete two bursts of a channel in one cycle
MIXED = Submission(0, (Stream(0, 1), Stream(0, 117, write=True)))


@settings(max_examples=40)
@given(st.lists(transfers, min_size=1, max_size=4), step_sizes)
@example([MIXED, Submission(32, (Stream(0, 1),))], [17, 15])
def test_stopping_on_the_way_changes_no_transfer(plan: list[Submission], sizes: list[int]) -> None:
    expected = replay(MEMORY, PIMS["neupims"], plan, in_one_go)
    assert replay(MEMORY, PIMS["neupims"], plan, in_steps(sizes)) == expected


@pytest.mark.parametrize("pim", sorted(PIMS))
@settings(max_examples=40)
@given(plan=st.lists(transfers, max_size=3), work=attention, sizes=step_sizes)
def test_stopping_on_the_way_changes_nothing_beside_pim(
    pim: str, plan: list[Submission], work: Submission, sizes: list[int]
) -> None:
    expected = replay(MEMORY, PIMS[pim], [*plan, work], in_one_go)
    assert replay(MEMORY, PIMS[pim], [*plan, work], in_steps(sizes)) == expected


POLICIES = [
    "controller.page_policy=closed", "controller.page_policy=auto-precharge",
    "controller.scheduler=fcfs",
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pim", sorted(PIMS))
@settings(max_examples=8)
@given(plan=st.lists(transfers, max_size=3), work=attention, sizes=step_sizes)
def test_other_policies_beside_pim_are_legal_and_windows_change_nothing(
    pim: str, policy: str, plan: list[Submission], work: Submission, sizes: list[int]
) -> None:
    memory = load_memory("hbm2-neupims", [*OVERRIDES, policy]).config
    systems: list[MemorySystem] = []

    def logged(system: MemorySystem, until: int) -> Group | None:
        systems.append(system)
        return system.advance(until)

    expected = replay(memory, PIMS[pim], [*plan, work], logged, log=100_000)
    board = systems[0].board
    log = board["log"][0, : int(board["logged"][0])]
    log = log[np.argsort(log[:, 1], kind="stable")]  # by channel: windows leave them in pieces
    assert check_commands(log[:4000], memory, PIMS[pim]) is None
    assert replay(memory, PIMS[pim], [*plan, work], in_steps(sizes)) == expected


@pytest.mark.parametrize("units", [0, 1])
def test_without_overlap_vector_work_waits_for_all_results(units: int) -> None:
    work = Submission(0, contexts=(300, 300), softmax=200, units=units)
    together, apart = (
        replay(QUIET, PIMS["neupims"], [replace(work, overlap=overlap)], in_one_go)[0][0][1]
        for overlap in (True, False)
    )
    heads = 2 * len(work.contexts)
    free = replace(work, softmax=0, overlap=False)
    # one operation is issued a cycle, the first when the last result is there
    results = replay(QUIET, PIMS["neupims"], [free], in_one_go)[0][0][1] - (heads - 1)
    # no units: as many as it takes
    expected = heads * work.softmax if units else heads - 1 + work.softmax
    assert apart == results + expected
    assert results < together < apart


@settings(max_examples=10)
@given(plan=st.lists(transfers, max_size=3), work=attention)
def test_the_same_input_gives_the_same_output(plan: list[Submission], work: Submission) -> None:
    first = replay(MEMORY, PIMS["neupims"], [*plan, work], in_one_go)
    assert replay(MEMORY, PIMS["neupims"], [*plan, work], in_one_go) == first


@settings(max_examples=20)
@given(plan=st.lists(transfers, max_size=3), work=attention)
def test_all_that_was_asked_for_is_done(plan: list[Submission], work: Submission) -> None:
    everything = [*plan, work]
    events, counters = replay(MEMORY, PIMS["neupims"], everything, in_one_go)
    assert sorted(number for number, _, _ in events) == list(range(len(everything)))
    totals = np.array(counters).sum(axis=0)
    reads = sum(s.bursts for one in plan for s in one.streams if not s.write)
    assert totals[C_COMMANDS + COMMANDS.index("RD")] == reads
    shape = AttentionShape.of(2, 2, 128, MEMORY, PIMS["neupims"], 2)
    tiles = sum(-(-context // shape.banks) for context in work.contexts)
    assert totals[C_COMMANDS + COMMANDS.index("GEMV")] == shape.heads * tiles


# tables of a fixed size ----------------------------------------------------------------------


def with_tickets(system: MemorySystem, count: int) -> MemorySystem:
    """The same with few tickets, so that they come round soon."""
    system.tickets.size = count
    return system


def test_transfers_beside_a_long_operation_never_take_its_tickets() -> None:
    """More transfers than there are tickets pass by one PIM operation: all of it is done."""
    heads, tiles = 8, 40
    shape = AttentionShape.of(heads, heads, 128, QUIET, PIMS["neupims"], 2)
    rows = KvRows.from_row(1000, shape.kv_sections, tiles * shape.banks)
    program = score_program(shape, tiles * shape.banks, rows, 900, 0, True, (900, 8))
    empty = program[:0]
    system = with_tickets(MemorySystem(QUIET, PIMS["neupims"]), 300)
    operation = system.submit_pim(0, [program] + [empty] * (CHANNELS - 1), heads)
    passed = 0
    while operation.done_cycle < 0:
        one = system.submit(system.now, [Stream(0, 64, track_blocks=True)])
        while one.done_cycle < 0 and operation.done_cycle < 0:
            system.advance(INFINITY)
        passed += one.done_cycle >= 0
    assert passed * (CHANNELS + 1) > 300
    assert count(system, Command.GEMV) == heads * tiles


def test_more_transfers_at_once_than_tickets_are_refused() -> None:
    system = with_tickets(MemorySystem(QUIET), 10 * CHANNELS)
    for _ in range(10):
        system.submit(0, [Stream(0, 64)])
    with pytest.raises(InputError, match="tickets of transfers at once: 40 of 40"):
        system.submit(0, [Stream(0, 64)])


# refresh ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    ["organization.ranks=8", "timings.tCCD_L=64", "timings.nBL=128", "timings.tRFC=1700"],
)
@pytest.mark.parametrize("pim", sorted(PIMS))
def test_a_tile_that_never_fits_between_two_refreshes_is_held_back_once(
    pim: str, change: str
) -> None:
    memory = load_memory("hbm2-neupims", [*OVERRIDES, change]).config
    shape = AttentionShape.of(2, 2, 128, memory, PIMS[pim], 2)
    composite = PIMS[pim].composite_gemv
    rows = KvRows.from_row(1000, shape.kv_sections, 48 * shape.banks)
    program = score_program(shape, 48 * shape.banks, rows, 900, 0, composite, (900, 8))
    system = MemorySystem(memory, PIMS[pim])
    finish(system, system.submit_pim(0, [program] * CHANNELS, 2))
    dots = Command.GEMV if composite else Command.READRES
    assert count(system, dots) == 2 * 48 * CHANNELS
    assert count(system, Command.REF) > 0


@pytest.mark.parametrize("change", ["timings.tRFC=2080", "timings.tREFI=700", "timings.tFAW=900"])
def test_refreshes_that_never_leave_all_banks_open_are_refused_before(change: str) -> None:
    memory = load_memory("hbm2-neupims", [*OVERRIDES, change]).config
    MemorySystem(memory)  # without dot products it works
    with pytest.raises(InputError, match="never are all banks of a channel open at once"):
        MemorySystem(memory, PIMS["neupims"])


def test_refreshes_that_leave_no_time_for_requests_are_the_input_s_fault() -> None:
    memory = load_memory("hbm2-neupims", [*OVERRIDES, "timings.tREFI=262"]).config
    system = MemorySystem(memory)
    system.submit(0, [Stream(0, 4000)])
    with pytest.raises(InputError, match=r"refreshes .* fall due faster"):
        while system.active:
            system.advance(INFINITY)
