"""Where things lie: nothing overlaps, everything fits or is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.dram.layout import P_OP, P_ROW
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program
from pimsim.mapping.addresses import AddressPlan, BlockKv, WeightRegion, plan_addresses
from pimsim.mapping.attention import OPERAND_ROWS

MEMORY = load_memory("hbm2-neupims").config
ORG = MEMORY.organization
PIM = load_pim("neupims").config
SHAPE = AttentionShape.of(8, 8, 128, MEMORY, PIM, 2)
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
