"""Two sub-batches: while PIM attends to one, the NPU works on the other (NeuPIMs section 6.2).

With one (sub-)batch only, the stages are those of the blocked schedule on a machine that could
overlap more.
"""

from __future__ import annotations

from collections.abc import Generator

from pimsim.engine.policies import Machine, Stage
from pimsim.engine.policies.serial import stages as one_after_the_other

__all__ = ["stages"]


def stages(machine: Machine) -> Generator[Stage, None, None]:
    """Stages A to F (NeuPIMs Figure 10; the artifact's StageProgram).

    A and B start the pipeline with the QKV of each sub-batch, C and D run one block of each
    (and repeat for every further block), E and F drain it. Experts on PIM are with the end of their
    block and go before the other sub-batch's attention once they can start, as the NPU waits for
    them.
    """
    if len(machine.parts) == 1:
        yield from one_after_the_other(machine)
        return
    last = machine.layers - 1
    first, second = machine.block(0, 0), machine.block(1, 0)
    yield "A", first.qkv, ()
    yield "B", second.qkv, first.attention
    for layer in range(last):
        following = machine.block(0, layer + 1)
        yield "C", (*first.rest, *following.qkv), (*first.experts, *second.attention)
        first = following
        following = machine.block(1, layer + 1)
        yield "D", (*second.rest, *following.qkv), (*second.experts, *first.attention)
        second = following
    yield "E", first.rest, (*first.experts, *second.attention)
    yield "F", second.rest, second.experts
