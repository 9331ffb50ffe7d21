"""Attention on PIM, NPU and PIM never at once: the naive NPU+PIM machine (NeuPIMs section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pimsim.engine.schedules.serial import Serial

if TYPE_CHECKING:
    from pimsim.mapping.barrier import Barrier
    from pimsim.mapping.program import AnyTask
    from pimsim.mapping.tasks import BlockProgram

__all__ = ["SCHEDULE", "Blocked"]


class Blocked(Serial):
    """The stages of ``Serial``; the NPU begins with its experts when those on PIM are done."""

    uses_pim = True

    def stages(self, block: BlockProgram) -> Iterator[Barrier | AnyTask]:
        """Those of one block."""
        if block.experts and block.late:
            first, *others = block.late
            first = replace(first, after=(*first.after, block.experts[-1].id))
            block = replace(block, late=(first, *others))
        yield from super().stages(block)


SCHEDULE = Blocked
