"""Loops in PIM programs: the kernel issues what the written out program says, cycle by cycle."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import (
    INFINITY,
    N_INSTRUCTION,
    P_LOOP,
    P_MARK,
    P_OP,
    P_READY,
    P_READY_STEP,
    P_RING,
    P_RING_ROWS,
    P_ROUNDS,
    P_ROW,
    P_ROW_STEP,
)
from pimsim.hardware.dram.pim_program import (
    instructions,
    issue_order,
    loop,
    loop_starts,
    written_out,
)
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Stream
from pimsim.hardware.pim.gemv import emit, emit_dot

Ints = NDArray[np.int64]


def body(comps: int, reads: int, mark: int, row: int = 5, composite: bool = True) -> Ints:
    """A tile."""
    one = [emit(Command.HEADER, row, comps * reads, reads)]
    for read in range(reads):
        one += emit_dot(composite, row, comps, mark, int(read == reads - 1))
    return np.array(one, dtype=np.int64)


def source(row: int, ring: tuple[int, int] = (0, 0)) -> Ints:
    """A GWRITE."""
    found = np.array([emit(Command.GWRITE, row)], dtype=np.int64)
    found[:, [P_RING, P_RING_ROWS]] = ring
    return found


def test_a_loop_written_out_by_hand() -> None:
    both = np.concatenate([source(12, (10, 4)), body(8, 1, 3, row=20)])
    both[:, P_READY], both[:, P_READY_STEP] = [0, 1, 2], 3
    program = np.concatenate([source(2), loop(both, 3, 2), body(8, 1, 1, row=9)])
    assert instructions(program) == 1 + 9 + 2 and len(program) == 6
    assert loop_starts(program).tolist() == [True, True, False, False, True, True]
    found = written_out(program)
    assert found[:, P_ROW].tolist() == [2, 12, 20, 20, 10, 22, 22, 12, 24, 24, 9, 9]
    assert found[1:10, P_READY].tolist() == list(range(9))
    assert found[:, P_MARK].tolist() == [-1, -1, -1, 3] + [-1, -1, 3] * 2 + [-1, 1]
    assert found[:, P_ROUNDS].tolist() == [1] * 12
    assert not found[:, [P_LOOP, P_ROW_STEP, P_READY_STEP, P_RING, P_RING_ROWS]].any()
    assert found[:, P_OP].tolist() == program[[0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5], P_OP].tolist()


def test_a_long_loop_stays_but_for_its_ends() -> None:
    tile = body(8, 1, 3, row=20)
    both = np.concatenate([source(12, (10, 4)), tile])
    both[:, P_READY], both[:, P_READY_STEP] = [0, 1, 2], 3
    program = np.concatenate([loop(both, 9, 2), loop(tile, 4, 1)])
    found = written_out(program, 4)
    assert len(found) == 3 * 3 + 4 * 2
    assert found[:, P_ROUNDS].tolist() == [1, 1, 1, 7, 7, 7, 1, 1, 1] + [1] * 8
    assert found[:, P_LOOP].tolist() == [0, 0, 0, 0, 0, 3] + [0] * 11
    assert found[:9, P_ROW].tolist() == [12, 20, 20, 10, 22, 22, 12, 36, 36]
    assert found[:9, P_READY].tolist() == [0, 1, 2, 3, 4, 5, 24, 25, 26]
    assert written_out(found).tolist() == written_out(program).tolist()
    assert written_out(program, 9).tolist() == written_out(program).tolist()
    assert issue_order(program).tolist() == [0, 1, 2] * 9 + [3, 4] * 4


def test_loops_of_no_and_of_one_round_are_none() -> None:
    one = body(8, 1, 0)
    assert len(loop(one, 0, 1)) == 0
    assert loop(one, 1, 7).tolist() == one.tolist()
    assert written_out(one).tolist() == one.tolist()
    assert not one[:, P_LOOP].any(), "the body itself stays as it was"
    empty = np.zeros((0, N_INSTRUCTION), np.int64)
    assert instructions(empty) == 0 and len(written_out(empty)) == 0


@cache
def configs(pim: str) -> tuple[MemoryConfig, PimConfig]:
    memory = load_memory("hbm2-neupims", ["organization.channels=2"]).config
    return memory, load_pim(pim, ["composite_gemv=" + str(pim == "neupims")]).config


def run(
    pim: str, programs: list[Ints], marks: int, streams: list[Stream]
) -> tuple[list[list[int]], list[int], list[list[int]]]:
    """The log of commands, the cycle of each mark, and the counters."""
    system = MemorySystem(*configs(pim), log_entries=200_000)
    group = system.submit_pim(7, programs, marks)
    if streams:
        system.submit(0, streams)
    while system.active:
        system.advance(INFINITY)
    logged = int(system.board["logged"][0])
    first, last = group.marks
    return (
        system.board["log"][0, :logged].tolist(),
        system.board["ticket"][0, first:last, 1].tolist(),
        system.channels["counter"].tolist(),
    )


parts = st.one_of(
    st.tuples(st.just("source"), st.integers(0, 40), st.integers(0, 3), st.just(1)),
    st.tuples(
        st.just("tiles"), st.integers(1, 16), st.integers(1, 4),
        st.sampled_from([1, 2, 3, 17, 60]),
    ),
    st.tuples(
        st.just("both"), st.integers(1, 16), st.integers(1, 4), st.sampled_from([1, 2, 9, 40]),
    ),
)  # fmt: skip


@pytest.mark.parametrize("pim", ["neupims", "newton"])
@settings(max_examples=15, deadline=None)
@given(
    found=st.lists(parts, min_size=1, max_size=6), step=st.integers(0, 3), busy=st.booleans(),
    ready=st.booleans(),
)  # fmt: skip
def test_a_program_with_loops_is_issued_as_if_written_out(
    pim: str, found: list[tuple[str, int, int, int]], step: int, busy: bool, ready: bool
) -> None:
    """Beside streams and across refreshes, offered at once or over time."""
    composite = pim == "neupims"
    program = []
    for number, (kind, one, other, rounds) in enumerate(found):
        if kind == "source":
            program.append(source(one))
            continue
        tile = body(one, other, number % 3, row=50 * number, composite=composite)
        if kind == "both":
            tile = np.concatenate([source(902 + number % 4, (900, 6)), tile])
        if ready:
            tile[:, P_READY], tile[:, P_READY_STEP] = 13 * number, 11
        program.append(loop(tile, rounds, step))
    whole = np.concatenate(program)
    programs = [whole, whole[: len(program[0])]]
    streams = [Stream(0, 4000), Stream(9000, 500, write=True)] if busy else []
    compact = run(pim, programs, 3, streams)
    assert compact == run(pim, [written_out(each) for each in programs], 3, streams)
    commands = np.array(compact[0])[:, 2]
    sources = int((written_out(whole)[:, P_OP] == int(Command.GWRITE)).sum())
    assert (commands == int(Command.GWRITE)).sum() >= sources
