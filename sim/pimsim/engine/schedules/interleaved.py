"""Two sub-batches: while PIM attends to one, the NPU works on the other (NeuPIMs section 6.2).

With one (sub-)batch only, the stages are those of the blocked schedule on a machine that could
overlap more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pimsim.engine.schedules.rotating import Rotating

if TYPE_CHECKING:
    from pimsim.mapping.program import Program

__all__ = ["SCHEDULE", "Interleaved"]


class Interleaved(Rotating):
    """Stages A to F (NeuPIMs Figure 10; the artifact's StageProgram): A and B start the pipeline
    with the QKV of each sub-batch, C and D run one block of each (and repeat for every further
    block), E and F drain it."""

    max_parts = 2

    def label(self, part: int, layer: int, program: Program) -> str:
        """The figure's letter."""
        at = 0 if not layer else 1 if layer < program.layers else 2
        return "ABCDEF"[2 * at + part]


SCHEDULE = Interleaved
