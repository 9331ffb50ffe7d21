"""Links, topologies and collectives: closed forms by hand, queues, two levels, given links."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.plugins import load_module
from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.collectives import all_gather, all_reduce, send
from pimsim.hardware.fabric.links import LinkSpec, LinkTiming
from pimsim.hardware.fabric.network import CollectiveCost
from pimsim.hardware.fabric.plan import Fabric, Level, fabric_of
from pimsim.hardware.fabric.schedule import Operation, Symmetry
from pimsim.hardware.fabric.topology import build_topology, orbit

ASTRA = load_module("link_timing", "astra_sim").Timing()


def run(
    topology: str, devices: int, algorithm: str, operation: str, size: int, *,
    gb_per_s: int = 100, latency_ns: int = 500, queues: bool = True, links: Any = (),
    timing: LinkTiming | None = None,
) -> CollectiveCost:  # fmt: skip
    """An operation on one level."""
    link = LinkSpec.of(gb_per_s, latency_ns)
    level = Level(devices, topology, algorithm, link, links)
    return Fabric((level,), timing or LinkTiming(), queues).run(
        Operation(operation), Fraction(size)
    )


def x(size: Fraction | int, gb_per_s: int = 100, latency_ns: int = 500) -> int:
    """Picoseconds of a message of ``size`` bytes over one link."""
    return int(latency_ns * 1000 + Fraction(size) * 1000 / gb_per_s)


# one level, by hand -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("topology", "devices", "algorithm", "operation", "ps"),
    [
        ("ring", 8, "ring", "all_reduce", 14 * x(1000)),
        ("ring", 8, "ring", "reduce_scatter", 7 * x(1000)),
        ("ring", 8, "ring", "all_gather", 7 * x(8000)),
        ("ring", 4, "ring", "all_to_all", 6 * x(2000)),
        ("ring", 8, "ring", "send", x(8000)),
        # a message over the switch is sent twice, one behind the other
        ("switch", 8, "ring", "all_reduce", 14 * 2 * x(1000)),
        ("switch", 8, "ring", "send", 2 * x(8000)),
        # seven messages leave one after the other (10 ns each); the last is sent again
        ("switch", 8, "direct", "all_to_all", 8 * 10_000 + 2 * 500_000),
        ("switch", 8, "direct", "reduce_scatter", 8 * 10_000 + 2 * 500_000),
        ("switch", 8, "direct", "all_gather", 8 * 80_000 + 2 * 500_000),
        ("switch", 8, "direct", "all_reduce", 2 * (8 * 10_000 + 2 * 500_000)),
        ("fully_connected", 8, "direct", "all_to_all", x(1000)),
        ("fully_connected", 8, "direct", "all_reduce", 2 * x(1000)),
        ("fully_connected", 8, "direct", "all_gather", x(8000)),
        ("fully_connected", 8, "ring", "all_reduce", 14 * x(1000)),
        (
            "fully_connected", 8, "halving_doubling", "all_reduce",
            2 * (x(4000) + x(2000) + x(1000)),
        ),
        ("fully_connected", 8, "halving_doubling", "all_gather", x(8000) + x(16000) + x(32000)),
        ("fully_connected", 8, "halving_doubling", "reduce_scatter", x(4000) + x(2000) + x(1000)),
        ("fully_connected", 8, "halving_doubling", "all_to_all", 3 * x(4000)),
        ("switch", 8, "halving_doubling", "reduce_scatter", 2 * (x(4000) + x(2000) + x(1000))),
        # to the next device and the one before at once; the one across goes two links upwards,
        # behind what its first link carries already (all three of 2,000 bytes)
        ("ring", 4, "direct", "all_to_all", 500_000 + 20_000 + 500_000 + 20_000 + 20_000),
        # 0 and 1, 2 and 3 exchange 4,000 bytes; then 0 and 2, 1 and 3 exchange 2,000 over two
        # links each: 0 to 2 and 2 to 0 upwards, 1 to 3 and 3 to 1 too, each link takes two
        ("ring", 4, "halving_doubling", "reduce_scatter", x(4000) + 2 * x(2000)),
    ],
)  # fmt: skip
def test_a_closed_form(
    topology: str, devices: int, algorithm: str, operation: str, ps: int
) -> None:
    assert run(topology, devices, algorithm, operation, 8000).time_ps == ps


def test_what_no_device_shares_is_the_same_alone() -> None:
    for queues in (True, False):
        assert run("ring", 8, "ring", "all_reduce", 8000, queues=queues).time_ps == 14 * x(1000)


def test_alone_a_message_is_sent_once_and_waits_for_none() -> None:
    alone = run("switch", 8, "direct", "all_to_all", 8000, queues=False)
    assert alone.time_ps == 2 * 500_000 + 10_000
    assert alone.queued_messages == 0
    assert (
        run("ring", 8, "direct", "all_to_all", 8000, queues=False).time_ps == 4 * 500_000 + 10_000
    )


def test_messages_that_find_their_link_taken_are_counted() -> None:
    assert run("switch", 8, "direct", "all_to_all", 8000).queued_messages == 6
    assert run("fully_connected", 8, "direct", "all_to_all", 8000).queued_messages == 0
    # of three messages the one across waits at its first link, behind the one to the next device;
    # what comes to be passed on finds its link free
    assert run("ring", 4, "direct", "all_to_all", 8000).queued_messages == 1


def test_bytes_on_links_by_hand() -> None:
    found = run("switch", 8, "direct", "all_reduce", 8000)
    assert (found.messages, found.rounds) == (14, 2)
    assert (found.sent_bytes, found.carried_bytes) == (14 * 1000, 2 * 14 * 1000)
    # distances 1, 2, 3, 4, 3, 2, 1 over the ring
    assert run("ring", 8, "direct", "all_to_all", 8000).carried_bytes == 16 * 1000


def test_sizes_that_do_not_divide_are_not_rounded() -> None:
    """A third of 100 bytes takes a third of the time; a picosecond is begun at the end only."""
    found = run("ring", 3, "ring", "all_reduce", 100, gb_per_s=300, latency_ns=0)
    assert found.time_ps == -(-4 * 100 * 10 // (3 * 3))
    assert found.sent_bytes == Fraction(400, 3)


# ASTRA-sim's way to count -------------------------------------------------------------------------
def test_whole_nanoseconds_and_bytes() -> None:
    """101 bytes over 3 devices are 33 each; 0.33 ns at 100 GB/s are none, and latency goes with
    them: 500.7 + 0.33 are 501. An endpoint takes 1 ns before each round and at the end."""
    found = Fabric(
        (Level(3, "ring", "ring", LinkSpec.of(100, 500.7)),), ASTRA, True
    ).run(Operation.ALL_REDUCE, Fraction(101))  # fmt: skip
    assert found.time_ps == (4 * (501 + 1) + 1) * 1000
    assert found.sent_bytes == 4 * 33


def test_a_phase_ends_and_the_next_one_begins_at_an_endpoint() -> None:
    """Between levels there are two: inner 2 x, outer 2 x, 1 ns before each round and after each
    phase."""
    link = LinkSpec.of(100, 500)
    fabric = Fabric((Level(2, "ring", "ring", link), Level(2, "ring", "ring", link)), ASTRA, True)
    found = fabric.run(Operation.REDUCE_SCATTER, Fraction(8000))
    assert found.time_ps == ((1 + 540 + 1) + (1 + 520 + 1)) * 1000


# two levels ---------------------------------------------------------------------------------------
INNER = {"bandwidth_gb_per_s": 100.0, "latency_ns": 500.0}
OUTER = {"bandwidth_gb_per_s": 10.0, "latency_ns": 2000.0, "group": 8}


def two_levels(**outer: Any) -> LinkConfig:
    return LinkConfig.model_validate(
        {**INNER, "topology": "fully_connected", "collectives": "direct",
         "outer": {**OUTER, "topology": "switch", **outer}}
    )  # fmt: skip


def test_two_levels_by_hand() -> None:
    """Inside 8 on S, across 4 on S/8, inside 8 again; across, each step is two links."""
    across = 2 * x(Fraction(32000, 32), 10, 2000)
    found = fabric_of(two_levels(), 32).run(Operation.ALL_REDUCE, Fraction(32000))
    assert found.time_ps == x(4000) + 6 * across + x(4000)
    scattered = fabric_of(two_levels(), 32).run(Operation.REDUCE_SCATTER, Fraction(32000))
    assert scattered.time_ps == x(4000) + 3 * across
    # the outer level first: each gives its own 32,000 bytes, then what its group has
    gathered = fabric_of(two_levels(), 32).run(Operation.ALL_GATHER, Fraction(32000))
    assert gathered.time_ps == 3 * 2 * x(32000, 10, 2000) + x(4 * 32000)
    exchanged = fabric_of(two_levels(), 32).run(Operation.ALL_TO_ALL, Fraction(32000))
    assert exchanged.time_ps == x(4000) + 6 * 2 * x(8000, 10, 2000)


def test_three_levels_by_hand() -> None:
    """2 x 2 x 2 devices, each level ten times as slow as the one inside: in, across, out again."""
    levels = tuple(
        Level(2, "fully_connected", "direct", LinkSpec.of(rate, 100)) for rate in (1000, 100, 10)
    )
    fabric = Fabric(levels, LinkTiming(), True)
    inner, middle, outer = x(4000, 1000, 100), x(2000, 100, 100), x(1000, 10, 100)
    reduced = fabric.run(Operation.ALL_REDUCE, Fraction(8000))
    assert reduced.time_ps == inner + middle + 2 * outer + middle + inner
    scattered = fabric.run(Operation.REDUCE_SCATTER, Fraction(8000))
    assert scattered.time_ps == inner + middle + outer
    gathered = fabric.run(Operation.ALL_GATHER, Fraction(1000))
    assert gathered.time_ps == outer + middle + inner


@pytest.mark.parametrize("inner", [2, 5])
def test_two_levels_device_by_device_are_those_that_one_stands_for(inner: int) -> None:
    """Of links that are listed each device of each group is simulated, on links of its own."""
    for known, other in (("fully_connected", "switch"), ("switch", "fully_connected")):
        links = tuple(build_topology(known, inner).links())
        spec, across = LinkSpec.of(100, 500), LinkSpec.of(10, 2000)
        outer = Level(3, other, "direct", across)
        one = Fabric((Level(inner, known, "direct", spec), outer), LinkTiming(), True)
        each = Fabric((Level(inner, "given", "direct", spec, links), outer), LinkTiming(), True)
        for operation in Operation:
            if operation is not Operation.SEND:
                size = Fraction(8000)
                assert one.run(operation, size) == each.run(operation, size), operation


@pytest.mark.parametrize("symmetry", Symmetry)
def test_links_that_stand_for_others(symmetry: Symmetry) -> None:
    """Of eight devices and a switch: all links to it are one, all from it another one."""
    assert {orbit((device, 8), symmetry, 8) for device in range(8)} == {(0, 8)}
    assert {orbit((8, device), symmetry, 8) for device in range(8)} == {(8, 0)}
    to_next = {orbit((d, symmetry.peer(d, 1, 8)), symmetry, 8) for d in range(8)}
    assert to_next == {(0, 1)}


def test_halves_are_gathered_backwards() -> None:
    """What was scattered last, with the nearest share, is gathered first, by who is farthest."""
    module = load_module("collective", "halving_doubling")

    def sends(operation: Operation) -> list[tuple[int, Fraction]]:
        rounds = module.schedule(operation, 8).rounds
        return [(one.distance, one.share) for (one,) in rounds]

    half, quarter, eighth = (Fraction(1, 2**n) for n in (1, 2, 3))
    scatter = [(1, half), (2, quarter), (4, eighth)]
    assert sends(Operation.REDUCE_SCATTER) == scatter
    assert sends(Operation.ALL_REDUCE) == scatter + scatter[::-1]
    assert sends(Operation.ALL_GATHER) == [(4, 1), (2, 2), (1, 4)]
    assert sends(Operation.ALL_TO_ALL) == [(1, half), (2, half), (4, half)]


def test_groups_that_are_not_full_are_one_level() -> None:
    one = LinkConfig(**INNER, topology="fully_connected", collectives="direct")
    for devices in (1, 2, 8):
        assert all_reduce(4096, devices, two_levels()) == all_reduce(4096, devices, one)


def test_stages_of_a_pipeline_are_in_other_groups() -> None:
    assert send(4096, two_levels()).time_ps == 2 * x(4096, 10, 2000)
    assert send(4096, two_levels(topology="ring")).time_ps == x(4096, 10, 2000)


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match=r"link\.outer\.group 8 does not divide the 12 devices"):
        all_reduce(4096, 12, two_levels())


# links as somebody lists them ---------------------------------------------------------------------
def test_given_links_are_gone_over_by_the_shortest_way() -> None:
    """0 - 1 - 2 and a switch 3 between 0 and 2: over it, from 0 to 2, as over 1; the lower number
    is taken."""
    given = build_topology("given", 3, ((0, 1), (1, 2), (0, 3), (3, 2), (2, 0)))
    assert list(given.path(0, 2)) == [0, 1, 2]
    assert list(given.path(1, 0)) == [1, 2, 0]
    assert list(given.path(2, 0)) == [2, 0]


@pytest.mark.parametrize(
    ("algorithm", "devices"), [("ring", 5), ("direct", 6), ("halving_doubling", 8)]
)
@pytest.mark.parametrize("queues", [True, False])
def test_each_device_simulated_is_one_that_stands_for_all(
    algorithm: str, devices: int, queues: bool
) -> None:
    """The same links listed one by one have no symmetry that anybody knows of."""
    for name in ("ring", "switch", "fully_connected"):
        links = tuple(build_topology(name, devices).links())
        for operation in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"):
            one = run(name, devices, algorithm, operation, 8000, queues=queues)
            if name == "ring":
                continue  # ways of the same length are chosen otherwise
            every = run("given", devices, algorithm, operation, 8000, queues=queues, links=links)
            assert one == every, (name, operation)


def test_a_ring_of_each_device_is_a_ring() -> None:
    """Five devices have no ways of the same length."""
    links = tuple(build_topology("ring", 5).links())
    for algorithm in ("ring", "direct"):
        for operation in ("all_reduce", "all_to_all"):
            one = run("ring", 5, algorithm, operation, 8000)
            assert one == run("given", 5, algorithm, operation, 8000, links=links)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (((0, 1), (1, 0)), "device 0 cannot reach device 2"),
        (((0, 1), (1, 2)), "device 1 cannot reach device 0"),
    ],
)
def test_a_device_that_cannot_be_reached(links: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_topology("given", 3, links)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"topology": "given"}, "topology 'given' needs links"),
        ({"links": ["0-1"]}, "links are for topology 'given'"),
        ({"topology": "given", "links": ["0-0"]}, "links: found '0-0'"),
        ({"topology": "given", "links": ["0=1"]}, "links: found '0=1'"),
        ({"topology": "rig"}, "did you mean 'ring'"),
        ({"collectives": "diret"}, "did you mean 'direct'"),
        ({"outer": {**OUTER, "group": 1}}, "greater than or equal to 2"),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinkConfig.model_validate({**INNER, **keys})


def test_one_way_and_both_ways() -> None:
    link = LinkConfig.model_validate({**INNER, "topology": "given", "links": ["0-1", "2>0"]})
    assert link.link_pairs == ((0, 1), (1, 0), (2, 0))


# what a run asks for ------------------------------------------------------------------------------
def test_an_all_gather_of_a_run_is_of_what_each_has_in_the_end() -> None:
    link = LinkConfig(**INNER)
    assert all_gather(8000, 8, link).time_ps == 7 * x(1000)
    assert all_gather(8000, 8, link).link_bytes == 7000
    assert all_reduce(8000, 8, link).link_bytes == 14000
    assert send(8000, link).link_bytes == 8000


def test_an_operation_by_its_name() -> None:
    link = LinkConfig(**INNER)
    assert pimsim.collective("all_reduce", 8000, 8, link) == all_reduce(8000, 8, link)
    assert pimsim.collective("all_gather", 8000, 8, link) == all_gather(8000, 8, link)
    assert pimsim.collective("all_to_all", 8000, 4, link).time_ps == 6 * x(2000)
    with pytest.raises(
        InputError, match="unknown operation 'allreduce'; did you mean 'all_reduce'"
    ):
        pimsim.collective("allreduce", 8000, 8, link)


def test_congestion_and_timing_of_a_run() -> None:
    link = LinkConfig(**INNER, topology="switch", collectives="direct")
    alone = link.model_copy(update={"congestion": "unaware"})
    assert all_reduce(8000, 8, link).time_ps == 2 * (80_000 + 1_000_000)
    assert all_reduce(8000, 8, alone).time_ps == 2 * (10_000 + 1_000_000)
    counted = link.model_copy(update={"timing": "astra_sim"})
    assert all_reduce(8000, 8, counted).time_ps == 2 * (80_000 + 1_000_000) + 3_000


def test_written_numbers_are_decimal() -> None:
    assert LinkSpec.of(0.1, 0.3) == LinkSpec(Fraction(1, 10000), Fraction(300))
