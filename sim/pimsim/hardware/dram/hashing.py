"""Pseudo-random interleaving: which of the channels a burst lies on.

The hash multiplies the bits of a burst's index by a matrix over GF(2) (Rau, "Pseudo-randomly
interleaved memory", ISCA 1991), so that strides of powers of two use all channels. Any 16 aligned
neighbours lie on 16 channels, in an order that the upper bits choose.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.hardware.dram.layout import HASH_CHANNELS, HASH_ROWS

__all__ = ["ipoly_channel", "ipoly_tables"]

Ints = NDArray[np.int64]

_COLUMNS = (3, 6, 12, 11, 5, 10, 7, 14, 15, 13, 9, 1, 2)
"""For each bit of the index, the bits of the channel that it flips: the polynomial for 16 banks
of Khairy et al. (TPDS 2017), as in ONNXim's Hashing.cc, of
which it takes the lowest bits for fewer channels (Dram.cc)."""


def ipoly_channel(burst: int, channels: int = HASH_CHANNELS) -> int:
    """Channel of a burst of the linear address space.

    Parameters
    ----------
    burst
        Its number; of its bits the lowest 13 count.
    channels
        A power of two, at most 16.

    Returns
    -------
    int
        Below ``channels``.

    References
    ----------
    Rau, ISCA 1991; polynomial of Khairy et al., TPDS 2017; ONNXim Hashing.cc.
    """
    channel = 0
    for bit, flips in enumerate(_COLUMNS):
        if burst >> bit & 1:
            channel ^= flips
    return channel & (channels - 1)


def ipoly_tables(channels: int) -> tuple[Ints, Ints]:
    """With a row of as many neighbouring bursts as there are channels, the burst of row r on
    channel c is the one in place ``lane_of[c ^ lane_hash[r % 4096]]``.

    Parameters
    ----------
    channels
        A power of two.

    Returns
    -------
    (Ints, Ints)
        ``lane_hash``, (HASH_ROWS,), and ``lane_of``, (HASH_CHANNELS,).

    Raises
    ------
    InputError
        There are more channels than the hash has.
    """
    if channels > HASH_CHANNELS:
        raise InputError(
            f"npu.network.channel_hash ipoly is for up to {HASH_CHANNELS} channels, the memory "
            f"has {channels}"
        )
    rows = [ipoly_channel(row * channels, channels) for row in range(HASH_ROWS)]
    lanes = np.zeros(HASH_CHANNELS, dtype=np.int64)
    for lane in range(channels):
        lanes[ipoly_channel(lane, channels)] = lane
    return np.array(rows, dtype=np.int64), lanes
