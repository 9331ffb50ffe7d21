"""What was found out before, as much of it as fits in so many bytes, the latest used last to go.

``functools.lru_cache`` counts entries; one here may be a few bytes or a few MB, and a sweep over
models and memories fills every cache there is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ["Remembered", "remembered"]

P = ParamSpec("P")
V = TypeVar("V")
_ENTRY_BYTES = 500
"""Of an entry besides its arrays: key, objects and places in tables, about."""


class Remembered(Generic[V]):
    """Values by key.

    Parameters
    ----------
    most_bytes
        Kept at most; the value found last is kept even if it alone is larger.
    size
        Bytes of a value's arrays, and of its key's where that is large.
    """

    def __init__(self, most_bytes: int, size: Callable[[V], int]) -> None:
        self._most, self._size = most_bytes, size
        self._known: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = Lock()
        self.nbytes = 0
        """Kept now."""

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Hashable, find: Callable[[], V]) -> V:
        """What is known, or what ``find`` says."""
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known[0]
        value = find()
        size = self._size(value) + _ENTRY_BYTES
        with self._lock:
            self.nbytes += size - self._known.pop(key, (None, 0))[1]
            self._known[key] = value, size
            while self.nbytes > self._most and len(self._known) > 1:
                _, (_, least) = self._known.popitem(last=False)
                self.nbytes -= least
        return value


def remembered(
    most_bytes: int, size: Callable[[Any], int]
) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """As ``functools.lru_cache``, up to ``most_bytes`` of all that ``size`` says.

    Parameters
    ----------
    most_bytes
        Of all that is kept.
    size
        Bytes of one result.

    Returns
    -------
    Callable
        A decorator; arguments must be hashable.
    """

    def decorate(function: Callable[P, V]) -> Callable[P, V]:
        known: Remembered[V] = Remembered(most_bytes, size)

        @wraps(function)
        def found(*args: P.args, **kwargs: P.kwargs) -> V:
            key = (args, tuple(sorted(kwargs.items()))) if kwargs else args
            return known.get(key, lambda: function(*args, **kwargs))

        return found

    return decorate
