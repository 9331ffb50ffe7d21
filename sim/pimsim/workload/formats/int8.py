"""Integers of 8 bits in groups with scales: ``8 + (16 + zero) / group`` bits a weight."""

from __future__ import annotations

from pimsim.workload.grouped_integers import GroupedIntegers

__all__ = ["FORMAT", "Int8"]


class Int8(GroupedIntegers):
    """See the module."""

    bits = 8


FORMAT = Int8
