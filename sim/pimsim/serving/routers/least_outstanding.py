"""The replica with the fewest requests that have not ended."""

from __future__ import annotations

from pimsim.serving.routers import Router

__all__ = ["ROUTER", "LeastOutstanding"]


class LeastOutstanding(Router):
    """Those that run are counted; of several replicas the first."""

    def replica(self, request: int) -> int:
        """Where the fewest are."""
        inside = [scheduler.outstanding for scheduler in self.schedulers]
        return inside.index(min(inside))


ROUTER = LeastOutstanding
