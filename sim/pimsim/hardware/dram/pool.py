"""The pool of a channel's requests, of either controller: entries given back, then new ones."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import Q_NEXT

__all__ = ["give_back", "take_entry"]


@njit(cache=True, inline="always")
def take_entry(ch: Any) -> int:
    """An entry that holds no request.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.

    Returns
    -------
    int
        Row of ``CHANNEL.request``; the caller has seen that there is room.
    """
    entry = ch.free
    if entry >= 0:
        ch.free = ch.request[entry, Q_NEXT]
    else:
        entry = ch.pool_used
        ch.pool_used = entry + 1
    return int(entry)


@njit(cache=True, inline="always")
def give_back(ch: Any, entry: int) -> None:
    """The request in ``entry`` is done.

    Parameters
    ----------
    ch
        Channel, a record of ``CHANNEL``; changed.
    entry
        Row of ``CHANNEL.request``.
    """
    ch.request[entry, Q_NEXT] = ch.free
    ch.free = entry
