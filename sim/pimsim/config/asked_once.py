"""What many configs share is read and checked once: the points of a sweep differ in a few values,
and have their presets and most of their sections in common.

There is one check of a section, its model's, and one way to put files together. What is remembered
here is what they said of the same text, file or object before; what they refuse is not remembered.
"""

from __future__ import annotations

import marshal
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from pydantic import ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from pimsim.config.units import WRITTEN

__all__ = ["Latest", "checked_once", "files_as_read", "once_for_these", "unchanged"]

V = TypeVar("V")
P = ParamSpec("P")
_SECTIONS = 32
"""Contents of one section that are remembered: some MB."""
_RACY_NS = 2_000_000_000
"""A file that was written later than so long before it was read may be written again within one
tick of the file system's clock, and look the same."""


class Latest(Generic[V]):
    """The values asked for last, by key.

    Parameters
    ----------
    most
        That are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """What is known, or None."""
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def put(self, key: Hashable, value: V) -> None:
        """Remember ``value`` in place of what was asked for longest ago."""
        self._known[key] = value
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def checked_once() -> WrapValidator:
    """Marks a section of a config: what was written there and checked before is that frozen object
    again.

    Returns
    -------
    WrapValidator
        Of one field of one model.
    """
    known: Latest[Any] = Latest(_SECTIONS)

    def check(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if info.context is not WRITTEN or not isinstance(value, dict):
            return handler(value)
        # version 2: equal values, equal bytes, and no number is equal to one of another type
        key = marshal.dumps(value, 2)
        found = known.get(key)
        if found is None:
            found = handler(value)
            known.put(key, found)
        return found

    return WrapValidator(check)


def once_for_these(check: Callable[P, None]) -> Callable[P, None]:
    """Have a function that raises or does nothing run once for the same objects, which are frozen.

    Parameters
    ----------
    check
        Of objects and texts.
    """
    known: Latest[tuple[Any, ...]] = Latest(_SECTIONS)

    @wraps(check)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        given = (*args, *kwargs.values())
        key = tuple(each if isinstance(each, str) else id(each) for each in given)
        if known.get(key) is None:
            check(*args, **kwargs)
            known.put(key, given)  # held, so that no other object gets its place

    return checked


def files_as_read(paths: Sequence[Path]) -> tuple[tuple[Path, tuple[int, ...]], ...] | None:
    """What tells files that are read now from the same files after an edit; None where nothing
    does: one is not there, or has just been written.

    Parameters
    ----------
    paths
        Of the files.
    """
    now = time.time_ns()
    found = []
    for path in paths:
        at = _state(path)
        if at is None or now - max(at[:2]) < _RACY_NS:
            return None
        found.append((path, at))
    return tuple(found)


def unchanged(files: Sequence[tuple[Path, tuple[int, ...]]]) -> bool:
    """Whether nobody has written to any of the files.

    Parameters
    ----------
    files
        Of ``files_as_read``.
    """
    return all(_state(path) == at for path, at in files)


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
