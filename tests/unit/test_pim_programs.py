"""Attention as PIM commands: how many, on which rows, whose results."""

from __future__ import annotations

from itertools import count as count_up
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.dram.layout import (
    P_COMPS,
    P_LAST,
    P_MARK,
    P_OP,
    P_READS,
    P_READY,
    P_ROW,
)
from pimsim.hardware.dram.pim_program import instructions, written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim import programs
from pimsim.hardware.pim.kv_layout import KvRows, RowRuns
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.reproductions.front_ends.neupims_shared import FrontEnd

MEMORY = load_memory("hbm2-neupims").config
PIM = load_pim("neupims").config
WRAP = (0, 64)
Program = NDArray[np.int64]

SHAPES = {
    "mha": (8, 8, 128),
    "mha-narrow": (6, 6, 64),
    "gqa": (8, 2, 128),
    "mqa": (5, 1, 128),
    "wide": (2, 2, 512),
    "odd": (3, 3, 80),
}
"""Query heads, KV heads, head dimension."""
TILES_PER_ROW = {"gqa": 2, "mqa": 4, "odd": 2}
"""Tiles of keys that share a row of 512 elements; each has one to itself otherwise."""


def shape_of(name: str) -> AttentionShape:
    return AttentionShape.of(*SHAPES[name], MEMORY, PIM, 2)


def rows_at(shape: AttentionShape, first: int, context: int) -> KvRows:
    return KvRows.from_row(first, shape.kv_sections, context)


def score_program(*arguments: Any) -> Program:
    """Of every instruction that is issued."""
    return written_out(programs.score_program(*arguments))


def value_program(*arguments: Any) -> Program:
    """Of every instruction that is issued."""
    return written_out(programs.value_program(*arguments))


def up(amount: int, unit: int) -> int:
    return -(-amount // unit)


def count(program: Program, command: Command) -> int:
    return int((program[:, P_OP] == int(command)).sum())


def rows_of(program: Program, command: Command) -> list[int]:
    return [int(row) for row in program[program[:, P_OP] == int(command), P_ROW]]


shapes = st.sampled_from(sorted(SHAPES))
contexts = st.integers(1, 2000) | st.integers(1, 5).map(lambda rows: rows * 512)
"""Whole rows of values among them."""


def test_a_row_holds_whole_heads() -> None:
    row = MEMORY.organization.row_bytes // 2
    assert shape_of("mha").heads_per_row == row // 128
    assert shape_of("odd").heads_per_row == row // 80
    assert shape_of("wide").heads_per_row == 1


def test_a_head_wider_than_a_row_takes_several() -> None:
    row = MEMORY.organization.row_bytes // 2
    narrow, wide = (AttentionShape.of(1, 1, dim, MEMORY, PIM, 2) for dim in (row, row + 1))
    assert not narrow.is_wide and wide.is_wide
    assert wide.key_rows(1) == narrow.key_rows(1) + 1


def test_query_heads_that_no_key_heads_share_are_refused() -> None:
    with pytest.raises(InputError, match="heads must be a multiple of kv_heads"):
        AttentionShape.of(3, 2, 64, MEMORY, PIM, 2)


# scores -------------------------------------------------------------------------------------


@given(shapes, contexts)
def test_commands_of_scores(name: str, context: int) -> None:
    shape = shape_of(name)
    group, tiles = shape.heads // shape.kv_heads, up(context, shape.banks)
    program = score_program(shape, context, rows_at(shape, 100, context), 0, 0, True, WRAP)
    # the query's slice of each chunk, once for each member of a group
    assert count(program, Command.GWRITE) == len(shape.key_pieces) * group
    shared = TILES_PER_ROW.get(name, 1)
    assert count(program, Command.HEADER) == len(shape.key_pieces) * group * up(tiles, shared)
    assert count(program, Command.GEMV) == shape.heads * tiles
    dots = program[program[:, P_OP] == int(Command.GEMV), P_COMPS]
    assert set(dots) == {up(shape.head_dim, shape.elements_per_comp)}


@given(shapes, contexts)
def test_a_header_announces_what_follows_it(name: str, context: int) -> None:
    for program in (
        make(shape_of(name), context, rows_at(shape_of(name), 0, context), 0, 0, True, WRAP)
        for make in (score_program, value_program)
    ):
        headers = np.flatnonzero(program[:, P_OP] == int(Command.HEADER))
        for at in headers:
            reads = int(program[at, P_READS])
            tile = program[at + 1 : at + 1 + reads]
            assert set(tile[:, P_OP]) == {int(Command.GEMV)}
            assert set(tile[:, P_ROW]) == {program[at, P_ROW]}
            assert tile[:, P_LAST].tolist() == [0] * (reads - 1) + [1]
            assert program[at, P_COMPS] >= tile[:, P_COMPS].sum()
        assert program[headers, P_READS].sum() == count(program, Command.GEMV)


@given(shapes, contexts)
def test_each_key_row_is_visited_once_by_each_member_of_a_group(name: str, context: int) -> None:
    shape = shape_of(name)
    first = 1000
    program = score_program(shape, context, rows_at(shape, first, context), 0, 0, True, WRAP)
    visited = rows_of(program, Command.HEADER)
    rows = range(first, first + shape.key_rows(context))
    assert sorted(visited) == sorted([*rows] * (shape.heads // shape.kv_heads))


def test_tokens_whose_keys_leave_room_in_a_row_share_it() -> None:
    """One key head of 128 in rows of 512: four tiles a row, the last row of six tiles holds two."""
    shape = shape_of("mqa")
    assert (shape.key_rows(6 * shape.banks), shape.key_rows(8 * shape.banks + 1)) == (2, 3)
    program = score_program(
        shape, 6 * shape.banks, rows_at(shape, 100, 6 * shape.banks), 0, 0, True, WRAP
    )
    headers = program[program[:, P_OP] == int(Command.HEADER)]
    assert headers[:, [P_ROW, P_COMPS, P_READS]].tolist() == [[100, 32, 4], [101, 16, 2]] * 5
    dots = program[program[:, P_OP] == int(Command.GEMV)]
    assert dots[:, P_LAST].tolist() == [0, 0, 0, 1, 0, 1] * 5
    assert dots[:, P_MARK].tolist() == [head for head in range(5) for _ in range(6)]


def test_a_narrower_type_shares_rows_among_more_tokens() -> None:
    wide, narrow = (AttentionShape.of(8, 1, 128, MEMORY, PIM, width) for width in (2, 1))
    context = 16 * wide.banks
    assert (wide.key_rows(context), narrow.key_rows(context)) == (4, 2)
    comps = [
        score_program(shape, context, rows_at(shape, 0, context), 0, 0, True, WRAP)
        for shape in (wide, narrow)
    ]
    announced = [
        set(each[each[:, P_OP] == int(Command.HEADER), P_COMPS].tolist()) for each in comps
    ]
    assert announced == [{32}, {64}]  # dot products of a row's activation


def test_a_design_may_leave_the_rest_of_a_row_empty() -> None:
    own = PIM.model_copy(update={"keys_share_rows": False})
    for heads, dim in ((1, 128), (1, 576)):
        shape = AttentionShape.of(8, heads, dim, MEMORY, own, 2)
        assert shape.key_rows(6 * shape.banks) == 6 * up(dim, 512)


# values -------------------------------------------------------------------------------------


@given(shapes, contexts)
def test_commands_of_values(name: str, context: int) -> None:
    shape = shape_of(name)
    chunks, tiles = up(context, shape.row_elements), up(shape.head_dim, shape.banks)
    program = value_program(shape, context, rows_at(shape, 100, context), 0, 0, True, WRAP)
    assert count(program, Command.GWRITE) == shape.heads * chunks
    assert count(program, Command.HEADER) == shape.heads * chunks * tiles
    assert count(program, Command.GEMV) == shape.heads * chunks * tiles
    dots = program[program[:, P_OP] == int(Command.GEMV), P_COMPS]
    whole, rest = divmod(context, shape.row_elements)
    each = whole * up(shape.row_elements, shape.elements_per_comp)
    each += up(rest, shape.elements_per_comp)
    assert dots.sum() == shape.heads * tiles * each


@given(shapes, contexts)
def test_each_value_row_is_visited_once_by_each_member_of_a_group(name: str, context: int) -> None:
    shape = shape_of(name)
    first = 1000
    places = rows_at(shape, first, context)
    program = value_program(shape, context, places, 0, 0, True, WRAP)
    first += shape.key_rows(context)
    rows = range(first, first + shape.value_rows(context))
    assert sorted(rows_of(program, Command.HEADER)) == sorted(
        [*rows] * (shape.heads // shape.kv_heads)
    )


# results ------------------------------------------------------------------------------------


@given(shapes, contexts, st.integers(0, 50))
def test_every_head_gets_its_results_and_no_other(name: str, context: int, first: int) -> None:
    shape = shape_of(name)
    tiles = up(context, shape.banks)
    rows = rows_at(shape, 0, context)
    score = score_program(shape, context, rows, 0, first, True, WRAP)
    marks = score[score[:, P_MARK] >= 0, P_MARK]
    assert np.bincount(marks - first).tolist() == [tiles] * shape.heads
    parts = up(context, shape.row_elements) * up(shape.head_dim, shape.banks)
    value = value_program(shape, context, rows, 0, first, True, WRAP)
    marks = value[value[:, P_MARK] >= 0, P_MARK]
    assert np.bincount(marks - first).tolist() == [parts] * shape.heads


@given(shapes, contexts)
def test_without_the_composite_command_the_same_work_takes_two(name: str, context: int) -> None:
    rows = rows_at(shape_of(name), 0, context)
    for make in (score_program, value_program):
        one = make(shape_of(name), context, rows, 0, 0, True, WRAP)
        two = make(shape_of(name), context, rows, 0, 0, False, WRAP)
        assert count(two, Command.GEMV) == 0
        assert count(two, Command.COMP) == count(two, Command.READRES) == count(one, Command.GEMV)
        gemv = one[:, P_OP] == int(Command.GEMV)
        comp, read = two[:, P_OP] == int(Command.COMP), two[:, P_OP] == int(Command.READRES)
        assert two[comp, P_COMPS].tolist() == one[gemv, P_COMPS].tolist()
        assert two[read, P_MARK].tolist() == one[gemv, P_MARK].tolist()
        assert (two[comp, P_MARK] == -1).all()


def test_sources_of_gwrite_come_in_turn() -> None:
    first, most = WRAP[0] + 7, 3
    shape = shape_of("mha")
    program = value_program(shape, 600, rows_at(shape, 100, 600), first, 0, True, (first, most))
    rows = rows_of(program, Command.GWRITE)
    assert rows == [first + at % most for at in range(len(rows))]
    assert len(rows) > most


# loops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("composite", [True, False])
def test_a_program_is_as_long_for_any_context(name: str, composite: bool) -> None:
    shape = shape_of(name)
    for make in (programs.score_program, programs.value_program):
        short, long = (
            make(shape, context, rows_at(shape, 0, context), 0, 0, composite, WRAP)
            for context in (4096, 1 << 20)
        )
        assert len(short) == len(long) < 300
        assert instructions(long) > 200 * instructions(short)


def runs_of(count: int, lengths: list[int], gap: int) -> RowRuns:
    """So many rows in runs of ``lengths``, in turn, which lie apart and from high to low."""
    runs, left = [], count
    for at in count_up():
        if left <= 0:
            return RowRuns.of(runs)
        length = min(lengths[at % len(lengths)], left)
        runs.append((10_000 - at * (max(lengths) + gap), length))
        left -= length
    raise AssertionError


@given(shapes, contexts, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.booleans())
def test_rows_of_a_cache_in_pieces_are_those_that_it_has(
    name: str, context: int, lengths: list[int], composite: bool
) -> None:
    """The same program, with the row that the cache has where it counts from 0."""
    shape, sections = shape_of(name), shape_of(name).kv_sections
    pieces = KvRows(*(runs_of(part.rows(context), lengths, 1) for part in sections))
    for make, places in (
        (score_program, [*pieces.keys.rows(), *pieces.shared_keys.rows()]),
        (value_program, [*pieces.values.rows()]),
    ):
        found = make(shape, context, pieces, 3, 0, composite, WRAP)
        whole = make(shape, context, KvRows.from_row(0, sections, context), 3, 0, composite, WRAP)
        first = 0 if make is score_program else shape.key_rows(context)
        computing = whole[:, P_OP] != int(Command.GWRITE)
        whole[computing, P_ROW] = np.array(places)[whole[computing, P_ROW] - first]
        assert found.tolist() == whole.tolist()


# a front end that feeds one instruction a cycle ---------------------------------------------


@pytest.mark.parametrize("composite", [True, False])
def test_the_front_end_counts_all_rounds_of_a_loop(composite: bool) -> None:
    shape = shape_of("gqa")
    given = [
        make(shape, context, rows_at(shape, 0, context), 0, 0, composite, WRAP)
        for context in (700, 2000)
        for make in (programs.score_program, programs.value_program)
    ]
    issued = [written_out(program) for program in given]
    FrontEnd().release(given)
    FrontEnd().release(issued)
    assert sum(map(len, given)) < sum(map(len, issued)) / 3
    for compact, plain in zip(given, issued, strict=True):
        assert written_out(compact).tolist() == plain.tolist()


def test_the_front_end_walks_one_request_after_the_other() -> None:
    shape = shape_of("mha")
    programs = [
        score_program(shape, context, rows_at(shape, 0, context), 0, 0, False, WRAP)
        for context in (64, 33, 7)
    ]
    FrontEnd().release(programs)
    at = 0
    for program in programs:
        for instruction in program:
            assert instruction[P_READY] == at
            at += instruction[P_COMPS] if instruction[P_OP] == int(Command.COMP) else 1


def test_composite_commands_take_the_front_end_one_cycle_each() -> None:
    shape = shape_of("mha")
    program = score_program(shape, 64, rows_at(shape, 0, 64), 0, 0, True, WRAP)
    FrontEnd().release([program])
    assert program[:, P_READY].tolist() == list(range(len(program)))
