"""Recursive halving and doubling: pairs at distances 1, 2, 4 ... exchange what the other one needs.

A reduce-scatter exchanges halves, quarters and so on of the payload, an all-gather the same
backwards, an all-reduce both: 2 log2 p rounds (Thakur, Rabenseifner and Gropp, IJHPCA 2005). An
all-to-all exchanges half of what a device holds in each round (Bruck et al., IEEE TPDS 1997).
"""

from __future__ import annotations

from fractions import Fraction

from pimsim.config.errors import InputError
from pimsim.hardware.fabric.schedule import Operation, Schedule, Send, Symmetry, neighbour

__all__ = ["schedule"]


def schedule(operation: Operation, devices: int) -> Schedule:
    """Rounds of one message.

    Parameters
    ----------
    operation
        Of the collective.
    devices
        N, that take part.

    Raises
    ------
    InputError
        Where N is no power of two.

    References
    ----------
    Thakur, Rabenseifner and Gropp, IJHPCA 2005; Bruck et al., IEEE TPDS 1997.
    """
    if operation is Operation.SEND:
        return neighbour(devices)
    if devices & (devices - 1):
        raise InputError(
            f"collectives by halving_doubling are for a power of two of devices, found {devices}"
        )
    steps = devices.bit_length() - 1
    scatter = [Send(2**step, Fraction(1, 2 ** (step + 1))) for step in range(steps)]
    gather = scatter[::-1]
    if operation is Operation.ALL_REDUCE:
        sends = scatter + gather
    elif operation is Operation.REDUCE_SCATTER:
        sends = scatter
    elif operation is Operation.ALL_GATHER:
        sends = [Send(each.distance, each.share * devices) for each in gather]
    else:
        sends = [Send(each.distance, Fraction(1, 2)) for each in scatter]
    return Schedule(devices, Symmetry.EXCHANGE, tuple((send,) for send in sends))
