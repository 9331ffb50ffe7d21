"""A GPU's tiles: what fits, what it moves, and how full its waves are."""

from __future__ import annotations

import math

import pytest

from pimsim.config.documents import load_document
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.tiling import Product, tiles, traffic, wave_utilisation

A100 = load_document(XpuConfig, "xpu", "attacc-a100a").config


def test_the_last_wave_of_blocks_is_not_full() -> None:
    assert wave_utilisation(108, 108) == 1.0
    assert wave_utilisation(109, 108) == 109 / 216
    assert wave_utilisation(12, 108) == 12 / 108


def test_each_operand_moves_once_where_everything_fits() -> None:
    work = Product(54, 4608, 12288)
    assert traffic(work, A100).memory_bytes == work.least_bytes
    assert work.least_bytes == 2 * (54 * 12288 + 4608 * 12288 + 54 * 4608)


def test_an_l2_too_small_reads_an_operand_again() -> None:
    """1 MiB of L2 holds no tile of all 4096 rows: either operand is read more than once."""
    work = Product(4096, 4096, 4096)
    small = A100.model_copy(update={"l2": 2**20})
    tile = tiles(work, small)
    part_k = work.k / small.tiling.l2_k_parts
    held = (tile.l2_m + tile.l2_n) * part_k * 2 + tile.l2_m * tile.l2_n * 2
    assert held <= small.l2
    assert traffic(work, small).memory_bytes > work.least_bytes
    again = math.ceil(4096 / tile.l2_n) + math.ceil(4096 / tile.l2_m)
    assert traffic(work, small).memory_bytes == 2 * 4096 * 4096 * (again + 1)


@pytest.mark.parametrize("m", [1, 7, 64, 300, 2000])
@pytest.mark.parametrize("n", [100, 4608, 12288])
def test_the_l2_tile_is_the_best_of_all_that_fit(m: int, n: int) -> None:
    work = Product(m, n, 6144)
    xpu = A100.model_copy(update={"l2": 2**19})
    tile = tiles(work, xpu)
    part_k = work.k / xpu.tiling.l2_k_parts

    def moved(rows: int, columns: int) -> int:
        a = math.ceil(n / columns) * m * work.k
        b = math.ceil(m / rows) * n * work.k
        return 2 * (a + b + m * n)

    candidates = [(tile.block_m, tile.block_n)]
    candidates += [
        (rows, columns)
        for rows in [*range(tile.block_m, m, tile.block_m), m]
        for columns in [*range(tile.block_n, n, tile.block_n), n]
        if ((rows + columns) * part_k + rows * columns) * 2 <= xpu.l2
    ]
    assert traffic(work, xpu).memory_bytes == min(moved(*each) for each in candidates)


def test_a_block_fits_the_l1_of_a_core() -> None:
    for edge_bytes in (2, 4):
        work = Product(512, 512, 4096, element_bytes=edge_bytes, b_bytes=edge_bytes)
        small = A100.model_copy(update={"l1_per_core": 2**15})
        tile = tiles(work, small)
        held = (tile.block_m + tile.block_n) * small.tiling.block_k + tile.block_m * tile.block_n
        assert held * edge_bytes <= small.l1_per_core
        assert tile.blocks == math.ceil(512 / tile.block_m) * math.ceil(512 / tile.block_n)


def test_a_head_of_decode_attention_is_one_block() -> None:
    work = Product(1, 2048, 128, count=12, tiled=False)
    assert tiles(work, A100).blocks == 12


def test_narrower_elements_move_fewer_bytes() -> None:
    wide = Product(1, 2048, 128, count=3)
    narrow = Product(1, 2048, 128, count=3, b_bytes=1)
    assert wide.least_bytes - narrow.least_bytes == 3 * 2048 * 128
