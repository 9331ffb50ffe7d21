"""Cores that share a memory: nothing is lost, order and pace are the network's."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.single_slot import run_reads

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.dram.hashing import ipoly_channel, ipoly_tables
from pimsim.hardware.dram.layout import C_COMMANDS, MAX_PASSED
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import Group, MemorySystem, Network, Rows, Stream

FOREVER = 1 << 40


@cache
def memory(name: str, channels: int) -> MemoryConfig:
    return load_memory(name, [f"organization.channels={channels}"]).config


def finish(system: MemorySystem, step: int = FOREVER) -> dict[int, int]:
    """Cycle at which each group is complete, by its ticket."""
    done: dict[int, int] = {}
    while system.active:
        group = system.advance(system.now + step)
        if group is not None:
            done[group.ticket] = group.done_cycle
    return done


def moved(system: MemorySystem, command: Command) -> int:
    return int(system.channels["counter"][:, C_COMMANDS + int(command)].sum())


runs = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 40)), min_size=1, max_size=8)


def rows_of(found: list[tuple[int, int]]) -> Rows:
    first, bursts = np.array(found, dtype=np.int64).T
    return Rows(first.copy(), bursts.copy())


@settings(max_examples=25, deadline=None)
@given(
    st.lists(runs, min_size=1, max_size=4),
    st.sampled_from(["hbm2", "hbm2-onnxim"]),
    st.sampled_from([0, 833, 1000, 7000]),
    st.booleans(),
)
def test_every_burst_of_every_core_is_read_once(
    cores: list[list[tuple[int, int]]], name: str, period: int, hashed: bool
) -> None:
    network = Network(len(cores), period, 0, 4, hashed and period > 0)
    system = make_memory_system(memory(name, 8), network=network)
    for core, found in enumerate(cores):
        system.submit(0, [rows_of(found)], source=core)
    finish(system)
    assert moved(system, Command.RD) == sum(count for found in cores for _, count in found)


@settings(max_examples=10, deadline=None)
@given(st.lists(runs, min_size=2, max_size=3), st.integers(1, 50))
def test_cutting_a_run_into_windows_changes_no_cycle(
    cores: list[list[tuple[int, int]]], step: int
) -> None:
    done = []
    for window in (FOREVER, step):
        system = make_memory_system(
            memory("hbm2-onnxim", 8), network=Network(len(cores), 1000, 3000, 8, True)
        )
        for core, found in enumerate(cores):
            system.submit(0, [rows_of(found)], source=core)
        done.append(finish(system, window))
    assert done[0] == done[1]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 16)), min_size=1, max_size=12),
    st.sampled_from([4, 16, 257]),
)
def test_one_channel_does_what_the_single_slot_oracle_does(
    pieces: list[tuple[int, int]], depth: int
) -> None:
    config = load_memory(
        "hbm2-onnxim",
        [
            "organization.channels=1", f"controller.read_queue_depth={depth}",
            f"controller.write_queue_depth={max(depth, 205)}",
        ],
    ).config  # fmt: skip
    bursts = [row * 16 + i for row, count in pieces for i in range(count)]
    system = make_memory_system(config)
    first, counts = np.array([(row * 16, count) for row, count in pieces], dtype=np.int64).T
    group = system.submit(0, [Rows(first.copy(), counts.copy())])
    finish(system)
    expected = run_reads(bursts, config.timings, depth)
    assert (group.done_cycle, moved(system, Command.ACT)) == expected


def alone(network: Network, streams: int = 1) -> tuple[MemorySystem, list[Group]]:
    quiet = load_memory("hbm2", ["controller.refresh=none"]).config
    system = make_memory_system(quiet, network=network)
    groups = [system.submit(0, [Stream(core << 16, 4096)], source=core) for core in range(streams)]
    finish(system)
    return system, groups


@pytest.mark.parametrize(("ports", "shared_by"), [(1, 1), (8, 8)])
def test_a_port_passes_one_request_a_period(ports: int, shared_by: int) -> None:
    """One port of the core carries everything, or each of eight channels' ports an eighth."""
    period = 8000
    system, (group,) = alone(Network(1, period, ports=ports))
    least = (4096 - 8) // shared_by * period // system.cycle_ps
    assert least <= group.done_cycle <= least + 200


def test_latency_of_the_network_delays_the_first_request() -> None:
    _, (near,) = alone(Network(1, 1000))
    _, (far,) = alone(Network(1, 1000, latency_ps=50_000))
    assert far.done_cycle - near.done_cycle == pytest.approx(50, abs=2)


@pytest.mark.parametrize("ports", [1, 4])
@pytest.mark.parametrize("wait", [0, 30, 400])
def test_what_is_queued_in_steps_is_read_once_and_in_few_places(ports: int, wait: int) -> None:
    """Segments that are through make room: their list is as long as what is queued at once."""
    network = Network(1, 1000, ports=ports, hashed=True)
    config = load_memory("hbm2", ["organization.channels=2", "controller.refresh=none"]).config
    system = make_memory_system(config, network=network)
    groups = []
    for number in range(150):
        rows = rows_of([(number << 9, 16), ((number << 9) + 100, 8)])
        groups.append(system.submit(system.now, [rows]))
        system.advance(system.now + wait)
    most = int(system.channels["seg_end"].max())
    finish(system)
    assert moved(system, Command.RD) == 150 * 24
    ends = [group.done_cycle for group in groups]
    assert ends == sorted(ends) and ends[0] > 0
    if wait == 400:
        assert most <= 64
    if not wait:
        assert most >= 300, "nothing was read yet"


@pytest.mark.parametrize("later", [1, 100, 150])
def test_what_was_passed_on_waits_in_the_order_of_the_network(later: int) -> None:
    """A channel slower than its network lets requests pile up, more than its ring holds: a core
    that comes later stands behind what was passed on before, and takes turns from then on."""
    config = load_memory("hbm2", ["organization.channels=1", "controller.refresh=none"]).config
    own = 4 * MAX_PASSED
    row = config.organization.columns * config.organization.banks
    row *= config.organization.ranks
    network = Network(2, config.tCK, ports=1)
    system = MemorySystem(config, log_entries=16 * own, network=network)
    first = np.arange(2 * own, dtype=np.int64) * row  # each in a row of its own of one bank
    one = np.ones(own, dtype=np.int64)
    system.submit(0, [Rows(first[:own], one)])
    assert system.advance(later) is None
    system.submit(later, [Rows(first[own:], one)], source=1)
    finish(system)
    log = system.board["log"][0, : int(system.board["logged"][0])]
    served = log[log[:, 2] == int(Command.RD), 4]
    both = np.stack([own + np.arange(own - later), np.arange(later, own)], axis=1).ravel()
    assert served[:later].tolist() == list(range(later))
    assert served[later : later + len(both)].tolist() == both.tolist()


def test_cores_share_the_memory_evenly() -> None:
    _, (one,) = alone(Network(4, 1000, ports=8))
    _, four = alone(Network(4, 1000, ports=8), streams=4)
    ends = [group.done_cycle for group in four]
    assert max(ends) - min(ends) < 0.02 * max(ends)
    assert max(ends) > 3 * one.done_cycle


@pytest.mark.parametrize("channels", [2, 4, 8, 16])
def test_neighbours_lie_on_all_channels_where_the_tables_say(channels: int) -> None:
    lane_hash, lane_of = ipoly_tables(channels)
    orders = set()
    for row in range(600):
        found = [ipoly_channel(row * channels + lane, channels) for lane in range(channels)]
        assert sorted(found) == list(range(channels))
        assert [int(lane_of[c ^ lane_hash[row]]) for c in found] == list(range(channels))
        orders.add(tuple(found))
    assert len(orders) == channels


def test_more_channels_than_the_hash_has_are_refused() -> None:
    with pytest.raises(InputError, match="up to 16 channels, the memory has 32"):
        ipoly_tables(32)
