"""What devices send one another in a collective: rounds of messages, the same for every device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

__all__ = ["Operation", "Schedule", "Send", "Symmetry", "neighbour"]


class Operation(StrEnum):
    """What is done. A size S is what each device starts with; a result of ``ALL_GATHER`` is so as
    large as all devices' S together."""

    ALL_REDUCE = "all_reduce"
    """Each device gets the sum of all devices' S."""
    ALL_GATHER = "all_gather"
    """Each device gets all devices' S."""
    REDUCE_SCATTER = "reduce_scatter"
    """Each device gets one part of the sum."""
    ALL_TO_ALL = "all_to_all"
    """Each device has a part of its S for each of them, itself included."""
    SEND = "send"
    """S from each device to the next one."""


class Symmetry(StrEnum):
    """How the same schedule looks from each device: who the peer at a distance is."""

    ROTATION = "rotation"
    """Device d's peer at distance x is (d + x) mod N."""
    EXCHANGE = "exchange"
    """Device d's peer at distance x is d xor x; N is a power of two."""

    def peer(self, device: int, distance: int, devices: int) -> int:
        """The device at a distance."""
        if self is Symmetry.EXCHANGE:
            return device ^ distance
        return (device + distance) % devices

    def distance(self, device: int, peer: int, devices: int) -> int:
        """At which distance from a device another one is."""
        if self is Symmetry.EXCHANGE:
            return device ^ peer
        return (peer - device) % devices


@dataclass(frozen=True, slots=True)
class Send:
    """One message of a round."""

    distance: int
    """To whom, by the schedule's symmetry; not 0."""
    share: Fraction
    """Its bytes in parts of the operation's S."""


@dataclass(frozen=True)
class Schedule:
    """Rounds of messages. A device begins a round as soon as all messages of the one before, that
    are for it, have come; nobody waits for anybody else.

    Every device does the same, by ``symmetry``; so each gets as many messages a round as it sends.
    """

    devices: int
    symmetry: Symmetry
    rounds: tuple[tuple[Send, ...], ...]

    @property
    def sent_share(self) -> Fraction:
        """What each device sends in all, in parts of S."""
        return sum((send.share for sends in self.rounds for send in sends), Fraction(0))


def neighbour(devices: int) -> Schedule:
    """The schedule of ``Operation.SEND``: everything at once, to the next device.

    Parameters
    ----------
    devices
        That all send.
    """
    return Schedule(devices, Symmetry.ROTATION, ((Send(1, Fraction(1)),),))
