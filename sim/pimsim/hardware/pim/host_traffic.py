"""A host's reads and writes of consecutive bytes, without PIM: what a kernel is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.pim.stream import ENTRY_FIELDS, CommandStream

__all__ = ["host_traffic"]


def host_traffic(
    design: PimDesignConfig, ranges: Sequence[tuple[str, int, int]], phases: Sequence[int]
) -> CommandStream:
    """Accesses to address ranges, in order.

    A phase starts when all before it is completed. Channels that get the same requests are
    simulated once.

    Parameters
    ----------
    design
        With a controller of requests.
    ranges
        (command, first byte, bytes) of each.
    phases
        Number of the phase of each range; they never fall.

    Raises
    ------
    InputError
        Where the design has no queue of requests.
    """
    if design.own_controller.order != "requests":
        raise InputError(f"{design.name}: a host's traffic needs controller.order 'requests'")
    org = design.organization
    address_map = AddressMap.parse(design.memory.address_map, org)
    number = {name: index for index, name in enumerate(design.all_commands)}
    channels, columns = [], []
    for (command, first, size), phase in zip(ranges, phases, strict=True):
        last = -(-(first + size) // org.burst_bytes)
        where = address_map.decode(np.arange(first // org.burst_bytes, last, dtype=np.int64))
        channels.append(where.channel.astype(np.int16))
        kind = np.full(len(where.bank), number[command] * len(ranges) + phase)
        columns.append(np.stack((kind, where.bank, where.row), axis=1))
    channel, requests = np.concatenate(channels), np.concatenate(columns)
    order = np.argsort(channel, kind="stable")
    bounds = np.searchsorted(channel[order], np.arange(org.channels + 1))
    alike: dict[bytes, list[int]] = {}
    for index in range(org.channels):
        mine = requests[order[bounds[index] : bounds[index + 1]]]
        alike.setdefault(mine.tobytes(), []).append(index)
    parts = [
        _entries(design, np.frombuffer(content, np.int64).reshape(-1, 3), index, len(ranges))
        for index, content in enumerate(alike)
    ]
    blocking = np.ones(max(phases, default=-1) + 1, dtype=np.bool_)
    return CommandStream(np.concatenate(parts), blocking, tuple(map(len, alike.values())), lanes=1)


def _entries(
    design: PimDesignConfig, requests: NDArray[np.int64], channel: int, phases: int
) -> NDArray[np.int64]:
    """Stream entries of one channel from (command and phase, bank in the channel, row)."""
    org = design.organization
    entries = np.zeros((len(requests), len(ENTRY_FIELDS)), dtype=np.int64)
    entries[:, 0], entries[:, 9] = np.divmod(requests[:, 0], phases)
    entries[:, 1] = channel
    group, entries[:, 5] = np.divmod(requests[:, 1], org.banks_per_group)
    entries[:, 3], entries[:, 4] = np.divmod(group, org.bank_groups)
    entries[:, 6] = requests[:, 2]
    return entries
