"""Laws of the GPU model and of systems of it: bounds, monotony, and no key without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.config.documents import load_document
from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.config.resources import preset_names
from pimsim.config.xpu import XpuConfig
from pimsim.engine.xpu_device import capacity_bytes
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.sharing import device_share, exposed
from pimsim.hardware.xpu.tiling import Product, tiles, traffic
from pimsim.simulate import resolve, simulate
from pimsim.validate.gpu_steps import MeanStep, decoding, prefilling
from pimsim.workload.cards import load_card

XPUS = {name: load_document(XpuConfig, "xpu", name).config for name in preset_names("xpu")}
CARD = load_card("gpt3-7b")
LLAMA = load_card("llama-3-8b")

sizes = st.integers(1, 5000)
products = st.builds(
    Product,
    m=st.integers(1, 400),
    n=sizes,
    k=sizes,
    count=st.integers(1, 300),
    element_bytes=st.sampled_from([1, 2]),
    b_bytes=st.sampled_from([1, 2]),
    tiled=st.booleans(),
)
seconds = st.floats(0, 10, allow_nan=False)


@given(work=products, xpu=st.sampled_from(sorted(XPUS)))
def test_no_product_is_faster_than_its_roofline(work: Product, xpu: str) -> None:
    config = XPUS[xpu]
    cost = gpu_kernels(config).product(work, config)
    peak = roofline.peak_flops(config, work.element_bytes)
    assert cost.time_s >= 2 * work.macs / peak
    assert cost.time_s >= work.least_bytes / roofline.bandwidth(config)
    assert cost.energy_pj > 0


@given(work=products)
def test_each_level_moves_at_least_each_element_once(work: Product) -> None:
    config = XPUS["attacc-a100a"]
    moved = traffic(work, config)
    tile = tiles(work, config)
    assert work.least_bytes <= moved.memory_bytes <= moved.l2_bytes
    assert tile.block_m <= tile.l2_m <= work.m
    assert tile.block_n <= tile.l2_n <= work.n


@given(work=products, factor=st.floats(1, 8), name=st.sampled_from(sorted(XPUS)))
def test_more_bandwidth_or_arithmetic_never_slows_a_product(
    work: Product, factor: float, name: str
) -> None:
    config = XPUS[name]
    before = gpu_kernels(config).product(work, config).time_s
    for key in ("memory_bandwidth_gb_per_s", "peak_tflops"):
        faster = config.model_copy(update={key: getattr(config, key) * factor})
        assert gpu_kernels(faster).product(work, faster).time_s <= before


@given(
    attention=seconds, others=st.lists(seconds, min_size=1, max_size=3), heads=st.integers(1, 96)
)
def test_a_pipeline_is_between_its_longest_stage_and_all_in_turn(
    attention: float, others: list[float], heads: int
) -> None:
    total = attention + sum(exposed(attention, others, heads))
    assert max(attention, *others) <= total * (1 + 1e-12)
    assert total <= (attention + sum(others)) * (1 + 1e-12) + 1e-300
    assert all(added >= 0 for added in exposed(attention, others, heads))


@given(device=st.floats(1e-9, 1), pim=st.floats(1e-9, 1))
def test_a_split_is_faster_than_either_alone(device: float, pim: float) -> None:
    share = device_share(device, pim)
    assert share * device == pytest.approx((1 - share) * pim)
    assert share * device < min(device, pim)


systems = st.sampled_from(["dgx-a100a", "dgx-h100", "dgx-a100a-cpu"])


@settings(max_examples=25)
@given(
    name=systems,
    devices=st.sampled_from([1, 2, 4, 8]),
    batch=st.integers(1, 300),
    context=st.integers(1, 4000),
)
def test_no_step_is_faster_than_any_unit(name: str, devices: int, batch: int, context: int) -> None:
    config = load_system(name, [f"devices={devices}"]).config
    result = decoding(config, LLAMA, batch, context, 3)
    check_laws(result, batch)


def check_laws(result: MeanStep, batch: int) -> None:
    """What holds for every step."""
    assert result.step_s >= max(result.bound_s.values())
    assert sum(result.parts_s.values()) == pytest.approx(result.step_s)
    assert result.parts_s["attention"] > 0
    assert result.tokens_per_s * result.step_s == pytest.approx(batch)
    assert all(joule >= 0 for joule in asdict(result.energy_j).values())


@pytest.mark.parametrize("name", ["dgx-a100a", "dgx-a100a-cpu"])
def test_more_requests_take_longer_and_give_more_tokens(name: str) -> None:
    config = load_system(name).config
    results = [decoding(config, CARD, batch, 512, 3) for batch in (1, 4, 16, 64, 256)]
    steps = [each.step_s for each in results]
    rates = [each.tokens_per_s for each in results]
    assert steps == sorted(steps)
    assert rates == sorted(rates)


# Every number and switch of a system moves some figure.

SMALL_CACHES = ("xpu.l1_per_core=24KiB", "xpu.l2=128KiB")
ARTIFACT = ("stacks.ffn_read_multiple=9", "cost_rules=[attacc_hiding_softmax]")
BASES: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "xpu": ("dgx-a100a", "gpt3-7b", 300, ()),
    "small caches": ("dgx-a100a", "gpt3-7b", 300, SMALL_CACHES),
    "gated": ("dgx-a100a", "llama-3-8b", 5, ()),
    "host": ("dgx-a100a-cpu", "gpt3-7b", 40, ()),
    "pim": ("dgx-attacc-bank", "gpt3-7b", 40, ()),
    "pim artifact": ("dgx-attacc-bank", "gpt3-7b", 40, ARTIFACT),
}


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and switches, but for those of the PIM design, which have a test of their own."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if (path, key) != ("", "pim"):
                yield from _leaves(value, f"{path}{key}.")
        elif isinstance(value, bool | int | float):
            yield f"{path}{key}", value


@cache
def _figures(base: str, *more: str) -> tuple[Any, ...]:
    name, card, batch, overrides = BASES[base]
    config = load_system(name, [*overrides, *more]).config
    results = (
        decoding(config, load_card(card), batch, 700, 3),
        prefilling(config, load_card(card), 2, 700),
    )  # fmt: skip
    parts = [
        part for each in results for part in (each.parts_s, asdict(each.energy_j), each.bound_s)
    ]
    return (capacity_bytes(config), *(tuple(each.values()) for each in parts))


def _keys() -> dict[str, dict[str, Any]]:
    """Each key, and its value in each base that has it."""
    found: dict[str, dict[str, Any]] = {}
    for base, (name, _, _, overrides) in BASES.items():
        config = load_system(name, overrides).config
        for key, value in _leaves(config.model_dump(mode="json")):
            if key not in _OF_EXPERTS:
                found.setdefault(key, {})[base] = value
    return found


_OF_EXPERTS = ("parallel.ep", "seed")
"""Of models that have some; test_dead_knobs.py."""
_LIMITS = ("tdp_w", "power_cap_w")


def _others(key: str, value: float) -> list[Any]:
    """Values in place of ``value``."""
    if isinstance(value, bool):
        return [str(not value).lower()]
    if key == "devices":
        return [value // 2]
    smaller: list[Any] = [max(1, value // 64) if isinstance(value, int) else value / 64]
    return smaller if "utilisation" in key else [*smaller, value * 64]


def _cycles(base: str, *more: str) -> int:
    """Of a run, as a mean step counts none."""
    name, card, batch, overrides = BASES[base]
    own = [f"workload.model={card}", f"workload.batch={batch}", "workload.layers=1"]
    return simulate(resolve(name, [*overrides, *own, *more]), over_time=False).cycles


def _moves(key: str, base: str, new: Any) -> bool:
    if key == "ffn_split" and not base.startswith("pim"):
        return False
    unit = "B" if key.endswith(("memory_capacity", "l1_per_core", "l2")) else ""
    try:
        if key == "xpu.frequency" or key.endswith(_LIMITS):
            return _cycles(base, f"{key}={new}{'Hz' * key.endswith('ency')}") != _cycles(base)
        return _figures(base, f"{key}={new}{unit}") != _figures(base)
    except InputError as error:  # a limit acts where it refuses
        return key.endswith(_LIMITS) and str(error).startswith(key)


@pytest.mark.parametrize("key", _keys())
def test_no_key_of_a_system_is_without_effect(key: str) -> None:
    values = _keys()[key]
    assert any(
        _moves(key, base, new) for base, value in values.items() for new in _others(key, value)
    )
