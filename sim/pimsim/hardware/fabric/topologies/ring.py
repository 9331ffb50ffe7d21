"""A ring: each device has a link to the next one and one to the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pimsim.hardware.fabric.schedule import Symmetry
from pimsim.hardware.fabric.topology import Pairs, Topology

__all__ = ["TAKES_LINKS", "topology"]

TAKES_LINKS = False


class Ring(Topology):
    """Messages go the shorter way, upwards where both are as long; devices pass them on."""

    symmetries = frozenset({Symmetry.ROTATION})

    def path(self, source: int, target: int) -> Sequence[int]:
        """The devices in between, in order."""
        up = (target - source) % self.devices
        step, hops = (1, up) if 2 * up <= self.devices else (-1, self.devices - up)
        return [(source + step * hop) % self.devices for hop in range(hops + 1)]

    def links(self) -> Iterator[tuple[int, int]]:
        """To the next and to the one before; of two devices these are the same one."""
        for device in range(self.devices):
            for other in {(device + 1) % self.devices, (device - 1) % self.devices} - {device}:
                yield device, other


def topology(devices: int, links: Pairs) -> Topology:
    """A ring of ``devices``.

    Parameters
    ----------
    devices
        Numbered from 0.
    links
        Not read.
    """
    del links
    return Ring(devices)
