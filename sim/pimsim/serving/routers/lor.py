"""The replica with the fewest requests in its queue; those that run are not counted.

Vidur's "least outstanding requests" (microsoft/vidur 7d47513, ``lor_global_scheduler.py``).
"""

from __future__ import annotations

from pimsim.serving.routers import Router

__all__ = ["ROUTER", "ShortestQueue"]


class ShortestQueue(Router):
    """The shortest queue; of several the first."""

    def replica(self, request: int) -> int:
        """Where the fewest wait."""
        waiting = [scheduler.waiting for scheduler in self.schedulers]
        return waiting.index(min(waiting))


ROUTER = ShortestQueue
