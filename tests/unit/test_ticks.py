"""Clocks in integer picoseconds: the nearest to the exact time, however many edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.loader import load_memory, load_npu_of
from pimsim.config.resources import preset_names
from pimsim.engine.clock import Clock
from pimsim.hardware.dram.channel_queues.system import QueueMemorySystem
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.system import Network
from pimsim.hardware.ticks import Ticks
from pimsim.mapping.gemm import core_network

frequencies = st.integers(10**6, 10**10)


@pytest.mark.parametrize(
    ("hertz", "number", "ps"),
    [
        (10**9, 10**9, 10**12),
        (1_200_000_000, 1, 833),
        (1_200_000_000, 2, 1667),
        (1_200_000_000, 3, 2500),
        (1_200_000_000, 1_200_000_000, 10**12),
        (1_700_000_000, 17, 10_000),
        (3_200_000_000, 1, 313),  # 312.5: halves go up
        (3_200_000_000, 1_000_001, 312_500_313),
    ],
)
def test_edges_lie_at_the_nearest_picosecond(hertz: int, number: int, ps: int) -> None:
    assert Ticks.of_frequency(hertz).edge_ps(number) == ps


@given(frequencies, st.integers(0, 10**10))
def test_no_edge_drifts(hertz: int, number: int) -> None:
    """Within half a picosecond of the exact time; after a second of edges it is a second."""
    clock = Ticks.of_frequency(hertz)
    exact = Fraction(number * 10**12, hertz)
    assert abs(clock.edge_ps(number) - exact) <= Fraction(1, 2)
    assert clock.edge_ps(hertz) == 10**12
    assert clock.cycle(clock.edge_ps(number)) == number


@given(frequencies, st.integers(0, 10**13))
def test_the_next_edge_is_the_first_at_or_after(hertz: int, time_ps: int) -> None:
    clock = Ticks.of_frequency(hertz)
    number = clock.cycle(time_ps)
    assert clock.edge_ps(number) >= time_ps
    assert number == 0 or clock.edge_ps(number - 1) < time_ps


@given(frequencies, st.lists(st.integers(0, 10**9), max_size=5), st.integers(0, 10**10))
def test_arrays_are_their_numbers(hertz: int, numbers: list[int], large: int) -> None:
    clock = Ticks.of_frequency(hertz)
    whole = np.array([*numbers, large], dtype=np.int64)
    assert clock.edge_ps(whole).tolist() == [clock.edge_ps(int(each)) for each in whole]
    times = clock.edge_ps(whole)
    assert clock.cycle(times).tolist() == whole.tolist()


@given(frequencies, st.integers(0, 10**9), st.lists(st.integers(0, 10**6), max_size=20))
def test_steps_from_edge_to_edge_do_not_add_up_rounding(
    hertz: int, start: int, steps: list[int]
) -> None:
    clock = Ticks.of_frequency(hertz)
    time = clock.edge_ps(start)
    for cycles in steps:
        time = clock.later(time, cycles)
    assert time == clock.edge_ps(start + sum(steps))


def test_half_ticks_of_hbm3_are_exact() -> None:
    """625 ps in two: 312.5; 417 in two: 208.5."""
    for name, period in (("hbm3-6400", Fraction(625, 2)), ("hbm3e-9600", Fraction(417, 2))):
        memory = load_memory(name).config
        assert QueueMemorySystem(memory).cycle_ps == period
        clock = Clock.of(10**9, period)
        assert clock.memory.edge_ps(2_000_000) == 1_000_000 * memory.tCK
        assert clock.memory_cycle(1_000_000 * memory.tCK) == 2_000_000


@pytest.mark.parametrize("name", preset_names("memory"))
def test_two_ticks_of_every_memory_are_its_clock(name: str) -> None:
    memory = load_memory(name).config
    system = make_memory_system(memory)
    ticks = memory.command_bus.ticks_per_clock
    both = ticks if memory.controller.model == "channel-queues" else 1
    assert system.cycle_ps * both == memory.tCK


@pytest.mark.parametrize(("hertz", "period"), [(10**9, 1000), (1_200_000_000, Fraction(2500, 3))])
def test_a_network_and_half_ticks_share_one_exact_time(hertz: int, period: Fraction) -> None:
    """What the kernel counts: parts of a picosecond in which both periods are whole numbers."""
    memory = load_memory("hbm3-6400").config
    system = make_memory_system(memory, network=Network(1, Fraction(10**12, hertz)))
    p = system.parameters[0]
    assert Fraction(int(p["port_time"]), int(p["cycle_time"])) == period / Fraction(625, 2)


def test_a_network_of_the_cores_has_its_own_period() -> None:
    npu = load_npu_of("onnxim-tpuv4")
    assert npu.network is not None
    other = npu.network.model_copy(update={"frequency": 1_200_000_000})
    network = core_network(npu.model_copy(update={"network": other}))
    assert network.period_ps == Fraction(2500, 3)
    assert network.latency_ps == other.latency_cycles * Fraction(2500, 3)
