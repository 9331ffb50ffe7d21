"""Two sub-batches: while PIM attends to one, the NPU works on the other (NeuPIMs section 6.2).

With one (sub-)batch only, the stages are those of the blocked schedule on a machine that could
overlap more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pimsim.engine.schedules import Program, Schedule, Stage
from pimsim.engine.schedules.serial import Serial

if TYPE_CHECKING:
    from pimsim.mapping.tasks import NpuTask, PimTask

__all__ = ["SCHEDULE", "Interleaved"]


class Interleaved(Schedule):
    """Stages A to F (NeuPIMs Figure 10; the artifact's StageProgram).

    A and B start the pipeline with the QKV of each sub-batch, C and D run one block of each
    (and repeat for every further block), E and F drain it. Experts on PIM are with the end of their
    block and go before the other sub-batch's attention once they can start, as the NPU waits for
    them.
    """

    max_parts = 2

    def stages(self, program: Program) -> Iterator[Stage]:
        """Of two sub-batches; of one those of ``Serial``."""
        if len(program.parts) == 1:
            yield from Serial().stages(program)
            return
        last = program.layers - 1
        first, second = program.block(0, 0), program.block(1, 0)
        yield "A", first.qkv, ()
        yield _stage("B", second.qkv, (), first.attention)
        for layer in range(last):
            following = program.block(0, layer + 1)
            npu = (*first.rest, *following.qkv)
            yield _stage("C", npu, first.experts, second.attention)
            first = following
            following = program.block(1, layer + 1)
            npu = (*second.rest, *following.qkv)
            yield _stage("D", npu, second.experts, first.attention)
            second = following
        yield _stage("E", first.rest, first.experts, second.attention)
        yield "F", second.rest, second.experts


def _stage(
    name: str, npu: Sequence[NpuTask], pim: Sequence[PimTask],
    attention: Sequence[PimTask | NpuTask],
) -> Stage:  # fmt: skip
    """Both sides of a stage; attention is on the one that it was mapped to, behind the rest."""
    on_npu = [task for task in attention if task.unit != "pim"]
    on_pim = [task for task in attention if task.unit == "pim"]
    return name, (*npu, *on_npu), (*pim, *on_pim)


SCHEDULE = Interleaved
