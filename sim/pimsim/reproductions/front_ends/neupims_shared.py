"""The NeuPIMs artifact, branch npu+pim, feeds all channels together one PIM instruction a cycle.

Branch main pushes all at once (MECHANISMS 0.4). Each COMP is one instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.layout import P_COMPS, P_OP, P_READY, P_READY_STEP, P_ROUNDS
from pimsim.hardware.dram.pim_program import loop_starts
from pimsim.hardware.dram.rules import Command
from pimsim.mapping import front_end

__all__ = ["FrontEnd"]


class FrontEnd(front_end.FrontEnd):
    """Request after request, as the front end walks them, one instruction a cycle."""

    def release(self, programs: Sequence[NDArray[np.int64]]) -> None:
        """See ``pimsim.mapping.front_end``."""
        at = 0
        for program in programs:
            cost = np.where(program[:, P_OP] == int(Command.COMP), program[:, P_COMPS], 1)
            starts = loop_starts(program)
            first, own = np.flatnonzero(starts), np.cumsum(starts) - 1
            each = np.add.reduceat(cost, first) if len(first) else cost
            whole = each * program[first, P_ROUNDS]
            # what lies before a loop, all rounds of others, and before an instruction in its round
            before, within = np.cumsum(whole) - whole, np.cumsum(cost) - cost
            program[:, P_READY] = at + (before - within[first])[own] + within
            program[:, P_READY_STEP] = np.where(program[:, P_ROUNDS] > 1, each[own], 0)
            at += int(whole.sum())
