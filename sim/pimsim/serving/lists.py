"""Lists of requests, or of blocks, that can lose any of them at once (kernels)."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.serving.records import NONE

__all__ = ["append", "insert_before", "pop", "push", "remove", "sort_by_arrival"]


@njit(cache=True)
def insert_before(requests: Any, order: Any, place: int, request: int) -> None:
    """Put ``request`` into the list ``order``, before another one.

    Parameters
    ----------
    requests
        Records with ``previous`` and ``next``; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.
    place
        Row of the one behind it; ``NONE``: it goes to the end.
    request
        Row of a record that is in no list.
    """
    before = order.tail if place == NONE else requests[place].previous
    requests[request].previous = before
    requests[request].next = place
    if before == NONE:
        order.head = request
    else:
        requests[before].next = request
    if place == NONE:
        order.tail = request
    else:
        requests[place].previous = request
    order.count += 1


@njit(cache=True)
def append(requests: Any, order: Any, request: int) -> None:
    """Put ``request`` at the end of the list ``order``.

    Parameters
    ----------
    requests
        Records with ``previous`` and ``next``; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.
    request
        Row of a record that is in no list.
    """
    insert_before(requests, order, NONE, request)


@njit(cache=True)
def push(requests: Any, order: Any, request: int) -> None:
    """Put ``request`` at the front of the list ``order``.

    Parameters
    ----------
    requests
        Records with ``previous`` and ``next``; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.
    request
        Row of a record that is in no list.
    """
    insert_before(requests, order, order.head, request)


@njit(cache=True)
def remove(requests: Any, order: Any, request: int) -> None:
    """Take ``request`` out of the list ``order``.

    Parameters
    ----------
    requests
        Records with ``previous`` and ``next``; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.
    request
        Row of a record that is in this list.
    """
    before, behind = requests[request].previous, requests[request].next
    if before == NONE:
        order.head = behind
    else:
        requests[before].next = behind
    if behind == NONE:
        order.tail = before
    else:
        requests[behind].previous = before
    order.count -= 1


@njit(cache=True)
def pop(requests: Any, order: Any) -> int:
    """Take the first request out of a list that has one.

    Parameters
    ----------
    requests
        Records with ``previous`` and ``next``; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.

    Returns
    -------
    int
        The request's row.
    """
    request = order.head
    remove(requests, order, request)
    return int(request)


@njit(cache=True)
def sort_by_arrival(requests: Any, order: Any) -> None:
    """Those that came first to the front; who came together stay as they stand.

    Parameters
    ----------
    requests
        ``REQUEST`` records; written.
    order
        The list, with ``head``, ``tail`` and ``count``; written.
    """
    at = order.head
    while at != NONE:
        behind = requests[at].next
        place = requests[at].previous
        moved = False
        while place != NONE and requests[place].arrival_ps > requests[at].arrival_ps:
            place, moved = requests[place].previous, True
        if moved:
            remove(requests, order, at)
            insert_before(
                requests, order, order.head if place == NONE else requests[place].next, at
            )
        at = behind
