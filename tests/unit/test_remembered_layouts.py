"""What is remembered of caches and attention from run to run: by all that it depends on, and so
that nobody who goes on with it changes what the next one gets."""

from dataclasses import replace

import numpy as np
import pytest

from pimsim.config.loader import load_run
from pimsim.hardware.dram.fast import operations
from pimsim.hardware.pim.kv_layout import KvRows, KvSection, KvSections
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import BlockKv, plan_addresses
from pimsim.mapping.attention import AttentionBatch, attention_work, score_work, value_work
from pimsim.mapping.kv_cache import KEYS, VALUES, CacheKind, KvCache

CONFIG = load_run("neupims", ["memory.organization.channels=2"]).config
MEMORY, PIM, VECTOR = CONFIG.memory, CONFIG.pim, CONFIG.npu.vector
assert PIM is not None
SHAPE = AttentionShape.of(2, 2, 64, MEMORY, PIM, 2)
SECTIONS = KvSections(KvSection(32, 1, 0.5), KvSection(64, 0), KvSection(64, 2, 0.25))


def batch(row: int = 9, contexts: tuple[int, ...] = (70, 300)) -> AttentionBatch:
    rows = tuple(KvRows.from_row(row, SHAPE.kv_sections, context) for context in contexts)
    return AttentionBatch(SHAPE, rows, contexts, (0, 1))


@pytest.mark.parametrize("product", [score_work, value_work])
def test_work_is_of_all_that_it_depends_on(product) -> None:
    """Whatever else is asked for, it is what the product itself says; of equals it is the same."""
    assert PIM is not None
    asked = [
        (batch(), 3, MEMORY, PIM, VECTOR, 2),
        (batch(10), 3, MEMORY, PIM, VECTOR, 2),  # other rows, of which the hash knows nothing
        (batch(), 4, MEMORY, PIM, VECTOR, 2),
        (batch(), 3, MEMORY, PIM.model_copy(update={"composite_gemv": False}), VECTOR, 2),
        (batch(), 3, MEMORY, PIM, VECTOR.model_copy(update={"lanes": 3}), 2),
        (batch(), 3, MEMORY, PIM, VECTOR, 4),
        (batch(contexts=(70, 301)), 3, MEMORY, PIM, VECTOR, 2),
    ]
    for _ in range(2):
        for each in asked:
            programs, marks, after = attention_work(product, *each)
            own, own_marks, own_after = product(*each)
            assert marks == own_marks
            assert all(np.array_equal(a, b) for a, b in zip(programs, own, strict=True))
            for name in ("duration", "bursts", "channel"):
                assert np.array_equal(getattr(after, name), getattr(own_after, name))
    again = attention_work(product, batch(), 3, MEMORY, PIM, VECTOR, 2)
    assert again is attention_work(product, batch(), 3, MEMORY, PIM, VECTOR, 2)


def test_programs_are_known_by_their_content() -> None:
    """Equal arrays are equal programs; an instruction, a burst behind a result, the rounds that are
    written out, or a mark more make others."""
    assert PIM is not None
    programs, marks, after = score_work(batch(), 3, MEMORY, PIM, VECTOR, 2)
    one = operations._Programs(programs, marks, after.bursts, 64)
    copied = tuple(each.copy() for each in programs)
    same = operations._Programs(copied, marks, after.bursts.copy(), 64)
    assert (one, hash(one)) == (same, hash(same))
    other = tuple(each.copy() for each in programs)
    other[1][-1, 1] += 1
    assert one != replace(one, programs=other)
    assert one != replace(one, written=after.bursts + 1)
    assert one != replace(one, written=None)
    assert one != replace(one, most_rounds=63)
    assert one != replace(one, marks=marks + 1, written=np.append(after.bursts, 0))


def test_a_copied_cache_grows_by_itself() -> None:
    kinds = [CacheKind(SECTIONS, 2), CacheKind(SECTIONS, 1, 40)]
    cache = KvCache(kinds, 2, 90, 5)
    cache.allocate("a", 33)
    cache.allocate("b", 70, 1, 3)
    seen = [cache.pages("a"), cache.used_rows(0), cache.rows_by_channel(0), cache.use(KEYS)]
    other = cache.copy()
    other.append("a", 40)
    other.allocate("c", 5)
    other.free("b")
    assert [cache.pages("a"), cache.used_rows(0), cache.rows_by_channel(0), cache.use(KEYS)] == seen
    assert (cache.requests, cache.tokens("a")) == (("a", "b"), 33)
    cache.append("a", 40)
    cache.allocate("c", 5)
    cache.free("b")
    for kind in (0, 1):
        for request in ("a", "c"):
            assert cache.pages(request, kind) == other.pages(request, kind)
    assert [cache.used_rows(c) for c in (0, 1)] == [other.used_rows(c) for c in (0, 1)]


def test_rows_are_counted_as_they_are_handed_out() -> None:
    """Over all requests, one by one, whatever came and went."""
    kinds = [CacheKind(SECTIONS, 2), CacheKind(SECTIONS, 1, 40)]
    cache = KvCache(kinds, 2, 200)
    for number, tokens in enumerate((33, 70, 5, 129)):
        cache.allocate(number, tokens, number % 2, 1 + number)
    cache.free(1)
    cache.append(0, 64)
    for kind in (0, 1):
        by_channel = [
            sum(cache.pages(r, kind).count for r in cache.requests if cache.channel(r) == c)
            for c in (0, 1)
        ]
        assert cache.rows_by_channel(kind) == tuple(by_channel)
    for parts in (KEYS, VALUES, (*KEYS, *VALUES)):
        rows, filled = 0, 0.0
        for request in cache.requests:
            for kind, each in enumerate(kinds):
                ring = cache.ring(request, kind)
                tokens = cache.tokens(request)
                kept = tokens if ring is None else min(tokens, ring)
                for part in parts:
                    section = each.sections[part]
                    rows += each.blocks * cache.pages(request, kind).sections[part].count
                    filled += each.blocks * section.token_rows * kept
        assert (cache.use(parts).rows, cache.use(parts).filled) == (rows, filled)


def test_plans_of_equal_requests_share_no_cache() -> None:
    kv = [BlockKv(SHAPE)]
    one, other = (
        plan_addresses(MEMORY, [{}], 64, kv, (70, 300), (0, 1), 2, requests=("a", "b"))
        for _ in range(2)
    )
    one.cache.append("a", 1000)
    assert other.cache.tokens("a") == 70
    assert other.kv(0, 1) is one.kv(0, 1)  # found once
    third = plan_addresses(MEMORY, [{}], 64, kv, (70, 300), (1, 0), 2, requests=("a", "b"))
    assert (third.cache.channel("a"), other.cache.channel("a")) == (1, 0)
