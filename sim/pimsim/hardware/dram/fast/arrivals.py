"""In what order the bursts of a stream come, and so when all of its first ones are there.

A controller takes row hits first and, of two ranks, reads of the one that has the bus. A few bursts
of a row whose turn is over then wait until the others have no more hits, for most of the time in
which the stream passes through the rows of all banks, and an NPU that starts on the first weights
waits with them. Where the stream lies decides which bursts these are: it is run as it lies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.probe import Probe

__all__ = ["moved_when_come", "work_when_come"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PASSES = 3
"""Of a long stream through the rows of all banks that are run. It begins from idle in the first,
the end of the last holds nothing back any more: those after them are as the second."""


def moved_when_come(probe: Probe, first: int, bursts: int, each: int, rows: int) -> Floats:
    """Bursts that a channel has moved when all of the first ``each``, twice as many, ... of a
    stream have come; never fewer than those.

    Parameters
    ----------
    probe
        Of the memory; runs what is not known yet.
    first, bursts
        Of the stream, in the channel's own numbers.
    each
        Bursts of a block, a power of two.
    rows
        Bursts of a row of all banks, after which everything repeats; 0: it never does.

    Returns
    -------
    Floats
        (ceil(bursts / each),).
    """
    if rows:
        first %= rows
    blocks = -(-bursts // each)
    again = -(-rows // each)  # blocks after which it repeats
    run = min(bursts, PASSES * again * each) if rows else bursts
    moved = probe.moved_when_come(first, run, each)
    number = np.arange(blocks)
    alike = number
    if run < bursts:
        alike = np.where(number < 2 * again, number, again + number % again)
    held = moved[alike] - np.minimum((alike + 1) * each, run)
    own: Ints = np.minimum((number + 1) * each, bursts)
    return np.minimum(own + held, bursts)


def work_when_come(
    probe: Probe, begin: Ints, bursts: Ints, each: int, blocks: int, rows: int
) -> Floats:  # fmt: skip
    """Share of a stream's work that a channel has done when each of its blocks has come, on the
    channel where that is latest.

    Parameters
    ----------
    probe
        Of the memory; runs what is not known yet.
    begin, bursts
        First burst of each channel in its own numbers, and how many it has, (channels,).
    each
        Bursts of a block on a channel, a power of two.
    blocks
        Of the stream.
    rows
        Bursts of a row of all banks, after which everything repeats; 0: it never does.

    Returns
    -------
    Floats
        (blocks,), at most 1; a channel without bursts is left out.
    """
    latest = np.zeros(blocks)
    firsts = begin % rows if rows else begin
    for first, own in set(zip(firsts.tolist(), bursts.tolist(), strict=True)):
        if own:
            share = moved_when_come(probe, first, own, each, rows) / own
            np.maximum(latest, share[np.minimum(np.arange(blocks), len(share) - 1)], out=latest)
    return latest
