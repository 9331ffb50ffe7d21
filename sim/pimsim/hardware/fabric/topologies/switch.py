"""A switch: each device has a link to it and one from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pimsim.hardware.fabric.schedule import Symmetry
from pimsim.hardware.fabric.topology import Pairs, Topology

__all__ = ["TAKES_LINKS", "topology"]

TAKES_LINKS = False


class Switch(Topology):
    """Two links for each message, one after the other: the switch stores it and sends it on."""

    symmetries = frozenset(Symmetry)

    def path(self, source: int, target: int) -> Sequence[int]:
        """Over the switch, the node behind the devices."""
        return source, self.devices, target

    def links(self) -> Iterator[tuple[int, int]]:
        """To the switch and from it."""
        for device in range(self.devices):
            yield device, self.devices
            yield self.devices, device


def topology(devices: int, links: Pairs) -> Topology:
    """``devices`` at one switch.

    Parameters
    ----------
    devices
        Numbered from 0.
    links
        Not read.
    """
    del links
    return Switch(devices)
