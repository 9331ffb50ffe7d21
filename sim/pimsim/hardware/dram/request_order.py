"""Streams that name their operands: where these lie, and in which order they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit

__all__ = ["RequestOrder", "deal"]

Ints = NDArray[np.int64]


class RequestOrder(Protocol):
    """Gives the operands of a memory's streams their places, one after the other."""

    @property
    def burst(self) -> int:
        """Burst of the linear address space at which the next operand begins."""

    def requests(self, operands: Sequence[int], write: bool) -> tuple[Ints, Ints]:
        """Bursts of the linear address space in order of request, and the operand of each.

        ``operands``: bytes of each, in order. A burst that neighbours share may be asked for once.
        """

    def skip(self, size: int) -> None:
        """Move on by ``size`` bytes that somebody else takes."""


@njit(cache=True)
def deal(
    bursts: Ints, operand: Ints, channels: int, parts: int, low: int, width: int, listed: Ints
) -> Ints:
    """Deal requests to channels, in order.

    Parameters
    ----------
    bursts
        Of the linear address space, (requests,).
    operand
        Number of the operand of each, (requests,).
    channels
        A power of two.
    parts
        1, or the number of operands where each has a list of its own.
    low, width
        The channel's bits of a burst: the lowest, and how many.
    listed
        (requests, 2), out: the burst within the channel and its operand, channel by channel and
        part by part.

    Returns
    -------
    Ints
        Requests of each channel and part, (channels * parts,), those of a channel side by side.
    """
    sizes = np.zeros(channels * parts, dtype=np.int64)
    for i in range(len(bursts)):
        part = operand[i] if parts > 1 else 0
        sizes[((bursts[i] >> low) & (channels - 1)) * parts + part] += 1
    at = np.cumsum(sizes) - sizes
    for i in range(len(bursts)):
        part = operand[i] if parts > 1 else 0
        place = ((bursts[i] >> low) & (channels - 1)) * parts + part
        own = bursts[i] >> (low + width) << low | bursts[i] & ((1 << low) - 1)
        listed[at[place], 0] = own
        listed[at[place], 1] = operand[i]
        at[place] += 1
    return sizes
