"""Fast fidelity: when the blocks of a stream come, as by commands."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.loader import load_run
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.fast import FastMemorySystem, Probe
from pimsim.hardware.dram.fast.arrivals import moved_when_come, work_when_come
from pimsim.hardware.dram.fast.streams import row_set
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.dram.transfers import Stream
from pimsim.simulate import observe, resolve


def memory_of(name: str, channels: int, refresh: str = "none") -> MemoryConfig:
    given = [
        f"memory={name}", f"memory.organization.channels={channels}",
        "memory.controller.model=bank-queues", f"memory.controller.refresh={refresh}",
    ]  # fmt: skip
    return device_memory(load_run("npu-only", given).config.memory)


def arrivals(system: MemorySystem | FastMemorySystem, *streams: Stream) -> np.ndarray:
    """Cycle by which each block of the last stream, and all before it, have come."""
    groups = [system.submit(0, [stream]) for stream in streams]
    while system.active:
        system.advance(1 << 40)
    return np.maximum.accumulate(groups[-1].block_cycles)


@pytest.mark.parametrize("first", [0, 16 * 1000, 16 * 300 + 5])
@pytest.mark.parametrize("name", ["hbm3-6400", "hbm2-2000", "hbm2-neupims", "ddr5-4800"])
def test_blocks_come_when_they_do_by_commands(name: str, first: int) -> None:
    memory = memory_of(name, 16)
    channels = memory.organization.channels
    stream = Stream(first, channels * 1080 + 7, track_blocks=True)
    exact = arrivals(make_memory_system(memory, None, None), stream)
    fast = arrivals(FastMemorySystem(memory, None, Probe(memory, None)), stream)
    # a channel has a burst more or less of a block, and the mean rate is not each one's
    assert np.abs(fast - exact).max() <= 0.01 * exact[-1]
    assert len(exact) > 20


def test_some_bursts_of_a_rank_wait_until_the_other_has_no_more_hits() -> None:
    """HBM3 from its first burst: of the first rank's 512 bursts some are the last of all to come,
    as the bus has gone on to the other; from burst 1000 on none waits."""
    probe = Probe(memory_of("hbm3-6400", 16), None)
    held = probe.moved_when_come(0, 1088, 32) - np.arange(32, 1089, 32)
    assert held[:14].max() < 10
    assert held[15] > 500
    assert probe.moved_when_come(0, 1088, 32)[15:] == pytest.approx(1088, abs=3)
    spread = probe.moved_when_come(1000, 1088, 32) - np.arange(32, 1089, 32)
    assert spread.max() < 20


@pytest.mark.parametrize("first", [0, 777])
@pytest.mark.parametrize("name", ["hbm2-neupims", "hbm2", "hbm3e-9600", "gddr6", "lpddr5-6400"])
def test_later_passes_through_all_banks_are_as_the_second(name: str, first: int) -> None:
    memory = memory_of(name, 1)
    probe = Probe(memory, None)
    rows = row_set(AddressMap.parse(memory.stream_map, memory.organization))
    bursts = 6 * rows + 333
    repeated = moved_when_come(probe, first + 9 * rows, bursts, 32, rows)
    own = np.minimum(np.arange(32, bursts + 32, 32), bursts)
    run = np.minimum(probe.moved_when_come(first, bursts, 32), bursts)
    assert len(repeated) == -(-bursts // 32)
    assert np.abs(repeated - run).mean() < 0.05 * max(float((run - own).max()), 20)
    assert (repeated >= own).all() and repeated.max() == bursts


def test_a_block_has_come_when_it_has_on_the_last_channel() -> None:
    """Four channels: two in the same place, one elsewhere, one has nothing; blocks of four."""

    class Told:
        def moved_when_come(self, first: int, bursts: int, each: int) -> np.ndarray:
            late = {0: [6.0, 8.0, 12.0], 5: [4.0, 9.0, 10.0]}[first]
            assert (bursts, each) == ({0: 12, 5: 10}[first], 4)
            return np.array(late)

    begin, bursts = np.array([0, 100 + 5, 7, 100]), np.array([12, 10, 0, 12])
    told: Probe = Told()  # type: ignore[assignment]
    share = work_when_come(told, begin, bursts, 4, 4, 100)
    # the first is last on the first channel, the second on the other, whose third is its last
    assert share.tolist() == pytest.approx([0.5, 0.9, 1.0, 1.0])


def test_small_products_on_hbm3_are_exact_at_fast_fidelity() -> None:
    # arrays started 650 cycles early on weights of which some bursts come last of all: -5.9 %
    given = [
        "workload.model=smollm2-135m", "parallel.tp=1", "workload.layers=2", "memory=hbm3-6400",
        "workload.requests=sharegpt-512", "workload.batch=4", "memory.controller.refresh=none",
        "memory.organization.channels=16", "npu.systolic.arrays=4",
    ]  # fmt: skip

    def products_ps(fidelity: str) -> int:
        outcome, result = observe(resolve("npu-pim", [*given, f"fidelity={fidelity}"]))
        assert result.fidelity.mode == fidelity
        products = [one for one in outcome.recorder.operators if one.unit == "systolic"]
        assert len(products) == 8
        return sum(one.end_ps - one.start_ps for one in products)

    assert products_ps("fast") == pytest.approx(products_ps("command"), rel=0.02)
