"""One replica after the other."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.serving.routers import Router
from pimsim.serving.schedulers import Scheduler

__all__ = ["ROUTER", "RoundRobin"]


class RoundRobin(Router):
    """In turns."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        super().__init__(schedulers)
        self._next = 0

    def replica(self, request: int) -> int:
        """The one behind the last."""
        found = self._next
        self._next = (found + 1) % len(self.schedulers)
        return found


ROUTER = RoundRobin
