"""Vidur counts a request's tokens in a way of its own (microsoft/vidur 7d47513, ``request.py``)."""

from __future__ import annotations

from typing import Any

from pimsim.serving.schedulers.orca import Orca

__all__ = ["SCHEDULER", "VidurOrca"]


class VidurOrca(Orca):
    """The token that was made last counts as processed, so that a request that decodes has one more
    of context than the cache holds at the end of the step; and a request holds no block that
    ``max_tokens`` does not fill (``orca_replica_scheduler.py``)."""

    counted_ahead = 1

    @classmethod
    def blocks_held(cls, settings: Any, tokens: int, size: int) -> int:
        """Full ones alone."""
        return int(settings.max_tokens) // size


SCHEDULER = VidurOrca
