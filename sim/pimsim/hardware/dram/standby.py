"""How long ranks had an open row, from the channels' records."""

from __future__ import annotations

import numpy as np

from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.layout import Records

__all__ = ["active_rank_ticks"]


def active_rank_ticks(channels: Records, memory: MemoryConfig, until: int) -> int:
    """Ticks times ranks with any row open; rows still open count too.

    Parameters
    ----------
    channels
        Records of either controller's ``CHANNEL``, (channels,).
    memory
        Its ranks of a channel are counted.
    until
        Tick, from the start of the run.

    Returns
    -------
    int
        Over all channels.
    """
    ranks = memory.organization.pseudo_channels * memory.organization.ranks
    open_now, since, active = (channels["rank"][:, :ranks, at] for at in range(3))
    still = np.where(open_now > 0, np.maximum(until - since, 0), 0)
    return int(np.minimum(active + still, until).sum())
