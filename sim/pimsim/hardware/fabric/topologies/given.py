"""Links as somebody lists them: ``link.links``. A message takes the way with the fewest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from pimsim.config.errors import InputError
from pimsim.hardware.fabric.topology import Pairs, Topology

__all__ = ["TAKES_LINKS", "topology"]

TAKES_LINKS = True


class Given(Topology):
    """Nodes behind the devices are switches. Of ways that are as short a message takes the
    one whose nodes have the lower numbers."""

    def __init__(self, devices: int, links: Pairs) -> None:
        super().__init__(devices)
        self._links = sorted(set(links))
        self._into: dict[int, list[int]] = {}
        for source, target in self._links:
            self._into.setdefault(target, []).append(source)
        self._next: dict[int, dict[int, int]] = {}

    def path(self, source: int, target: int) -> Sequence[int]:
        """The shortest way."""
        if target not in self._next:
            self._next[target] = _next_nodes(target, self._into)
        path = [source]
        while path[-1] != target:
            path.append(self._next[target][path[-1]])
        return path

    def links(self) -> Iterator[tuple[int, int]]:
        """As listed."""
        return iter(self._links)

    def unreached(self) -> tuple[int, int] | None:
        """A device, and one that it cannot reach; None: each reaches each."""
        out: dict[int, list[int]] = {}
        for source, target in self._links:
            out.setdefault(source, []).append(target)
        to_first, from_first = _next_nodes(0, self._into), _next_nodes(0, out)
        for device in range(1, self.devices):
            if device not in from_first:
                return 0, device
            if device not in to_first:
                return device, 0
        return None


def _next_nodes(target: int, into: dict[int, list[int]]) -> dict[int, int]:
    """Where each node sends on what is for ``target``; those that cannot reach it are missing."""
    found = {target: target}
    waiting = deque([target])
    while waiting:
        node = waiting.popleft()
        for source in into.get(node, ()):
            if source not in found:
                found[source] = node
                waiting.append(source)
    return found


def topology(devices: int, links: Pairs) -> Topology:
    """``devices`` with these links.

    Parameters
    ----------
    devices
        Numbered from 0.
    links
        Pairs of nodes, from the first to the second.

    Raises
    ------
    InputError
        Where one cannot reach another.
    """
    made = Given(devices, links)
    pair = made.unreached()
    if pair is not None:
        raise InputError(
            f"link.links: device {pair[0]} cannot reach device {pair[1]}; each of the {devices} "
            "devices must reach each other one"
        )
    return made
