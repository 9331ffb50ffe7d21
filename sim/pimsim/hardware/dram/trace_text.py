"""Requests of a DRAM trace out of the bytes of its lines, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit

__all__ = ["ADDRESS", "CYCLE", "KIND", "kind_codes", "scan"]

ADDRESS, KIND, CYCLE = 0, 1, 2
"""Fields of a line."""
_NEWLINE, _SPACE, _TAB, _HASH = 10, 32, 9, 35
_MOST_DIGITS, _MOST_HEX = 19, 16
"""Of what fits 64 bits; hexadecimal ones without zeros before them."""


def kind_codes(kinds: dict[str, int]) -> NDArray[np.int64]:
    """Kinds of requests as ``scan`` compares them.

    Parameters
    ----------
    kinds
        Whether each is a write, by its word of 8 letters at most.

    Returns
    -------
    NDArray
        Bytes of the word as one number, and 1 for a write, (kinds, 2).
    """
    rows = [(int.from_bytes(word.encode(), "big"), write) for word, write in kinds.items()]
    return np.array(rows, dtype=np.int64)


@njit(cache=True)
def scan(data: Any, fields: Any, kinds: Any, addresses: Any, writes: Any, cycles: Any) -> int:
    """Read lines of the given fields, blanks and comments between them.

    Parameters
    ----------
    data
        Whole lines with their ends, bytes.
    fields
        ``ADDRESS``, ``KIND``, ``CYCLE`` in the order of a line.
    kinds
        Of ``kind_codes``.
    addresses, writes, cycles
        What is read, with room for a request a line; numbers of 64 bits without a sign.

    Returns
    -------
    int
        Requests; -1 where a line is written in another way.
    """
    at, found = 0, 0
    while at < len(data):
        while data[at] == _SPACE or data[at] == _TAB:
            at += 1
        if data[at] != _NEWLINE and data[at] != _HASH:
            for place in range(len(fields)):
                if place > 0:
                    if data[at] != _SPACE and data[at] != _TAB:
                        return -1
                    while data[at] == _SPACE or data[at] == _TAB:
                        at += 1
                begin = at
                value: Any = 0
                if fields[place] == KIND:
                    while data[at] > _SPACE and at - begin < 8:
                        value = (value << 8) | np.int64(data[at])
                        at += 1
                    write = -1
                    for kind in range(len(kinds)):
                        if kinds[kind, 0] == value:
                            write = kinds[kind, 1]
                    if write < 0:
                        return -1
                    writes[found] = write
                elif (
                    fields[place] == ADDRESS
                    and data[at] == 48
                    and (data[at + 1] == 120 or data[at + 1] == 88)
                ):
                    at += 2
                    begin = at
                    while data[at] == 48:
                        at += 1
                    first = at
                    while True:
                        byte = np.int64(data[at])
                        if 48 <= byte <= 57:
                            value = (value << 4) | (byte - 48)
                        elif 97 <= byte <= 102:
                            value = (value << 4) | (byte - 87)
                        elif 65 <= byte <= 70:
                            value = (value << 4) | (byte - 55)
                        else:
                            break
                        at += 1
                    if at == begin or at - first > _MOST_HEX:
                        return -1
                    addresses[found] = value
                else:
                    while 48 <= data[at] <= 57:
                        value = value * 10 + (np.int64(data[at]) - 48)
                        at += 1
                    if at == begin or at - begin > _MOST_DIGITS:
                        return -1
                    if fields[place] == ADDRESS:
                        addresses[found] = value
                    else:
                        cycles[found] = value
            while data[at] == _SPACE or data[at] == _TAB:
                at += 1
            found += 1
        if data[at] == _HASH:
            while data[at] != _NEWLINE:
                at += 1
        if data[at] != _NEWLINE:
            return -1
        at += 1
    return found
