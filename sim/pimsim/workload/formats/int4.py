"""Integers of 4 bits in groups with scales: ``4 + (16 + zero) / group`` bits a weight."""

from __future__ import annotations

from pimsim.workload.grouped_integers import GroupedIntegers

__all__ = ["FORMAT", "Int4"]


class Int4(GroupedIntegers):
    """See the module."""

    bits = 4


FORMAT = Int4
