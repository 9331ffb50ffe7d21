"""Direct collectives: each device sends to each other one at once, the next one first.

An all-reduce is two such rounds, a reduce-scatter and an all-gather; everything else is one. As few
rounds as there can be, and as many messages.
"""

from __future__ import annotations

from fractions import Fraction

from pimsim.hardware.fabric.schedule import Operation, Schedule, Send, Symmetry, neighbour

__all__ = ["schedule"]


def schedule(operation: Operation, devices: int) -> Schedule:
    """Rounds of N - 1 messages.

    Parameters
    ----------
    operation
        Of the collective.
    devices
        N, that take part.
    """
    if operation is Operation.SEND:
        return neighbour(devices)
    share = Fraction(1) if operation is Operation.ALL_GATHER else Fraction(1, devices)
    to_all = tuple(Send(distance, share) for distance in range(1, devices))
    rounds = 2 if operation is Operation.ALL_REDUCE else 1
    return Schedule(devices, Symmetry.ROTATION, rounds * (to_all,))
