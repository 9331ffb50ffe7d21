"""Collectives in a ring: each device sends to the next one, a piece a round.

An all-reduce is a reduce-scatter and an all-gather, 2 (p - 1) rounds of 1/p of the payload
(Patarasuk and Yuan, JPDC 2009). In an all-to-all a piece for the device at distance d is passed on
d times, so that each device sends p (p - 1) / 2 pieces.
"""

from __future__ import annotations

from fractions import Fraction

from pimsim.hardware.fabric.schedule import Operation, Schedule, Send, Symmetry, neighbour

__all__ = ["schedule"]


def schedule(operation: Operation, devices: int) -> Schedule:
    """Rounds of one message, to the next device.

    Parameters
    ----------
    operation
        Of the collective.
    devices
        That take part.

    References
    ----------
    Patarasuk and Yuan, JPDC 2009.
    """
    if operation is Operation.SEND:
        return neighbour(devices)
    share = Fraction(1) if operation is Operation.ALL_GATHER else Fraction(1, devices)
    rounds = {
        Operation.ALL_REDUCE: 2 * (devices - 1),
        Operation.ALL_TO_ALL: devices * (devices - 1) // 2,
    }.get(operation, devices - 1)
    return Schedule(devices, Symmetry.ROTATION, rounds * ((Send(1, share),),))
