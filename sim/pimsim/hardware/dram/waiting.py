"""Commands of a device's memory, with what writes still ask for.

A write is answered when its channel takes it, so the last few of a run, up to ``write_drain_low`` a
channel, have their commands after its end. Time does not wait for them; commands and energy that a
run is charged with do.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.layout import (
    B_HEAD,
    B_LEN,
    B_ROW,
    C_BUS_BUSY,
    C_COMMANDS,
    C_WR,
    MAX_BANKS,
    Q_NEXT,
    Q_ROW,
    Q_WRITE,
)
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.rules import Command

__all__ = ["charged_counters", "posted_writes"]

Ints = NDArray[np.int64]
ACT, PRE = C_COMMANDS + int(Command.ACT), C_COMMANDS + int(Command.PRE)


def charged_counters(system: Any) -> Ints:
    """Counters of each channel of ``system``, its waiting writes as if they had been issued.

    Parameters
    ----------
    system
        A ``MemorySystem``, with either controller.

    Returns
    -------
    Ints
        (channels, counters): a WR for each waiting write; for each row that they lie in and that is
        not open an ACT, and a PRE where another one is. Each row is opened once or, where every
        access closes its row, for each write.
    """
    channels, p = system.channels, system.parameters[0]
    counters: Ints = channels["counter"].copy()
    if "pw_len" not in channels.dtype.names:  # a controller that answers a write when it is issued
        return counters
    busy = (channels["queued"][:, 1] > 0) | (channels["waiting"] > 0) | (channels["pw_len"] > 0)
    closing = int(p["auto_precharge"]) > 0
    for c in np.flatnonzero(busy):
        ch = channels[c]
        rows = list(_waiting(ch, int(p["banks"])))
        left = len(rows) + int(ch["pw_len"])
        counters[c, C_WR] += left
        counters[c, C_BUS_BUSY] += left * int(p["tccd_s"])
        for bank, row in rows if closing else dict.fromkeys(rows):
            held = int(ch["bank"][bank, B_ROW])
            counters[c, ACT] += held != row
            counters[c, PRE] += held not in (-1, row)
    return counters


def posted_writes(system: Any) -> int:
    """Bursts that are answered and not over the bus yet, over all channels of ``system``.

    Those that have no command yet, and those whose data is still to come, rounded up. Reads that
    are under way count with the latter, and a burst more for each further bus of a channel, whose
    time the kernel adds up.

    Parameters
    ----------
    system
        A ``MemorySystem``, with either controller.

    Returns
    -------
    int
        Of ``organization.burst_bytes`` each.
    """
    channels, memory = system.channels, system.memory
    buses = data_buses(memory) // len(channels)
    slot = int(burst_slot_ps(memory) / Fraction(system.cycle_ps))
    left = np.maximum(channels["bus_until"] - system.now * buses + (buses - 1) * slot, 0)
    coming = int((-(-left // slot)).sum())
    if "pw_len" not in channels.dtype.names:  # a controller that answers a write when it is issued
        return coming
    at_banks = channels["rows_queued"][:, : int(system.parameters[0]["banks"]), 1].sum()
    return coming + int(channels["queued"][:, 1].sum() + at_banks + channels["pw_len"].sum())


def _waiting(ch: Any, banks: int) -> Iterator[tuple[int, int]]:
    """Bank and row of each write that waits in the channel's queue or at its bank."""
    request = ch["request"]
    for word in ch["queue"][1, : int(ch["queued"][1])].tolist():
        entry, bank = divmod(word, MAX_BANKS)
        yield bank, int(request[entry, Q_ROW])
    for bank in np.flatnonzero(ch["bank"][:banks, B_LEN] > 0).tolist():
        entry = int(ch["bank"][bank, B_HEAD])
        while entry >= 0:
            if request[entry, Q_WRITE] == 1:
                yield bank, int(request[entry, Q_ROW])
            entry = int(request[entry, Q_NEXT])
