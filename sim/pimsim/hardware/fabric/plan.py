"""A machine's links, level by level, and what a collective is on them.

On two levels an all-reduce is a reduce-scatter inside each group, an all-reduce across groups of
what that left, and an all-gather inside; the others go from level to level, an all-gather from the
outer one inwards. Devices of the same place in their groups are one group of the outer level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import ceil, prod
from typing import Protocol, cast

from pimsim.config.errors import InputError, near_miss
from pimsim.config.plugins import load_module
from pimsim.config.run import EXACT, LevelConfig, LinkConfig
from pimsim.hardware.fabric.cost import Collective
from pimsim.hardware.fabric.links import LinkSpec, LinkTiming
from pimsim.hardware.fabric.network import NOTHING, CollectiveCost, Phase, carry
from pimsim.hardware.fabric.schedule import Operation, Schedule
from pimsim.hardware.fabric.topology import Pairs, build_topology, topology_module

__all__ = ["Fabric", "Level", "collective", "fabric_of", "neighbours"]


class _Algorithm(Protocol):
    """What a module of ``collectives/`` offers."""

    def schedule(self, operation: Operation, devices: int) -> Schedule:
        """What devices send one another; two devices or more."""


class _Timings(Protocol):
    """What a module of ``link_timings/`` offers."""

    Timing: type[LinkTiming]


@dataclass(frozen=True)
class Level:
    """Groups of devices, all alike."""

    devices: int
    """Of a group."""
    topology: str
    algorithm: str
    link: LinkSpec
    links: Pairs = ()
    """Those of a topology that takes them."""


@dataclass(frozen=True)
class Fabric:
    """Levels, the inner one first."""

    levels: tuple[Level, ...]
    timing: LinkTiming
    queues: bool
    """Messages share links and queue; else each is alone."""

    @property
    def devices(self) -> int:
        """Of all groups."""
        return prod(level.devices for level in self.levels)

    def run(self, operation: Operation, size: Fraction) -> CollectiveCost:
        """Simulate an operation whose S (``schedule.Operation``) is ``size`` bytes."""
        if size == 0 or self.devices == 1:
            return NOTHING
        return carry(list(self._phases(operation, size)), self.timing, self.devices, self.queues)

    def _phases(self, operation: Operation, size: Fraction) -> Iterator[Phase]:
        """What is done on which level, in order."""
        numbers = [n for n, level in enumerate(self.levels) if level.devices > 1]
        match operation:
            case Operation.ALL_REDUCE:
                steps = [(n, Operation.REDUCE_SCATTER) for n in numbers[:-1]]
                steps.append((numbers[-1], operation))
                steps += [(n, Operation.ALL_GATHER) for n in reversed(numbers[:-1])]
            case Operation.ALL_GATHER:
                steps = [(n, operation) for n in reversed(numbers)]
            case _:
                steps = [(n, operation) for n in numbers]
        topologies = {
            n: build_topology(level.topology, level.devices, level.links)
            for n, level in enumerate(self.levels) if n in numbers
        }  # fmt: skip
        for n, part in steps:
            level = self.levels[n]
            yield Phase(
                topologies[n], level.link, _schedule(level.algorithm, part, level.devices), size,
                prod(inner.devices for inner in self.levels[:n]), n,
            )  # fmt: skip
            if part is Operation.REDUCE_SCATTER:
                size /= level.devices
            elif part is Operation.ALL_GATHER:
                size *= level.devices


def _schedule(name: str, operation: Operation, devices: int) -> Schedule:
    return cast(_Algorithm, load_module("collective", name)).schedule(operation, devices)


def neighbours(link: LinkConfig) -> Fabric:
    """Two devices of neighbouring pipeline stages: of two levels in different groups, and one link
    apart where links are listed, which are those inside a stage.

    Parameters
    ----------
    link
        Of the machine.
    """
    level = _level(link.outer or link, 2)
    if topology_module(level.topology).TAKES_LINKS:
        level = replace(level, topology="fully_connected", links=())
    return Fabric((level,), _timing(link), link.congestion == "aware")


def fabric_of(link: LinkConfig, devices: int) -> Fabric:
    """The links of ``devices``, in groups where there are two levels.

    Parameters
    ----------
    link
        Of the machine, with ``outer`` where there are two levels.
    devices
        That a collective is over.

    Raises
    ------
    InputError
        Where groups do not divide the devices.
    """
    outer = link.outer
    inner = devices if outer is None else min(outer.group, devices)
    levels = [_level(link, inner)]
    if outer is not None and devices > inner:
        if devices % inner:
            raise InputError(
                f"link.outer.group {outer.group} does not divide the {devices} devices that a "
                "collective is over"
            )
        levels.append(_level(outer, devices // inner))
    return Fabric(tuple(levels), _timing(link), link.congestion == "aware")


def _timing(link: LinkConfig) -> LinkTiming:
    if link.timing == EXACT:
        return LinkTiming()
    return cast(_Timings, load_module("link_timing", link.timing)).Timing()


def _level(config: LevelConfig, devices: int) -> Level:
    return Level(
        devices, config.topology, config.collectives,
        LinkSpec.of(config.bandwidth_gb_per_s, config.latency_ns), config.link_pairs,
    )  # fmt: skip


_WORDS = {
    Operation.ALL_REDUCE: "all-reduce", Operation.ALL_GATHER: "all-gather",
    Operation.REDUCE_SCATTER: "reduce-scatter", Operation.ALL_TO_ALL: "all-to-all",
    Operation.SEND: "transfer",
}  # fmt: skip


def _named(operation: Operation | str) -> Operation:
    names = [str(each) for each in Operation]
    if operation not in names:
        raise InputError(
            f"unknown operation {operation!r}{near_miss(operation, names)}; known: "
            f"{', '.join(names)}"
        )
    return Operation(operation)


@lru_cache(maxsize=65536)
def collective(
    operation: Operation | str, payload_bytes: int, devices: int, link: LinkConfig
) -> Collective:
    """What an operation costs each device; remembered, as a run asks for the same ones again.

    Parameters
    ----------
    operation
        What is done, or its name: ``all_reduce``, ``all_gather``, ``reduce_scatter``,
        ``all_to_all``, ``send``.
    payload_bytes
        What each device starts with; of an all-gather what each has in the end.
    devices
        Over which it is.
    link
        Their links.

    Raises
    ------
    InputError
        For an unknown operation, a number of devices or bytes that there cannot be, and where
        levels or algorithms do not suit the devices.

    Examples
    --------
    >>> import pimsim
    >>> link = pimsim.load_config("neupims").config.link
    >>> alone, shared = (pimsim.collective("all_reduce", 2**20, n, link) for n in (1, 4))
    >>> alone.time_ps < shared.time_ps
    True
    """
    operation = _named(operation)
    if devices < 1 or payload_bytes < 0:
        raise InputError(f"{_WORDS[operation]} of {payload_bytes} bytes over {devices} devices")
    size = Fraction(payload_bytes)
    if operation is Operation.ALL_GATHER:
        size /= devices
    fabric = neighbours(link) if operation is Operation.SEND else fabric_of(link, devices)
    traffic = fabric.run(operation, size)
    return Collective(traffic.time_ps, ceil(traffic.sent_bytes))
