"""What attention on PIM writes to memory of what vector units make of its results."""

from __future__ import annotations

from functools import cache

from pimsim.config.pim import PimConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.pim.programs import AttentionShape

__all__ = ["ResultWrites", "result_writes"]


class ResultWrites:
    """Probabilities go to the request's channel, sums of values stay on chip: ``own-channel``.

    A module of kind ``result_writes`` offers a subclass of it, ``ResultWrites``.
    """

    spread = False
    """Bursts go over all channels in turn, not to the request's own."""

    def parts(self, shape: AttentionShape) -> int:
        """In how many parts the results of a head's values are added and written."""
        del shape
        return 1

    def value_bytes(self, head_bytes: int, partial: bool) -> int:
        """Bytes written of each part of a head's values, of ``head_bytes`` whole.

        ``partial``: there are several partial sums, which a vector unit adds.
        """
        del head_bytes, partial
        return 0


def result_writes(pim: PimConfig) -> ResultWrites:
    """What ``pim.result_writes`` asks for.

    Parameters
    ----------
    pim
        Of the memory.

    Raises
    ------
    InputError
        With the near miss where there is no such way.
    """
    return _made(pim.result_writes)


@cache
def _made(name: str) -> ResultWrites:
    if name == "own-channel":
        return ResultWrites()
    made: ResultWrites = load_module("result_writes", name).ResultWrites()
    return made
