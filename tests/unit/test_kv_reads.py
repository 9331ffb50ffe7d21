"""Where the NPU finds keys and values: what was written is what is read, in either layout."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from pimsim.config.loader import load_run
from pimsim.hardware.dram.system import Scatter, Stream
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.kv import append_scatters, value_scatters
from pimsim.mapping.kv_reads import BankedKv, KvReads, LinearKv

NEUPIMS = load_run("neupims").config
MEMORY, PIM = NEUPIMS.memory, NEUPIMS.pim


def shape_of(heads: int, kv_heads: int, dim: int) -> AttentionShape:
    assert PIM is not None
    return AttentionShape.of(heads, kv_heads, dim, MEMORY, PIM, 2, dim)


def places(scatters: Sequence[Scatter]) -> set[tuple[int, int]]:
    """Channel and place in it of each burst."""
    return {(s.channel, s.first + at * s.stride) for s in scatters for at in range(s.count)}


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 128), (8, 1, 64), (16, 8, 128)])
@pytest.mark.parametrize("tokens", [32, 160, 512, 1024])
def test_what_is_read_of_the_banks_is_what_was_written(
    heads: int, kv_heads: int, dim: int, tokens: int
) -> None:
    shape = shape_of(heads, kv_heads, dim)
    rows = KvRows.from_row(40, shape.kv_sections, 2048)
    written = append_scatters(shape, [rows], [3], [tokens], [tokens], [None], MEMORY, 2)
    kv = BankedKv(shape, rows, 3, Fraction(4 * dim), MEMORY, 2)
    read = [s for head in range(kv_heads) for s in kv.scatters(head, range(tokens))]
    assert not any(s.write for s in read)
    assert places(read) == places(written)
    # heads that share a burst read it each
    assert sum(s.count for s in read) >= len(places(read))


def test_pieces_read_what_the_whole_does() -> None:
    shape = shape_of(4, 4, 128)
    rows = KvRows.from_row(0, shape.kv_sections, 2048)
    kv = BankedKv(shape, rows, 0, Fraction(512), MEMORY, 2)
    whole = places(kv.scatters(2, range(1200)))
    parts = [kv.scatters(2, range(at, min(at + 512, 1200))) for at in range(0, 1200, 512)]
    assert set().union(*map(places, parts)) == whole


def test_a_ring_is_read_where_it_was_written() -> None:
    shape, window = shape_of(4, 4, 128), 256
    rows = KvRows.from_row(0, shape.kv_sections, window)
    kv = BankedKv(shape, rows, 0, Fraction(512), MEMORY, 2, window)
    written = append_scatters(shape, [rows], [0], [608], [256], [window], MEMORY, 2)
    read = [s for head in range(4) for s in kv.scatters(head, range(352, 608))]
    assert places(read) == places(written)


def test_a_linear_cache_is_read_head_by_head() -> None:
    kv = LinearKv(100, 10, Fraction(48), 64)
    (stream,) = kv.loads(2, range(3, 7))
    begin, end = (2 * 10 + 3) * 48, (2 * 10 + 7) * 48
    assert isinstance(stream, Stream)
    assert stream.first_burst == 100 + begin // 64
    assert stream.bursts == -(-end // 64) - begin // 64
    assert not kv.scatters(2, range(3, 7))


def test_cached_keys_come_from_the_cache_and_new_ones_from_where_they_were_made() -> None:
    cached, new = LinearKv(0, 20, Fraction(64), 64), LinearKv(1000, 8, Fraction(32), 64)
    reads = KvReads(20, cached, new)
    assert reads.stored(range(16, 24)) == ((16, 20, Fraction(64)), (20, 24, Fraction(32)))
    assert reads.stored_bytes(range(16, 24)) == 4 * 64 + 4 * 32
    first, second = reads.loads(1, range(16, 24))
    assert isinstance(first, Stream)
    assert isinstance(second, Stream)
    assert (first.first_burst, first.bursts) == (36, 4)
    assert (second.first_burst, second.bursts) == (1000 + 4, 2)
    on_chip = KvReads(20, cached, None)
    assert on_chip.stored(range(16, 24)) == ((16, 20, Fraction(64)),)
    assert len(on_chip.loads(1, range(20, 24))) == 0


@pytest.mark.parametrize("dim", [80, 32, 16, 576])
def test_values_fill_no_more_banks_than_they_have_elements(dim: int) -> None:
    """A head of 80 elements in 32 banks: two tiles of 32 and one of 16."""
    shape = shape_of(2, 2, dim)
    rows = KvRows.from_row(0, shape.kv_sections, 64)
    found = value_scatters(shape, rows, 0, 31, MEMORY, 2)
    tiles = [min(32, dim - first) for first in range(0, dim, 32)]
    assert [s.count for s in found] == 2 * tiles
    assert len(places(found)) == 2 * dim


@pytest.mark.parametrize("ring", [64, 83, 96, None])
def test_values_are_written_when_a_burst_is_full_or_the_ring_is(ring: int | None) -> None:
    shape = shape_of(2, 2, 32)
    rows = KvRows.from_row(0, shape.kv_sections, 128)
    full = MEMORY.organization.burst_bytes // 2
    written = [
        at for at in range(ring or 100)
        if value_scatters(shape, rows, 0, at, MEMORY, 2, ring)
    ]  # fmt: skip
    ends = set(range(full - 1, ring or 100, full)) | ({ring - 1} if ring else set())
    assert written == sorted(ends)
