"""Laws of links and collectives, over all topologies and all ways to do a collective."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.config.plugins import is_reproduction, load_module, module_names
from pimsim.hardware.fabric.links import LinkSpec, LinkTiming
from pimsim.hardware.fabric.network import CollectiveCost
from pimsim.hardware.fabric.plan import Fabric, Level
from pimsim.hardware.fabric.schedule import Operation, Symmetry
from pimsim.hardware.fabric.topology import Topology, build_topology

TOPOLOGIES = module_names("topology")
ALGORITHMS = [n for n in module_names("collective") if not is_reproduction("collective", n)]
TIMINGS = [load_module("link_timing", name).Timing() for name in module_names("link_timing")]

topologies, algorithms = st.sampled_from(TOPOLOGIES), st.sampled_from(ALGORITHMS)
operations, counts = st.sampled_from(Operation), st.sampled_from([2, 4, 8, 16])
sizes, rates, latencies = st.integers(1, 2**30), st.integers(1, 2000), st.integers(0, 5000)


def pairs(devices: int) -> tuple[tuple[int, int], ...]:
    """Links for a topology that takes some: a ring, and two devices at a switch."""
    ring = build_topology("ring", devices).links()
    return (*ring, (0, devices), (devices, devices // 2), (devices // 2, devices), (devices, 0))


def made(name: str, devices: int) -> Topology:
    takes = load_module("topology", name).TAKES_LINKS
    return build_topology(name, devices, pairs(devices) if takes else ())


def run(
    topology: str, devices: int, algorithm: str, operation: Operation, size: int, rate: int,
    latency: int, queues: bool = True, timing: LinkTiming | None = None,
) -> CollectiveCost:  # fmt: skip
    takes = load_module("topology", topology).TAKES_LINKS
    level = Level(
        devices, topology, algorithm, LinkSpec.of(rate, latency), pairs(devices) if takes else ()
    )
    fabric = Fabric((level,), timing or LinkTiming(), queues)
    return fabric.run(operation, Fraction(size))


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("devices", [2, 3, 8, 9])
def test_paths_go_over_links_from_each_to_each(name: str, devices: int) -> None:
    topology = made(name, devices)
    links = set(topology.links())
    for source in range(devices):
        for target in range(devices):
            if source != target:
                path = list(topology.path(source, target))
                assert (path[0], path[-1]) == (source, target)
                assert len(set(path)) == len(path)
                assert set(pairwise(path)) <= links


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("devices", [2, 4, 8, 16])
def test_a_symmetry_leaves_paths_as_they_are(name: str, devices: int) -> None:
    topology = made(name, devices)
    for symmetry in topology.symmetries:
        for distance in range(1, devices):
            for start in range(devices):

                def moved(node: int, by: int = start, how: Symmetry = symmetry) -> int:
                    return how.peer(node, by, devices) if node < devices else node

                path = topology.path(0, distance)
                seen = topology.path(moved(0), moved(distance))
                assert [moved(node) for node in path] == list(seen)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("devices", [2, 4, 8, 32])
def test_what_is_needed_is_sent(algorithm: str, devices: int) -> None:
    """No device can have a sum, or all parts, for fewer bytes; these send no more, but an
    all-to-all that passes on what is for others."""
    parts = Fraction(devices - 1, devices)
    least = {
        Operation.ALL_REDUCE: 2 * parts, Operation.ALL_GATHER: Fraction(devices - 1),
        Operation.REDUCE_SCATTER: parts, Operation.ALL_TO_ALL: parts, Operation.SEND: Fraction(1),
    }  # fmt: skip
    for operation in Operation:
        sent = load_module("collective", algorithm).schedule(operation, devices).sent_share
        assert sent >= least[operation]
        assert sent == least[operation] or operation is Operation.ALL_TO_ALL


@settings(max_examples=150, deadline=None)
@given(topologies, algorithms, operations, counts, sizes, rates, latencies, st.booleans())
def test_more_of_a_link_is_never_slower(
    topology: str, algorithm: str, operation: Operation, devices: int, size: int, rate: int,
    latency: int, queues: bool,
) -> None:  # fmt: skip
    now = run(topology, devices, algorithm, operation, size, rate, latency, queues)
    faster = run(topology, devices, algorithm, operation, size, rate + 1, latency, queues)
    slower = run(topology, devices, algorithm, operation, size, rate, latency + 1, queues)
    more = run(topology, devices, algorithm, operation, size + 1, rate, latency, queues)
    assert faster.time_ps <= now.time_ps <= slower.time_ps
    assert more.time_ps >= now.time_ps


@settings(max_examples=150, deadline=None)
@given(topologies, algorithms, operations, counts, sizes, rates, latencies)
def test_bounds(
    topology: str, algorithm: str, operation: Operation, devices: int, size: int, rate: int,
    latency: int,
) -> None:  # fmt: skip
    """A device's bytes leave over its links and its messages take a latency each round; queues only
    add; bytes on links are those of messages times the links that they go over."""
    found = run(topology, devices, algorithm, operation, size, rate, latency)
    alone = run(topology, devices, algorithm, operation, size, rate, latency, queues=False)
    links = list(made(topology, devices).links())
    out = max(sum(source == d for source, _ in links) for d in range(devices))
    assert found.time_ps >= found.sent_bytes * 1000 / rate / out
    assert found.time_ps >= found.rounds * latency * 1000
    assert alone.time_ps <= found.time_ps
    assert found.carried_bytes >= found.sent_bytes == alone.sent_bytes
    assert found.carried_bytes * devices * 1000 / rate <= found.time_ps * len(links)
    assert found.queued_messages <= found.messages


@settings(max_examples=50, deadline=None)
@given(topologies, algorithms, operations, counts, sizes, rates, latencies)
def test_counting_nanoseconds_is_off_by_what_is_cut_off(
    topology: str, algorithm: str, operation: Operation, devices: int, size: int, rate: int,
    latency: int,
) -> None:  # fmt: skip
    exact = run(topology, devices, algorithm, operation, size, rate, latency)
    for timing in TIMINGS:
        counted = run(topology, devices, algorithm, operation, size, rate, latency, timing=timing)
        hops = devices * exact.messages * devices  # each may be waited for
        assert abs(counted.time_ps - exact.time_ps) <= 3000 * hops


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("operation", Operation)
def test_one_device_and_no_bytes_are_free(
    topology: str, algorithm: str, operation: Operation
) -> None:
    one = run(topology, 1, algorithm, operation, 1000, 1, 1)
    none = run(topology, 4, algorithm, operation, 0, 1, 1)
    assert one == none == CollectiveCost(0, Fraction(0), Fraction(0), 0, 0, 0)


@pytest.mark.parametrize("algorithm", module_names("collective"))
def test_a_thousand_devices_are_quick(algorithm: str) -> None:
    """One stands for all: as many events as one device's messages have links."""
    devices = 1024
    found = run("switch", devices, algorithm, Operation.ALL_REDUCE, 2**20, 100, 500)
    assert found.messages <= 2 * (devices - 1)
