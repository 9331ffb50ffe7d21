"""What steps say of themselves over time, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable
from operator import mul

import numpy as np
from numpy.typing import NDArray

from pimsim.serving.records import Records
from pimsim.serving.schedulers import Batch, Scheduler

__all__ = ["STEP_ROW", "StepLog"]

STEP_ROW = np.dtype(
    [
        ("replica", np.int32),
        ("step", np.int64),
        ("start_ps", np.int64),
        ("end_ps", np.int64),
        ("tokens", np.int64),
        ("context", np.int64),
        ("requests", np.int32),
        ("running", np.int32),
        ("waiting", np.int64),
        ("used_blocks", np.int64),
        ("preempted", np.int32),
        ("dynamic_j", np.float64),
    ]
)
"""A step: what it feeds, who takes part, what was there when it had been made, and joule beyond
what the machine takes idle."""
_KEPT = 16_384
"""Rows that are gathered before they are added up."""
INTERVALS = 256


class StepLog:
    """Adds up steps, and over intervals of time, which are joined in pairs when there are too many.

    Parameters
    ----------
    sink
        Takes the rows themselves, some thousand at a time.
    """

    def __init__(self, sink: Callable[[Records], None] | None = None) -> None:
        self._rows = np.zeros(_KEPT, dtype=STEP_ROW)
        self._count = 0
        self._sink = sink
        self.steps = 0
        self.tokens = 0
        self.entries = 0
        """Requests that took part, over all steps."""
        self.busy_ps = 0
        """Of all steps, from their making to their end."""
        self.used_block_ps = 0
        """Blocks in use times how long, over all steps."""
        self.peak_blocks = 0
        """Blocks in use at once on a replica, at most."""
        self.most_waiting = 0
        self.interval_ps = 10**9
        self.columns: dict[str, NDArray[np.float64]] = {
            name: np.zeros(INTERVALS)
            for name in ("steps", "tokens", "requests", "used_blocks", "preempted", "dynamic_j")
        }
        """Sums by interval in which a step began."""

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        """Keep a step."""
        self._rows[self._count] = (
            replica, batch.number, batch.start_ps, batch.end_ps, batch.tokens, batch.context,
            batch.requests, scheduler.running, scheduler.waiting, scheduler.cache.used,
            len(batch.preempted), batch.dynamic_j,
        )  # fmt: skip
        self._count += 1
        if self._count == _KEPT:
            self.flush()

    def flush(self) -> None:
        """Add up what was gathered."""
        rows = self._rows[: self._count]
        self._count = 0
        if not len(rows):
            return
        took = rows["end_ps"] - rows["start_ps"]
        self.steps += len(rows)
        self.tokens += int(rows["tokens"].sum())
        self.entries += int(rows["requests"].sum(dtype=np.int64))
        self.busy_ps += int(took.sum())
        # whole, so that it does not matter when they are added up; beyond 64 bits, too
        self.used_block_ps += sum(map(mul, took.tolist(), rows["used_blocks"].tolist()))
        self.peak_blocks = max(self.peak_blocks, int(rows["used_blocks"].max()))
        self.most_waiting = max(self.most_waiting, int(rows["waiting"].max()))
        self._spread(rows)
        if self._sink is not None:
            self._sink(rows)

    def _spread(self, rows: Records) -> None:
        last = int(rows["start_ps"].max())
        while last // self.interval_ps >= INTERVALS:
            self.interval_ps *= 2
            for name, sums in self.columns.items():
                joined = sums.reshape(-1, 2).sum(axis=1)
                self.columns[name] = np.append(joined, np.zeros(len(joined)))
        at = rows["start_ps"] // self.interval_ps
        ones = np.ones(len(rows))
        for name, sums in self.columns.items():
            weights = ones if name == "steps" else rows[name]
            sums += np.bincount(at, weights, minlength=INTERVALS)
