"""Collectives between devices that share a model (tensor parallelism)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from pimsim.config.errors import InputError
from pimsim.config.run import LinkConfig

__all__ = ["Collective", "ring_all_reduce"]

_PS_PER_NS = 1000


@dataclass(frozen=True)
class Collective:
    """What one collective costs each device."""

    time_ps: int
    link_bytes: int
    """Bytes that leave one device over its link."""

    def cycles(self, frequency_hz: int) -> int:
        """The time in started cycles of a clock."""
        return -(-self.time_ps * frequency_hz // 10**12)


def ring_all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Sum ``payload_bytes`` over ``devices`` in a ring: reduce-scatter, then all-gather.

    Each of the 2 (p - 1) steps moves 1/p of the payload over every link and pays its latency:
    2 (p - 1) / p x bytes / bandwidth + 2 (p - 1) x latency (Patarasuk and Yuan, JPDC 2009).
    Exact arithmetic, rounded up to a picosecond. One device, no payload, or a link that the
    artifact does not model costs nothing.
    """
    if devices < 1 or payload_bytes < 0:
        raise InputError(f"all-reduce of {payload_bytes} bytes over {devices} devices")
    if devices == 1 or payload_bytes == 0 or link.artifact_free:
        return Collective(time_ps=0, link_bytes=0)
    steps = 2 * (devices - 1)
    moved = Fraction(steps * payload_bytes, devices)
    ps_per_byte = 1000 / Fraction(link.bandwidth_gb_per_s)
    latency_ps = steps * _PS_PER_NS * Fraction(link.latency_ns)
    return Collective(time_ps=ceil(moved * ps_per_byte + latency_ps), link_bytes=ceil(moved))
