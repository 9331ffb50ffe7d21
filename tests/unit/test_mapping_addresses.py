"""Where things lie: nothing overlaps, everything fits or is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.dram.layout import P_COMPS, P_MARK, P_OP, P_ROW
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program
from pimsim.mapping.addresses import AddressPlan, BlockKv, WeightRegion, plan_addresses
from pimsim.mapping.kv import append_scatters, channel_burst

MEMORY = load_memory("hbm2-neupims").config
ORG = MEMORY.organization
PIM = load_pim("neupims").config
SHAPE = AttentionShape.of(8, 8, 128, MEMORY, PIM, 2)
OPERAND_ROWS = 8
ROW_ELEMENTS = ORG.row_bytes // 2
STRIPE = ORG.channels * ORG.ranks * ORG.banks * ORG.columns
"""Bursts of one row of every bank of every channel."""
WEIGHTS = {"qkv": 3 * 4096, "projection": 65, "ffn": 7 * 4096}


def plan(
    contexts: Sequence[int], channel: Sequence[int], layers: int = 1, activations: int = 4096,
    shape: AttentionShape | None = SHAPE,
) -> AddressPlan:  # fmt: skip
    weights = {name: WeightRegion(size) for name, size in WEIGHTS.items()}
    return plan_addresses(
        MEMORY, [weights] * layers, activations, [BlockKv(shape)] * layers, contexts, channel,
        OPERAND_ROWS,
    )  # fmt: skip


def test_weights_lie_one_after_the_other_block_after_block() -> None:
    layers = 3
    found = plan([], [], layers)
    ranges = [
        (found.weights(name, layer), -(-size // ORG.burst_bytes))
        for layer in range(layers) for name, size in WEIGHTS.items()
    ]  # fmt: skip
    at = 0
    for first, bursts in ranges:
        assert first == at
        at += bursts
    assert at == found.activation_burst


def test_operands_begin_on_a_row_that_no_linear_data_touches() -> None:
    for size in (1, STRIPE * ORG.burst_bytes, STRIPE * ORG.burst_bytes + 1):
        found = plan([], [], activations=size)
        end = found.activation_burst + -(-size // ORG.burst_bytes)
        assert (found.operand_row - 1) * STRIPE < end <= found.operand_row * STRIPE


requests = st.lists(
    st.tuples(st.integers(1, 3000), st.integers(0, 3)), min_size=1, max_size=12
)  # fmt: skip


@given(requests)
def test_rows_of_a_channel_never_overlap(batch: list[tuple[int, int]]) -> None:
    contexts, channel = [c for c, _ in batch], [k for _, k in batch]
    found = plan(contexts, channel)
    first = found.operand_row + OPERAND_ROWS
    for c in set(channel):
        taken: list[int] = []
        for context, where, rows in zip(contexts, channel, found.kv[0], strict=True):
            if where == c:
                taken += range(rows.keys, rows.keys + SHAPE.key_rows(context))
                taken += range(rows.values, rows.values + SHAPE.value_rows(context))
        # without a gap either
        assert sorted(taken) == list(range(first, first + len(taken)))


@given(st.integers(1, 3000))
def test_programs_stay_within_the_rows_that_are_set_aside(context: int) -> None:
    found = plan([context], [0])
    rows = found.kv[0][0]
    wrap = (found.operand_row, OPERAND_ROWS)
    for program, first, count in (
        (
            score_program(SHAPE, context, rows.keys, found.operand_row, 0, True, wrap),
            rows.keys, SHAPE.key_rows(context),
        ),
        (
            value_program(SHAPE, context, rows.values, found.operand_row, 0, True, wrap),
            rows.values, SHAPE.value_rows(context),
        ),
    ):  # fmt: skip
        sources = program[:, P_OP] == int(Command.GWRITE)
        used = program[~sources, P_ROW]
        assert set(used) == set(range(first, first + count))
        operands = program[sources, P_ROW]
        assert operands.min() >= found.operand_row
        assert operands.max() < found.operand_row + OPERAND_ROWS


def test_without_pim_the_kv_cache_takes_no_rows() -> None:
    found = plan([500, 600], [0, 1], shape=None)
    assert [(rows.keys, rows.values) for rows in found.kv[0]] == [(0, 0)] * 2


def test_a_channel_that_overflows_is_refused_with_its_need() -> None:
    context, layers = 1000, 2
    each = SHAPE.key_rows(context) + SHAPE.value_rows(context)
    first = plan([], [], layers).operand_row + OPERAND_ROWS
    most = (ORG.rows - first) // (layers * each)
    plan([context] * most, [5] * most, layers)
    need = first + layers * (most + 1) * each
    with pytest.raises(
        InputError, match=f"channel 5 needs {need} rows .* 2 blocks, the memory has {ORG.rows}"
    ):
        plan([context] * (most + 1), [5] * (most + 1), layers)


def test_every_block_needs_rows_of_its_own() -> None:
    context = 1000
    each = SHAPE.key_rows(context) + SHAPE.value_rows(context)
    requests = (ORG.rows // 2) // each
    plan([context] * requests, [0] * requests, layers=1)
    with pytest.raises(InputError, match="channel 0 needs"):
        plan([context] * requests, [0] * requests, layers=3)


# blocks of several kinds


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["qkv", "experts", "heads"]),
            st.builds(WeightRegion, st.integers(1, 10**6), st.integers(1, 9), st.booleans()),
            min_size=1,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_matrices_of_unlike_blocks_never_overlap(blocks: list[dict[str, WeightRegion]]) -> None:
    found = plan_addresses(MEMORY, blocks, 4096, [BlockKv(SHAPE)] * len(blocks), [], [], 64)
    taken = []
    for layer, block in enumerate(blocks):
        for name, region in block.items():
            for part in range(region.parts):
                first = found.weights(name, layer, part)
                taken.append((first, first + -(-region.part_bytes // ORG.burst_bytes)))
                if region.in_rows:
                    assert found.weights_row(name, layer, part) * STRIPE == first
    taken.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert taken[-1][1] <= found.activation_burst


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(1, 900))
def test_a_window_keeps_its_last_tokens_alone(contexts: list[int], window: int) -> None:
    channel = [0] * len(contexts)
    kv = [BlockKv(SHAPE), BlockKv(SHAPE, window)]
    found = plan_addresses(MEMORY, [{}, {}], 0, kv, contexts, channel, 0)
    for context, full, kept in zip(contexts, *found.kv, strict=True):
        assert full.values - full.keys == SHAPE.key_rows(context)
        assert kept.values - kept.keys == SHAPE.key_rows(min(context, window))


WIDE = AttentionShape.of(4, 1, ROW_ELEMENTS + 64, MEMORY, PIM, 2, ROW_ELEMENTS)
NARROW = AttentionShape.of(9, 3, 64, MEMORY, PIM, 2)


@pytest.mark.parametrize("shape", [WIDE, NARROW, SHAPE], ids=["latent", "grouped", "multi-head"])
@pytest.mark.parametrize("window", [None, 96])
def test_every_token_is_appended_within_its_request_s_rows(
    shape: AttentionShape, window: int | None
) -> None:
    """Over a whole context (or turn of the ring) keys fill their bursts once, values too."""
    steps = 160 if window is None else window
    last = 1000 if window is None else 5 * window
    found = plan_addresses(MEMORY, [{}], 0, [BlockKv(shape, window)], [last], [0], 0)
    rows = found.kv[0][0]
    end = rows.values + shape.value_rows(last if window is None else window)
    written: set[int] = set()
    for context in range(last - steps + 1, last + 1):
        kept = context if window is None else min(context, window)
        # rows are those of the context at hand, so each step begins at its own
        for scatter in append_scatters(shape, [rows], [0], [context], window, MEMORY, 2):
            bursts = range(
                scatter.first, scatter.first + scatter.count * scatter.stride, scatter.stride
            )
            if window is not None:
                assert not written & set(bursts)
                written |= set(bursts)
            assert scatter.first >= channel_burst(MEMORY, rows.keys, 0, 0)
            assert max(bursts) < channel_burst(MEMORY, end, 0, 0)
        assert kept <= last
    if window is not None:
        # each token's key and value once
        per_burst = ORG.burst_bytes // 2
        keys = window * -(-shape.kv_heads * shape.head_dim // per_burst)
        values = window // per_burst * shape.kv_heads * shape.value_dim
        assert len(written) == keys + values


@given(st.integers(1, 1500))
def test_scores_of_a_latent_meet_every_token(context: int) -> None:
    rows = plan([context], [0], shape=WIDE).kv[0][0]
    found = score_program(WIDE, context, rows.keys, 7, 0, True, (7, 64))
    dots = found[found[:, P_OP] == int(Command.GEMV)]
    tiles = -(-context // WIDE.banks)
    assert len(dots) == WIDE.heads * tiles * 2  # the row and the rest of each key
    assert dots[:, P_COMPS].sum() == WIDE.heads * tiles * (ROW_ELEMENTS + 64) // 16
    used = found[found[:, P_OP] != int(Command.GWRITE)][:, P_ROW]
    assert set(used) == set(range(rows.keys, rows.keys + WIDE.key_rows(context)))
    marks = Counter(dots[:, P_MARK].tolist())
    assert set(marks) == set(range(WIDE.heads))
    assert len(set(marks.values())) == 1
