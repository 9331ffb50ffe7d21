"""Integers of 3 bits in groups with scales: ``3 + (16 + zero) / group`` bits a weight."""

from __future__ import annotations

from pimsim.workload.grouped_integers import GroupedIntegers

__all__ = ["FORMAT", "Int3"]


class Int3(GroupedIntegers):
    """See the module."""

    bits = 3


FORMAT = Int3
