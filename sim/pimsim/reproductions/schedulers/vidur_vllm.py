"""Vidur counts a request's tokens in a way of its own (microsoft/vidur 7d47513, ``request.py``)."""

from __future__ import annotations

from pimsim.serving.schedulers.vllm_v0 import VllmV0

__all__ = ["SCHEDULER", "VidurVllmV0"]


class VidurVllmV0(VllmV0):
    """The token that was made last counts as processed, so that a request that decodes has one more
    of context than the cache holds at the end of the step."""

    counted_ahead = 1


SCHEDULER = VidurVllmV0
