"""Signals that ask a program to end, held back while a thing must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["held"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def held() -> Iterator[list[int]]:
    """Gives the numbers of the signals that have come, which take effect when it is left; a second
    one does at once. Signals that are ignored stay so; outside the main thread nothing changes."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            _put_back(before)
            signal.raise_signal(number)

    numbers = (getattr(signal, name) for name in _NAMES if hasattr(signal, name))
    for number in numbers:
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_IGN, None):
            before[number] = handler
            signal.signal(number, note)
    try:
        yield came
    finally:
        _put_back(before)
    if came:
        signal.raise_signal(came[0])


def _put_back(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
