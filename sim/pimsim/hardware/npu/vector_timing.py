"""Of how many elements vector operations take the time, and whether they wait for a unit."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from pimsim.config.npu import VectorConfig
from pimsim.config.plugins import load_module

__all__ = ["VectorTiming", "vector_timing"]


class VectorTiming:
    """An operation takes the passes over all of its elements, on a unit that is free: ``passes``.

    A module of kind ``vector_timing`` offers a subclass of it, ``Timing``.
    """

    queues: ClassVar[bool] = True
    """Operations wait for a unit; else there are as many as it takes, and no most that they do."""

    def elements(self, kind: str, width: int) -> int:
        """Of ``width`` elements of an operation, those that it takes the time of."""
        del kind
        return width

    def pim_scores(self, context: int, element_bytes: int) -> int:
        """Elements of the softmax behind a head's scores in the banks."""
        del element_bytes
        return context

    def npu_softmax_cycles(self, cycles: int) -> int:
        """Of ``cycles`` of softmax between products on the arrays, those that it takes."""
        return cycles


def vector_timing(vector: VectorConfig) -> VectorTiming:
    """What ``npu.vector.timing`` asks for.

    Parameters
    ----------
    vector
        Of the NPU.

    Raises
    ------
    InputError
        With the near miss where there is no such timing.
    """
    return _made(vector.timing)


@cache
def _made(name: str) -> VectorTiming:
    if name == "passes":
        return VectorTiming()
    made: VectorTiming = load_module("vector_timing", name).Timing()
    return made
