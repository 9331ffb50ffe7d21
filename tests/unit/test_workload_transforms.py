"""Transforms: found by module, functions from iteration to iteration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.workload.cards import load_card
from pimsim.workload.decode import decode_iteration
from pimsim.workload.operators import Iteration
from pimsim.workload.requests import Request
from pimsim.workload.transforms import load_transform, transform_names

HALF = np.arange(load_card("llama-3-8b").ffn_hidden) % 256 < 128
PARAMETERS: dict[str, dict[str, Any]] = {
    "kv_quantise": {"dtype_bytes": 1},
    "sparse_ffn": {"union": lambda _: HALF, "granularity": 128},
}
"""One valid set for each technique, so that the laws below hold for every one."""


@pytest.fixture
def iteration() -> Iteration:
    requests = [Request(i, 0.0, 10 + i, 20, 5) for i in range(3)]
    return decode_iteration(load_card("llama-3-8b"), requests)


def test_every_technique_is_tested() -> None:
    assert set(PARAMETERS) == set(transform_names())


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_transform_leaves_its_argument_and_gives_the_same_each_time(
    name: str, iteration: Iteration
) -> None:
    before = replace(iteration)
    transform = load_transform(name)(**PARAMETERS[name])
    assert transform(iteration) == transform(iteration) != iteration
    assert iteration == before


def test_unknown_transform_is_answered_with_a_near_miss() -> None:
    with pytest.raises(InputError, match="did you mean 'kv_quantise'"):
        load_transform("kv_quantize")


@pytest.mark.parametrize("dtype_bytes", [1, 2, 4])
def test_kv_quantise_is_a_model_with_such_a_cache(dtype_bytes: int, iteration: Iteration) -> None:
    card = load_card("llama-3-8b").model_copy(update={"kv_dtype_bytes": dtype_bytes})
    transform = load_transform("kv_quantise")(dtype_bytes=dtype_bytes)
    assert transform(iteration) == decode_iteration(card, iteration.requests)


@pytest.mark.parametrize("dtype_bytes", [0, -1, 3])
def test_kv_quantise_refuses_other_widths(dtype_bytes: int) -> None:
    with pytest.raises(InputError, match="allowed: 1, 2, 4"):
        load_transform("kv_quantise")(dtype_bytes=dtype_bytes)
