"""Collectives between devices that share a model: one module for each way to do them.

A module offers ``schedule``, with the parameters of the one here: which messages devices send one
another for an operation. What they take follows from the links (``network.py``).
"""

from __future__ import annotations

from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.cost import Collective

__all__ = ["Collective", "all_gather", "all_reduce", "send"]


def all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Sum ``payload_bytes`` over ``devices``, so that each has the sum: what it costs each.

    One device, or no payload, costs nothing.

    Parameters
    ----------
    payload_bytes
        That each device holds before and after.
    devices
        That take part.
    link
        With its collectives and topology.

    Raises
    ------
    InputError
        Where the collective is not for so many devices.
    """
    return _collective("all_reduce", payload_bytes, devices, link)


def all_gather(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Give each of ``devices`` all of ``payload_bytes``, of which each has an equal part.

    Parameters
    ----------
    payload_bytes
        Of the whole, when it is gathered.
    devices
        That take part.
    link
        With its collectives and topology.

    Returns
    -------
    Collective
        What it costs each.

    Raises
    ------
    InputError
        Where the collective is not for so many devices.
    """
    return _collective("all_gather", payload_bytes, devices, link)


def send(payload_bytes: int, link: LinkConfig) -> Collective:
    """``payload_bytes`` from one device to another; of two levels over the outer one's links.

    Parameters
    ----------
    payload_bytes
        Of the message.
    link
        Between the two.
    """
    return _collective("send", payload_bytes, 2, link)


def _collective(operation: str, payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """What links do is loaded by those who share a model."""
    if devices == 1 and payload_bytes >= 0:
        return Collective(0, 0)
    from pimsim.hardware.fabric.plan import collective

    return collective(operation, payload_bytes, devices, link)
