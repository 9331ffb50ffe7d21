"""Vidur counts a request's tokens in a way of its own (microsoft/vidur 7d47513, ``request.py``)."""

from __future__ import annotations

from pimsim.serving.schedulers.sarathi import Sarathi

__all__ = ["SCHEDULER", "VidurSarathi"]


class VidurSarathi(Sarathi):
    """The token that was made last counts as processed, so that a request that decodes has one more
    of context than the cache holds at the end of the step; and who is put out within his
    prompt takes what was fed of it for all of it, and feeds the rest token by token."""

    counted_ahead = 1
    restarts_whole_prompts = False


SCHEDULER = VidurSarathi
