"""ASTRA-sim counts whole nanoseconds: times on links are cut off to one, messages to a byte.

A device takes 1 ns (its ``endpoint-delay``) from what it has received to what it sends, before its
first message, and at its end. Latency and bytes over bandwidth are added before they are cut off
(astra-network-analytical 599a047, congestion_aware/network/Link.cpp; astra-sim 518bd51,
system/MemBus.cc).
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

from pimsim.hardware.fabric.links import LinkSpec, LinkTiming

__all__ = ["Timing"]

_NS = 1000


class Timing(LinkTiming):
    """Whole nanoseconds."""

    endpoint_ps = Fraction(_NS)

    def piece(self, size: Fraction) -> Fraction:
        """Whole bytes."""
        return Fraction(floor(size))

    def serialisation_ps(self, size: Fraction, link: LinkSpec) -> Fraction:
        """Started nanoseconds do not count."""
        return _whole_ns(super().serialisation_ps(size, link))

    def transfer_ps(self, size: Fraction, link: LinkSpec, hops: int = 1) -> Fraction:
        """Of the sum."""
        return _whole_ns(super().transfer_ps(size, link, hops))


def _whole_ns(time_ps: Fraction) -> Fraction:
    return Fraction(floor(time_ps / _NS) * _NS)
