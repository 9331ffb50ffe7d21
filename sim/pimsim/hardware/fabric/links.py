"""Links: how long a message keeps one, and when it is on the other side.

This is the one place that turns bytes into time. Times are exact ratios of picoseconds here; the
network counts them in a part of a picosecond in which all are whole (``network.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

__all__ = ["LinkSpec", "LinkTiming"]


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """One direction of a link."""

    bytes_per_ps: Fraction
    latency_ps: Fraction

    @classmethod
    def of(cls, bandwidth_gb_per_s: float, latency_ns: float) -> LinkSpec:
        """From GB/s (10^9 bytes) and ns, as the decimal numbers that somebody wrote."""
        return cls(_written(bandwidth_gb_per_s) / 1000, _written(latency_ns) * 1000)


def _written(value: float) -> Fraction:
    return Fraction(Decimal(repr(value)))


class LinkTiming:
    """Bytes to time: exact, and devices take no time between two messages."""

    endpoint_ps = Fraction(0)
    """From what a device has received to what it sends because of it, before its first message,
    and before it says that it is done."""

    def piece(self, size: Fraction) -> Fraction:
        """Bytes of a message of ``size``."""
        return size

    def serialisation_ps(self, size: Fraction, link: LinkSpec) -> Fraction:
        """How long a message keeps a link from the next one."""
        return size / link.bytes_per_ps

    def transfer_ps(self, size: Fraction, link: LinkSpec, hops: int = 1) -> Fraction:
        """From a message's first byte on a link to its last one on the other side; over ``hops``
        links that pass on each byte as it comes, where messages meet no other."""
        return hops * link.latency_ps + size / link.bytes_per_ps
