"""Collectives in a ring: each step moves a part of the payload over every link at once."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from pimsim.config.errors import InputError
from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.cost import Collective

__all__ = ["all_gather", "all_reduce", "send"]

_PS_PER_NS = 1000


def all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Sum ``payload_bytes`` over ``devices`` in a ring: reduce-scatter, then all-gather.

    Each of the 2 (p - 1) steps moves 1/p of the payload over every link and pays its latency:
    2 (p - 1) / p x bytes / bandwidth + 2 (p - 1) x latency (Patarasuk and Yuan, JPDC 2009).
    Exact arithmetic, rounded up to a picosecond. One device, or no payload, costs nothing.
    """
    return _ring("all-reduce", 2 * (devices - 1), payload_bytes, devices, link)


def all_gather(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Give each of ``devices`` all of ``payload_bytes``, of which each has 1/p, in a ring.

    The second half of an all-reduce: p - 1 steps of 1/p of the payload and a latency each.
    """
    return _ring("all-gather", devices - 1, payload_bytes, devices, link)


def send(payload_bytes: int, link: LinkConfig) -> Collective:
    """``payload_bytes`` from one device to another: bytes / bandwidth + latency."""
    return _ring("transfer", 1, payload_bytes, 1, link)


def _ring(what: str, steps: int, payload_bytes: int, parts: int, link: LinkConfig) -> Collective:
    """``steps`` that each move one of ``parts`` of the payload over every link."""
    if parts < 1 or payload_bytes < 0:
        raise InputError(f"{what} of {payload_bytes} bytes over {parts} devices")
    if steps == 0 or payload_bytes == 0:
        return Collective(time_ps=0, link_bytes=0)
    moved = Fraction(steps * payload_bytes, parts)
    ps_per_byte = 1000 / Fraction(link.bandwidth_gb_per_s)
    latency_ps = steps * _PS_PER_NS * Fraction(link.latency_ns)
    return Collective(time_ps=ceil(moved * ps_per_byte + latency_ps), link_bytes=ceil(moved))
