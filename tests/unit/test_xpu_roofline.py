"""Times and energies of a GPU's kernels as formulas over its config."""

from __future__ import annotations

import pytest

from pimsim.config.documents import load_document
from pimsim.config.loader import load_system
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.tiling import Product, tiles, wave_utilisation

A100 = load_document(XpuConfig, "xpu", "attacc-a100a").config
KERNELS = gpu_kernels(A100)
HOST = load_system("dgx-a100a-cpu").config.host
assert HOST is not None


def test_a_thin_product_takes_the_time_of_its_weights() -> None:
    work = Product(1, 108 * 512, 4096)
    cost = KERNELS.product(work, A100)
    full = wave_utilisation(tiles(work, A100).blocks, 108)
    assert cost.bound == "memory"
    assert cost.time_s == pytest.approx(work.least_bytes / (3352e9 * 0.85 * full))
    assert full > 0.9


def test_a_thick_product_takes_the_time_of_its_arithmetic() -> None:
    work = Product(4096, 4096, 4096)
    cost = KERNELS.product(work, A100)
    full = wave_utilisation(tiles(work, A100).blocks, 108)
    assert cost.bound == "compute"
    assert cost.time_s == pytest.approx(2 * 4096**3 / (312e12 * 0.8 * full))


def test_bytes_go_at_twice_the_rate_of_halves() -> None:
    assert roofline.peak_flops(A100, 1) == 2 * roofline.peak_flops(A100, 2) == 624e12


def test_few_heads_leave_cores_and_their_bandwidth_unused() -> None:
    twelve = KERNELS.product(Product(1, 2048, 128, 12, tiled=False), A100)
    full = KERNELS.product(Product(1, 2048, 128, 108, tiled=False), A100)
    assert twelve.time_s == pytest.approx(full.time_s)


@pytest.mark.parametrize("utilisation", [0.85, 0.5])
@pytest.mark.parametrize("blocks", [12, 108, 109])
def test_blocks_of_a_stream_have_the_memory_s_attained_rate(
    utilisation: float, blocks: int
) -> None:
    xpu = A100.model_copy(update={"memory_utilisation": utilisation})
    cost = roofline.waves(10**9, 7, blocks, xpu)
    full = wave_utilisation(blocks, 108)
    assert cost.time_s == pytest.approx(1e9 / (3352e9 * utilisation * full))
    assert (cost.memory_pj, cost.core_pj) == (
        roofline.waves(10**9, 7, 1, A100).memory_pj, roofline.waves(10**9, 7, 1, A100).core_pj
    )  # fmt: skip


def test_a_streaming_kernel_is_a_launch_and_a_rate() -> None:
    kernel = A100.add_norm
    cost = roofline.stream(10**9, 0, kernel, A100)
    assert cost.time_s == pytest.approx(6.87e-6 + 1e9 / (3352e9 * kernel.bandwidth_share))
    assert (cost.bound, roofline.stream(1000, 0, kernel, A100).bound) == ("memory", "launch")


def test_energy_of_a_product_by_its_parts() -> None:
    """Everything fits: 3.59 pJ for each bit of the operands, 0.32 + 3 x 0.0675 pJ for each MAC."""
    work = Product(16, 64, 64)
    cost = KERNELS.product(work, A100)
    assert cost.memory_pj == pytest.approx(work.least_bytes * 8 * 3.59)
    l1_bytes = 2 * (64 // 16 * 16 * 64 + 64 * 64 + 16 * 64)
    tile = tiles(work, A100)
    l2_bytes = 2 * (64 // tile.block_n * 16 * 64 + 16 // tile.block_m * 64 * 64 + 16 * 64)
    caches = 8 * (l2_bytes * 0.3 + l1_bytes * 0.16)
    assert cost.core_pj == pytest.approx(caches + 16 * 64 * 64 * (0.32 + 3 * 0.0675))
    assert cost.energy_pj == cost.memory_pj + cost.core_pj


def test_a_host_streams_once_at_its_bandwidth() -> None:
    cost = roofline.host_stream(10**9, 10**6, 2, HOST)
    assert (cost.bound, cost.time_s) == ("memory", pytest.approx(1e9 / (200e9 * 0.85)))
    assert roofline.host_stream(10**6, 10**12, 2, HOST).bound == "compute"
