"""Step times in closed form: so much a step, a token, and a token of context."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.serving.schedulers import Batch

__all__ = ["Linear"]

_PS_PER_US = 10**6


@dataclass(frozen=True)
class Linear:
    """``step_us + token_us T + floor(ctx_ns C / 1000)`` microseconds: T tokens are fed, C are in
    the cache at the end, over all requests."""

    step_us: int
    token_us: int
    ctx_ns: int = 0

    def duration_ps(self, batch: Batch) -> int:
        """Whole microseconds, in picoseconds."""
        time_us = self.step_us + self.token_us * batch.tokens + self.ctx_ns * batch.context // 1000
        return time_us * _PS_PER_US
