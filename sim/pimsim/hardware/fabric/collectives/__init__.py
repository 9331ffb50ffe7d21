"""Collectives between devices that share a model: one module for each way to do them.

A module offers ``schedule``, with the parameters of the one here: which messages devices send one
another for an operation. What they take follows from the links (``network.py``).
"""

from __future__ import annotations

from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.cost import Collective
from pimsim.hardware.fabric.plan import collective
from pimsim.hardware.fabric.schedule import Operation

__all__ = ["Collective", "all_gather", "all_reduce", "send"]


def all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Sum ``payload_bytes`` over ``devices``, so that each has the sum: what it costs each.

    One device, or no payload, costs nothing. Raises ``InputError`` where there is no such number.
    """
    return collective(Operation.ALL_REDUCE, payload_bytes, devices, link)


def all_gather(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Give each of ``devices`` all of ``payload_bytes``, of which each has an equal part."""
    return collective(Operation.ALL_GATHER, payload_bytes, devices, link)


def send(payload_bytes: int, link: LinkConfig) -> Collective:
    """``payload_bytes`` from one device to another; of two levels over the outer one's links."""
    return collective(Operation.SEND, payload_bytes, 2, link)
