"""No barriers: whatever its data allow goes as soon as its unit is free, PIM's work first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pimsim.engine.schedules import Schedule

if TYPE_CHECKING:
    from pimsim.mapping.program import AnyTask

__all__ = ["SCHEDULE", "Greedy"]


class Greedy(Schedule):
    """The NPU does what PIM waits for before all else, of that the earliest block's; a product that
    has begun to load stays the next one. Links work beside it. Any number of sub-batches; with one
    there is little to do at once."""

    max_parts = None
    in_order = False

    def choose(self, unit: str, ready: Sequence[AnyTask]) -> AnyTask:
        """What PIM waits for, then the earliest block's."""
        return min(ready, key=lambda task: (not task.feeds_pim, task.id.block))


SCHEDULE = Greedy
