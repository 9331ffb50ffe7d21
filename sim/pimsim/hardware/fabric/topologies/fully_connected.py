"""Fully connected: each device has a link to each other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pimsim.hardware.fabric.schedule import Symmetry
from pimsim.hardware.fabric.topology import Pairs, Topology

__all__ = ["TAKES_LINKS", "topology"]

TAKES_LINKS = False


class FullyConnected(Topology):
    """Each link has the bandwidth given, so that a device has N - 1 times as much."""

    symmetries = frozenset(Symmetry)

    def path(self, source: int, target: int) -> Sequence[int]:
        """The two of them."""
        return source, target

    def links(self) -> Iterator[tuple[int, int]]:
        """From each to each other."""
        for source in range(self.devices):
            for target in range(self.devices):
                if source != target:
                    yield source, target


def topology(devices: int, links: Pairs) -> Topology:
    """``devices`` with a link from each to each.

    Parameters
    ----------
    devices
        Numbered from 0.
    links
        Not read.
    """
    del links
    return FullyConnected(devices)
