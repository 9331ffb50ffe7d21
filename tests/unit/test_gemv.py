"""A matrix in the banks: every element is multiplied once, rows are dealt evenly."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.dram.layout import P_COMPS, P_MARK, P_OP, P_READS, P_ROW
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.gemv import GemvShape, gemv_program
from pimsim.hardware.pim.gemv_time import _programs, gemv_time

MEMORY = load_memory("hbm2-neupims").config
PIM = load_pim("neupims").config
BANKS, ROW, LANES = 32, 512, 16

shapes = st.builds(
    GemvShape, st.integers(1, 1500), st.integers(1, 2500), st.just(BANKS), st.just(ROW),
    st.just(LANES),
)  # fmt: skip


def program(shape: GemvShape, run: tuple[int, int], composite: bool = True) -> np.ndarray:
    chunks = shape.chunks_of(run)
    return written_out(gemv_program(shape, run, 1000, list(chunks), 0, composite))


@given(shapes, st.integers(1, 40))
def test_channels_share_all_rows_and_no_two_the_same(shape: GemvShape, channels: int) -> None:
    runs = [shape.share(channel, channels) for channel in range(channels)]
    assert runs[0][0] == 0
    assert runs[-1][1] == shape.rows
    assert all(end == start for (_, end), (start, _) in pairwise(runs))
    sizes = [end - start for start, end in runs]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == shape.rows_per_channel(channels)


@given(shapes, st.integers(1, 40), st.booleans())
def test_every_tile_meets_every_chunk_once(
    shape: GemvShape, channels: int, composite: bool
) -> None:
    columns = results = 0
    chunk_of: Counter[int] = Counter()
    for channel in range(channels):
        run = shape.share(channel, channels)
        found = program(shape, run, composite)
        headers = found[found[:, P_OP] == int(Command.HEADER)]
        assert sorted(headers[:, P_ROW]) == list(range(1000, 1000 + run[1] - run[0]))
        dots = found[np.isin(found[:, P_OP], [int(Command.COMP), int(Command.GEMV)])]
        columns += int(dots[:, P_COMPS].sum())
        assert int(headers[:, P_COMPS].sum()) == int(dots[:, P_COMPS].sum())
        results += int((found[:, P_MARK] == 0).sum())
        assert int(headers[:, P_READS].sum()) == int((found[:, P_MARK] == 0).sum())
        sources = found[found[:, P_OP] == int(Command.GWRITE)][:, P_ROW]
        assert list(sources) == list(shape.chunks_of(run))
        chunk_of.update(sources.tolist())
    assert results == shape.tiles * shape.chunks
    # a column holds 16 elements of a matrix row in each of 32 banks
    full, left = divmod(shape.k, ROW)
    assert columns == shape.tiles * (full * ROW // LANES + -(-left // LANES))
    assert columns * LANES * BANKS >= shape.n * shape.k
    assert set(chunk_of) == set(range(shape.chunks))


@given(shapes)
def test_a_row_never_holds_more_than_it_has(shape: GemvShape) -> None:
    found = program(shape, (0, shape.rows))
    headers = found[found[:, P_OP] == int(Command.HEADER)]
    assert headers[:, P_COMPS].max() <= ROW // LANES
    assert all(shape.chunk_elements(chunk) <= ROW for chunk in range(shape.chunks))


def test_short_chunks_share_rows() -> None:
    latent = GemvShape(n=8 * BANKS, k=ROW + 64, banks=BANKS, row_elements=ROW, elements_per_comp=16)
    assert latent.chunks == 2
    assert latent.tiles_per_row == ROW // 64
    assert latent.rows == 8 + 1


def test_a_longer_vector_takes_longer() -> None:
    org = MEMORY.organization
    tile = org.channels * BANKS
    times = [
        gemv_time(GemvShape.of(4 * tile, k, MEMORY, PIM, 2), MEMORY, PIM)
        for k in (ROW, 2 * ROW, 4 * ROW)
    ]
    alone = [time.alone_cycles for time in times]
    assert alone[0] < alone[1] < alone[2]
    # rows follow one another: no more than a row's time each, and a GWRITE
    assert alone[2] < 4.2 * alone[0]
    # a row's dot products alone, one column a tCCD_S
    assert alone[0] >= 4 * ROW // LANES * max(MEMORY.timings["nBL"], MEMORY.timings["tCCD_S"])
    for time in times:
        assert time.beside_cycles >= time.alone_cycles
        assert 0 < time.stream_bursts < time.stream_alone_bursts


def test_no_vector_lies_in_a_matrix_or_in_the_vector_before() -> None:
    org = MEMORY.organization
    shape = GemvShape.of(4 * org.channels * BANKS, 2 * ROW, MEMORY, PIM, 2)
    for program in map(written_out, _programs(shape, MEMORY, PIM, 4)):
        of_vector = program[:, P_OP] == int(Command.GWRITE)
        of_matrix = program[:, P_OP] == int(Command.GEMV)
        vectors, matrices = (set(program[each, P_ROW].tolist()) for each in (of_vector, of_matrix))
        assert vectors and matrices and not vectors & matrices
        # one of two vectors in turn, each matrix in rows of its own
        assert len(matrices) >= 4 * len(vectors) / 2


def test_a_single_row_buffer_leaves_a_stream_less() -> None:
    shape = GemvShape.of(384, 2048, MEMORY, PIM, 2)
    dual = gemv_time(shape, MEMORY, PIM)
    single = gemv_time(shape, MEMORY, load_pim("newton").config)
    assert single.stream_bursts * dual.stream_alone_bursts < (
        dual.stream_bursts * single.stream_alone_bursts
    )


def test_writing_results_costs_the_stream_more() -> None:
    shape = GemvShape.of(384, 2048, MEMORY, PIM, 2)
    quiet, written = (gemv_time(shape, MEMORY, PIM, bursts) for bursts in (0, 384))
    share = [time.stream_bursts / time.stream_alone_bursts for time in (quiet, written)]
    assert share[1] < share[0]


def test_columns_wider_than_a_row_are_refused() -> None:
    wide = PIM.model_copy(update={"elements_per_comp": 1024})
    with pytest.raises(InputError, match=r"elements_per_comp is 1024 .* at most 32"):
        GemvShape.of(8, 8, MEMORY, wide, 2)
