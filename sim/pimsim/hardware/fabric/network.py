"""Messages on links in time: links are taken in turn, devices act on what they have received.

An event is a message that has come to a node. A link serves messages in the order in which they
come to it, one at a time; a message is stored and sent on at every node on its way. Alone, messages
meet no other, and each byte is passed on as it comes.

Where schedule and topology look the same from every device, one device stands for all, with one
link for each kind of link: what it is sent at some time is what it sends at that time. Else each
device and each link is simulated.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil, lcm

from pimsim.hardware.fabric.links import LinkSpec, LinkTiming
from pimsim.hardware.fabric.schedule import Schedule
from pimsim.hardware.fabric.topology import Topology, orbit

__all__ = ["CollectiveCost", "Phase", "carry"]


@dataclass(frozen=True)
class Phase:
    """A schedule on one level of the machine: as many groups of ``schedule.devices`` as there are
    others."""

    topology: Topology
    link: LinkSpec
    schedule: Schedule
    size: Fraction
    """The operation's S here, bytes."""
    stride: int
    """Devices from one member of a group to the next one."""
    level: int


@dataclass(frozen=True)
class CollectiveCost:
    """What a collective took and moved."""

    time_ps: int
    """Until the last device has all that it gets."""
    sent_bytes: Fraction
    """Payload that leaves one device, as its own: the mean over all."""
    carried_bytes: Fraction
    """Payload on all links, by device: what is passed on counts on each link."""
    messages: int
    """That one device sends."""
    rounds: int
    queued_messages: int
    """Of ``messages``, those that found a link taken, at least once; the mean over all devices,
    rounded up."""


NOTHING = CollectiveCost(0, Fraction(0), Fraction(0), 0, 0, 0)


@dataclass(slots=True)
class _Link:
    free: int = 0


@dataclass(slots=True)
class _Message:
    target: int
    round: int
    links: Sequence[_Link]
    busy: int
    """Ticks that it keeps each link."""
    hop: int
    """Ticks from one node to the next; alone: to the last one."""
    at: int = 0
    queued: bool = False


@dataclass(slots=True)
class _Device:
    begun: int = 0
    """Rounds."""
    due: int = 0
    """Messages of the round begun that are still to come."""
    early: dict[int, int] = field(default_factory=dict)
    """Messages of later rounds that have come, by round."""


def carry(
    phases: Sequence[Phase], timing: LinkTiming, devices: int, queues: bool
) -> CollectiveCost:
    """Simulate ``phases``, one after the other on each device.

    Parameters
    ----------
    phases
        What is done.
    timing
        Bytes to time.
    devices
        Of the machine.
    queues
        Whether messages share links and queue, or each is alone.
    """
    phases = [phase for phase in phases if phase.schedule.rounds]
    if not phases:
        return NOTHING
    return _Network(phases, timing, devices, queues).run()


class _Network:
    """One simulation."""

    def __init__(
        self, phases: Sequence[Phase], timing: LinkTiming, devices: int, queues: bool
    ) -> None:
        self.phases, self.timing, self.queues = phases, timing, queues
        alike = all(p.schedule.symmetry in p.topology.symmetries for p in phases)
        self.members = 1 if alike else devices
        self.alike = alike
        self.rounds = [
            (which, sends) for which, p in enumerate(phases) for sends in p.schedule.rounds
        ]
        self.phase_ends = {0}
        for phase in phases:
            self.phase_ends.add(max(self.phase_ends) + len(phase.schedule.rounds))
        self.links: dict[tuple[int, ...], _Link] = {}
        self.routes: dict[tuple[int, int, int], tuple[int, list[_Link]]] = {}
        self.ticks_per_ps, self.spans = self._spans()
        self.endpoint = int(timing.endpoint_ps * self.ticks_per_ps)
        self.heap: list[tuple[int, int, _Message | int]] = []
        self.count = 0
        self.devices = [_Device() for _ in range(self.members)]
        self.end = 0
        self.queued = 0
        self.hops: dict[tuple[int, Fraction], int] = {}

    def _spans(self) -> tuple[int, dict[tuple[int, Fraction, int], tuple[int, int]]]:
        """Ticks a picosecond, and of each size on each level: how long a link is kept, and how
        long a hop takes (alone: all hops, by their number)."""
        exact: dict[tuple[int, Fraction, int], tuple[Fraction, Fraction]] = {}
        for number, phase in enumerate(self.phases):
            shares = {send.share for sends in phase.schedule.rounds for send in sends}
            for share in shares:
                size = self._bytes(phase, share)
                busy = self.timing.serialisation_ps(size, phase.link)
                for hops in (1,) if self.queues else self._hop_counts(phase):
                    transfer = self.timing.transfer_ps(size, phase.link, hops)
                    exact[number, share, hops] = busy, transfer
        whole = lcm(
            *(span.denominator for pair in exact.values() for span in pair),
            Fraction(self.timing.endpoint_ps).denominator,
        )
        return whole, {
            key: (int(busy * whole), int(transfer * whole))
            for key, (busy, transfer) in exact.items()
        }

    def _hop_counts(self, phase: Phase) -> set[int]:
        """Over how many links messages of a phase go."""
        starts = range(1 if self.alike else phase.schedule.devices)
        distances = {send.distance for sends in phase.schedule.rounds for send in sends}
        symmetry, devices = phase.schedule.symmetry, phase.schedule.devices
        return {
            len(phase.topology.path(start, symmetry.peer(start, distance, devices))) - 1
            for start in starts for distance in distances
        }  # fmt: skip

    def run(self) -> CollectiveCost:
        """All events, in the order of time and then in that in which they were made."""
        for device in range(self.members):
            self._wake(device, self.endpoint)
        heap = self.heap
        while heap:
            now, _, event = heapq.heappop(heap)
            if isinstance(event, int):
                self._begin(event, now)
            elif event.at == len(event.links):
                self._receive(event, now)
            else:
                self._forward(event, now)
        return self._traffic()

    def _traffic(self) -> CollectiveCost:
        """The sums."""
        sent, messages = Fraction(0), 0
        for phase in self.phases:
            of_share = Counter(send.share for sends in phase.schedule.rounds for send in sends)
            messages += of_share.total()
            sent += sum(n * self._bytes(phase, share) for share, n in of_share.items())
        carried = sum(
            (hops * self._bytes(self.phases[which], share)
             for (which, share), hops in self.hops.items()), Fraction(0),
        )  # fmt: skip
        return CollectiveCost(
            time_ps=ceil(Fraction(self.end, self.ticks_per_ps)),
            sent_bytes=sent,
            carried_bytes=carried / self.members,
            messages=messages,
            rounds=len(self.rounds),
            queued_messages=-(-self.queued // self.members),
        )

    def _bytes(self, phase: Phase, share: Fraction) -> Fraction:
        return self.timing.piece(share * phase.size)

    def _wake(self, device: int, time: int) -> None:
        self.count += 1
        heapq.heappush(self.heap, (time, self.count, device))

    def _begin(self, device: int, now: int) -> None:
        """A device sends its next round, or is done."""
        own = self.devices[device]
        if own.begun == len(self.rounds):
            self.end = max(self.end, now)
            return
        which, sends = self.rounds[own.begun]
        own.begun += 1
        own.due = len(sends) - own.early.pop(own.begun, 0)
        for send in sends:
            target, links = self._route(which, device, send.distance)
            key = (which, send.share, 1 if self.queues else len(links))
            busy, hop = self.spans[key]
            self.hops[which, send.share] = self.hops.get((which, send.share), 0) + len(links)
            message = _Message(target, own.begun, links, busy, hop)
            if self.queues:
                self._forward(message, now)
            else:
                message.at = len(links)
                self._push(message, now + hop)
        if not own.due:
            self._finish_round(device, now)

    def _push(self, message: _Message, time: int) -> None:
        self.count += 1
        heapq.heappush(self.heap, (time, self.count, message))

    def _forward(self, message: _Message, now: int) -> None:
        """Take the next link when it is free; messages ahead of this one have taken it already."""
        link = message.links[message.at]
        start = max(now, link.free)
        if start > now and not message.queued:
            message.queued = True
            self.queued += 1
        link.free = start + message.busy
        message.at += 1
        self._push(message, start + message.hop)

    def _receive(self, message: _Message, now: int) -> None:
        own = self.devices[message.target]
        if message.round != own.begun:
            own.early[message.round] = own.early.get(message.round, 0) + 1
            return
        own.due -= 1
        if not own.due:
            self._finish_round(message.target, now)

    def _finish_round(self, device: int, now: int) -> None:
        """All of a round has come: the device says so where a phase ends, and goes on."""
        own = self.devices[device]
        ends = own.begun in self.phase_ends and own.begun < len(self.rounds)
        self._wake(device, now + (2 if ends else 1) * self.endpoint)

    def _route(self, which: int, device: int, distance: int) -> tuple[int, list[_Link]]:
        """To which device a message goes, and over which links."""
        key = (which, device, distance)
        if key not in self.routes:
            phase = self.phases[which]
            symmetry, size = phase.schedule.symmetry, phase.schedule.devices
            own = device // phase.stride % size
            peer = symmetry.peer(own, distance, size)
            path = phase.topology.path(own, peer)
            pairs = pairwise(path)
            if self.alike:
                names = [(phase.level, 0, *orbit(pair, symmetry, size)) for pair in pairs]
                target = 0
            else:
                target = device + (peer - own) * phase.stride
                group = device - own * phase.stride
                names = [(phase.level, group, *pair) for pair in pairs]
            links = [self.links.setdefault(name, _Link()) for name in names]
            self.routes[key] = target, links
        return self.routes[key]
