"""Tiles for cores: they cover the product, fit the buffers, and move what the estimate says."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_npu_of
from pimsim.config.npu import NpuConfig, SystolicConfig
from pimsim.engine.gemm import run_gemm
from pimsim.hardware.npu.gemm import plan_gemm, steady_cycles
from pimsim.hardware.npu.search import tile_for_cores

size = st.integers(1, 400)
systolics = st.builds(
    SystolicConfig,
    arrays=st.integers(1, 4),
    rows=st.sampled_from([4, 8, 16]),
    cols=st.sampled_from([4, 8, 32]),
    dataflow=st.sampled_from(["ws", "os", "is"]),
    preload=st.sampled_from(["exposed", "hidden"]),
)


def npu(systolic: SystolicConfig, **changes: object) -> NpuConfig:
    base = load_npu_of("npu-only")
    pad = {"capacity": 32768, "accumulator": changes.pop("accumulator", None)}
    scratchpad = base.scratchpad.model_copy(update=pad)
    return base.model_copy(update={"systolic": systolic, "scratchpad": scratchpad, **changes})


npus = st.builds(
    npu,
    systolics,
    cores=st.integers(1, 5),
    tiling=st.sampled_from(["least-time", "least-traffic", "gemmini"]),
    core_assignment=st.sampled_from(["round-robin", "least-loaded"]),
    accumulator=st.just(16384),
)


@given(size, size, size, systolics)
def test_steady_cycles_are_the_plan_s_intervals(
    m: int, n: int, k: int, systolic: SystolicConfig
) -> None:
    assert steady_cycles(m, n, k, systolic) == plan_gemm(m, n, k, systolic).interval_cycles.sum()


@settings(deadline=None)
@given(size, size, size, npus)
def test_tiles_cover_the_product_once_and_fit(m: int, n: int, k: int, config: NpuConfig) -> None:
    found = tile_for_cores(m, n, k, 2, config, 100_000)
    tiles = [tile for own in found.cores for tile in own]
    assert sum(t.m * t.n * t.k for t in tiles) == m * n * k
    assert len({(t.m_start, t.n_start, t.k_start) for t in tiles}) == len(tiles) == found.cut.tiles
    pad = config.scratchpad
    assert pad.accumulator is not None
    for tile in tiles:
        assert (tile.m * tile.k + tile.k * tile.n) * 2 <= pad.capacity // 2
        assert tile.m * tile.n * 4 <= pad.accumulator // 2
    if config.cores == 1:  # any order of the three dimensions may take the least time
        return
    for own in found.cores:  # all k of an output on one core, and there in order
        outputs = [(t.m_start, t.n_start) for t in own]
        assert outputs == sorted(outputs, key=outputs.index)


@settings(deadline=None)
@given(size, size, size, npus)
def test_the_estimate_counts_the_bytes_that_tiles_move(
    m: int, n: int, k: int, config: NpuConfig
) -> None:
    found = tile_for_cores(m, n, k, 2, config, 100_000)
    moved = sum(tile.traffic_bytes for own in found.cores for tile in own)
    if config.cores == 1 or config.tiling == "gemmini":
        assert moved == found.cut.traffic_bytes
    else:  # edge tiles make a core's neighbours share less or more than full ones
        assert moved == pytest.approx(found.cut.traffic_bytes, rel=0.5)


@settings(deadline=None, max_examples=50)
@given(size, size, size, npus)
def test_least_time_is_the_least_of_all_estimates(
    m: int, n: int, k: int, config: NpuConfig
) -> None:
    assume(config.tiling == "least-time")
    found = tile_for_cores(m, n, k, 2, config, 100_000, explain=True)
    assert all(found.cut.cycles <= other.cycles for other in found.others)


@settings(deadline=None, max_examples=50)
@given(size, size, size, npus)
def test_more_bandwidth_never_makes_the_estimate_worse(
    m: int, n: int, k: int, config: NpuConfig
) -> None:
    assume(config.tiling == "least-time")
    slow, fast = (tile_for_cores(m, n, k, 2, config, rate).cut for rate in (20_000, 200_000))
    assert fast.cycles <= slow.cycles


def test_a_scratchpad_without_room_is_refused() -> None:
    tiny = npu(SystolicConfig(arrays=1, rows=4, cols=4), cores=2)
    pad = tiny.scratchpad.model_copy(update={"capacity": 8})
    with pytest.raises(InputError, match=r"capacity 8 B: no room for one element"):
        tile_for_cores(8, 8, 8, 2, tiny.model_copy(update={"scratchpad": pad}), 1000)


def test_gemmini_cuts_as_onnxim_does() -> None:
    config = load_npu_of("onnxim-tpuv4")
    # NOTES section 2: 192/288/288/256 preloads of the GEMV, one tile of 512^3 on one core
    found = tile_for_cores(1, 4096, 4096, 2, config, 512_000)
    folds = [sum(plan_gemm(t.m, t.n, t.k, config.systolic).folds for t in own)
             for own in found.cores]  # fmt: skip
    assert folds == [192, 288, 288, 256]
    assert [len(own) for own in tile_for_cores(512, 512, 512, 2, config, 512_000).cores] == [
        0, 1, 0, 0,
    ]  # fmt: skip


def test_folds_of_a_core_are_those_of_all_its_tiles() -> None:
    """192/288/288/256 of the product above, run from memory."""
    config, memory = load_npu_of("onnxim-tpuv4"), load_memory("hbm2-onnxim").config
    assert run_gemm(1, 4096, 4096, config, memory, 2).core_folds == (192, 288, 288, 256)
