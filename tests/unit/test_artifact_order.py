"""The artifact's requests: walked like its hash set, from one counter; its arrays' issue rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_npu_of, load_run
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.request_order import deal
from pimsim.hardware.dram.system import Group, MemorySystem, OperandDependency, Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.mapping.operands import operands
from pimsim.reproductions.neupims_arrays import finish_steps
from pimsim.reproductions.neupims_hash_set import OperandCounter, hash_set_order
from pimsim.reproductions.neupims_operands import TileBlock, gemm_operands
from pimsim.reproductions.tilings import neupims_partial_stores
from pimsim.simulate import resolve, simulate
from pimsim.workload.operators import Operator, OperatorKind

MEMORY = load_memory("hbm2-neupims-artifact").config
BURST = MEMORY.organization.burst_bytes
WRAP = 1 << 20
WALKED = {
    # walks of robin_hood::unordered_set<uint64_t> 3.11.5, addresses / 64 in the memory's map
    (0, 5): [32, 0, 16, 64, 48],
    (100, 40): [
        387, 435, 180, 84, 211, 116, 259, 307, 483, 4, 323, 36, 100, 179, 131, 83, 403, 339, 132,
        227, 499, 68, 451, 419, 148, 163, 243, 291, 115, 467, 52, 371, 355, 275, 20, 164, 99, 67,
        195, 147,
    ],
}  # fmt: skip


def counter(wrap_bytes: int = WRAP) -> OperandCounter:
    return OperandCounter(MEMORY, wrap_bytes)


def in_memory(bursts: np.ndarray) -> np.ndarray:
    """Linear bursts (channel lowest of 32, 16 columns) as the memory's map counts them."""
    return (bursts >> 9 << 9) | (bursts & 31) << 4 | (bursts >> 5 & 15)


@pytest.mark.parametrize(("first", "count"), WALKED)
def test_a_set_is_walked_as_the_artifacts_container_does(first: int, count: int) -> None:
    keys = in_memory(np.arange(first, first + count)) * BURST
    assert (keys[hash_set_order(keys)] // BURST).tolist() == WALKED[first, count]


@given(st.lists(st.integers(0, 2**40), unique=True, max_size=600))
def test_a_walk_meets_every_key_once(keys: list[int]) -> None:
    order = hash_set_order(np.array(keys, dtype=np.int64))
    assert sorted(order.tolist()) == list(range(len(keys)))


@given(st.lists(st.integers(1, 3000).map(lambda n: 2 * n), min_size=1, max_size=40))
def test_operands_take_consecutive_bursts_and_share_none(sizes: list[int]) -> None:
    found, operand = counter(1 << 30).requests(sizes, write=False)
    # the counter moves before it is used, so an operand ends in the burst where the next begins
    assert sorted(found.tolist()) == list(range(sum(sizes) // BURST + 1))
    assert (np.diff(operand) >= 0).all()
    ends = np.cumsum(sizes) // BURST
    for o in range(len(sizes)):
        assert (found[operand == o] <= ends[o]).all()


def test_the_counter_goes_on_and_wraps() -> None:
    c = counter(4 * BURST)
    assert sorted(c.requests([2 * BURST], write=False)[0].tolist()) == [0, 1, 2]
    assert c.burst == 2
    # burst 2 was asked for by the operand before, 0 follows 3
    assert sorted(c.requests([2 * BURST], write=False)[0].tolist()) == [0, 3]
    assert c.burst == 0
    c.skip(BURST)
    assert c.burst == 1


def test_what_was_read_is_written_all_the_same() -> None:
    c = counter()
    c.requests([BURST], write=False)
    assert sorted(c.requests([BURST], write=True)[0].tolist()) == [1, 2]
    assert c.requests([BURST], write=True)[0].tolist() == [3]


def test_deal_keeps_each_channels_order() -> None:
    bursts, operand = counter().requests([40 * BURST, 9 * BURST], write=False)
    listed = np.zeros((len(bursts), 2), dtype=np.int32)
    sizes = deal(bursts, operand, 32, 1, 0, 5, listed)
    at = 0
    for channel, size in enumerate(sizes):
        mine = bursts & 31 == channel
        assert listed[at : at + size, 0].tolist() == (bursts[mine] >> 5).tolist()
        assert listed[at : at + size, 1].tolist() == operand[mine].tolist()
        at += size


# operands of a product --------------------------------------------------------------------------


def tile(m: int, n: int, k: int) -> GemmTile:
    return GemmTile(m, n, k, 0, 0, 0, n * k * 2, m * k * 2, 0, m * n * 2)


@given(st.integers(1, 600), st.integers(1, 900), st.integers(1, 900))
def test_operands_move_weights_activations_and_bias_once(m: int, n: int, k: int) -> None:
    found = gemm_operands(tile(m, n, k), 128, 2, True, lambda block: (block.rows, block.columns))
    bias = -(-m // 128) * min(n, 128) * 2
    assert sum(found.loads) == (n * k + m * k) * 2 + bias
    assert sum(found.stores) == m * n * 2
    # every operand but the bias is waited for, and the first step waits for the first two of them
    first = -(-m // 128)
    assert set(found.needed.ravel().tolist()) == set(range(first, len(found.loads)))
    assert sorted(found.needed[0, 0].tolist()) == [first, first + 1]


@given(st.integers(1, 600), st.integers(1, 900))
def test_the_store_bug_keeps_what_the_reference_says(m: int, n: int) -> None:
    npu = load_npu_of("neupims-artifact-main")
    product = Operator("product", OperatorKind.GEMM, m=m, n=n, k=128)
    tiles = neupims_partial_stores.Tiles(npu, MEMORY, 2, 0)

    def stored(block: TileBlock) -> tuple[int, int]:
        return tiles.stored_block(product, tile(m, n, 128), block)

    found = gemm_operands(tile(m, n, 128), 128, 2, False, stored)
    if m <= n:
        assert sum(found.stores) == m * min(n, 128 * -(-m // 128)) * 2


def test_the_store_bug_goes_by_the_place_of_the_tile() -> None:
    """Of 300 tokens and 900 outputs, block (1, 2) of the tile from token 128 and output 64: rows
    from 64 + 2 * 128 = 320, of which there are none; block (1, 1) has those from 192, 108 of them,
    and columns from 128 + 128 = 256, a whole block."""
    npu = load_npu_of("neupims-artifact-main")
    product = Operator("product", OperatorKind.GEMM, m=300, n=900, k=128)
    tiles = neupims_partial_stores.Tiles(npu, MEMORY, 2, 0)
    place = replace(tile(172, 836, 128), m_start=128, n_start=64)
    assert tiles.stored_block(product, place, TileBlock(1, 1, 128, 44, 128)) == (108, 128)
    assert tiles.stored_block(product, place, TileBlock(1, 2, 128, 44, 128)) == (0, 128)
    assert tiles.stored_block(product, place, TileBlock(6, 0, 128, 44, 128)) == (128, 4)


# the arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "serial"), [("main", False), ("npu-only", True)])
def test_steps_that_never_wait_take_the_plans_cycles(preset: str, serial: bool) -> None:
    systolic = load_npu_of(f"neupims-artifact-{preset}").systolic
    plan = plan_gemm(256, 1024, 512, systolic)
    ready = np.zeros(plan.steps, dtype=np.int64)
    finish = finish_steps(ready, 8, 128, 16, serial)
    # branch npu-only exposes half the first preload and one cycle more of the drain
    assert finish[-1] == plan.cycles - ((127 - 1) if serial else 0)


def test_a_late_step_behind_a_busy_array_starts_as_if_it_had_been_there() -> None:
    early = np.zeros(4, dtype=np.int64)
    late = np.array([0, 0, 300, 300], dtype=np.int64)
    # the array holds the first steps until 255 + 16 + 270
    assert finish_steps(late, 4, 128, 16, False)[-1] == finish_steps(early, 4, 128, 16, False)[-1]
    gone = np.array([0, 0, 900, 900], dtype=np.int64)
    assert finish_steps(gone, 4, 128, 16, False)[2] == 900 + 270


# streams ----------------------------------------------------------------------------------------


def system(**controller: object) -> MemorySystem:
    overrides = ["controller.refresh=none", *(f"controller.{k}={v}" for k, v in controller.items())]
    memory = load_memory("hbm2-neupims-artifact", overrides).config
    return MemorySystem(memory, order=OperandCounter(memory, WRAP))


def finish(memory: MemorySystem, group: Group) -> int:
    while memory.advance(INFINITY) is not group:
        pass
    return group.done_cycle


def test_each_operands_arrival_is_known() -> None:
    memory = system()
    operands = (32768, 2048, 32768)
    stream = Stream(0, sum(operands) // BURST, track_blocks=True, operands=operands)
    group = memory.submit(0, [stream])
    done = finish(memory, group)
    assert len(group.block_cycles) == len(operands)
    assert group.block_cycles.max() == done
    assert (group.block_cycles > 0).all()


def test_a_store_follows_its_own_loads() -> None:
    lag = 500
    rows = (8192, 8192)
    loads = Stream(0, 256, track_blocks=True, operands=rows)
    stores = Stream(0, 256, write=True, operands=rows, follows=OperandDependency(0, 1, lag))
    memory = system()
    group = memory.submit(0, [loads, stores])
    done = finish(memory, group)
    assert done >= group.block_cycles.max() + lag
    # a row's requests, 4 or 5 a channel, are taken at once
    assert done <= group.block_cycles.max() + lag + 10


def test_a_limit_on_reads_in_flight_keeps_a_stream_in_order() -> None:
    operands = (32768,) * 64
    stream = Stream(0, 32768, track_blocks=True, operands=operands)
    spread = []
    for limit in (4096, 32):
        memory = system(requests_in_flight=limit)
        group = memory.submit(0, [stream])
        finish(memory, group)
        order = np.argsort(group.block_cycles, kind="stable")
        spread.append(int(np.abs(order - np.arange(len(order))).max()))
    assert spread[1] < spread[0]


def test_the_order_needs_the_artifacts_arrays_and_its_activations_in_memory() -> None:
    counter = "npu.operand_layout=neupims_counter"
    with pytest.raises(InputError, match="needs tiling 'neupims_blocks'"):
        load_run("neupims", [counter])
    with pytest.raises(InputError, match=r"needs systolic\.dataflow 'neupims_overlapped'"):
        load_run("neupims", [counter, "npu.tiling=neupims_blocks"])
    with pytest.raises(InputError, match="activations"):
        load_run("neupims-artifact-main", ["npu.scratchpad.activations=scratchpad"])


def test_the_counter_of_branch_main_is_shared_by_the_devices_of_a_model() -> None:
    """5 E^2 elements of 2 bytes: after so many bursts it stands where it began."""
    hidden, tp = 1024, 4
    for name, devices in (("neupims_counter", tp), ("neupims_whole_counter", 1)):
        order = operands(name).request_order(MEMORY, hidden, tp)
        assert order is not None
        assert order.burst == 0
        order.skip(10 * hidden**2 // devices - BURST)
        assert order.burst == 10 * hidden**2 // devices // BURST - 1
        order.skip(BURST)
        assert order.burst == 0


def test_a_burst_that_operands_share_is_no_ones_bound() -> None:
    """Of 2880 features over 64 devices, the scores of 8 tokens lie in a burst that the router has
    asked for: nothing is read for ``route``, whose bound was 3 cycles and which took 2."""
    overrides = [
        "workload.model=gpt-oss-120b", "parallel.tp=64", "workload.layers=1", "workload.batch=8",
        "memory=lpddr4-2400", "memory.organization.channels=2", "memory.organization.rows=131072",
        "pim=newton", "seed=91",
    ]  # fmt: skip
    result = simulate(resolve("neupims-artifact-main", overrides))
    route = next(one for one in result.operators if one.name == "route")
    burst = 128
    assert (route.bytes, route.posted_bytes, route.bound_cycles) == (2 * burst, 2 * burst, 0)
    assert route.cycles == 2
