"""What arrays read and write, counted fold by fold by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.config.npu import SystolicConfig
from pimsim.hardware.dram.system import Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.operands import ArrayTraffic, shared_reads
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.scratchpad import gemm_sram_bytes, softmax_sram_bytes
from pimsim.mapping.tasks import GemmStep

FLOWS = ("ws", "os", "is")


def systolic(rows: int, cols: int, flow: str = "ws", arrays: int = 1) -> SystolicConfig:
    return SystolicConfig(arrays=arrays, rows=rows, cols=cols, dataflow=flow, preload="hidden")


def blocks(whole: int, size: int) -> list[int]:
    return [min(size, whole - at) for at in range(0, whole, size)]


def by_fold(m: int, n: int, k: int, rows: int, cols: int, flow: str) -> ArrayTraffic:
    """Every fold of the loops, its blocks of A, B and C."""
    inputs = weights = written = partial = 0
    if flow == "ws":
        for width in blocks(n, cols):
            for number, deep in enumerate(blocks(k, rows)):
                inputs, weights = inputs + m * deep, weights + deep * width
                written, partial = written + m * width, partial + (number > 0) * m * width
    elif flow == "os":
        for height in blocks(m, rows):
            for width in blocks(n, cols):
                inputs, weights = inputs + height * k, weights + width * k
                written += height * width
    else:
        for number, deep in enumerate(blocks(k, rows)):
            for height in blocks(m, cols):
                inputs, weights = inputs + height * deep, weights + deep * n
                written, partial = written + height * n, partial + (number > 0) * height * n
    return ArrayTraffic(inputs, weights, written, partial)


@given(
    m=st.integers(1, 70), n=st.integers(1, 70), k=st.integers(1, 70),
    rows=st.sampled_from([1, 4, 16, 33]), cols=st.sampled_from([1, 8, 16]),
    flow=st.sampled_from(FLOWS), arrays=st.sampled_from([1, 3]),
)  # fmt: skip
def test_each_fold_reads_its_blocks_once(
    m: int, n: int, k: int, rows: int, cols: int, flow: str, arrays: int
) -> None:
    plan = plan_gemm(m, n, k, systolic(rows, cols, flow, arrays))
    assert plan.traffic == by_fold(m, n, k, rows, cols, flow)
    assert plan.traffic.input_reads >= m * k
    assert plan.traffic.weight_reads >= n * k


def test_a_small_array_reads_more_often() -> None:
    """64 x 128 x 256: 8 blocks of 16 columns read the inputs eight times, one of 128 once."""
    small, large = (plan_gemm(64, 128, 256, systolic(side, side)).traffic for side in (16, 128))
    assert small == ArrayTraffic(64 * 256 * 8, 128 * 256, 64 * 128 * 16, 64 * 128 * 15)
    assert large == ArrayTraffic(64 * 256, 128 * 256, 64 * 128 * 2, 64 * 128)
    bytes_of = {
        flow: plan_gemm(64, 128, 256, systolic(16, 16, flow)).traffic.sram_bytes(
            64 * 128, 2, False, False
        )
        for flow in FLOWS
    }
    assert bytes_of["ws"] == 2 * (131_072 + 32_768 + 8_192) + 4 * (8_192 * 15 * 2)
    assert bytes_of["os"] == 2 * (131_072 + 32_768 * 4 + 8_192)
    assert bytes_of["is"] == 2 * (16_384 + 32_768 * 4 + 8_192) + 4 * (8_192 * 15 * 2)


def test_a_dataflow_that_says_nothing_broadcasts_along_its_smaller_side() -> None:
    assert shared_reads(32, 64, 128, 16) == ArrayTraffic(16_384, 16_384, 2_048)
    # never less than each operand once
    assert shared_reads(2, 64, 128, 16) == ArrayTraffic(1_024, 8_192, 128)
    assert shared_reads(3, 5, 7, 2) == ArrayTraffic(53, 53, 15)  # 105 / 2, rounded up


def test_sums_of_a_part_of_k_are_wider_and_are_taken_up_again() -> None:
    traffic = ArrayTraffic(100, 200, 40, 30)  # ten results, four folds along k
    assert traffic.sram_bytes(10, 2, False, False) == 2 * 310 + 4 * (30 + 30)
    assert traffic.sram_bytes(10, 2, False, True) == 2 * 300 + 4 * (30 + 40)
    assert traffic.sram_bytes(10, 2, True, False) == 2 * 310 + 4 * (30 + 10 + 30)


def test_a_product_is_its_tiles_and_what_they_move() -> None:
    """Two tiles along k of 4 x 8 x 16 on a 8 x 8 array, weights from DRAM in bursts of 64 B."""
    array = systolic(8, 8)
    tiles = [GemmTile(4, 8, 8, 0, 0, at, 128, 64, 0, 0) for at in (0, 8)]
    steps = [
        GemmStep(plan_gemm(4, 8, 8, array), (Stream(0, 2),), (Stream(9, 1, write=True),), 0)
        for _ in tiles
    ]
    first = 2 * (32 + 64) + 4 * 32  # inputs, weights; sums that go on
    second = 2 * (32 + 64 + 32) + 4 * 32  # sums taken up, results
    assert gemm_sram_bytes(steps, tiles, 16, 2, 64) == first + second + 2 * 3 * 64
    assert softmax_sram_bytes([10, 20], 4, 2) == 2 * 4 * 30 * 2


@pytest.mark.parametrize(
    ("elements", "width", "fits"),
    [(32, 2, True), (33, 2, False), (64, 1, True), (16, 4, True), (17, 4, False), (512, 2, False)],
)
def test_a_dot_product_reads_what_a_column_access_gives(
    elements: int, width: int, fits: bool
) -> None:
    """64 B in HBM2's legacy mode."""
    memory = load_memory("hbm2-neupims").config
    pim = load_pim("neupims").config.model_copy(update={"elements_per_comp": elements})
    for make in (
        lambda: AttentionShape.of(8, 8, 64, memory, pim, width),
        lambda: GemvShape.of(64, 64, memory, pim, width),
    ):
        if fits:
            assert make().elements_per_comp == elements
        else:
            with pytest.raises(InputError, match=rf"at most {64 // width}$"):
                make()
