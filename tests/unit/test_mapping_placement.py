"""Channels and sub-batches: who goes where, by the rules of NeuPIMs sections 6.2 to 6.5."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.placement import (
    assign_channels,
    estimate_attention_cycles,
    split_sub_batches,
)
from pimsim.workload.requests import Request

MEMORY = load_memory("hbm2-neupims").config
PIM = load_pim("neupims").config
CHANNELS = 4
COSTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=40)


def requests(*channels: int | None) -> list[Request]:
    return [Request(i, 0.0, 10, 10, 0, channel) for i, channel in enumerate(channels)]


def loads(where: list[int], cost: list[int]) -> list[int]:
    load = [0] * CHANNELS
    for channel, one in zip(where, cost, strict=True):
        load[channel] += one
    return load


# channels -----------------------------------------------------------------------------------


def test_the_trace_decides_and_leaves_the_rest_to_round_robin() -> None:
    batch = requests(3, None, None, 0, None)
    assert assign_channels(batch, CHANNELS, "trace", [1] * 5) == [3, 1, 2, 0, 4 % CHANNELS]


def test_round_robin_does_not_look_at_the_trace() -> None:
    batch = requests(3, 3, 3, 3, 3)
    assert assign_channels(batch, CHANNELS, "round-robin", [1] * 5) == [0, 1, 2, 3, 0]


def test_a_channel_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"request 1: channel 4, .* channels 0 to 3"):
        assign_channels(requests(0, CHANNELS), CHANNELS, "trace", [1, 1])


def test_longest_first_to_the_least_loaded() -> None:
    cost = [1, 8, 2, 4, 3]
    # 8, 4, 3, 2 open a channel each, in order; 1 goes to the one that holds 2
    assert assign_channels(requests(*[None] * 5), CHANNELS, "least-loaded", cost) == [3, 0, 3, 1, 2]


@given(COSTS)
def test_the_fullest_channel_is_within_one_request_of_the_mean(cost: list[int]) -> None:
    where = assign_channels(requests(*[None] * len(cost)), CHANNELS, "least-loaded", cost)
    # Graham: when the last one came to the fullest channel, no other channel held less
    assert max(loads(where, cost)) <= sum(cost) / CHANNELS + max(cost) * (1 - 1 / CHANNELS)


def test_least_loaded_mends_what_round_robin_piles_up() -> None:
    cost = [100, 1, 1, 1] * 4
    batch = requests(*[None] * len(cost))
    piled = assign_channels(batch, CHANNELS, "round-robin", cost)
    spread = assign_channels(batch, CHANNELS, "least-loaded", cost)
    assert max(loads(piled, cost)) == 4 * 100
    assert max(loads(spread, cost)) == 100 + 3


# sub-batches --------------------------------------------------------------------------------


def test_the_first_half_of_each_channels_list_goes_first() -> None:
    channel = [0, 1, 0, 1, 0, 1, 0, 1]
    assert split_sub_batches(channel, [1] * 8, "per-channel") == ([0, 1, 2, 3], [4, 5, 6, 7])


def test_leftovers_of_odd_lists_go_to_either_in_turn() -> None:
    channel = [0, 1, 2, 3]
    first, second = split_sub_batches(channel, [1] * 4, "per-channel")
    assert (first, second) == ([0, 2], [1, 3])


@given(st.lists(st.integers(0, CHANNELS - 1), min_size=1, max_size=40))
def test_per_channel_halves_differ_by_one_request_at_most(channel: list[int]) -> None:
    first, second = split_sub_batches(channel, [1] * len(channel), "per-channel")
    assert sorted([*first, *second]) == list(range(len(channel)))
    counts = [Counter(channel[i] for i in half) for half in (first, second)]
    for c in set(channel):
        assert abs(counts[0][c] - counts[1][c]) <= 1
    assert 0 <= len(first) - len(second) <= 1


def test_balanced_halves_have_the_same_cost_where_they_can() -> None:
    cost = [5, 1, 1, 3]
    channel = [0] * 4
    equal = split_sub_batches(channel, cost, "balanced")
    assert [sum(cost[i] for i in half) for half in equal] == [5, 5]
    halves = split_sub_batches(channel, cost, "per-channel")
    assert [sum(cost[i] for i in half) for half in halves] == [6, 4]


@given(st.lists(st.tuples(st.integers(0, CHANNELS - 1), st.integers(1, 999)), max_size=40))
def test_balanced_halves_differ_by_one_request_of_a_channel_at_most(
    batch: list[tuple[int, int]],
) -> None:
    channel, cost = [c for c, _ in batch], [x for _, x in batch]
    halves = split_sub_batches(channel, cost, "balanced")
    assert sorted([*halves[0], *halves[1]]) == list(range(len(batch)))
    for c in set(channel):
        load = [sum(cost[i] for i in half if channel[i] == c) for half in halves]
        assert abs(load[0] - load[1]) <= max(x for k, x in batch if k == c)


# the estimate that both use -----------------------------------------------------------------


def shape(heads: int = 8, kv_heads: int = 8) -> AttentionShape:
    return AttentionShape.of(heads, kv_heads, 128, MEMORY, PIM, 2)


def estimate(context: int, **heads: int) -> int:
    return int(estimate_attention_cycles(np.array([context]), shape(**heads), MEMORY, PIM)[0])


def test_the_estimate_is_algorithm_1() -> None:
    t, one = MEMORY.timings, shape(4, 4)
    assert len(one.key_pieces) == 1  # four heads of 128 elements fill a row of 512
    gwrite = evaluate_delay(PIM.gwrite_cycles, t, "gwrite") + t["tRCDRD"]
    step = max(t["nBL"], t["tCCD_S"])
    opened = one.banks + t["tFAW"] * (MEMORY.organization.bank_groups - 1) + t["tRCDRD"]
    context = 2 * one.banks
    key = step * (one.head_dim // PIM.elements_per_comp + 1)
    value = step * (max(context // PIM.elements_per_comp, PIM.comp_pipeline) + 1)
    expected = gwrite + 2 * (opened + one.heads * key)
    expected += one.heads * (gwrite + one.head_dim // one.banks * (opened + value))
    assert estimate(context, heads=4, kv_heads=4) == expected


def test_the_estimate_opens_a_row_once_for_all_tokens_in_it() -> None:
    t, one = MEMORY.timings, shape(1, 1)
    opened = one.banks + t["tFAW"] * (MEMORY.organization.bank_groups - 1) + t["tRCDRD"]
    own = PIM.model_copy(update={"keys_share_rows": False})
    context = np.array([9 * one.banks])  # in rows of four tiles: three rows, else nine
    apart = AttentionShape.of(1, 1, 128, MEMORY, own, 2)
    found = [estimate_attention_cycles(context, each, MEMORY, PIM)[0] for each in (one, apart)]
    assert found[1] - found[0] == 6 * opened


@given(st.integers(1, 5000), st.integers(0, 500))
def test_a_longer_context_is_never_estimated_shorter(context: int, more: int) -> None:
    assert estimate(context + more) >= estimate(context)


def test_grouped_queries_repeat_the_work_of_their_keys() -> None:
    group = 4
    grouped = estimate(512, heads=2 * group, kv_heads=2)
    assert grouped == group * estimate(512, heads=2, kv_heads=2)
