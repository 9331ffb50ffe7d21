"""Topologies: nodes, the links between them, and the way of a message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from pimsim.config.plugins import load_module
from pimsim.hardware.fabric.schedule import Symmetry

__all__ = ["Pairs", "Topology", "TopologyModule", "build_topology", "orbit", "topology_module"]

Pairs = Sequence[tuple[int, int]]
"""Links by the nodes that they lead from and to."""


class Topology(ABC):
    """Nodes 0 to ``devices`` - 1 are devices, those behind them switches. A link leads from one
    node to another, in one direction."""

    symmetries: frozenset[Symmetry] = frozenset()
    """Ways to renumber the devices that leave links and paths as they are: under those all devices
    see the same, so that one stands for all."""

    def __init__(self, devices: int) -> None:
        self.devices = devices

    @abstractmethod
    def path(self, source: int, target: int) -> Sequence[int]:
        """Nodes that a message from one device to another passes, both included."""

    @abstractmethod
    def links(self) -> Iterator[tuple[int, int]]:
        """All links."""


class TopologyModule(Protocol):
    """What a module of ``topologies/`` offers."""

    TAKES_LINKS: bool
    """Whether it is given its links (``link.links``) or knows them."""

    def topology(self, devices: int, links: Pairs) -> Topology:
        """The topology of so many devices. Raises ``InputError`` where there is none."""


def topology_module(name: str) -> TopologyModule:
    """The module of that name.

    Parameters
    ----------
    name
        As ``link.topology`` has it.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    return cast(TopologyModule, load_module("topology", name))


def build_topology(name: str, devices: int, links: Pairs = ()) -> Topology:
    """The topology of that name over ``devices``.

    Parameters
    ----------
    name
        Of its module, as ``link.topology`` has it.
    devices
        Numbered from 0.
    links
        Pairs of nodes, for topologies that take them.

    Raises
    ------
    InputError
        With the near miss where there is none of that name.
    """
    return topology_module(name).topology(devices, links)


def orbit(link: tuple[int, int], symmetry: Symmetry, devices: int) -> tuple[int, int]:
    """The link that stands for all those that ``symmetry`` makes of this one.

    Parameters
    ----------
    link
        Its source and target; numbers from ``devices`` on are switches.
    symmetry
        Under which all devices do the same.
    devices
        Numbered from 0.
    """
    source, target = link
    if source < devices:
        moved = symmetry.distance(source, target, devices) if target < devices else target
        return 0, moved
    return source, 0
