"""What is remembered is known by all that it depends on: a value asked for after another that
differs from it in one field alone is what it would be without the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pimsim.config.loader import load_memory, load_pim, load_run
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.fast import Probe, calibration, calibration_file
from pimsim.hardware.dram.fast.programs import ProgramRun, Results, job_of, renamed_rows
from pimsim.hardware.dram.fast.streams import StreamWork, lowered, row_set
from pimsim.hardware.dram.layout import (
    N_INSTRUCTION,
    P_COMPS,
    P_LAST,
    P_MARK,
    P_OP,
    P_READS,
    P_ROUNDS,
    P_ROW,
)
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.transfers import Rows, Scatter, Stream
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.hardware.pim.kv_layout import KvRows, RowRuns
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping import expert_costs
from pimsim.mapping.attention import AttentionBatch, score_work, value_work
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.tasks import PimTask
from pimsim.simulate import device_of, resolve

Ints = NDArray[np.int64]
MEMORY = load_memory("hbm2-neupims", ["organization.channels=2"]).config
NEUPIMS = load_run("neupims").config
PIM = load_pim("neupims").config


def one_field_changed(value: Any, other: Callable[[str, Any], Any]) -> Iterator[tuple[str, Any]]:
    """``value`` with another value of each of its fields in turn."""
    for field in fields(value):
        now = getattr(value, field.name)
        yield field.name, replace(value, **{field.name: other(field.name, now)})


# attention's programs ---------------------------------------------------------------------------
def work_of(find: Callable[..., Any], batch: AttentionBatch) -> list[Any]:
    programs, marks, after = find(batch, 0, MEMORY, PIM, NEUPIMS.npu.vector, 2)
    return [
        [program.tolist() for program in programs], marks, after.duration.tolist(),
        after.bursts.tolist(), after.channel.tolist(),
    ]  # fmt: skip


@pytest.mark.parametrize("find", [score_work, value_work])
def test_each_field_of_a_batch_is_another_batch_with_other_work(find: Callable[..., Any]) -> None:
    shape = AttentionShape.of(4, 2, 64, MEMORY, PIM, 2)

    def at(first: int) -> KvRows:
        """More rows than any of these batches needs."""
        return KvRows(*(RowRuns(((first + 1000 * section, 999),)) for section in range(3)))

    batch = AttentionBatch(shape, (at(100), at(4100)), (700, 40), (0, 1))

    def other(name: str, now: Any) -> Any:
        return {
            "shape": AttentionShape.of(4, 4, 64, MEMORY, PIM, 2),
            "rows": (at(101), now[1]) if name == "rows" else None,
            "contexts": (1700, 40), "channel": (0, 0),
            "places": ((range(600, 1000), range(300)), (range(40),)),
        }[name]  # fmt: skip

    found = {name: one for name, one in one_field_changed(batch, other)}
    assert len({batch, *found.values()}) == 1 + len(found)
    for name, one in found.items():
        assert work_of(find, one) != work_of(find, batch), name


def test_a_window_within_a_tile_of_the_context_has_programs_of_its_own(
    tiny_card: Path, tmp_path: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    # 100 and 120 tokens take four rows of 32 banks alike: only what is seen of them differs
    card = tmp_path / "windows.yaml"
    card.write_text(tiny_card.read_text() + "window:\n  size: 100\n  full_every: 2\n")
    given = [
        f"workload.model={card}", f"workload.requests={write_trace([120, 110])}", "parallel.tp=1",
        "workload.layers=4", "schedule.sub_batches=false", "memory.organization.channels=2",
    ]  # fmt: skip

    def dot_products(order: Sequence[int]) -> dict[int, list[int]]:
        device, _ = device_of(resolve("neupims", given))
        return {
            layer: [
                sum(int(written_out(program)[:, P_COMPS].sum()) for program in task.programs)
                for task in device.block(0, layer).attention
                if isinstance(task, PimTask)
            ]
            for layer in order
        }

    forward, backward = dot_products(range(4)), dot_products(range(3, -1, -1))
    assert forward == backward
    assert forward[0] == forward[2] != forward[1] == forward[3]
    assert forward[0][1] < forward[1][1]


# transfers at fast fidelity ---------------------------------------------------------------------
ONE_CHANNEL = device_memory(load_memory("hbm2-neupims", ["organization.channels=1"]).config)
PROBE = Probe(ONE_CHANNEL, None)
BUSY = np.zeros(1, np.bool_)


def seen_work(memory: MemoryConfig = ONE_CHANNEL) -> StreamWork:
    """Transfers of a run in a process that has seen those of the runs before."""
    return StreamWork(memory, PROBE)


def fresh_work() -> StreamWork:
    """Transfers of a run in a process that has seen none."""
    probe = Probe(ONE_CHANNEL, None)
    for one, known in ((probe, PROBE), (probe.quiet, PROBE.quiet)):
        one.recall(
            known.reads, known.writes, known.clock, known.lags, known.chains, known.rank_stops
        )
    return StreamWork(ONE_CHANNEL, probe)


def test_scatters_are_known_by_each_field() -> None:
    scatter = Scatter(0, 5000, 24, 7, write=False)
    others = {"channel": 0, "first": 5032, "count": 25, "stride": 4096, "write": True}
    seen = seen_work()
    before = seen.of([], [scatter], BUSY).ticks.tolist()
    differing = 0
    for name, one in one_field_changed(scatter, lambda name, _: others[name]):
        afresh = fresh_work().of([], [one], BUSY).ticks.tolist()
        assert seen.of([], [one], BUSY).ticks.tolist() == afresh, name
        differing += afresh != before
    assert differing >= 3
    both = [scatter, replace(scatter, first=9000, stride=1)]
    assert seen.of([], both, BUSY).ticks.tolist() == fresh_work().of([], both, BUSY).ticks.tolist()


def test_scatters_of_the_other_channels_play_no_role_in_what_a_burst_takes() -> None:
    two = load_memory("hbm2-neupims", ["organization.channels=2"]).config
    work = seen_work(two)
    full, short = Scatter(1, 5000, 24, 7), Scatter(0, 64, 8, 1)
    alone = fresh_work().of([], [replace(full, channel=0)], BUSY).ticks[0]
    idle = np.zeros(2, np.bool_)
    assert work.of([], [full, short], idle).ticks.tolist() == [alone // 24 * 8, alone]


@settings(max_examples=40)
@given(
    st.integers(0, 10), st.integers(0, 4095), st.integers(1, 1024), st.booleans(),
    st.integers(0, 10), st.integers(0, 4095), st.integers(1, 1024), st.booleans(),
)  # fmt: skip
def test_streams_that_are_moved_down_lose_as_much(
    row: int, place: int, bursts: int, write: bool,
    other_row: int, other_place: int, other_bursts: int, other_write: bool,
) -> None:  # fmt: skip
    rows = row_set(AddressMap.parse(ONE_CHANNEL.stream_map, ONE_CHANNEL.organization))
    org = ONE_CHANNEL.organization
    assert rows == org.columns * org.banks * org.ranks
    before = Stream((row + 3) * rows + place % rows, bursts, write)
    own = Stream((other_row + 3) * rows + other_place % rows, other_bursts, other_write)
    low = lowered(before, own, rows)
    assert PROBE.lost_ticks(*low) == PROBE.lost_ticks(before, own)
    assert lowered(*low, rows) == low
    up = replace(before, first_burst=before.first_burst + 5 * rows)
    assert lowered(up, replace(own, first_burst=own.first_burst + 5 * rows), rows) == low
    for moved, given_one in zip(low, (before, own), strict=True):
        assert moved.first_burst % rows == given_one.first_burst % rows
        assert replace(moved, first_burst=0) == replace(given_one, first_burst=0)


def test_rows_that_two_streams_share_stay_shared_and_no_others() -> None:
    # rows of 100 bursts: row 7 beside 8 and 9, then 9 beside 10
    assert lowered(Stream(705, 10), Stream(830, 120), 100) == (Stream(5, 10), Stream(130, 120))
    assert lowered(Stream(705, 10), Stream(4230, 20), 100) == (Stream(5, 10), Stream(130, 20))
    assert lowered(Stream(705, 10), Stream(130, 20), 100) == (Stream(5, 10), Stream(130, 20))
    assert lowered(Stream(705, 200), Stream(830, 20), 100) == (Stream(5, 200), Stream(130, 20))
    assert lowered(Stream(705, 200), Stream(930, 20), 100) == (Stream(5, 200), Stream(230, 20))
    assert lowered(Stream(705, 195), Stream(930, 20), 100) == (Stream(5, 195), Stream(230, 20))
    # the one that comes next begins in a row below, and reaches into the other's first or does not
    assert lowered(Stream(705, 10), Stream(630, 71), 100) == (Stream(105, 10), Stream(30, 71))
    assert lowered(Stream(705, 10), Stream(630, 70), 100) == (Stream(5, 10), Stream(130, 70))
    assert lowered(Stream(705, 10), Stream(630, 70), 0) == (Stream(705, 10), Stream(630, 70))


@pytest.mark.parametrize(
    ("text", "rows"), [("rorabgbacoch", 4096), ("chrorabgbaco", 4096), ("rabgbarococh", 0)]
)
def test_a_row_set_is_what_lies_below_the_row(text: str, rows: int) -> None:
    org = load_memory("hbm2", ["organization.channels=4"]).config.organization
    each = org.columns * org.banks * org.ranks * org.pseudo_channels
    assert row_set(AddressMap.parse(text, org)) == (each if rows else 0)


def test_streams_are_known_by_each_field() -> None:
    rows = row_set(AddressMap.parse(ONE_CHANNEL.stream_map, ONE_CHANNEL.organization))
    before, own = Stream(0, 128), Stream(rows + 40, 128)
    seen = seen_work()

    def ticks(work: StreamWork, one: Stream, next_one: Stream) -> int:
        work.of([one], [], BUSY)
        return int(work.of([next_one], [], BUSY).ticks[0])

    ticks(seen, before, own)
    changed = [
        (before, replace(own, bursts=64)), (before, replace(own, write=True)),
        (before, replace(own, first_burst=40)), (before, replace(own, first_burst=rows + 72)),
        (replace(before, bursts=64), own), (replace(before, write=True), own),
        (replace(before, first_burst=32), own), (Stream(0, 2 * rows), own),
    ]  # fmt: skip
    lost = set()
    for one, other in changed:
        afresh = ticks(fresh_work(), one, other)
        assert ticks(seen, one, other) == afresh
        lost.add(afresh)
    assert len(lost) >= 4


def test_runs_of_rows_lose_nothing_and_are_no_streams() -> None:
    work = seen_work()
    work.of([Stream(0, 128)], [], BUSY)
    runs = Rows(np.array([5000, 9000]), np.array([8, 8]))
    found = work.of([runs], [], BUSY)
    assert found.ticks[0] == 16 * PROBE.chain_ticks(np.array([16]))[0]
    assert found.reads.tolist() == [16]


def test_programs_are_known_by_each_field() -> None:
    program = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    job = ProgramRun(program, np.array([0, 3]), np.array([-1, 20]), np.array([0, 1]))
    others = [
        replace(job, program=program + np.eye(2, 4, dtype=np.int64)),
        replace(job, bursts=np.array([0, 4])), replace(job, bursts=np.array([3, 0])),
        replace(job, program=program.T.copy()), replace(job, duration=np.array([-1, 21])),
        replace(job, ends=np.array([0])), replace(job, overlap=False),
    ]  # fmt: skip
    assert len(fields(ProgramRun)) == 5
    assert len({job.content, *(other.content for other in others)}) == 8
    again = ProgramRun(
        *(getattr(job, each.name).copy() for each in fields(job) if each.name != "overlap")
    )
    assert again.content == job.content


def test_results_go_out_where_they_are_and_not_where_pieces_end() -> None:
    """Two tiles, the first with a result of its own in its middle, 5 bursts after 20 cycles."""
    bursts, duration = np.zeros(6, np.int64), np.full(6, -1)
    bursts[1], duration[1] = 5, 20
    duration[5] = 0
    found = job_of(tiles(7, 7), np.array([0, 3]), Results(bursts, duration, overlap=False))
    assert found.program[:, P_MARK].tolist() == [-1, 0, 1, -1, -1, 2]
    assert found.bursts.tolist() == [5, 0, 0]
    assert found.duration.tolist() == [20, -1, 0]
    assert found.ends.tolist() == [1, 2]
    assert not found.after.overlap
    assert found.after.duration.tolist() == [20, -1, 0]


def tiles(*rows: int) -> Ints:
    """A program with a tile on each of these rows."""
    program = np.zeros((3 * len(rows), N_INSTRUCTION), np.int64)
    for at, row in enumerate(rows):
        for place, command in enumerate((Command.HEADER, Command.COMP, Command.READRES)):
            program[3 * at + place, [P_OP, P_ROW, P_COMPS, P_READS]] = command, row, 8, 1
    program[:, P_ROUNDS] = 1
    program[2::3, P_LAST] = 1
    return program


def job(*rows: int, bursts: int = 4) -> ProgramRun:
    ends = np.arange(3 * len(rows)) % 3 == 2
    written = Results(np.where(ends, bursts, 0), np.where(ends, 0, -1))
    return job_of(tiles(*rows), 3 * np.arange(len(rows)), written)


def test_rows_are_numbered_as_they_come_first() -> None:
    own = [row for row in (7, 7, 5, 9, 5) for _ in range(3)]
    program = tiles(7, 7, 5, 9, 5)
    assert program[:, P_ROW].tolist() == own
    assert renamed_rows(program, 2, 10)[::3, P_ROW].tolist() == [2, 2, 3, 4, 3]
    assert renamed_rows(program, 5, 10)[::3, P_ROW].tolist() == [5, 5, 6, 7, 6]
    others = np.delete(np.arange(N_INSTRUCTION), P_ROW)
    assert np.array_equal(renamed_rows(program, 2, 10)[:, others], program[:, others])
    assert program[:, P_ROW].tolist() == own
    # rows of writes below, rows of streams above
    assert np.array_equal(renamed_rows(program, 6, 10), program)
    assert np.array_equal(renamed_rows(program, 2, 9), program)
    assert len(renamed_rows(program[:0], 2, 10)) == 0


def test_a_program_is_known_by_which_rows_are_the_same() -> None:
    probe = Probe(PROBE.memory, load_pim("neupims").config)
    one, other = (probe.programs.renamed(job(*rows)) for rows in ((700, 700, 500), (31, 31, 900)))
    first, beside = probe.programs.alone(one), probe.programs.beside(one, 64)
    assert probe.programs.alone(other) is first
    assert probe.programs.beside(other, 64) is beside
    assert probe.programs.beside(other, 128) is not beside
    assert probe.programs.stall(other) is probe.programs.stall(one)
    third = probe.programs.renamed(job(700, 600, 500))
    apart = probe.programs.alone(third)
    assert apart is not first
    assert apart.ticks.sum() > first.ticks.sum()  # one more row to open
    apart_beside = probe.programs.beside(third, 64)
    for found, slowed, rows in (
        (first, beside, (31, 31, 900)), (apart, apart_beside, (5, 6, 7)),
    ):  # fmt: skip
        fresh = Probe(PROBE.memory, probe.pim)
        ticks, counts, *_ = fresh.programs.quiet._run_job(job(*rows))
        ticks_beside, _, reads, *_ = fresh.programs._run_job(job(*rows), 64)
        assert np.array_equal(found.ticks, ticks)
        assert np.array_equal(found.counts, counts)
        assert np.array_equal(slowed.ticks, ticks_beside)
        assert np.array_equal(slowed.reads, reads)


def test_rows_that_writes_or_streams_may_be_in_are_left_as_they_are() -> None:
    probe = Probe(PROBE.memory, load_pim("neupims").config)
    org = probe.memory.organization
    per_row = org.columns * org.banks * org.ranks
    low, high = job(1, 1, 2, bursts=per_row // 3), job(org.rows // 2 - 1, org.rows // 2)
    assert probe.programs.renamed(low).program[::3, P_ROW].tolist() == [1, 1, 2]
    lower = job(1, 1, 2, bursts=per_row // 3 + 1)  # its last write is in row 1
    assert probe.programs.renamed(lower).program[::3, P_ROW].tolist() == [1, 1, 2]
    above = job(9, 9, 4, bursts=per_row // 3 + 1)
    assert probe.programs.renamed(above).program[::3, P_ROW].tolist() == [2, 2, 3]
    assert probe.programs.renamed(high).program is high.program
    assert probe.programs.renamed(job(9, 4, bursts=0)).program[::3, P_ROW].tolist() == [0, 1]


# what memories and designs have shown -----------------------------------------------------------
def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, (dict, list)) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def changed(config: Any, path: Sequence[Any]) -> Any:
    """``config`` with another value at ``path``, whether it makes sense or not."""
    if not path:
        return 12345 if config != 12345 else 54321
    if isinstance(config, dict):
        return {**config, path[0]: changed(config[path[0]], path[1:])}
    if isinstance(config, (tuple, list)):
        return (*config[: path[0]], changed(config[path[0]], path[1:]), *config[path[0] + 1 :])
    return config.model_copy(update={path[0]: changed(getattr(config, path[0]), path[1:])})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_probes_and_calibrations_are_known_by_each_value_of_memory_and_design(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bare:
        nbytes = 0

        def __init__(self, memory: MemoryConfig, pim: PimConfig | None) -> None:
            self.memory, self.pim = memory, pim

    monkeypatch.setattr(calibration, "Probe", Bare)
    monkeypatch.setattr(calibration, "calibrate", lambda probe: False)
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "/nowhere")
    calibration._probes.clear()
    pairs: list[tuple[Any, Any]] = [(MEMORY, PIM), (MEMORY, None)]
    pairs += [(changed(MEMORY, at), PIM) for at in leaves(MEMORY.model_dump())]
    pairs += [(MEMORY, changed(PIM, at)) for at in leaves(PIM.model_dump())]
    assert len(pairs) > 80
    found = [calibration.probe_of(memory, pim) for memory, pim in pairs]
    assert len({id(probe) for probe in found}) == len(pairs)
    assert [calibration.probe_of(memory, pim) for memory, pim in pairs] == found
    assert len({calibration_file(probe) for probe in found}) == len(pairs)
    calibration._probes.clear()


# experts ----------------------------------------------------------------------------------------
def test_times_of_experts_are_known_by_each_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        expert_costs, "gemv_time",
        lambda shape, memory, pim, written: (shape, memory.name, pim.name, written),
    )  # fmt: skip
    costs = ExpertCosts(NEUPIMS.npu, MEMORY, PIM)
    shape = GemvShape.of(256, 512, MEMORY, PIM, 2)
    asked = [(shape, 0), (shape, 1)]
    asked += [(one, 0) for _, one in one_field_changed(shape, lambda _, now: now + 1)]
    found: list[Any] = [costs._time(*each) for each in (*asked, *asked)]
    assert found == [(one, MEMORY.name, PIM.name, written) for one, written in (*asked, *asked)]
