"""Attention in tiles: counts by hand, and against pairs of a token and a key written out."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from pimsim.config.npu import SystolicConfig, VectorConfig
from pimsim.hardware.npu.flash import FlashPass, FlashUnits, flash_plan, key_tile, resident_bytes
from pimsim.hardware.npu.gemm import steady_cycles
from pimsim.hardware.npu.vector_timing import VectorTiming

ARRAY = SystolicConfig(arrays=2, rows=4, cols=4, dataflow="ws", preload="hidden")
VECTOR = VectorConfig(
    units=2, lanes=4, add_latency=2, mul_latency=3, exp_latency=5, add_tree_latency=7
)
ONE = FlashUnits(ARRAY, 1, VECTOR, Fraction(1), 2)
ALONE = ARRAY.model_copy(update={"arrays": 1})


def tiles_of(work: FlashPass, tile: int) -> list[tuple[int, int, int]]:
    """First key, keys, and tokens that see any of them, of each tile that any token sees."""
    found = []
    tokens = range(work.first, work.last + 1)

    def sees(token: int, key: int) -> bool:
        newest = token if work.causal else work.context - 1
        oldest = 0 if work.window is None or not work.causal else newest - work.window + 1
        return max(oldest, 0) <= key <= newest

    for start in range(0, work.context, tile):
        keys = [
            key for key in range(start, min(start + tile, work.context))
            if any(sees(token, key) for token in tokens)
        ]  # fmt: skip
        seen = sum(any(sees(token, key) for key in keys) for token in tokens)
        if keys:
            found.append((keys[0], len(keys), seen))
    return found


@pytest.mark.parametrize("causal", [True, False])
def test_tiles_are_those_that_a_token_sees(causal: bool) -> None:
    for context, window in product((1, 4, 7, 13), (None, 1, 3, 4, 9, 20)):
        if window is not None and not causal:
            continue
        for new, first in ((1, context - 1), (context, 0), (min(3, context), context // 2)):
            if first + new > context:
                continue
            work = FlashPass(first, new, context, 2, 4, 4, window, causal)
            expected = tiles_of(work, 4)
            found = flash_plan(work, work.keys, ONE)
            assert found.plan.steps == len(expected), (context, window, new, first)
            pairs = sum(keys * tokens for _, keys, tokens in expected)
            assert found.plan.macs == 2 * pairs * (4 + 4)


def test_a_prompt_by_hand() -> None:
    """Six tokens, one head of 4, tiles of 4 keys: 6 tokens see the first, 2 the second."""
    work = FlashPass(0, 6, 6, 1, 4, 4)
    found = flash_plan(work, work.keys, ONE)
    arrays = [
        steady_cycles(6, 4, 4, ALONE) + steady_cycles(6, 4, 4, ALONE),
        steady_cycles(2, 2, 4, ALONE) + steady_cycles(2, 4, 2, ALONE),
    ]
    assert arrays == [12, 8]
    # two trees of 7, a difference of 2 and an exponential of 5 a row; 3 more to rescale its sums
    # and, behind the last tile, to divide them
    vector = [6 * (14 + 7), 2 * (14 + 7 + 3) + 6 * 3]
    assert found.plan.interval_cycles.tolist() == vector  # longer than the arrays
    assert found.softmax_cycles.tolist() == vector
    assert found.vector_cycles == sum(vector)
    assert found.waiting_cycles == vector[0] - 12 + vector[1] - 8
    assert found.plan.macs == (6 * 4 + 2 * 2) * 8
    assert found.plan.drain_cycles == 8 + vector[1] + 2 * (4 + 4 - 2)
    assert found.vector_lane_ops == 4 * (6 * 4 + 2 * 2) + 2 * 4 + 6 * 4
    assert found.plan.streamed_cycles == 2 * (6 + 2)


def test_more_vector_units_leave_the_arrays_to_set_the_pace() -> None:
    work = FlashPass(0, 64, 64, 1, 4, 4)
    many = FlashUnits(ARRAY, 1, VECTOR, Fraction(1000), 2)
    found = flash_plan(work, work.keys, many)
    assert found.waiting_cycles == 0
    expected = [
        steady_cycles(64 - at, 4, 4, ALONE) + steady_cycles(64 - at, 4, 4, ALONE)
        for at in range(0, 64, 4)
    ]
    assert found.plan.interval_cycles.tolist() == expected


def test_arrays_that_work_together_share_the_tokens() -> None:
    work = FlashPass(0, 64, 64, 1, 4, 4)
    units = FlashUnits(ARRAY, 2, VECTOR, Fraction(1000), 2)
    one = FlashUnits(ARRAY, 1, VECTOR, Fraction(1000), 2)
    both, alone = (flash_plan(work, work.keys, each).plan for each in (units, one))
    # the last tile's four tokens are two an array, which do not hide the loading of four rows
    assert both.taken_cycles == alone.taken_cycles // 2 + 2 * 2
    assert (alone.loading_cycles, both.loading_cycles) == (0, 4)
    assert both.macs == alone.macs


def test_a_token_s_heads_stay_on_one_array() -> None:
    """Five tokens of three heads on two arrays: the busier one has three tokens, nine rows."""
    work = FlashPass(11, 5, 16, 3, 4, 4, causal=False)
    units = FlashUnits(ARRAY, 2, VECTOR, Fraction(1000), 2)
    found = flash_plan(work, work.keys, units)
    expected = 2 * steady_cycles(9, 4, 4, ALONE)
    assert found.plan.interval_cycles.tolist() == [expected] * 4


@pytest.mark.parametrize("length", [4, 8, 12, 40])
def test_runs_of_keys_do_what_the_pass_does(length: int) -> None:
    work = FlashPass(5, 21, 30, 3, 8, 4, window=17)
    whole = flash_plan(work, work.keys, ONE)
    begin = work.keys.start - work.keys.start % 4
    runs = [
        range(max(at, work.keys.start), min(at + length, work.keys.stop))
        for at in range(begin, work.keys.stop, length)
    ]
    parts = [flash_plan(work, run, ONE) for run in runs]
    joined = np.concatenate([part.plan.interval_cycles for part in parts])
    assert joined.tolist() == whole.plan.interval_cycles.tolist()
    for size in ("vector_cycles", "vector_lane_ops", "waiting_cycles", "sram_bytes"):
        assert sum(getattr(part, size) for part in parts) == getattr(whole, size), size
    assert sum(part.plan.macs for part in parts) == whole.plan.macs


def test_keys_from_memory_are_waited_for_tile_by_tile() -> None:
    work = FlashPass(6, 4, 10, 1, 4, 4)
    stored = ((0, 6, Fraction(3)), (6, 10, Fraction(1, 2)))
    found = flash_plan(work, work.keys, ONE, stored)
    # keys 0 to 3; 4 and 5 with 6 and 7; 8 and 9
    assert found.plan.weight_bytes_needed.tolist() == [12, 18 + 1, 18 + 2]
    assert flash_plan(work, work.keys, ONE).plan.weight_bytes_needed.tolist() == [0, 0, 0]


def test_what_stays_on_chip() -> None:
    # a token's queries of 2 bytes, sums of 4, a maximum and a sum of exponentials; two tiles
    assert resident_bytes(10, 3, 8, 4, 16, 2) == 10 * 3 * (8 * 2 + 4 * 4 + 8) + 2 * 16 * 12 * 2
    assert key_tile(ARRAY.model_copy(update={"cols": 16})) == 16


def test_vector_timing_says_what_a_tile_takes() -> None:
    """A module of a timing under which softmax is free leaves the arrays alone."""
    work = FlashPass(0, 6, 6, 1, 4, 4)
    free = replace(ONE, vector=VECTOR.model_copy(update={"timing": "neupims_free"}))
    found = flash_plan(work, work.keys, free)
    assert found.vector_cycles == found.waiting_cycles == 0
    assert found.plan.interval_cycles.tolist() == [12, 8]
    usual = flash_plan(work, work.keys, ONE)
    assert found.vector_lane_ops == usual.vector_lane_ops and found.sram_bytes == usual.sram_bytes


@pytest.mark.parametrize(
    ("kind", "left"),
    [("softmax", [6 * 14, 2 * (14 + 3) + 6 * 3]),  # trees of one level
     ("mul", [6 * 21, 2 * 21])],  # nothing is rescaled
)  # fmt: skip
def test_elements_of_each_operation_are_the_timing_s(
    kind: str, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timing that says that operations of one kind have no elements."""

    class Timing(VectorTiming):
        def elements(self, asked: str, width: int) -> int:
            return 0 if asked == kind else width

    monkeypatch.setattr("pimsim.hardware.npu.flash.vector_timing", lambda vector: Timing())
    # windows that nobody has asked for before: plans are remembered
    work = FlashPass(0, 6, 6, 1, 4, 4, window=90 + len(kind))
    assert flash_plan(work, work.keys, ONE).softmax_cycles.tolist() == left
