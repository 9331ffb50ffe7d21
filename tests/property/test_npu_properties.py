"""Laws of plans, tiles, vector schedules and collectives on random sizes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.npu import ScratchpadConfig, SystolicConfig
from pimsim.config.plugins import module_names
from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.collectives import all_reduce
from pimsim.hardware.npu.dataflows import load_dataflow
from pimsim.hardware.npu.gemm import plan_gemm, utilisation
from pimsim.hardware.npu.tiling import GemmTile, TilingPolicy, tile_gemm
from pimsim.hardware.npu.vector import schedule_in_order

size = st.integers(1, 300)
PLANS = {name: load_dataflow(name) for name in module_names("dataflow")}
dtype = st.sampled_from([1, 2, 4])
policies = st.sampled_from(["least-traffic", "halve-largest"])
arrays_of = st.builds(
    SystolicConfig,
    arrays=st.integers(1, 16),
    rows=st.integers(4, 64),
    cols=st.integers(4, 64),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    preload=st.sampled_from(["exposed", "hidden"]),
)


@given(size, size, size, arrays_of)
def test_no_plan_is_faster_than_the_multipliers(
    m: int, n: int, k: int, systolic: SystolicConfig
) -> None:
    plan = plan_gemm(m, n, k, systolic)
    assert 0 < utilisation(plan, systolic) <= 1
    assert plan.macs == m * n * k


@given(size, size, size, arrays_of)
def test_more_arrays_are_never_slower(m: int, n: int, k: int, systolic: SystolicConfig) -> None:
    more = systolic.model_copy(update={"arrays": systolic.arrays + 1})
    assert plan_gemm(m, n, k, more).cycles <= plan_gemm(m, n, k, systolic).cycles


@given(size, size, size, st.integers(1, 300), arrays_of, st.sampled_from(list(PLANS)))
def test_a_larger_product_is_never_faster(
    m: int, n: int, k: int, more: int, systolic: SystolicConfig, name: str
) -> None:
    plan = PLANS[name]
    cycles = plan(m, n, k, systolic, 2).cycles
    for larger in ((m + more, n, k), (m, n + more, k), (m, n, k + more)):
        assert plan(*larger, systolic, 2).cycles >= cycles


@given(size, size, size, arrays_of, st.sampled_from(list(PLANS)), dtype)
def test_weights_are_needed_in_order_and_once(
    m: int, n: int, k: int, systolic: SystolicConfig, name: str, dtype_bytes: int
) -> None:
    needed = PLANS[name](m, n, k, systolic, dtype_bytes).weight_bytes_needed
    assert (np.diff(needed) >= 0).all()
    assert needed[0] > 0
    assert needed[-1] == n * k * dtype_bytes


def traffic(tiles: tuple[GemmTile, ...]) -> int:
    return sum(tile.traffic_bytes for tile in tiles)


def scratchpad(capacity: int, double_buffered: bool = True) -> ScratchpadConfig:
    return ScratchpadConfig.model_validate(
        {"capacity": capacity, "double_buffered": double_buffered}
    )


small = st.integers(1, 40)


@given(small, small, small, dtype, st.integers(24, 6000), st.booleans(), policies)
def test_tiles_cover_the_product_once_and_fit(
    m: int,
    n: int,
    k: int,
    dtype_bytes: int,
    capacity: int,
    double_buffered: bool,
    policy: TilingPolicy,
) -> None:
    tiles = tile_gemm(m, n, k, dtype_bytes, scratchpad(capacity, double_buffered), policy)
    room = capacity // (2 if double_buffered else 1)
    covered = np.zeros((m, n, k), dtype=np.int64)
    for tile in tiles:
        elements = tile.m * tile.k + tile.k * tile.n + tile.m * tile.n
        assert elements * dtype_bytes <= room
        covered[
            tile.m_start : tile.m_start + tile.m,
            tile.n_start : tile.n_start + tile.n,
            tile.k_start : tile.k_start + tile.k,
        ] += 1
    assert (covered == 1).all()


@given(small, small, small, dtype, st.integers(24, 6000), policies)
def test_each_operand_moves_at_least_once(
    m: int, n: int, k: int, dtype_bytes: int, capacity: int, policy: TilingPolicy
) -> None:
    tiles = tile_gemm(m, n, k, dtype_bytes, scratchpad(capacity), policy)
    assert sum(tile.weight_bytes for tile in tiles) >= n * k * dtype_bytes
    assert sum(tile.input_bytes for tile in tiles) >= m * k * dtype_bytes
    stored = sum(tile.output_bytes for tile in tiles)
    returned = sum(tile.partial_bytes for tile in tiles)
    assert stored - returned == m * n * dtype_bytes


@given(small, small, small, st.integers(24, 6000), st.integers(0, 6000), policies)
def test_a_larger_scratchpad_never_moves_more(
    m: int, n: int, k: int, capacity: int, more: int, policy: TilingPolicy
) -> None:
    less_room = tile_gemm(m, n, k, 2, scratchpad(capacity), policy)
    more_room = tile_gemm(m, n, k, 2, scratchpad(capacity + more), policy)
    assert traffic(more_room) <= traffic(less_room)


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(6, 60))
def test_tile_traffic_is_what_a_cache_of_one_tile_would_move(
    m: int, n: int, k: int, elements: int
) -> None:
    """Replay the tiles element by element: what a tile needs that the last one had not."""
    tiles = tile_gemm(m, n, k, 1, scratchpad(elements, double_buffered=False))
    on_chip: set[tuple[str, int, int]] = set()
    loaded = 0
    for tile in tiles:
        ms = range(tile.m_start, tile.m_start + tile.m)
        ns = range(tile.n_start, tile.n_start + tile.n)
        ks = range(tile.k_start, tile.k_start + tile.k)
        needs = {("A", i, j) for i, j in product(ms, ks)}
        needs |= {("B", i, j) for i, j in product(ks, ns)}
        # Sums that exist already: they were begun by an earlier part of k.
        if tile.k_start:
            needs |= {("C", i, j) for i, j in product(ms, ns)}
        loaded += len(needs - on_chip)
        on_chip = needs | {("C", i, j) for i, j in product(ms, ns)}
    assert loaded == sum(tile.load_bytes for tile in tiles)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 100), st.integers(1, 5))
def test_a_scratchpad_below_one_element_each_is_refused(m: int, n: int, k: int, cap: int) -> None:
    with pytest.raises(InputError, match=r"npu\.scratchpad\.capacity"):
        tile_gemm(m, n, k, 2, scratchpad(cap, double_buffered=False))


operations = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)), max_size=60)


@given(operations, st.integers(-1, 9))
def test_schedule_matches_its_plain_run_and_a_list_of_units(
    ops: list[tuple[int, int]], units: int
) -> None:
    ready = np.array([op[0] for op in ops], dtype=np.int64)
    duration = np.array([op[1] for op in ops], dtype=np.int64)
    compiled = schedule_in_order(ready, duration, units)
    assert compiled.tolist() == schedule_in_order.py_func(ready, duration, units).tolist()

    free, issue, expected = [0] * units, -1, []
    for at, length in ops:
        issue = max(at, issue + 1, min(free) if units > 0 else 0)
        if units > 0:
            free[free.index(min(free))] = issue + length
        expected.append(issue + length)
    assert compiled.tolist() == expected


@given(operations, st.integers(1, 9))
def test_more_units_are_never_slower(ops: list[tuple[int, int]], units: int) -> None:
    ready = np.array([op[0] for op in ops], dtype=np.int64)
    duration = np.array([op[1] for op in ops], dtype=np.int64)
    fewer, more = (schedule_in_order(ready, duration, u) for u in (units, units + 1))
    assert (more <= fewer).all()


def link(bandwidth: float, latency: float, free: bool = False) -> LinkConfig:
    return LinkConfig(
        bandwidth_gb_per_s=bandwidth,
        latency_ns=latency,
        collectives="neupims_none" if free else "ring",
    )


@given(st.integers(1, 2**40), st.integers(2, 1024), st.integers(1, 4000), st.integers(0, 5000))
def test_all_reduce_is_its_closed_form(
    payload: int, devices: int, bandwidth: int, latency: int
) -> None:
    done = all_reduce(payload, devices, link(bandwidth, latency))
    seconds = 2 * (devices - 1) / devices * payload / (bandwidth * 1e9)
    seconds += 2 * (devices - 1) * latency * 1e-9
    assert done.time_ps == pytest.approx(seconds * 1e12, rel=1e-9, abs=1)
    assert done.link_bytes * devices >= 2 * (devices - 1) * payload
    assert (done.link_bytes - 1) * devices < 2 * (devices - 1) * payload


@pytest.mark.parametrize(
    ("payload", "devices", "free"), [(1000, 1, False), (0, 4, False), (1000, 4, True)]
)
def test_all_reduce_that_costs_nothing(payload: int, devices: int, free: bool) -> None:
    done = all_reduce(payload, devices, link(10, 100, free))
    assert (done.time_ps, done.link_bytes) == (0, 0)


@pytest.mark.parametrize(("payload", "devices"), [(-1, 2), (1, 0)])
def test_impossible_all_reduce_is_refused(payload: int, devices: int) -> None:
    with pytest.raises(InputError, match="all-reduce of"):
        all_reduce(payload, devices, link(10, 100))


@given(st.integers(1, 10**9), st.integers(1, 4))
def test_cycles_of_a_collective_are_started_cycles(payload: int, ghz: int) -> None:
    done = all_reduce(payload, 4, link(100, 10))
    cycles = done.cycles(ghz * 10**9)
    assert (cycles - 1) * 1000 < done.time_ps * ghz <= cycles * 1000


def test_weights_are_read_once_when_the_inputs_fit() -> None:
    """A decode GEMM of GPT3-175B on 32 MiB: whole k, tiles along n, no operand twice."""
    m, n, k = 256, 6144, 12288
    tiles = tile_gemm(m, n, k, 2, scratchpad(32 * 2**20))
    assert len(tiles) > 1
    assert {(tile.m, tile.k) for tile in tiles} == {(m, k)}
    assert traffic(tiles) == 2 * (m * n + n * k + m * k)
    assert tiles[0].input_bytes == 2 * m * k


def test_the_artifacts_scratchpad_holds_its_products_whole() -> None:
    """MECHANISMS 4.10: one tile per GEMM for 7B, tp 4, below 67 MB; then the largest is halved."""
    spad = scratchpad(2 * 134218 * 1000 // 2)
    assert len(tile_gemm(512, 4096, 4096, 2, spad, "halve-largest")) == 1
    (first, second) = tile_gemm(512, 8 * 4096, 1024, 2, spad, "halve-largest")
    assert first.n == second.n == 4 * 4096
    assert first.input_bytes == second.input_bytes == 2 * 512 * 1024
