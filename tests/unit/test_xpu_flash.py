"""Fused attention on a GPU: tiles, waves, bytes and time by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.documents import load_document
from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.config.xpu import FlashConfig, XpuConfig
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.flash import (
    FlashAttention,
    FlashPart,
    flash_tile,
    flash_work,
)
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.mapping.kernels import flash_parts
from pimsim.reproductions.gpu_kernels.attacc_waves import flash_waves
from pimsim.workload.requests import Request
from pimsim.workload.step import Mask, StepEntry

XPUS = {name: load_document(XpuConfig, "xpu", name).config for name in preset_names("xpu")}
A100 = XPUS["attacc-a100a"]
FIVE = A100.model_copy(update={"cores": 5, "exponential_tops": None})


def flash(work: FlashAttention, xpu: XpuConfig) -> roofline.Cost:
    """As the device's kernels have it."""
    return gpu_kernels(xpu).flash(work, xpu)


REQUEST = Request(id=0, arrival_s=0.0, prompt_tokens=10**6, output_tokens=1, generated_tokens=0)


def parts(*entries: tuple[int, int], window: int | None = None) -> tuple[FlashPart, ...]:
    """Requests of (new tokens, context)."""
    return flash_parts([StepEntry(REQUEST, new, context) for new, context in entries], window)


WORK = FlashAttention(parts(*[(100, 160)] * 3), heads=4, kv_heads=2, key_dim=128, value_dim=128)
"""Two tiles of 64 queries: the first sees 124 keys in one tile of 128, the second 160 in two."""


def test_tiles_and_waves_by_hand() -> None:
    done, waves = flash_work(WORK, FIVE), flash_waves(WORK, FIVE)
    assert done.blocks == 2 * 3 * 4
    assert done.pairs == 64 * 128 * (1 + 2) * 12
    # 12 blocks of two tiles, then 12 of one: waves start at 0, 5, 10 and at 15, 20
    assert waves.wave_pairs == 64 * 128 * (3 * 2 + 2 * 1)
    assert waves.fill(5) == pytest.approx(36 / (8 * 5))
    assert WORK.macs == (100 * 60 + 100 * 101 // 2) * 12 * 256


def test_bytes_by_hand() -> None:
    done = flash_work(WORK, FIVE)
    queries = 3 * 4 * 100 * (128 + 128) * 2
    assert done.memory_bytes == queries + 3 * 2 * 160 * 512
    assert WORK.kv_bytes == 3 * 2 * 160 * 512
    assert done.l2_bytes == queries + 3 * 4 * (124 + 160) * 512
    assert done.l1_bytes == done.pairs * (128 * 2 + 512) // 16


def test_keys_beyond_l2_come_once_for_each_wave_that_shares_them() -> None:
    """Two heads share keys: 4 blocks over 3 cores pass them twice."""
    small = FIVE.model_copy(update={"cores": 3, "l2": 160 * 512 - 1})
    queries = 3 * 4 * 100 * (128 + 128) * 2
    assert flash_work(WORK, small).memory_bytes == queries + 2 * 3 * 2 * 160 * 512
    fits = small.model_copy(update={"l2": 160 * 512})
    assert flash_work(WORK, fits).memory_bytes == queries + 3 * 2 * 160 * 512


def test_time_is_that_of_the_slowest_unit() -> None:
    core = 312e12 * 0.8 / 5
    cost = flash(WORK, FIVE)
    assert cost.bound == "compute"
    assert cost.time_s == pytest.approx(2 * 8 * 64 * 128 * 256 / core)
    slow = FIVE.model_copy(update={"memory_bandwidth_gb_per_s": 1.0})
    memory_s = flash_work(WORK, slow).memory_bytes / (1e9 * 0.85 * 36 / 40)
    assert (flash(WORK, slow).bound, flash(WORK, slow).time_s) == (
        "memory", pytest.approx(memory_s),
    )  # fmt: skip
    slow = FIVE.model_copy(update={"exponential_tops": 0.01})
    assert flash(WORK, slow).bound == "exponentials"
    assert flash(WORK, slow).time_s == pytest.approx(8 * 64 * 128 / (0.01e12 / 5))


def test_energy_by_hand() -> None:
    work = replace(WORK, softmax_flops=1000)
    done, cost, energy = flash_work(work, FIVE), flash(work, FIVE), FIVE.energy
    assert cost.memory_pj == pytest.approx(8 * done.memory_bytes * 3.59)
    caches = 8 * (done.l2_bytes * 0.3 + done.l1_bytes * 0.16)
    macs = done.pairs * 256 * (3 * energy.register_pj + energy.mac_pj)
    assert cost.core_pj == pytest.approx(caches + macs + 500 * energy.mac_pj)


@pytest.mark.parametrize("window", [1, 50, 128, 129, 200, 300, 10_000, None])
@pytest.mark.parametrize(("new", "context"), [(1, 1), (1, 700), (64, 64), (65, 300), (300, 300)])
@pytest.mark.parametrize("mask", Mask)
def test_tiles_are_those_that_some_row_sees(
    window: int | None, new: int, context: int, mask: Mask
) -> None:
    """Against each pair, one by one."""
    entry = StepEntry(REQUEST, new, context, mask=mask)
    work = FlashAttention(flash_parts([entry], window), 1, 1, 128, 128, window)
    rows, keys = flash_tile(work, A100)
    assert (rows, keys) == (64, 128)
    first = context - new
    seen = set()
    pairs = 0
    for query, key in product(range(new), range(context)):
        if mask is Mask.CAUSAL:
            sees = key <= first + query and (window is None or key > first + query - window)
        else:
            sees = key >= context - entry.keys(window)
        pairs += sees
        if sees:
            seen.add((query // rows, key // keys))
    assert flash_work(work, A100).pairs == len(seen) * rows * keys
    assert work.macs == pairs * 256


def test_equal_entries_are_one_part() -> None:
    assert parts((3, 9), (4, 9), (3, 9)) == (
        FlashPart(2, 3, 9, 9, 3 * 6 + 6), FlashPart(1, 4, 9, 9, 4 * 5 + 10),
    )  # fmt: skip


def test_requests_of_a_step_fill_one_launch_longest_first() -> None:
    """24 + 1 blocks over 5 cores: the long one starts first, whoever comes first in the step."""
    both = replace(WORK, parts=(*WORK.parts, *parts((64, 640))))
    turned = replace(WORK, parts=(*parts((64, 640)), *WORK.parts))
    done = flash_work(both, FIVE)
    assert done.blocks == 28
    # 4 blocks of 5 tiles, 12 of 2, 12 of 1: waves start at 0 | 5, 10, 15 | 20, 25
    assert flash_waves(both, FIVE).wave_pairs == 64 * 128 * (5 + 3 * 2 + 2 * 1)
    assert flash_waves(turned, FIVE) == flash_waves(both, FIVE)


def test_a_tile_is_halved_until_it_fits() -> None:
    def tile(l1: int, **sizes: int) -> tuple[int, int]:
        return flash_tile(replace(WORK, **sizes), A100.model_copy(update={"l1_per_core": l1}))

    whole = 64 * 256 + 128 * 512
    assert tile(whole) == (64, 128)
    assert tile(whole - 1) == (64, 64)
    assert tile(64 * 256 + 16 * 512) == (64, 16)
    assert tile(64 * 256 + 16 * 512 - 1) == (32, 16)
    with pytest.raises(InputError, match=r"xpu\.l1_per_core: 12287 bytes; attention with heads of"):
        tile(16 * 256 + 16 * 512 - 1)


flash_works = st.builds(
    lambda new, cached, requests, group, kv_heads, dim, window: FlashAttention(
        parts(*[(new, new + cached)] * requests, window=window),
        group * kv_heads, kv_heads, dim, dim, window, 2, 4 * dim,
    ),
    st.integers(1, 3000), st.integers(0, 3000), st.integers(1, 5), st.integers(1, 8),
    st.integers(1, 8), st.sampled_from([64, 128, 256]), st.none() | st.integers(1, 4000),
)  # fmt: skip


@given(work=flash_works, name=st.sampled_from(sorted(XPUS)))
def test_no_attention_is_faster_than_its_roofline(work: FlashAttention, name: str) -> None:
    xpu = XPUS[name]
    cost, done = flash(work, xpu), flash_work(work, xpu)
    assert done.pairs * 2 * work.key_dim >= work.macs
    assert cost.time_s >= 2 * work.macs / roofline.peak_flops(xpu, 2)
    assert cost.time_s >= work.kv_bytes / roofline.bandwidth(xpu)
    assert done.memory_bytes <= done.l2_bytes
    waves = flash_waves(work, xpu)
    assert done.pairs <= waves.wave_pairs * xpu.cores
    assert 0 < waves.fill(xpu.cores) <= 1
    for key in ("peak_tflops", "memory_bandwidth_gb_per_s", "exponential_tops"):
        faster = xpu.model_copy(update={key: 2 * getattr(xpu, key)})
        assert flash(work, faster).time_s <= cost.time_s


def test_the_tile_is_the_configs() -> None:
    assert FlashConfig() == A100.flash
    other = A100.model_copy(update={"flash": FlashConfig(query_rows=32, key_columns=16)})
    assert flash_work(WORK, other).pairs == 32 * 16 * (6 + 8 + 10 + 10) * 12
