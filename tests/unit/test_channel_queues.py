"""Laws of the ``channel-queues`` memories, as formulas over their timings: what a command bus with
long commands and two edges allows, and the controller's order."""

from __future__ import annotations

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.hardware.dram.rules import Command

ACT, PRE, RD, REF = Command.ACT, Command.PRE, Command.RD, Command.REF
ONE = ["organization.channels=1", "controller.refresh=none"]
HBM2 = load_memory("hbm2-2000", ONE).config
HBM3 = load_memory("hbm3-6400", ONE).config
BOTH = pytest.mark.parametrize("memory", [HBM2, HBM3], ids=lambda memory: memory.name)
START = 1001
"""A rising edge."""


def ticks(memory: MemoryConfig, first: Command, then: Command, clocks: int) -> int:
    """From start to start: a delay counts from the last tick of one command to that of the next."""
    bus = memory.command_bus
    return clocks * bus.ticks_per_clock + bus.ticks(first.name) - bus.ticks(then.name)


def required(memory: MemoryConfig, first: tuple[int, int], then: tuple[int, int]) -> int | None:
    """The tick that the checker asks for when ``then`` (command, bank) comes at once."""
    opened = [] if first[0] == ACT else [(1, 0, ACT, first[1], 0)]
    trace = [*opened, (START, 0, *first, 0), (START, 0, *then, 0)]
    found = check_commands(trace, memory)
    return None if found is None else found.required


@BOTH
def test_pseudo_channels_share_the_row_pins_only(memory: MemoryConfig) -> None:
    other = memory.organization.ranks * memory.organization.banks
    assert required(memory, (ACT, 0), (ACT, other)) == START + memory.command_bus.ticks("ACT")
    gap = ticks(memory, ACT, ACT, memory.timings["tRRD_S"])
    pair = [(START, 0, ACT, 0, 0), (START + gap - 2, 0, ACT, 4, 0)]  # its pins are free again
    found = check_commands(pair, memory)
    assert found is not None and (found.kind, found.required) == ("rule", START + gap)


@BOTH
def test_read_after_activate_counts_from_its_last_tick(memory: MemoryConfig) -> None:
    delay = ticks(memory, ACT, RD, memory.timings["tRCDRD"])
    assert required(memory, (ACT, 0), (RD, 0)) == START + delay
    assert delay > memory.timings["tRCDRD"] * memory.command_bus.ticks_per_clock


def test_only_precharges_start_at_a_falling_edge() -> None:
    found = check_commands([(START + 1, 0, ACT, 0, 0)], HBM3)
    assert found is not None and found.kind == "bus" and "falling edge" in str(found)
    late = START + 2 * HBM3.timings["tRC"] + 1
    assert late % 2 == 0
    assert check_commands([(START, 0, ACT, 0, 0), (late, 0, PRE, 0, -1)], HBM3) is None


def test_reads_of_two_sids_are_further_apart() -> None:
    t, sid = HBM3.timings, HBM3.organization.banks
    opened = [(1, 0, ACT, 0, 0), (101, 0, ACT, sid, 0), (201, 0, ACT, 4, 0)]
    for bank, clocks in ((4, t["tCCD_S"]), (sid, t["tCCD_R"])):
        found = check_commands([*opened, (START, 0, RD, 0, 0), (START + 2, 0, RD, bank, 0)], HBM3)
        assert found is not None and found.required == START + 2 * clocks


def replayed(memory: MemoryConfig, bursts: list[int], writes: list[int]) -> ReplayResult:
    size = memory.organization.burst_bytes
    return replay(memory, np.array(bursts) * size, np.array(writes), log_entries=1000)


@BOTH
def test_one_read(memory: MemoryConfig) -> None:
    """Seen in tick 1, opened for in it, read tRCDRD later, answered when its data came."""
    t, scale = memory.timings, memory.command_bus.ticks_per_clock
    result = replayed(memory, [0], [0])
    read = 1 + ticks(memory, ACT, RD, t["tRCDRD"])
    read += (read + 1) % 2 if scale == 2 else 0  # a column command waits for a rising edge
    assert [entry[:3] for entry in result.log.tolist()] == [[1, 0, ACT], [read, 0, RD]]
    assert result.cycles == read + (t["CL"] + t["nBL"]) * scale
    assert result.avg_read_latency_cycles == result.cycles


def test_writes_wait_for_the_high_mark_while_reads_come() -> None:
    """One burst in turn of a read and a write: no write goes before the queue holds enough."""
    high = HBM2.controller.drain_at
    result = replayed(HBM2, list(range(120)), [i % 2 for i in range(120)])
    first = next(e[0] for e in result.log.tolist() if e[2] == Command.WR)
    reads_before = sum(e[2] == RD and e[0] < first for e in result.log.tolist())
    assert first > 2 * high
    assert reads_before > 0


def test_a_read_of_a_buffered_write_is_answered_from_it() -> None:
    reads, other = 4, list(range(1000, 1004))
    result = replayed(HBM2, [*other, 5, 5], [0] * reads + [1, 0])
    assert (result.commands["RD"], result.commands["WR"]) == (reads, 1)


def test_on_a_device_a_pseudo_channel_is_a_channel() -> None:
    memory = device_memory(load_memory("hbm3-6400").config)
    before, after = load_memory("hbm3-6400").config.organization, memory.organization
    assert after.channels == before.channels * before.pseudo_channels
    assert after.capacity_bytes == before.capacity_bytes
    assert {rule.level for rule in memory.rules}.isdisjoint({"pseudo_channel"})
    assert device_memory(memory) == memory


def test_a_map_with_pc_apart_from_ch_is_refused_on_a_device() -> None:
    memory = load_memory("hbm2-2000", ["address_map=ropcrabacobgch"]).config
    with pytest.raises(InputError, match="pc must stand beside ch"):
        device_memory(memory)


@pytest.mark.parametrize("run", ["npu-only", "npu-pim", "neupims"])
def test_hbm3_is_the_memory_of_a_device(run: str) -> None:
    """Laws of a run are checked by ``simulate``; the memory's bandwidth bounds the weights."""
    from pimsim.simulate import resolve, simulate

    overrides = ["memory=hbm3-6400", "workload.layers=1", "workload.batch=4"]
    result = simulate(resolve(run, overrides))
    assert result.cycles > 0
    assert 0 < result.utilisation.dram_bus <= 1
