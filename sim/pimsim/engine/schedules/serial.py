"""One unit after the other, attention wherever it was mapped: the NPU-only machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pimsim.engine.schedules import Schedule
from pimsim.mapping.barrier import Barrier

if TYPE_CHECKING:
    from pimsim.mapping.program import AnyTask, Program
    from pimsim.mapping.tasks import BlockProgram

__all__ = ["SCHEDULE", "Serial"]


class Serial(Schedule):
    """A: norm and QKV. B: attention. E: projection to the end of the block, beside it the
    experts that run on PIM."""

    uses_pim = False
    at_once = False

    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        """Three stages of each block."""
        for layer in range(program.layers):
            yield from self.stages(program.block(0, layer))

    def stages(self, block: BlockProgram) -> Iterator[Barrier | AnyTask]:
        """Those of one block."""
        yield Barrier("A")
        yield from block.before
        yield Barrier("B")
        yield from block.attention
        yield Barrier("E")
        yield from block.end


SCHEDULE = Serial
