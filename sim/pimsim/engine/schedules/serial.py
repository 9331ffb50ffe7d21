"""One unit after the other, attention wherever it was mapped: the NPU-only program."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.engine.schedules import Program, Schedule, Stage

__all__ = ["SCHEDULE", "Serial"]


class Serial(Schedule):
    """A: norm and QKV. B: attention. E: projection to the end of the block, beside it the
    experts that run on PIM."""

    uses_pim = False
    at_once = False

    def stages(self, program: Program) -> Iterator[Stage]:
        """Three of each block."""
        for layer in range(program.layers):
            block = program.block(0, layer)
            yield "A", block.qkv, ()
            on_pim = [task for task in block.attention if task.unit == "pim"]
            yield "B", [task for task in block.attention if task.unit != "pim"], on_pim
            yield "E", block.rest, block.experts


SCHEDULE = Serial
