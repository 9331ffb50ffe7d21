"""Where things lie: nothing overlaps, everything fits or is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.layout import P_COMPS, P_MARK, P_OP, P_ROW
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program
from pimsim.mapping.addresses import AddressPlan, BlockKv, WeightRegion, _EmptyCache, plan_addresses
from pimsim.mapping.kv import append_scatters
from pimsim.mapping.linear_kv import LinearLayout
from pimsim.simulate import device_of, resolve

MEMORY = load_memory("hbm2-neupims").config
ORG = MEMORY.organization
PIM = load_pim("neupims").config
SHAPE = AttentionShape.of(8, 8, 128, MEMORY, PIM, 2)
LINEAR = LinearLayout(8, 256, 256, ORG.burst_bytes)
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


def caches(found: AddressPlan, layer: int = 0) -> list[KvRows]:
    """Where a block's cache of each request lies."""
    return [found.kv(layer, member) for member in range(len(found.requests))]


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
        for context, where, rows in zip(contexts, channel, caches(found), strict=True):
            if where == c:
                assert rows.keys.count == SHAPE.key_rows(context)
                assert rows.values.count == SHAPE.value_rows(context)
                taken += [*rows.keys.rows(), *rows.values.rows()]
        # without a gap either
        assert sorted(taken) == list(range(first, first + len(taken)))


@given(st.integers(1, 3000))
def test_programs_stay_within_the_rows_that_are_set_aside(context: int) -> None:
    found = plan([context], [0])
    rows = found.kv(0, 0)
    wrap = (found.operand_row, OPERAND_ROWS)
    for program, places in (
        (
            score_program(SHAPE, context, rows, found.operand_row, 0, True, wrap), rows.keys,
        ),
        (
            value_program(SHAPE, context, rows, found.operand_row, 0, True, wrap), rows.values,
        ),
    ):  # fmt: skip
        program = written_out(program)
        sources = program[:, P_OP] == int(Command.GWRITE)
        used = program[~sources, P_ROW]
        assert set(used) == set(places.rows())
        operands = program[sources, P_ROW]
        assert operands.min() >= found.operand_row
        assert operands.max() < found.operand_row + OPERAND_ROWS


def test_without_pim_the_kv_cache_takes_no_rows() -> None:
    found = plan([500, 600], [0, 1], shape=None)
    assert [rows.count for rows in caches(found)] == [0, 0]


def test_a_channel_that_overflows_is_refused_with_its_need() -> None:
    context, layers = 1000, 2
    each = SHAPE.key_rows(context) + SHAPE.value_rows(context)
    first = plan([], [], layers).operand_row + OPERAND_ROWS
    most = (ORG.rows - first) // (layers * each)
    plan([context] * most, [5] * most, layers)
    rows = ORG.rows - first
    with pytest.raises(
        InputError,
        match=f"cache of 2 blocks is full: request {most} needs {layers * each} rows of channel 5 "
        f"for {context} tokens, {rows - most * layers * each} of {rows} are free; end or evict",
    ):
        plan([context] * (most + 1), [5] * (most + 1), layers)


def test_every_block_needs_rows_of_its_own() -> None:
    context = 1000
    each = SHAPE.key_rows(context) + SHAPE.value_rows(context)
    requests = (ORG.rows // 2) // each
    plan([context] * requests, [0] * requests, layers=1)
    with pytest.raises(InputError, match="cache of 3 blocks is full: request"):
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


@pytest.mark.parametrize("first_row", [0, 7, ORG.rows - 1])
def test_caches_have_the_rows_behind_what_lies_before_them(first_row: int) -> None:
    """In PIM's layout as rows of each channel, in order as bursts of all."""
    in_banks = _EmptyCache.of([BlockKv(SHAPE)], first_row, MEMORY)
    assert (in_banks.rows, in_banks.channels) == (ORG.rows - first_row, ORG.channels)
    in_order = _EmptyCache.of([BlockKv(None, linear=LINEAR)], first_row, MEMORY)
    assert (in_order.rows, in_order.channels) == ((ORG.rows - first_row) * STRIPE, 1)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(1, 900))
def test_a_window_keeps_its_last_tokens_alone(contexts: list[int], window: int) -> None:
    channel = [0] * len(contexts)
    kv = [BlockKv(SHAPE), BlockKv(SHAPE, window)]
    found = plan_addresses(MEMORY, [{}, {}], 0, kv, contexts, channel, 0)
    for context, full, kept in zip(contexts, caches(found), caches(found, 1), strict=True):
        assert full.keys.count == SHAPE.key_rows(context)
        assert kept.keys.count == SHAPE.key_rows(min(context, window))


def row_of(burst: int, memory: MemoryConfig = MEMORY) -> int:
    """The row of a burst of channel 0."""
    found = AddressMap.parse(memory.stream_map, memory.organization)
    bit, width = found.position["ch"], found.width["ch"]
    whole = (burst >> bit) << (bit + width) | (burst & ((1 << bit) - 1))
    return int(found.decode(np.array([whole])).row[0])


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
    rows = found.kv(0, 0)
    mine = {row for section in rows.sections for row in section.rows()}
    written: set[int] = set()
    for context in range(last - steps + 1, last + 1):
        kept = context if window is None else min(context, window)
        for scatter in append_scatters(shape, [rows], [0], [context], [1], [window], MEMORY, 2):
            bursts = range(
                scatter.first, scatter.first + scatter.count * scatter.stride, scatter.stride
            )
            assert not written & set(bursts)
            written |= set(bursts)
            assert {row_of(burst) for burst in bursts} <= mine
        assert kept <= last
    # each token's key and value once; values that do not fill a burst are held
    per_burst = ORG.burst_bytes // 2
    keys = steps * -(-shape.kv_heads * shape.head_dim // per_burst)
    first = last - steps
    fills = last // per_burst - first // per_burst if window is None else window // per_burst
    assert len(written) == keys + fills * shape.kv_heads * shape.value_dim


def test_new_tokens_of_every_block_go_to_their_requests_rows(
    tiny_card: Path, tmp_path: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    """A block with a window keeps a ring: a context past it writes no row of another request."""
    card = tmp_path / "windows.yaml"
    card.write_text(tiny_card.read_text() + "window:\n  size: 100\n  full_every: 2\n")
    device, _ = device_of(
        resolve(
            "npu-pim",
            [f"workload.model={card}", f"workload.requests={write_trace([500, 330, 90])}",
             "parallel.tp=1", "workload.layers=2", "memory.organization.channels=1"],
        )
    )  # fmt: skip
    for layer in range(2):
        rows = caches(device.mapper.addresses, layer)
        task = next(t for t in device.block(0, layer).before if t.scatters)
        own = [{row for section in one.sections for row in section.rows().tolist()} for one in rows]
        assert all(one.isdisjoint(other) for one, other in combinations(own, 2))
        found = [row_of(scatter.first, device.config.memory) for scatter in task.scatters]
        assert all(any(row in one for one in own) for row in found)
        assert [bool(one.intersection(found)) for one in own] == [True] * 3


@given(st.integers(1, 1500))
def test_scores_of_a_latent_meet_every_token(context: int) -> None:
    rows = plan([context], [0], shape=WIDE).kv(0, 0)
    found = written_out(score_program(WIDE, context, rows, 7, 0, True, (7, 64)))
    dots = found[found[:, P_OP] == int(Command.GEMV)]
    tiles = -(-context // WIDE.banks)
    assert len(dots) == WIDE.heads * tiles * 2  # the row and the rest of each key
    assert dots[:, P_COMPS].sum() == WIDE.heads * tiles * (ROW_ELEMENTS + 64) // 16
    used = found[found[:, P_OP] != int(Command.GWRITE)][:, P_ROW]
    assert set(used) == {*rows.keys.rows(), *rows.shared_keys.rows()}
    marks = Counter(dots[:, P_MARK].tolist())
    assert set(marks) == set(range(WIDE.heads))
    assert len(set(marks.values())) == 1
