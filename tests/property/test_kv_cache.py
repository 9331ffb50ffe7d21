"""Laws of the KV cache: tokens stay where they are, requests apart, rows are kept count of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.transfers import Scatter
from pimsim.hardware.pim.kv_layout import KvRows, RowRuns
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.kv import append_scatters, key_scatters, value_scatters
from pimsim.mapping.kv_cache import (
    KEYS,
    VALUES,
    CacheFullError,
    CacheKind,
    KvCache,
)
from pimsim.mapping.linear_kv import LinearLayout

MEMORY = load_memory("hbm2-neupims").config
ORG = MEMORY.organization
PIM = load_pim("neupims").config
MAP = AddressMap.parse(MEMORY.stream_map, ORG)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[AttentionShape, int]:
    """A shape of attention whose keys fill whole bursts, and the bytes of its elements."""
    width = draw(st.sampled_from([1, 2]))
    kv_heads = draw(st.integers(1, 9))
    dim = draw(st.sampled_from([64, 128, 256, 576, 1088]))
    value = draw(st.sampled_from([dim, 64, 512]))
    design = PIM.model_copy(update={"keys_share_rows": draw(st.booleans())})
    heads = kv_heads * draw(st.integers(1, 3))
    return AttentionShape.of(heads, kv_heads, dim, MEMORY, design, width, value), width


windows = st.none() | st.integers(1, 700)


def cells(scatters: Sequence[Scatter]) -> list[tuple[int, int, int, int]]:
    """Channel, row, bank and column of each burst."""
    found = []
    bit, width = MAP.position["ch"], MAP.width["ch"]
    for one in scatters:
        bursts = one.first + np.arange(one.count) * one.stride
        whole = (bursts >> bit) << (bit + width) | (bursts & ((1 << bit) - 1))
        at = MAP.decode(whole)
        found += [
            (one.channel, *each)
            for each in zip(at.row.tolist(), at.bank.tolist(), at.column.tolist(), strict=True)
        ]
    return found


def rows_of(pages: KvRows) -> list[int]:
    return [row for section in pages.sections for row in section.rows().tolist()]


# where a token lies --------------------------------------------------------------------------


@given(shapes(), st.lists(st.integers(1, 900), min_size=1, max_size=5), st.data())
def test_a_token_s_key_and_value_never_move(
    shape_width: tuple[AttentionShape, int], grows: list[int], data: st.DataObject
) -> None:
    """Whatever comes after it, in this request or another."""
    shape, width = shape_width
    cache = KvCache([CacheKind(shape.kv_sections)], 1, 10**6, first_row=100)
    cache.allocate("other", 40)
    cache.allocate("this", 1)
    token, seen = 0, None
    for more in grows:
        cache.append("this", more)
        cache.append("other", more)
        pages = cache.pages("this")
        if seen is None:
            token = data.draw(st.integers(0, cache.tokens("this") - 1), label="token")
        per_burst = ORG.burst_bytes // width
        filled = token // per_burst * per_burst + per_burst - 1  # the last token of its burst
        now = (
            cells(key_scatters(shape, pages, 0, token, MEMORY, width)),
            cells(value_scatters(shape, pages, 0, filled, MEMORY, width)),
        )
        assert seen in (None, now)
        seen = now


@given(shapes(), windows, st.lists(st.integers(1, 300), min_size=1, max_size=5))
def test_kv_written_and_held_is_what_the_steps_brought(
    shape_width: tuple[AttentionShape, int], window: int | None, steps: list[int]
) -> None:
    """Bytes of keys at once; bytes of values when a burst is full, or the ring of a window ends;
    what does not fill one is on chip, and never as much as a burst."""
    shape, width = shape_width
    cache = KvCache([CacheKind(shape.kv_sections, 1, window)], 1, 10**6)
    cache.allocate(0, 0)
    per_burst = ORG.burst_bytes // width
    turn = window or sum(steps) + 1  # tokens after which a ring begins anew
    token_bursts = {
        "keys": sum(-(-len(p.heads) * p.elements // per_burst) for p in shape.key_pieces),
        "values": shape.kv_heads * shape.value_dim,
    }
    written = 0
    for new in steps:
        cache.append(0, new)
        found = append_scatters(
            shape, [cache.pages(0)], [0], [cache.tokens(0)], [new], [window], MEMORY, width
        )
        places = cells(found)
        mine = set(rows_of(cache.pages(0)))
        assert {row for _, row, _, _ in places} <= mine
        ring = [token % turn + 1 for token in range(cache.tokens(0) - new, cache.tokens(0))]
        fills = [at for at in ring if at % per_burst == 0 or at == window]
        assert len(places) == new * token_bursts["keys"] + len(fills) * token_bursts["values"]
        written += sum(at % per_burst or per_burst for at in fills)
        held = cache.tokens(0) % turn % per_burst
        assert written + held == cache.tokens(0)


@given(shapes(), st.integers(1, 1200))
def test_tokens_share_no_burst_and_no_burst_is_left_out(
    shape_width: tuple[AttentionShape, int], tokens: int
) -> None:
    shape, width = shape_width
    per_burst = ORG.burst_bytes // width
    whole = -(-tokens // per_burst) * per_burst
    pages = KvRows.from_row(7, shape.kv_sections, whole)
    found = append_scatters(shape, [pages], [0], [whole], [whole], [None], MEMORY, width)
    count = Counter(cells(found))
    apart = shape.comps_per_key * shape.elements_per_comp % per_burst == 0
    assert not apart or set(count.values()) == {1}
    # every row that was handed out has a burst of some token in it
    assert {row for _, row, _, _ in count} == set(rows_of(pages))


# the allocator -------------------------------------------------------------------------------

KINDS = [
    CacheKind(AttentionShape.of(8, 8, 128, MEMORY, PIM, 2).kv_sections, 3),
    CacheKind(AttentionShape.of(8, 1, 128, MEMORY, PIM, 2).kv_sections, 2, window=300),
]
FIRST, ROWS, CHANNELS = 50, 1500, 2

steps = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "append", "free"]), st.integers(0, 5), st.integers(0, 900),
    ),
    max_size=40,
)  # fmt: skip


@given(steps)
def test_rows_of_requests_never_overlap_and_are_kept_count_of(
    done: list[tuple[str, int, int]],
) -> None:
    cache = KvCache(KINDS, CHANNELS, ROWS, FIRST)
    tokens: dict[int, int] = {}
    for act, request, amount in done:
        now = tokens.get(request, 0)
        channel = request % CHANNELS
        if act == "free" and request in tokens:
            assert cache.free(request) == tokens.pop(request)
        elif act != "free" and (act == "append") == (request in tokens):
            need = sum(kind.rows(now + amount) - kind.rows(now) for kind in KINDS)
            before = [cache.pages(each, kind) for each in tokens for kind in range(2)]
            fits = need <= cache.free_rows(channel)
            try:
                if act == "append":
                    cache.append(request, amount)
                else:
                    cache.allocate(request, amount, channel)
                assert fits
                tokens[request] = now + amount
            except CacheFullError as error:
                assert not fits
                assert f"request {request} needs {need} rows of channel {channel}" in str(error)
                assert before == [cache.pages(each, kind) for each in tokens for kind in range(2)]
        for c in range(CHANNELS):
            mine = [each for each in tokens if each % CHANNELS == c]
            used = sum(kind.rows(tokens[each]) for each in mine for kind in KINDS)
            assert cache.used_rows(c) == used <= ROWS
            for number, kind in enumerate(KINDS):
                rows = [row for each in mine for row in rows_of(cache.pages(each, number))]
                assert len(rows) == len(set(rows)) == cache.rows_by_channel(number)[c]
                limit = FIRST + ROWS // kind.blocks
                assert all(FIRST <= row < limit for row in rows)
    for request in list(tokens):
        cache.free(request)
    # all is free again, in one piece
    cache.allocate("all", 512 * (ROWS // KINDS[0].rows(512)))
    assert all(len(section.runs) <= 1 for section in cache.pages("all").sections)


@given(st.integers(1, 60))
def test_capacity_is_exact(requests: int) -> None:
    """As many rows as the requests need hold them, one fewer does not."""
    shape = AttentionShape.of(8, 1, 128, MEMORY, PIM, 2)
    kind = CacheKind(shape.kv_sections, 4)
    tokens = [37 * (each + 1) % 1100 + 1 for each in range(requests)]
    rows = sum(kind.rows(each) for each in tokens)
    for have in (rows, rows - 1):
        cache = KvCache([kind], 1, have)
        for number, each in enumerate(tokens[:-1]):
            cache.allocate(number, each)
        if have == rows:
            cache.allocate("last", tokens[-1])
            assert cache.free_rows(0) == 0
        else:
            with pytest.raises(CacheFullError, match="cache of 4 blocks is full: request last"):
                cache.allocate("last", tokens[-1])


def test_rows_that_were_freed_are_used_again_lowest_first() -> None:
    kind = CacheKind(AttentionShape.of(4, 4, 128, MEMORY, PIM, 2).kv_sections)
    cache = KvCache([kind], 1, 100, first_row=10)
    for name in "abc":
        cache.allocate(name, 64)  # two rows of keys, sixteen of values
    assert cache.pages("b").keys == RowRuns(((28, 2),))
    cache.free("a")
    cache.allocate("d", 32)  # one row of keys, sixteen of values
    assert cache.pages("d").sections == (RowRuns(((10, 1),)), RowRuns(), RowRuns(((11, 16),)))
    # the next row of keys is the one that is left of a's; two at once lie behind all, then those
    # that follow them
    cache.append("d", 32)
    assert cache.pages("d").keys == RowRuns(((10, 1), (27, 1)))
    cache.append("d", 64)
    cache.append("d", 32)
    assert cache.pages("d").keys == RowRuns(((10, 1), (27, 1), (64, 3)))


def test_a_section_is_cut_where_no_run_holds_it() -> None:
    kind = CacheKind(AttentionShape.of(4, 4, 128, MEMORY, PIM, 2).kv_sections)
    cache = KvCache([kind], 1, 56)
    for name in "abc":
        cache.allocate(name, 64)
    cache.free("a")
    cache.allocate("d", 128)  # four rows of keys, sixteen of values: all that is left
    assert cache.pages("d").keys == RowRuns(((0, 4),))
    assert cache.pages("d").values == RowRuns(((4, 14), (54, 2)))
    assert cache.free_rows(0) == 0


def test_rows_in_three_runs_are_all_used() -> None:
    kind = CacheKind(AttentionShape.of(4, 4, 128, MEMORY, PIM, 2).kv_sections)
    cache = KvCache([kind], 1, 85)
    for name in "abcde":
        cache.allocate(name, 32)  # one row of keys, sixteen of values
    for name in "ace":
        cache.free(name)
    cache.allocate("f", 600)  # nineteen rows of keys, twice sixteen of values
    assert cache.pages("f").keys == RowRuns(((0, 17), (34, 2)))
    assert cache.pages("f").values == RowRuns(((36, 15), (68, 17)))
    assert cache.free_rows(0) == 0


def test_a_request_is_allocated_once() -> None:
    cache = KvCache(KINDS, 1, ROWS)
    cache.allocate(3, 10)
    with pytest.raises(ValueError, match="request 3 is in the cache already"):
        cache.allocate(3, 10)


# fragmentation -------------------------------------------------------------------------------


def test_use_counts_rows_that_tokens_would_fill() -> None:
    """One key head of 128 elements, values alike, rows of 512 elements in 32 banks: 128 tokens
    fill a row of keys, 512 tokens four rows of values."""
    for shares, rows in ((True, 2), (False, 8)):
        design = PIM.model_copy(update={"keys_share_rows": shares})
        shape = AttentionShape.of(8, 1, 128, MEMORY, design, 2)
        cache = KvCache([CacheKind(shape.kv_sections, 10)], 1, 10**4)
        assert (cache.use().share, cache.fragmentation) == (1.0, 0.0)
        cache.allocate(0, 256)
        keys, values, both = cache.use(KEYS), cache.use(VALUES), cache.use()
        assert (keys.rows, keys.filled) == (10 * rows, 20)
        assert (values.rows, values.filled) == (40, 20)
        assert both.share == (20 + 20) / (10 * rows + 40)
        assert cache.fragmentation == both.fragmentation == 1 - both.share


@given(shapes(), st.integers(1, 3000))
def test_no_rows_hold_more_than_they_have(
    shape_width: tuple[AttentionShape, int], tokens: int
) -> None:
    shape, _ = shape_width
    cache = KvCache([CacheKind(shape.kv_sections)], 1, 10**6)
    cache.allocate(0, tokens)
    row = shape.banks * shape.row_elements
    elements = tokens * shape.kv_heads * (shape.head_dim + shape.value_dim)
    assert cache.use().filled == pytest.approx(elements / row)
    assert all(cache.use(part).share <= 1 + 1e-9 for part in (KEYS, VALUES))


# a cache that the NPU reads in order ---------------------------------------------------------


sizes = st.sampled_from([40, 64, 80, 96, 128, 256, 1152])
layouts = st.builds(LinearLayout, st.integers(1, 9), sizes, st.just(0) | sizes, st.just(64))


@given(layouts, st.integers(1, 900), st.data())
def test_a_linear_cache_gives_the_bursts_of_tokens(
    layout: LinearLayout, tokens: int, data: st.DataObject
) -> None:
    """Whole pages of 16 tokens, or as many as fill whole bursts of 64 bytes."""
    page, heads = layout.page_tokens, layout.kv_heads
    for size, section in (
        (layout.key_bytes, layout.sections.keys), (layout.value_bytes, layout.sections.values)
    ):  # fmt: skip
        assert page * size % 64 == 0
        assert (section.page_tokens, section.page_rows) == (page, heads * page * size // 64)
    assert 16 <= page < 16 + 64
    cache = KvCache([CacheKind(layout.sections)], 1, 10**8, first_row=1000, unit="burst")
    cache.allocate(0, 70)
    cache.allocate(1, tokens)
    first = data.draw(st.integers(0, tokens - 1))
    end = data.draw(st.integers(first + 1, tokens))
    at = 1000 + layout.sections.rows(70)
    pages = range(first // page, -(-end // page))
    for found, section in (
        (cache.keys(1, first, end), layout.sections.keys),
        (cache.values(1, first, end), layout.sections.values),
    ):
        rows = section.page_rows
        wanted = ((at + pages.start * rows, len(pages) * rows),) if rows else ()
        assert found.runs == wanted
        at += section.rows(tokens)
    each = heads * (layout.key_bytes + layout.value_bytes)
    assert cache.use().filled == pytest.approx((70 + tokens) * each / 64)


def token_bursts(layout: LinearLayout, part: int, head: int, place: int) -> set[int]:
    """By hand: bursts with the key or the value of one head of the token at ``place``."""
    size = layout.key_bytes if part == KEYS[0] else layout.value_bytes
    page, token = divmod(place, layout.page_tokens)
    first = ((page * layout.kv_heads + head) * layout.page_tokens + token) * size
    return set(range(first // 64, -(-(first + size) // 64)))


@given(layouts, windows, st.integers(1, 400), st.data())
def test_a_linear_cache_is_read_where_its_tokens_lie(
    layout: LinearLayout, ring: int | None, context: int, data: st.DataObject
) -> None:
    """Of all heads, and of some; no burst twice."""
    first = data.draw(st.integers(max(context - (ring or context), 0), context - 1))
    heads = data.draw(st.none() | st.integers(0, layout.kv_heads - 1))
    chosen = range(layout.kv_heads) if heads is None else range(heads, heads + 1)
    for part in (KEYS[0], VALUES[0]):
        found = layout.read(part, range(first, context), ring, None if heads is None else chosen)
        bursts = Counter(
            burst
            for at, end in zip(found.first, found.end, strict=True)
            for burst in range(at, end)
        )
        wanted = {
            burst
            for token in range(first, context) for head in chosen
            for burst in token_bursts(layout, part, head, token if ring is None else token % ring)
        }  # fmt: skip
        assert set(bursts) == wanted
        # the two ends of a ring may meet in a burst
        assert found.total <= len(wanted) + (2 * len(chosen) if ring else 0)


@given(layouts, windows, st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_linear_caches_write_each_burst_when_it_fills(
    layout: LinearLayout, ring: int | None, steps: list[int]
) -> None:
    """Bytes written and bytes held, together those that the steps brought; all of them where
    they are read."""
    context, turn = 0, ring or sum(steps) + 1
    for new in (min(step, turn) for step in steps):
        before, context = context, context + new
        for part, size in ((KEYS[0], layout.key_bytes), (VALUES[0], layout.value_bytes)):
            found = layout.written(part, range(before, context), ring)
            places = [token % turn for token in range(before, context)]

            begins = [place % layout.page_tokens * size for place in places]
            held = [size + 63 if place + 1 == ring else size for place in places]
            fills = sum((at + each) // 64 - at // 64 for at, each in zip(begins, held, strict=True))
            assert found.total == layout.kv_heads * fills
            seen = layout.read(part, range(before, context), ring)
            read = {b for a, e in zip(seen.first, seen.end, strict=True) for b in range(a, e)}
            assert {
                b for a, e in zip(found.first, found.end, strict=True) for b in range(a, e)
            } <= read


@given(layouts, st.integers(1, 3000), st.integers(1, 8))
def test_a_linear_cache_is_dealt_to_cores_as_a_whole(
    layout: LinearLayout, tokens: int, cores: int
) -> None:
    rows = KvRows.from_row(500, layout.sections, tokens)
    (whole,) = layout.reads(KEYS[0], [range(tokens)], [rows], [None])
    by_core = layout.reads_by_core(KEYS[0], [range(tokens)], [rows], [None], cores)
    parts = by_core.values()
    assert by_core.keys() <= set(range(cores))
    assert (
        sum(part.total for part in parts)
        == whole.total
        == len(
            {
                int(burst)
                for part in (whole, *parts)
                for at, count in zip(part.first_burst, part.bursts, strict=True)
                for burst in range(at, at + count)
            }
        )
    )
    # a head's keys are with one core where heads come out even
    if layout.kv_heads % cores == 0 and tokens >= layout.page_tokens:
        head = layout.sections.keys.page_rows // layout.kv_heads
        for core, part in by_core.items():
            for at, count in zip(part.first_burst, part.bursts, strict=True):
                own = {
                    (int(burst) - 500) // head % layout.kv_heads for burst in (at, at + count - 1)
                }
                assert {each * cores // layout.kv_heads for each in own} == {core}


def test_a_core_without_keys_leaves_the_others_their_numbers() -> None:
    """A page of 16 tokens is dealt in fours; tokens 20 to 24, all that a window shows, are the
    second core's, tokens 24 to 32 the third's and the fourth's."""
    layout = LinearLayout(1, 64, 64, 64)
    rows = KvRows.from_row(0, layout.sections, 32)
    for tokens, cores in ((range(20, 24), [1]), (range(24, 32), [2, 3]), (range(14, 18), [3, 0])):
        found = layout.reads_by_core(KEYS[0], [tokens], [rows], [None], 4)
        assert sorted(found) == sorted(cores)
        for core, part in found.items():
            for at, count in zip(part.first_burst, part.bursts, strict=True):
                assert {burst % 16 // 4 for burst in range(at, at + count)} == {core}


def test_a_page_that_lies_in_two_runs_is_read_where_it_lies() -> None:
    layout = LinearLayout(2, 128, 64, 64)  # a page of keys has 64 bursts, one of values 32
    rows = KvRows(RowRuns(((10, 40), (100, 88))), RowRuns(), RowRuns(((300, 64),)))
    (keys,) = layout.reads(KEYS[0], [range(24)], [rows], [None])
    # sixteen tokens of both heads, then eight tokens of each: 16 of 32 bursts
    assert list(zip(keys.first_burst, keys.bursts, strict=True)) == [
        (10, 40), (100, 24 + 16), (156, 16)
    ]  # fmt: skip
    (values,) = layout.reads(VALUES[0], [range(24)], [rows], [None], heads=range(1, 2))
    assert list(zip(values.first_burst, values.bursts, strict=True)) == [(316, 16), (348, 8)]
    (new,) = layout.appends([range(23, 24)], [rows], [None])
    assert list(zip(new.first_burst, new.bursts, strict=True)) == [
        (124 + 14, 2), (156 + 14, 2), (332 + 7, 1), (348 + 7, 1)
    ]  # fmt: skip
    assert new.write
    assert not keys.write


def test_tokens_that_left_a_window_are_not_there() -> None:
    kind = CacheKind(LinearLayout(1, 64, 0, 64).sections, window=96)
    cache = KvCache([kind], 1, 10**4, unit="burst")
    cache.allocate(0, 250)
    assert cache.pages(0).keys == RowRuns(((0, 96),))
    assert cache.keys(0, 154, 250).runs == ((48, 48), (0, 64))  # a ring: from 58, up to 58
    assert cache.keys(0, 192, 193).runs == ((0, 16),)
    assert cache.keys(0, 190, 205).runs == ((80, 16), (0, 16))
    for span in ((153, 160), (200, 251), (210, 205)):
        with pytest.raises(ValueError, match="request 0 keeps tokens 154 to 250"):
            cache.keys(0, *span)


def test_keys_of_tokens_are_in_their_own_rows_and_in_shared_ones() -> None:
    """A latent of 576 elements: a row for each tile of 32 tokens, and one for eight tiles."""
    shape = AttentionShape.of(16, 1, 576, MEMORY, PIM, 2, 512)
    cache = KvCache([CacheKind(shape.kv_sections)], 1, 1000)
    cache.allocate(0, 300)
    assert cache.pages(0).sections == (
        RowRuns(((0, 10),)), RowRuns(((10, 2),)), RowRuns(((12, 16),)),
    )  # fmt: skip
    assert cache.keys(0, 250, 260).runs == ((7, 2), (10, 2))


def test_a_full_linear_cache_says_whose_pages_find_no_room() -> None:
    """Pages of 16 tokens: 16 bursts of keys and as many of values, in three blocks."""
    layout = LinearLayout(1, 64, 64, 64)
    cache = KvCache([CacheKind(layout.sections, 3)], 1, 400, unit="burst")
    cache.allocate("a", 33)  # three pages of each
    with pytest.raises(CacheFullError) as refused:
        cache.allocate("b", 17)
    assert str(refused.value) == (
        "the KV cache of 3 blocks is full: request b needs 192 bursts (12 pages of 16 tokens) for "
        "17 tokens, 112 of 400 are free; end or evict a request, shorten it, or take more memory "
        "or devices"
    )
    cache.allocate("b", 16)
    with pytest.raises(CacheFullError, match=r"b needs 96 bursts \(6 pages.* for 1 more tokens"):
        cache.append("b")
    cache.append("a", 15)
