"""Schedules: in which order, and with what at once, the tasks of a step are done.

One module each, found by its name. Config reads what a schedule declares of itself, so nothing
heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pimsim.config.plugins import load_class

if TYPE_CHECKING:
    from pimsim.mapping.barrier import Barrier
    from pimsim.mapping.program import AnyTask, Program

__all__ = ["Schedule", "load_schedule"]


class Schedule:
    """An order of a program's tasks, and what it asks of the machine.

    A module of a schedule has a subclass of this one by the name ``SCHEDULE``. What it is called
    decides nothing: configs, placement and estimates read what the class declares. By itself this
    class does block after block without barriers.
    """

    uses_pim: ClassVar[bool] = True
    """Attention, and experts with few tokens, run on PIM; else all is the NPU's."""
    at_once: ClassVar[bool] = True
    """NPU and PIM may work at the same time."""
    max_parts: ClassVar[int | None] = 1
    """Sub-batches that it takes at most; None: any number."""
    in_order: ClassVar[bool] = True
    """The NPU does its tasks, transfers over links too, in the order in which they are given and
    waits where the next one must; else whatever ``choose`` takes of those that are ready, and links
    work beside it. PIM lets tasks that are ready pass others in any case."""

    def order(self, program: Program) -> Iterator[Barrier | AnyTask]:
        """All tasks of all blocks, each once, with barriers between.

        It is asked for more as tasks are done: up to the next barrier, and of one sub-batch not
        beyond the block behind the first that is not done. A task also waits for those that it
        needs (``Task.after``), so that a schedule may leave barriers out. Where a step does not
        begin with one, weights of its first product may come while the last product of the step
        before is computed; what is before its first barrier is a stage ``step``.

        Parameters
        ----------
        program
            Tasks of each sub-batch (``parts``) and block (``layers``).
        """
        for layer in range(program.layers):
            for part in program.parts:
                yield from program.block(part, layer).tasks

    def choose(self, unit: str, ready: Sequence[AnyTask]) -> AnyTask:
        """The task that a free ``unit`` (``npu``, ``pim`` or ``link``) takes, of those that are
        ``ready``, at least one, in the order in which they were given: the first."""
        return ready[0]


def load_schedule(name: str) -> type[Schedule]:
    """The schedule of the module ``name``.

    Parameters
    ----------
    name
        Of ``schedule.policy``.

    Raises
    ------
    InputError
        Where there is no such module, or its ``SCHEDULE`` is not a subclass of ``Schedule``.
    """
    return load_class("policy", name, "SCHEDULE", Schedule)
