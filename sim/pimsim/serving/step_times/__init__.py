"""What a step takes: one module for each way to know it."""

from __future__ import annotations

from typing import Protocol

from pimsim.serving.schedulers import Batch

__all__ = ["StepTime"]


class StepTime(Protocol):
    """Says how long steps take."""

    def duration_ps(self, batch: Batch) -> int:
        """Picoseconds of a step; each stage of a pipeline takes so long. At least 1.

        Parameters
        ----------
        batch
            Its entries as columns (``new_tokens``, ``contexts``) and their sums (``tokens``,
            ``context``, ``requests``).
        """
