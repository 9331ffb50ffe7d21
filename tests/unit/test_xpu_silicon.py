"""GPU kernels as on silicon: each mechanism by hand, and its laws over all presets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pimsim.config.documents import load_document
from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.config.xpu import ExpertTile, XpuConfig
from pimsim.hardware.xpu.decode import decode_attention
from pimsim.hardware.xpu.experts import Experts, expert_tile, experts_s
from pimsim.hardware.xpu.flash import (
    FlashAttention,
    FlashPart,
    flash,
    flash_blocks,
    list_schedule,
    stream_s,
    tile_times,
)
from pimsim.hardware.xpu.gemm import burst_rate, gemm_time, overlapped, saturating_cores
from pimsim.hardware.xpu.roofline import bandwidth, peak_flops
from pimsim.hardware.xpu.tiling import Product

PRESETS = {name: load_document(XpuConfig, "xpu", name).config for name in preset_names("xpu")}
SILICON = {name: each for name, each in PRESETS.items() if each.silicon is not None}
H100 = SILICON["h100"]


def changed(xpu: XpuConfig = H100, section: str = "", **values: object) -> XpuConfig:
    """``xpu`` with other values of itself, or of a section of ``silicon``."""
    if not section:
        return xpu.model_copy(update=values)
    silicon = xpu.silicon
    inner = getattr(silicon, section).model_copy(update=values)
    assert silicon is not None
    return xpu.model_copy(update={"silicon": silicon.model_copy(update={section: inner})})


BARE = changed(
    changed(
        changed(
            H100, cores=10, peak_tflops=100.0, compute_utilisation=1.0, memory_utilisation=1.0,
            memory_bandwidth_gb_per_s=1000.0, exponential_tops=None,
        ),
        "gemm", tiles=[[64, 64]], cluster_blocks=1, launch_ns=0.0, reduction_ns=0.0,
        burst_utilisation=1.0,
    ),
    "flash", launch_ns=0.0, block_ns=0.0, softmax_cost=0.0, packs_groups=False,
    longest_first=False, blocks_per_core=1,
)  # fmt: skip
"""Ten cores of 10 TFLOPS, 1 TB/s, nothing beside the work itself."""


def test_what_goes_on_at_once_is_a_norm() -> None:
    assert overlapped(3.0, 0.0, 0.0) == 3.0
    assert overlapped(0.0, 0.0) == 0.0
    assert overlapped(1.0, 1.0) == pytest.approx(2**0.25)
    assert overlapped(3.0, 4.0, exponent=2) == pytest.approx(5.0)


def test_littles_law() -> None:
    """3,350 GB/s x 0.5 x 800 ns = 1.34 MB under way, 128 KiB a core."""
    assert saturating_cores(H100, 0.5) == pytest.approx(1.34e6 / 131072)


def test_power_lowers_the_rate_as_a_product_lasts() -> None:
    xpu = changed(changed(H100, compute_utilisation=0.5), "gemm", burst_utilisation=0.9)
    assert burst_rate(0.0, xpu) == pytest.approx(0.9)
    assert burst_rate(300e-6, xpu) == pytest.approx(0.7)
    assert burst_rate(1.0, xpu) == pytest.approx(0.5, rel=1e-3)


def test_a_product_by_hand() -> None:
    """Twelve tiles over ten cores: two waves, or shares of 1.2 tiles."""
    work = Product(192, 256, 4096)
    edge = 64 * 64 / 128
    tile_s = 2 * 64 * 64 * 4096 / 10e12 * (edge + 3) / edge
    l2_rate = 14826e9
    l2_s = 12 * 128 * 2 * 4096 / l2_rate
    memory_s = 2 * (192 * 4096 + 256 * 4096 + 192 * 256) / 1e12  # 6.1 cores suffice
    more = 2 * 10 * 64 * 64 * 4 / l2_rate
    shared = overlapped(1.2 * tile_s, memory_s, l2_s) + more
    assert gemm_time(work, BARE) == (pytest.approx(shared), "compute")
    dear = changed(BARE, "gemm", reduction_ns=1e6)
    assert gemm_time(work, dear)[0] == pytest.approx(overlapped(2 * tile_s, memory_s, l2_s))
    two = overlapped(1.2 * tile_s, memory_s, 0.75 * l2_s) + more
    assert gemm_time(work, changed(BARE, "gemm", cluster_blocks=2))[0] == pytest.approx(two)
    slow = changed(BARE, "gemm", launch_ns=1e6)
    assert gemm_time(work, slow) == (pytest.approx(1e-3 + shared), "launch")


def test_few_blocks_leave_bandwidth_unused() -> None:
    """A tile of 8 x 64 with 256 steps cannot be cut: one core of the 6.1 that are needed."""
    work = Product(1, 64, 256)
    need = saturating_cores(BARE, 1.0)
    assert need == pytest.approx(1e12 * 800e-9 / 131072)
    moved_s = 2 * (256 + 64 * 256 + 64) / 1e12
    compute_s = 2 * 8 * 64 * 256 / 10e12 * (512 / 72 + 3) / (512 / 72)
    l2_s = 72 * 2 * 256 / 14826e9
    assert gemm_time(work, BARE)[0] == pytest.approx(overlapped(compute_s, moved_s * need, l2_s))


def test_a_cluster_shares_the_larger_operand() -> None:
    """Tiles of 8 x 64: 16 bytes of one row of depth, 128 of the other."""
    work, thin = Product(8, 6400, 512), changed(BARE, cores=100)
    slow = thin.silicon.model_copy(update={"l2_gb_per_s": 1e-3}) if thin.silicon else None
    thin = thin.model_copy(update={"silicon": slow})
    alone = 100 * (16 + 128) * 512 / 1e6
    for blocks, share in ((1, 128), (2, 64), (4, 32)):
        time_s, _ = gemm_time(work, changed(thin, "gemm", cluster_blocks=blocks))
        assert time_s == pytest.approx(alone * (16 + share) / 144)


def test_peaks_by_width() -> None:
    b200, a100 = SILICON["b200"], SILICON["a100"]
    half = Fraction(1, 2)
    assert [peak_flops(b200, width) for width in (2, 1, half)] == [2.25e15, 4.5e15, 4.5e15]
    assert [peak_flops(a100, width) for width in (2, 1, half)] == [312e12] * 3
    assert peak_flops(PRESETS["attacc-a100a"], 1) == 624e12


def work(
    new: int, context: int, heads: int = 4, kv_heads: int = 2, requests: int = 1
) -> FlashAttention:
    """Causal attention of equal requests."""
    part = FlashPart(requests, new, context, context, new * context)
    return FlashAttention((part,), heads, kv_heads, 128, 128)


def test_cores_take_blocks_in_their_order() -> None:
    """1, 2, 3, 1, 2, 3 on two cores: 1 + 3 and 2 + 1 + 2 + 3 - 1; turned: 3 and 2 + 1, twice."""
    lengths = np.array([1.0, 2.0, 3.0])
    args = np.array([2]), np.array([0, 3])
    assert list_schedule(lengths, *args, 2) == 7.0
    assert list_schedule(lengths[::-1].copy(), *args, 2) == 6.0
    assert list_schedule(lengths, *args, 1) == 12.0
    assert list_schedule(lengths, *args, 6) == 3.0
    both = np.array([1.0, 2.0, 3.0, 10.0])
    assert list_schedule(both, np.array([1, 1]), np.array([0, 3, 4]), 2) == 12.0


def test_attention_of_a_prompt_by_hand() -> None:
    """Tiles of 128 x 128: 256 tokens are blocks of one and two, of four heads, on ten cores."""
    prompt = work(256, 256)
    blocks = flash_blocks(prompt, BARE)
    assert (blocks.tiles.tolist(), blocks.counts.tolist()) == ([1, 2], [4, 4])
    tile_s = 2 * 128 * 128 * 256 / 10e12
    assert tile_times(prompt, BARE, 128, 128) == (pytest.approx(tile_s), 0.0)
    queries, keys, new = 4 * 256 * 256 * 2, 2 * 256 * 512, 2 * 2 * 256 * 512
    memory_s = (queries + keys + new) / 1e12
    assert flash(prompt, BARE).time_s == pytest.approx(2 * tile_s + memory_s)
    five = changed(BARE, cores=4)  # a core's rate is then 25 TFLOPS
    # heads one after the other: 1 2 1 2, then 1 at 1, 2 at 1, 1 at 2, 2 at 2
    assert flash(prompt, five).time_s == pytest.approx(4 * 0.4 * tile_s + memory_s)
    loaded = changed(BARE, "flash", launch_ns=5000.0, block_ns=1000.0)
    assert flash(prompt, loaded).time_s == pytest.approx(2 * tile_s + memory_s + 6e-6)


def test_softmax_is_not_hidden() -> None:
    xpu = changed(changed(BARE, exponential_tops=10.0), "flash", softmax_cost=0.5)
    prompt = work(256, 256)
    more = 2 * 0.5 * 128 * 128 / 1e12
    assert flash(prompt, xpu).time_s == pytest.approx(flash(prompt, BARE).time_s + more)


def test_blocks_that_share_a_core_share_its_rate() -> None:
    """Eight blocks on four cores, two each: all start at once, at half the rate."""
    prompt, four = work(256, 256), changed(BARE, cores=4)
    two = changed(four, "flash", blocks_per_core=2)
    tile_s = 2 * 128 * 128 * 256 / 25e12
    alone = flash(prompt, four).time_s - 4 * tile_s
    assert flash(prompt, two).time_s == pytest.approx(alone + 2 * 2 * tile_s)
    assert flash(work(128, 128), two).time_s == pytest.approx(flash(work(128, 128), four).time_s)


def test_groups_are_packed() -> None:
    """Two heads a group: 64 tokens are one tile of 128 rows, seen by its last token's keys."""
    packed = changed(BARE, "flash", packs_groups=True)
    assert flash_blocks(work(64, 300), packed).counts.tolist() == [2]
    assert flash_blocks(work(64, 300), BARE).counts.tolist() == [4]
    assert flash_blocks(work(128, 300), packed).tiles.tolist() == [2, 3]


def test_longest_first_ends_sooner() -> None:
    prompt, three = work(1024, 1024, heads=1, kv_heads=1), changed(BARE, cores=3)
    first = changed(three, "flash", longest_first=True)
    assert flash(prompt, first).time_s < flash(prompt, three).time_s


def test_small_and_warm_comes_from_l2() -> None:
    l2 = H100.l2
    assert stream_s(l2, True, 0.9, H100) == pytest.approx(l2 / (14826e9 * 0.5))
    assert stream_s(l2, False, 0.9, H100) == pytest.approx(l2 / (3350e9 * 0.9))
    assert stream_s(l2 + 1, True, 0.9, H100) == pytest.approx((l2 + 1) / (3350e9 * 0.9))


DECODE = changed(
    BARE, "decode", query_rows=128, launch_ns=0.0, block_ns=0.0, combine_ns=0.0, regroup_ns=0.0,
    memory_utilisation=1.0, splits_single=False,
)  # fmt: skip


def test_decoding_cuts_keys_where_queries_share_them() -> None:
    """40 tiles of keys, one head: one core passes them all, ten of them a tenth each."""
    single, shared = work(1, 5120, 1, 1), work(1, 5120, 2, 1)
    tile_s = 2 * 128 * 128 * 256 / 10e12
    need, stream = saturating_cores(DECODE, 1.0), 5120 * 512 / 1e12
    queries = 256 * 2 / 1e12
    alone = overlapped(40 * tile_s, stream * need) + queries
    assert decode_attention(single, DECODE).time_s == pytest.approx(alone)
    sums = 10 * 2 * 2 * 128 * 4 / (14826e9 * 0.5)
    cut = overlapped(4 * tile_s, stream) + sums + 2 * queries
    assert decode_attention(shared, DECODE).time_s == pytest.approx(cut)
    both = changed(DECODE, "decode", splits_single=True)
    assert decode_attention(single, both).time_s < alone / 5
    dear = changed(DECODE, "decode", combine_ns=1e9)
    assert decode_attention(shared, dear).time_s == pytest.approx(alone + queries)


def test_queries_are_regrouped_where_it_takes_a_copy() -> None:
    dear = changed(DECODE, "decode", regroup_ns=1000.0)

    def added(*sizes: int) -> float:
        one = work(1, 256, *sizes)
        return decode_attention(one, dear).time_s - decode_attention(one, DECODE).time_s

    assert added(4, 2, 2) == pytest.approx(1e-6)
    assert [added(4, 2, 1), added(4, 4, 2), added(4, 1, 2)] == [0.0, 0.0, 0.0]


EXPERTS = Experts(4, [3, 0, 1, 4], 2, hidden=1024, inner=512)
PLAIN = changed(
    BARE, "experts", tiles=[ExpertTile(rows=2, columns=128, depth=64)], stages=3, launch_ns=0.0,
    step_ns=1000.0, memory_utilisation=1.0, overlap=1.0, fuses_activation=True, skips_remote=True,
)  # fmt: skip


def test_experts_by_hand() -> None:
    """Five tiles of two rows: 40 blocks of 8 columns' tiles, 16 steps; then 40 of 8 steps."""
    step_s = 2 * 2 * 128 * 64 / 10e12 + 1e-6
    compute_s = 4 * 16 * step_s + 4 * 8 * step_s
    flying = 40 * 2 * 130 * 64 * 2
    moved = [(3 * 1024 * 1024 + 8 * 2048) * 2, (3 * 1024 * 512 + 8 * 1536) * 2]
    memory_s = sum(max(each / 1e12, each * 800e-9 / flying) for each in moved)
    l2_s = 40 * 130 * (1024 + 512) * 2 / 14826e9
    summed = (8 * 1024 + 2 * 4 * 1024) * 2 / 1e12
    assert experts_s(EXPERTS, PLAIN) == pytest.approx(compute_s + memory_s + l2_s + summed)
    launched = changed(PLAIN, "experts", launch_ns=1e6)
    assert experts_s(EXPERTS, launched) == pytest.approx(experts_s(EXPERTS, PLAIN) + 1e-3)
    separate = changed(PLAIN, "experts", fuses_activation=False)
    more = 3 * 512 * 8 * 2 / 1e12
    assert experts_s(EXPERTS, separate) == pytest.approx(experts_s(EXPERTS, PLAIN) + more)


@pytest.mark.parametrize(("room", "blocks"), [(0.5, 1), (1.99, 1), (2.0, 2), (2.99, 2)])
def test_a_core_holds_as_many_blocks_as_its_l1_has_room_for_whole(room: float, blocks: int) -> None:
    """Of more blocks than all cores hold, so many are under way: each has all stages but one in
    flight, which a memory that is far away makes the time."""
    loaded = 130 * 64 * 2
    far = changed(PLAIN, "experts", step_ns=0.0)
    assert far.silicon is not None
    far = far.model_copy(
        update={
            "l1_per_core": int(room * 3 * loaded), "cores": 4,
            "silicon": far.silicon.model_copy(update={"memory_latency_ns": 1e6}),
        }
    )  # fmt: skip
    many = replace(EXPERTS, loads=[3, 1, 1, 4], tokens=5)
    moved = [(4 * 1024 * 1024 + 9 * 2048) * 2, (4 * 1024 * 512 + 9 * 1536) * 2]
    flying = 4 * blocks * 2 * loaded
    expected = sum(each * 1e-3 / flying for each in moved)
    assert experts_s(many, far) == pytest.approx(expected, rel=1e-3)


def test_rows_of_other_devices_are_zeroed_and_summed() -> None:
    """Of eight choices five are here."""
    some = replace(EXPERTS, loads=[3, 0, 1, 1])
    filled = changed(PLAIN, "experts", skips_remote=False)
    more = 3 * (1024 + 1024 + 1024) * 2 / 1e12
    assert experts_s(some, filled) == pytest.approx(experts_s(some, PLAIN) + more)
    assert experts_s(EXPERTS, filled) == pytest.approx(experts_s(EXPERTS, PLAIN))


def test_the_tile_is_the_first_that_fits() -> None:
    kernel = H100.silicon.experts if H100.silicon else None
    assert kernel is not None

    def tile(tokens: int, inner: int) -> tuple[int, int, int]:
        found = expert_tile(Experts(tokens, [1] * 8, 2, 1024, inner), kernel)
        return found.rows, found.columns, found.depth

    assert [tile(t, 768) for t in (32, 33, 65, 97, 513)] == [
        (16, 64, 128), (32, 64, 128), (32, 128, 64), (64, 128, 64), (128, 128, 64),
    ]  # fmt: skip
    assert [tile(t, 4096)[1] for t in (128, 129, 513)] == [128, 256, 256]
    a100 = SILICON["a100"].silicon
    assert a100 is not None and a100.experts is not None
    few, many = (expert_tile(Experts(t, [1] * 8, 2, 8, 8), a100.experts) for t in (8, 9))
    assert (few.rows, many.rows) == (16, 64)


def test_a_device_without_experts_says_so() -> None:
    with pytest.raises(InputError, match="xpu rtx4090: experts were not measured"):
        experts_s(EXPERTS, SILICON["rtx4090"])


def test_the_section_and_the_choice_of_kernels_go_together() -> None:
    values = H100.model_dump()
    with pytest.raises(ValidationError, match="needs a silicon section"):
        XpuConfig.model_validate(values | {"silicon": None})
    with pytest.raises(ValidationError, match="beside which silicon would not act"):
        XpuConfig.model_validate(values | {"kernels": "attacc_waves"})
    tiles = values["silicon"]["experts"]["tiles"][:1]
    silicon = values["silicon"] | {"experts": values["silicon"]["experts"] | {"tiles": tiles}}
    with pytest.raises(ValidationError, match="the last one must take every step"):
        XpuConfig.model_validate(values | {"silicon": silicon})


@pytest.mark.parametrize("name", SILICON)
def test_more_work_takes_longer(name: str) -> None:
    xpu = SILICON[name]
    products = [gemm_time(Product(m, 4096, 4096), xpu)[0] for m in (1, 64, 512, 4096, 16384)]
    depths = [gemm_time(Product(16, 4096, k), xpu)[0] for k in (512, 1024, 4096, 16384)]
    prompts = [flash(work(n, n, 32, 8), xpu).time_s for n in (64, 512, 2048, 8192)]
    tokens = [decode_attention(work(1, n, 32, 8, 4), xpu).time_s for n in (64, 2048, 16384, 65536)]
    for times in (products, depths, prompts, tokens):
        assert times == sorted(times)
    assert xpu.silicon is not None
    if xpu.silicon.experts is not None:
        loads = [experts_s(Experts(8 * n, [n] * 8, 1, 2048, 768), xpu) for n in (1, 64, 4096)]
        assert loads == sorted(loads)


@given(
    name=st.sampled_from(sorted(name for name in SILICON if name != "rtx4090")),
    loads=st.lists(st.integers(0, 300), min_size=1, max_size=16),
    inner=st.sampled_from([256, 768, 4096]),
)
def test_experts_are_never_faster_than_their_roofline(
    name: str, loads: list[int], inner: int
) -> None:
    xpu, experts = SILICON[name], Experts(max(sum(loads), 1), loads, 1, 1024, inner)
    time_s = experts_s(experts, xpu)
    weights = 3 * 1024 * inner * 2 * sum(load > 0 for load in loads)
    assert time_s >= weights / bandwidth(xpu)
    assert time_s >= 2 * 3 * 1024 * inner * sum(loads) / peak_flops(xpu, 2)


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers and switches of a section, by dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, bool | int | float):
            yield f"{path}{key}", value


def times(xpu: XpuConfig) -> list[float]:
    """Of kernels of all kinds and sizes."""
    sizes = [(1, 1024, 4096), (512, 1024, 4096), (8192, 8192, 8192)]
    found = [gemm_time(Product(*each), xpu)[0] for each in sizes]
    found += [flash(work(n, n, 32, 8), xpu).time_s for n in (100, 1000)]
    warm = replace(work(1, 2000, 32, 8, 4), warm=True)
    decoded = [work(1, 300, 8, 8), work(1, 65536, 32, 8, 4), work(1, 65536, 8, 8), warm]
    found += [decode_attention(each, xpu).time_s for each in decoded]
    if xpu.silicon is not None and xpu.silicon.experts is not None:
        found += [experts_s(Experts(n, [n] * 4, 2, 2048, 768), xpu) for n in (1, 100, 5000)]
        found.append(experts_s(Experts(64, [16], 2, 1024, 4096), xpu))
    return found


@pytest.mark.parametrize("key", [key for key, _ in leaves(H100.model_dump()["silicon"])])
def test_every_constant_moves_some_time(key: str) -> None:
    moved = False
    for name in ("a100", "h100"):
        values = SILICON[name].model_dump()
        *outer, last = key.split(".")
        section = values["silicon"]
        for each in outer:
            section = section[each]
        old, before = section[last], times(SILICON[name])
        for new in [not old] if isinstance(old, bool) else [old * 4 + 1, old / 4]:
            section[last] = type(old)(new)
            try:
                other = XpuConfig.model_validate(values)
            except ValidationError:
                continue
            moved = moved or times(other) != before
    assert moved
