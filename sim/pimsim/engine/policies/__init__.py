"""Schedules: who works when. One module each, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from pimsim.config.plugins import load_module
from pimsim.mapping.tasks import BlockProgram

__all__ = ["Machine", "Schedule", "Stage", "load_schedule"]

Stage = tuple[str, Sequence[Any], Sequence[Any]]
"""Name, tasks of the NPU side, tasks of the PIM side; both end before the next stage."""


class Machine(Protocol):
    """What a schedule needs of the device."""

    @property
    def parts(self) -> Sequence[int]:
        """The (sub-)batches."""

    @property
    def layers(self) -> int:
        """Blocks to run."""

    def block(self, part: int, layer: int) -> BlockProgram:
        """Program of a block for one (sub-)batch."""


Schedule = Callable[[Machine], Generator[Stage, None, None]]


def load_schedule(name: str) -> Schedule:
    """The schedule ``name``: function ``stages`` of the module of that name."""
    return load_module("policy", name).stages  # type: ignore[no-any-return]
