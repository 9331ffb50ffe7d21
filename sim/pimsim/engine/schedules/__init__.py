"""Schedules: who works when. One module each, found by its name.

Config reads what a schedule declares of itself, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pimsim.config.declared import declared_schedule
from pimsim.config.errors import InputError

if TYPE_CHECKING:
    from pimsim.mapping.tasks import BlockProgram

__all__ = ["Program", "Schedule", "Stage", "load_schedule"]

Stage = tuple[str, Sequence[Any], Sequence[Any]]
"""Name, tasks of the NPU side, tasks of the PIM side; both end before the next stage."""


class Program(Protocol):
    """What a schedule needs of the work."""

    @property
    def parts(self) -> Sequence[int]:
        """The (sub-)batches."""

    @property
    def layers(self) -> int:
        """Blocks to run."""

    def block(self, part: int, layer: int) -> BlockProgram:
        """Program of a block for one (sub-)batch."""


class Schedule:
    """An order of a program's tasks, and what it asks of the program.

    A module of a schedule has a subclass of this one by the name ``SCHEDULE``. What it is called
    decides nothing: configs, placement and estimates read what the class declares.
    """

    uses_pim: ClassVar[bool] = True
    """Attention, and experts with few tokens, run on PIM; else all is the NPU's."""
    at_once: ClassVar[bool] = True
    """NPU and PIM may work at the same time."""
    max_parts: ClassVar[int | None] = 1
    """Sub-batches that it takes at most; None: any number."""

    def stages(self, program: Program) -> Iterator[Stage]:
        """The tasks of all blocks in stages, each of which ends before the next begins."""
        raise NotImplementedError


def load_schedule(name: str) -> type[Schedule]:
    """The schedule of the module ``name``.

    Raises
    ------
    InputError
        Where there is no such module, or its ``SCHEDULE`` is not a subclass of ``Schedule``.
    """
    found = declared_schedule(name)
    if not (isinstance(found, type) and issubclass(found, Schedule)):
        raise InputError(
            f"schedule.policy {name!r}: its SCHEDULE is no subclass of "
            "pimsim.engine.schedules.Schedule"
        )
    return found
