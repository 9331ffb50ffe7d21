"""Any number of sub-batches in turn: while PIM attends to one, the NPU works on the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pimsim.engine.schedules import Schedule
from pimsim.engine.schedules.serial import Serial
from pimsim.mapping.barrier import Barrier

if TYPE_CHECKING:
    from pimsim.mapping.program import AnyTask, Program
    from pimsim.mapping.tasks import BlockProgram

__all__ = ["SCHEDULE", "Rotating"]


class Rotating(Schedule):
    """A stage for each block of each sub-batch: the NPU ends the block and begins the next one,
    beside it PIM attends to the sub-batch before. Attention on the NPU is behind the rest.

    Experts on PIM are with the end of their block and go before the other sub-batch's attention
    once they can start, as the NPU waits for them. Of one batch the stages are those of ``Serial``.
    """

    max_parts: ClassVar[int | None] = None

    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        """The QKV of each sub-batch first, and the end of each last block."""
        if len(program.parts) == 1:
            yield from Serial().order(program)
            return
        attention: tuple[AnyTask, ...] = ()
        begun: list[BlockProgram] = []
        for layer in range(program.layers + 1):
            for part in program.parts:
                yield Barrier(self.label(part, layer, program))
                waiting, attention = attention, ()
                if layer:
                    yield from begun.pop(0).end
                if layer < program.layers:
                    begun.append(program.block(part, layer))
                    yield from begun[-1].before
                    attention = begun[-1].attention
                yield from waiting

    def label(self, part: int, layer: int, program: Program) -> str:
        """What a stage is called."""
        at = 0 if not layer else 1 if layer < program.layers else 2
        return f"{('begin', 'turn', 'end')[at]} {part}"


SCHEDULE = Rotating
