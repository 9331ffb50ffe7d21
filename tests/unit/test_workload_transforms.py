"""Transforms: found by module, functions from iteration to iteration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.workload.arithmetic import ACTIVATION_FLOPS, GATE_FLOPS
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.decode import card_pass
from pimsim.workload.instantiate import instantiate
from pimsim.workload.operators import ForwardPass, map_operators
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.transforms import load_transform, transform_names

HALF = np.arange(load_card("llama-3-8b").ffn_hidden) % 256 < 128
PARAMETERS: dict[str, dict[str, Any]] = {
    "kv_quantise": {"dtype_bytes": 1},
    "sparse_ffn": {"union": lambda _: HALF, "granularity": 128},
}
"""One valid set for each technique, so that the laws below hold for every one."""


@pytest.fixture
def iteration() -> ForwardPass:
    requests = [Request(i, 0.0, 10 + i, 20, 5) for i in range(3)]
    return card_pass(load_card("llama-3-8b"), Step.decode(requests))


def test_every_technique_is_tested() -> None:
    assert set(PARAMETERS) == set(transform_names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_transform_leaves_its_argument_and_gives_the_same_each_time(
    name: str, iteration: ForwardPass
) -> None:
    before = replace(iteration)
    transform = load_transform(name)(**PARAMETERS[name])
    assert transform(iteration) == transform(iteration) != iteration
    assert iteration == before


def test_unknown_transform_is_answered_with_a_near_miss() -> None:
    with pytest.raises(InputError, match="did you mean 'kv_quantise'"):
        load_transform("kv_quantize")


@pytest.mark.parametrize("dtype_bytes", [1, 2, 4])
def test_kv_quantise_is_a_model_with_such_a_cache(dtype_bytes: int, iteration: ForwardPass) -> None:
    card = load_card("llama-3-8b").model_copy(update={"kv_dtype_bytes": dtype_bytes})
    transform = load_transform("kv_quantise")(dtype_bytes=dtype_bytes)
    assert transform(iteration) == card_pass(card, Step.decode(iteration.requests))


@pytest.mark.parametrize("model", ["gemma-3-270m", "deepseek-v3"])
@pytest.mark.parametrize("tp", [1, 2])
def test_kv_quantise_of_windows_and_latent_caches(model: str, tp: int) -> None:
    """Windows of 512 that two contexts are beyond, and one key head for all devices."""
    card = load_card(model).model_copy(update={"kv_dtype_bytes": 1})
    requests = [Request(i, 0.0, 500 + 300 * i, 20, 5) for i in range(3)]
    wide = card_pass(load_card(model), Step.decode(requests), tp=tp)
    narrow = card_pass(card, Step.decode(requests), tp=tp)
    assert load_transform("kv_quantise")(dtype_bytes=1)(wide) == narrow != wide


@pytest.mark.parametrize("dtype_bytes", [1, 2, 4])
def test_kv_quantise_widens_a_cache_of_4_bits(dtype_bytes: int, iteration: ForwardPass) -> None:
    """Contexts of 15, 16 and 17 tokens, 8 key heads of 128 features: 48 x 1,024 elements of keys
    and as many of values are read, 3 x 2,048 are written, each in half a byte before."""
    card = load_card("llama-3-8b").model_copy(update={"kv_dtype_bytes": 1})
    one_byte = card_pass(card, Step.decode(iteration.requests))
    packed = map_operators(
        one_byte,
        lambda o: replace(
            o, kv_read_bytes=o.kv_read_bytes // 2, kv_write_bytes=o.kv_write_bytes // 2
        ),
    )
    found = load_transform("kv_quantise")(dtype_bytes=dtype_bytes)(packed)
    assert found.kv_dtype_bytes == dtype_bytes
    block, before = found.blocks[0], packed.blocks[0]
    for name in ("score", "value"):
        assert before.operator(name).kv_read_bytes == 48 * 1024 // 2
        assert block.operator(name).kv_read_bytes == 48 * 1024 * dtype_bytes
    assert before.operator("kv_append").kv_write_bytes == 3 * 2048 // 2
    assert block.operator("kv_append").kv_write_bytes == 3 * 2048 * dtype_bytes


@pytest.mark.parametrize("dtype_bytes", [0, -1, 3])
def test_kv_quantise_refuses_other_widths(dtype_bytes: int) -> None:
    with pytest.raises(InputError, match="allowed: 1, 2, 4"):
        load_transform("kv_quantise")(dtype_bytes=dtype_bytes)


SIZES = {"hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn_hidden": 128}


def sparse(iteration: ForwardPass, active: int, predictor: str) -> dict[str, tuple[int, int, int]]:
    """n, k and weight bytes of the products of the network with the first features active."""
    union = np.arange(128) < active
    transform = load_transform("sparse_ffn")(
        union=lambda _: union, granularity=1, predictor=predictor
    )
    block = transform(iteration).blocks[0]
    operators = [block.operator(name) for name in ("fc1", "fc2")]
    return {each.name: (each.n, each.k, each.weight_bytes) for each in operators}


def test_sparse_ffn_leaves_the_bias_of_what_stays() -> None:
    """OPT's network of 64 and 128 features in 2 bytes, with biases, 40 of them active: the second
    bias is of the outputs and stays whole, the first is of the features."""
    card = load_card("opt-66b").model_copy(update=SIZES)
    iteration = card_pass(card, Step.decode([Request(0, 0.0, 10, 20, 5)]), tp=1)
    whole, second = 2 * (128 * 64 + 128), 2 * 40 * 64 + 2 * 64
    assert sparse(iteration, 128, "none")["fc1"] == (128, 64, whole)
    assert sparse(iteration, 40, "none") == {"fc1": (128, 64, whole), "fc2": (64, 40, second)}
    first = 2 * (40 * 64 + 40)
    assert sparse(iteration, 40, "oracle") == {"fc1": (40, 64, first), "fc2": (64, 40, second)}


def test_sparse_ffn_of_packed_weights_reads_less_of_them() -> None:
    """4 bits and a scale of 16 for each 32, 9/16 of a byte a weight."""
    card = load_card("llama-3-8b").model_copy(update=SIZES)
    plain = card_pass(card, Step.decode([Request(0, 0.0, 10, 20, 5)]), tp=1)
    packed = map_operators(plain, lambda o: replace(o, weight_bytes=o.weight_bytes * 9 // 32))
    assert sparse(packed, 40, "none")["fc2"] == (64, 40, 64 * 40 * 9 // 16)
    assert sparse(packed, 40, "oracle")["fc1"] == (80, 64, 80 * 64 * 9 // 16)


def test_sparse_ffn_leaves_out_work_and_activations() -> None:
    """Features 0, 17 and 100 of 128 are active: three groups of 16, 48 features, stay. Of three
    tokens in 2 bytes; gate and up are 64 x 48 each, and the output keeps its 64 features."""
    card = load_card("llama-3-8b").model_copy(update=SIZES)
    requests = [Request(i, 0.0, 10, 20, 5) for i in range(3)]
    union = np.isin(np.arange(128), (0, 17, 100))
    transform = load_transform("sparse_ffn")(
        union=lambda _: union, granularity=16, predictor="oracle"
    )
    block = transform(card_pass(card, Step.decode(requests), tp=1)).blocks[0]
    first, act, second = (block.operator(name) for name in ("fc1", "act", "fc2"))
    assert (first.n, first.k, first.flops) == (96, 64, 2 * 3 * 96 * 64)
    assert (first.input_bytes, first.output_bytes) == (2 * 3 * 64, 2 * 3 * 96)
    each = ACTIVATION_FLOPS["silu"] + GATE_FLOPS
    assert (act.rows, act.width, act.flops) == (3, 48, 3 * 48 * each)
    assert (act.input_bytes, act.output_bytes) == (2 * 3 * 96, 2 * 3 * 48)
    assert (second.n, second.k, second.flops) == (64, 48, 2 * 3 * 64 * 48)
    assert (second.input_bytes, second.output_bytes) == (2 * 3 * 48, 2 * 3 * 64)
    assert not second.weights_chosen


def test_sparse_ffn_rounds_up_and_leaves_one_feature() -> None:
    """40 of 128 features of 4,609 bytes are 1,440.3; of no active feature one is left."""
    card = load_card("llama-3-8b").model_copy(update=SIZES)
    plain = card_pass(card, Step.decode([Request(0, 0.0, 10, 20, 5)]), tp=1)
    packed = map_operators(plain, lambda o: replace(o, weight_bytes=4609))
    assert sparse(packed, 40, "none")["fc2"] == (64, 40, 1441)
    assert sparse(plain, 0, "none")["fc2"] == (64, 1, 2 * 64)


def test_latents_that_are_expanded_again_are_narrower_too() -> None:
    card = load_card("deepseek-v3")
    entry = StepEntry(Request(0, 0.0, 20, 1, 0), 6, 20, logits=0, made=0)
    block = instantiate(card_trace(card), Step((entry,)))
    before, after = (
        forward.blocks[0].operator("kv_b").kv_read_bytes
        for forward in (block, load_transform("kv_quantise")(dtype_bytes=1)(block))
    )
    assert (before, after) == (14 * 576 * 2, 14 * 576)
